"""What the site adds to the pages of this folder, which are plain Markdown and read well without it (hooks of MkDocs).

* A link to a symbol of the source, ``[text](../agents/ppo.py#MemoryPPO.train)``, leads to its line; to the first line
  within it that holds a text, ``[text](../agents/ppo.py#MemoryPPO:clip_grads_with_norm_)`` (a space there is ``%20``).
* Such a link with the title "code", in a paragraph of its own, becomes the lines of the symbol themselves.
* Whatever else of the repository is linked to becomes a part of the site, so that all links lead somewhere.

A symbol or a text that is not there is an error, so no page can go stale unnoticed.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN_AS_CODE = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".cff": "yaml"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?(?: \"(\w+)\")?\)")
FENCE = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
OUTSIDE = "source"  # folder of the site for what lies outside this folder


def lines_of(path: str, anchor: str) -> tuple[int, int]:
    """First and last line, counted from 1, of what an anchor names.

    :param path: of a Python file, from the root of the repository
    :param anchor: a symbol such as Class.method, or Class.method:text for the first line in it that holds the text
    :raises ValueError: if there is no such symbol or text
    """
    symbol, _, text = unquote(anchor).partition(":")
    lines, node = (ROOT / path).read_text(encoding="utf-8").splitlines(), _parsed(path)
    for name in symbol.split("."):
        found = [child for child in ast.walk(node) if name in _names(child)]
        if not found:
            raise ValueError(f"{path} has no symbol '{symbol}'")
        node = found[0]
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    last = node.end_lineno
    if not text:
        return first, last
    for number in range(first, last + 1):
        if text in lines[number - 1]:
            return number, number
    raise ValueError(f"'{symbol}' of {path} has no line with '{text}'")


@cache
def _parsed(path: str) -> ast.AST:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _names(node: ast.AST) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def links(markdown: str) -> Iterator[re.Match[str]]:
    """Links of a page to files of the repository, those in code left out: groups are "!" of a picture, the text, the
    path, the anchor and the title."""
    return LINK.finditer(FENCE.sub("", markdown))


def target_of(page: str, link: re.Match[str]) -> str:
    """What a link of a page leads to; both are paths from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link[3])) if link[3] else page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what pages link to, and what that links to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(_navigation(config.nav))
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        uri = _site_uri(path)
        if files.get_file_from_path(uri) is None:
            if uri == f"{OUTSIDE}/{path}" and not path.endswith(".md"):
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
            else:
                files.append(File.generated(config, uri, content=_as_markdown(path)))
        if path.endswith(".md"):
            waiting += [target_of(path, link) for link in links((ROOT / path).read_text(encoding="utf-8"))]
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead the links of a page to where the site has what they are to."""
    path = _repository_path(page.file.src_uri)
    parts, end = [], 0
    for fence in [*FENCE.finditer(markdown), None]:
        prose = markdown[end : fence.start() if fence else None]
        parts.append(LINK.sub(lambda link: _on_site(path, page.file.src_uri, link), prose))
        if fence:
            parts.append(fence[0])
            end = fence.end()
    return "".join(parts)


def _on_site(path: str, uri: str, link: re.Match[str]) -> str:
    picture, text, _, anchor, title = link.groups()
    target = target_of(path, link)
    if (ROOT / target).is_dir():
        return text
    where = posixpath.relpath(_site_uri(target), posixpath.dirname(uri) or ".") if link[3] else ""
    if not target.endswith(".py") or not anchor:
        return f"{picture}[{text}]({where}{f'#{anchor}' if anchor else ''})"
    first, last = lines_of(target, anchor)
    led = f"[{text}]({where}#__codelineno-0-{first})"
    if title != "code":
        return led
    source = "\n".join((ROOT / target).read_text(encoding="utf-8").splitlines()[first - 1 : last])
    return f"{led} in `{target}`:\n\n```python\n{textwrap.dedent(source)}\n```"


def _site_uri(path: str) -> str:
    """Where the site has a file of the repository."""
    uri = path.removeprefix("docs/") if path.startswith("docs/") else f"{OUTSIDE}/{path}"
    return f"{uri}.md" if Path(path).suffix in (*SHOWN_AS_CODE, ".ipynb") else uri


def _repository_path(uri: str) -> str:
    path = uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"docs/{uri}"
    return path.removesuffix(".md") if Path(path.removesuffix(".md")).suffix in (*SHOWN_AS_CODE, ".ipynb") else path


def _as_markdown(path: str) -> str:
    """A file of the repository as a page."""
    text, suffix = (ROOT / path).read_text(encoding="utf-8"), Path(path).suffix
    if suffix == ".ipynb":
        return "\n\n".join(block for cell in json.loads(text)["cells"] for block in _cell(cell))
    if suffix in SHOWN_AS_CODE:
        return f'# {path}\n\n````{SHOWN_AS_CODE[suffix]} linenums="1"\n{text}\n````\n'
    return text


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    """A cell of a notebook as Markdown, with what it showed."""
    source = "".join(cell["source"])
    yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![What the cell above draws](data:image/png;base64,{''.join(data['image/png']).strip()})"
        elif text := output.get("text") or data.get("text/plain"):
            yield f"```text\n{''.join(text).rstrip()}\n```"


def _navigation(nav: object) -> Iterator[str]:
    """Repository paths of all pages that the navigation names."""
    if isinstance(nav, str):
        yield _repository_path(nav)
    elif isinstance(nav, list | dict):
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _navigation(entry)
