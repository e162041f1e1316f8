"""The file of what was trained: a zip archive of plain data and tensors, with a checksum over all of it.

Each part of the content has an entry of JSON under its name and, where it holds tensors or arrays, one of safetensors
beside it: ``data``, ``data.safetensors``, ``policy``, ``policy.safetensors``. The archive ends with its own SHA-256, as
its comment; so one that has lost a byte, or has a bit turned over, is refused before anything of it is used. To read
such a file runs nothing that it holds.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import safetensors.torch
from torch import Tensor

from .plain import Decoder, Encoder, NotPlain

MARK = b"relmem sha256 "
SEAL = len(MARK) + 2 * hashlib.sha256().digest_size  # bytes of the archive's comment
END, NO_COMMENT = b"PK\x05\x06", b"\0\0"  # how the record at the end of an archive begins, and ends without comment
END_SIZE = 22
TENSORS = ".safetensors"


class Damaged(ValueError):
    """A file that is not as it was written."""


class NotSealed(ValueError):
    """A file without checksum: SB3 wrote it, PyTorch, or an old version of relmem."""


# ---------------------------------------------------------------- the checksum


def seal(archive: bytes) -> bytes:
    """A zip archive, also one of PyTorch, with its checksum behind it; all who read archives read it as before."""
    assert archive[-END_SIZE:].startswith(END) and archive.endswith(NO_COMMENT)
    sealed = archive[: -len(NO_COMMENT)] + SEAL.to_bytes(2, "little") + MARK
    return sealed + hashlib.sha256(sealed).hexdigest().encode()


def require_seal(content: bytes, file: Any = "this file") -> None:
    """Check the checksum of an archive.

    :param file: what messages call it
    :raises Damaged: if it does not agree with the content, or this is no whole archive
    :raises NotSealed: if there is none
    """
    digest = 2 * hashlib.sha256().digest_size
    if content[-SEAL:-digest] == MARK:
        if hashlib.sha256(content[:-digest]).hexdigest().encode() != content[-digest:]:
            raise Damaged(f"'{file}' is damaged: its content does not agree with its checksum")
        return
    try:
        with opened(content) as archive:
            bare = content[-END_SIZE:].startswith(END) and content.endswith(NO_COMMENT)
            if not bare or archive.testzip() is not None:  # behind it stands what may have been a checksum
                raise BadZipFile
    except Exception as error:  # of damaged archives, zipfile raises whatever they lead to
        raise Damaged(f"'{file}' is damaged, or holds no saved model") from error
    raise NotSealed(f"'{file}' has no checksum, as files of this version of relmem have")


def opened(content: bytes) -> ZipFile:
    """An archive to read.

    :raises ValueError: if its entries together are larger than itself, as those of no file of ours, SB3's or PyTorch's
        are, and may be larger than any memory
    :raises BadZipFile: if it is none
    """
    archive = ZipFile(io.BytesIO(content))
    entries = archive.infolist()
    if any(entry.compress_type != ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > len(content):
        raise ValueError("it is compressed, and may become larger than any memory")
    return archive


# ---------------------------------------------------------------- the parts


def pack(parts: Mapping[str, Any]) -> bytes:
    """The content of a file.

    :param parts: values of any nesting, tensors and arrays among them, by name (see ``plain``)
    """
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:  # stored as they are: weights hardly compress
        for name, part in parts.items():
            encoder = Encoder()
            archive.writestr(name, json.dumps(encoder.encode(part)))
            if encoder.tensors:
                archive.writestr(f"{name}{TENSORS}", _as_bytes(encoder.tensors))
    return seal(content.getvalue())


def unpack(
    content: bytes, file: Any = "this file", trusted: bool = False, skip: Collection[str] = ()
) -> dict[str, Any]:
    """The parts that ``pack`` made a file of, tensors on the CPU.

    :param file: what messages call it
    :param trusted: whether pickles may be loaded, which runs whatever code they hold
    :param skip: keys of dictionaries among the parts that are not read, and None instead
    :raises Damaged: if the content is not as it was written
    :raises NotSealed: if ``pack`` did not write it
    :raises NotPlain: naming what was pickled, unless the file is trusted
    :raises ValueError: if it was written to be no file of ours
    """
    require_seal(content, file)
    parts, pickled = {}, []
    try:
        with opened(content) as archive:
            entries = archive.namelist()
            for name in (entry for entry in entries if not entry.endswith(TENSORS)):
                plain, tensors = json.loads(archive.read(name)), {}
                if f"{name}{TENSORS}" in entries:
                    tensors = safetensors.torch.load(archive.read(f"{name}{TENSORS}"))
                if isinstance(plain, dict):
                    plain = {key: None if key in skip else value for key, value in plain.items()}
                decoder = Decoder(tensors, trusted)
                parts[name] = decoder.decode(plain)
                pickled += decoder.pickled
    except Exception as error:  # whatever a file leads to that was made to mislead
        raise ValueError(f"'{file}' is no file of relmem's: {error}") from error
    if pickled:
        raise NotPlain(
            f"'{file}' holds pickles ({', '.join(pickled)}), and pickles run whatever code they hold: load it with "
            "trusted=True (--trusted) if you know who wrote it"
        )
    return parts


def _as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # Each with memory of its own: safetensors refuses views and what is shared.
    return safetensors.torch.save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})
