"""Values as plain data, and the archive with a checksum that holds them."""

import io
import json
import os
import random
from collections import deque
from pathlib import Path
from zipfile import ZipFile

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from relmem.agents.saved import read_agent, write_agent
from relmem.common.plain import NotPlain
from relmem.common.saved import Damaged, NotSealed, pack, seal, unpack


def again(value, **kwargs):
    return unpack(pack({"data": {"value": value}}), **kwargs)["data"]["value"]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile",)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 2**80, -0.5, float("inf"), "text", [1, [2]], {"a": {"b": 1}}, {}),
        *((1, (2, "x")), {1: "one", (2, 3): None}, {"$tensor": "no"}, {":serialized:": "no"}, b"\0bytes"),
        *(deque([1, 2], maxlen=3), torch.float16, np.dtype("uint8"), random.Random(1).getstate()),
        *(torch.nn.ReLU, torch.optim.AdamW, np.random.PCG64(3).state),
    ],
    ids=str,
)
def test_a_value_comes_back_as_it_was(value):
    assert again(value) == value and type(again(value)) is type(value)


@pytest.mark.parametrize("value", [np.float64(0.1), np.float32(0.1), np.int32(3), np.bool_(True)], ids=repr)
def test_numbers_of_numpy_come_back_as_they_were(value):
    assert again(value) == value and type(again(value)) is type(value)


def test_paths_become_texts():
    assert again(Path("some") / "where") == "some/where"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
def test_tensors_and_arrays_come_back_as_they_were(dtype):
    tensor = torch.arange(6).view(2, 3).to(dtype).T  # not contiguous
    value = {"one": tensor, "same": tensor, "none": torch.empty(0, 3, dtype=dtype), "number": tensor[0, 0]}
    for name, back in again(value).items():
        assert back.dtype == dtype and torch.equal(back, value[name])
    if dtype is not torch.bfloat16:
        array, back = tensor.numpy(), again([tensor.numpy()])[0]
        assert back.dtype == array.dtype and (back == array).all()
    assert again(np.random.MT19937(3).state["state"]["key"]).dtype == np.uint32
    assert again(np.float32(3) * np.ones((), dtype=">f4")) == 3


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, np.array([1.0, np.inf]), dtype=np.float32),
        spaces.Box(0, 255, (1, 4, 4), np.uint8),
        *(spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4), spaces.MultiBinary([2, 2])),
        spaces.Dict(z=spaces.Discrete(2), a=spaces.Box(0, 1, (2,))),
    ],
    ids=repr,
)
def test_a_space_comes_back_as_it_was(space):
    assert again(space) == space
    if isinstance(space, spaces.Dict):
        assert list(again(space)) == list(space)


@pytest.mark.parametrize("schedule", [LinearSchedule(1.0, 0.5, 0.3), FloatSchedule(LinearSchedule(2.0, 0.0, 1.0))])
def test_a_schedule_comes_back_as_it_was(schedule):
    assert type(again(schedule)) is type(schedule)
    assert [again(schedule)(left) for left in (1, 0.9, 0.1)] == [schedule(left) for left in (1, 0.9, 0.1)]


def test_what_has_no_plain_form_is_loaded_only_from_who_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert again({"f": lambda x: x + 1}, trusted=True)["f"](2) == 3
    with pytest.raises(NotPlain, match=r"holds pickles \(value\.inner\.1, value\.f\).*trusted=True"):
        again({"inner": [1, Hostile()], "f": lambda x: x})
    assert not os.path.exists("hostile")
    assert unpack(pack({"data": {"bad": Hostile(), "good": 1}}), skip=["bad"]) == {"data": {"bad": None, "good": 1}}


@pytest.mark.parametrize(
    "plain",
    [
        *({"$class": "os.system"}, {"$class": "builtins.eval"}, {"$class": "relmem.agents.load"}, {"$class": 3}),
        *({"$class": "torch.nn.functional.relu"}, {"$class": "torch.nn.os.path"}, {"$schedule": ["os.system", {}]}),
        *(
            {"$space": ["eval", {}]},
            {"$space": ["Box", {"low": 1}]},
            {"$tensor": "missing"},
            {"$what": 1},
            {"$tuple": 1},
        ),
        *({"$torch_dtype": "save"}, {"$numpy_dtype": "O,,"}, {"$class": "torch.optim.lr_scheduler.types"}),
    ],
    ids=str,
)
def test_a_file_names_nothing_but_what_is_on_the_list(plain):
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        archive.writestr("data", json.dumps(plain))
    with pytest.raises(ValueError, match="is no file of relmem's"):
        unpack(seal(content.getvalue()))


def test_hostile_archives_get_a_sentence():
    def archive(text, **kwargs):
        content = io.BytesIO()
        with ZipFile(content, "w", **kwargs) as file:
            file.writestr("data", text)
        return seal(content.getvalue())

    for content in (archive("[" * 100_000), archive(" " * 10_000, compression=8), archive("not json")):
        with pytest.raises(ValueError, match="is no file of relmem's"):
            unpack(content)
    pickled = io.BytesIO()
    with ZipFile(pickled, "w") as file:
        file.writestr("data", cloudpickle.dumps(Hostile()))
    with pytest.raises(NotSealed, match="no checksum"):
        unpack(pickled.getvalue())


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_what_is_kept_under_two_names_is_written_once():
    weight, empty = torch.randn(1000), torch.zeros(0)
    content = pack({"policy": {"a": weight, "b": weight, "half": weight[:500], "array": weight.numpy(), "none": empty}})
    assert len(content) < 1.8 * 4000
    found = unpack(content)["policy"]
    assert all(torch.equal(torch.as_tensor(found[name]), weight) for name in ("a", "b", "array"))
    assert torch.equal(found["half"], weight[:500]) and found["none"].shape == (0,)


def test_every_single_bit_counts():
    content = pack({"data": {"a": 1, "w": torch.ones(2)}})
    for bit in range(8 * len(content)):
        with pytest.raises(Damaged, match="damaged"):
            unpack(flipped(content, bit))
    for size in range(len(content)):
        with pytest.raises(Damaged, match="damaged"):
            unpack(content[:size])


def test_a_sealed_archive_of_pytorch_is_one_still():
    torch.save({"w": torch.ones(3)}, file := io.BytesIO())
    content = seal(file.getvalue())
    assert torch.load(io.BytesIO(content), weights_only=True)["w"].sum() == 3


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.zip"
    write_agent(path, {"a": 1}, {})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_agent(path, {"a": 2}, {})
    assert read_agent(path)["data"] == {"a": 1} and [*tmp_path.iterdir()] == [path]
