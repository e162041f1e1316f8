"""What the pages promise can be done: code runs, links lead somewhere, and the site builds from them alone."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from nbclient import NotebookClient

from docs.hooks import lines_of, links, target_of
from relmem.cli import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
LINKED = [*PAGES, *sorted((ROOT / "results").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```(python|bash)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)

# Runs the blocks of a page in one process, as a reader would who types them in one after the other.
DRIVER = """
import json, sys
from relmem.cli import main

for language, code in json.load(sys.stdin):
    if language == "python":
        exec(compile(code, "<block>", "exec"), {"__name__": "__main__"})
    elif main(code) != 0:
        sys.exit(f"failed: {code}")
"""


class Block(NamedTuple):
    language: str
    code: str
    runs: bool  # unless a comment before it says why not


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    return [Block(match[2], match[3], match[1] is None) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(block):
    """The commands of a block of lines for the shell, as words."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def what_runs(page):
    """Blocks in their order: Python as it is, ``relmem`` as its arguments, trainings cut short."""
    for block in blocks(page):
        if block.language == "python" and block.runs:
            yield "python", block.code
        elif block.language == "bash" and block.runs:
            for program, *words in commands(block):
                if program == "relmem":
                    yield "relmem", [*words, "--smoke"] if words[0] == "train" and "--smoke" not in words else words


@pytest.mark.parametrize(
    "page", [page for page in PAGES if list(what_runs(page)) and page.name != "README.md"], ids=name_of
)
def test_the_code_of_a_page_runs(page, tmp_path):
    runs = json.dumps(list(what_runs(page)))
    command = [sys.executable, "-c", DRIVER]
    result = subprocess.run(command, cwd=tmp_path, input=runs, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_those_that_there_are(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for program, *words in (words for block in blocks(page) if block.language == "bash" for words in commands(block)):
        if program == "make":
            assert next(word for word in words if "=" not in word) in targets
        elif program == "relmem":
            assert words[0] in COMMANDS or words[0].startswith("--")


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page.read_text(encoding="utf-8")):
        target, anchor = target_of(name_of(page), link), link[4]
        assert (ROOT / target).exists(), target
        if anchor and target.endswith(".py"):
            lines_of(target, anchor)  # raises where the symbol or the text is gone
        elif anchor:
            assert anchor in headings(ROOT / target), f"{target}#{anchor}"


def headings(page):
    """Anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_a_link_that_has_gone_stale_is_found():
    first, last = lines_of("agents/cores/core.py", "MemoryCore.reset")
    assert (ROOT / "agents/cores/core.py").read_text().splitlines()[first - 1].strip().startswith("def reset")
    assert first < lines_of("agents/cores/core.py", "MemoryCore.reset:torch.where")[0] < last
    for anchor in ("MemoryCore.forget", "MemoryCore.reset:cuckoo"):
        with pytest.raises(ValueError, match="has no"):
            lines_of("agents/cores/core.py", anchor)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.mark.slow
def test_nothing_of_the_site_comes_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]+>", page.read_text()
        )
        assert loaded == [] and 'class="mermaid"' not in page.read_text(), page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style.name


@pytest.mark.slow
def test_the_site_has_all_pages_shows_the_source_and_leads_to_its_lines(site):
    named = re.findall(r"([\w/]+\.(?:md|ipynb))", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    assert {page.name for page in DOCS} <= set(named)
    shown = re.sub(r"<[^>]+>", "", (site / "stm.html").read_text())
    assert "item, gate = self._write_item(write, state.item)" in shown  # the source itself
    line, _ = lines_of("agents/ppo.py", "MemoryPPO:clip_grads_with_norm_")
    assert f'href="source/agents/ppo.py.html#__codelineno-0-{line}"' in (site / "details.html").read_text()
    assert f'id="__codelineno-0-{line}"' in (site / "source/agents/ppo.py.html").read_text()


@pytest.mark.slow
def test_every_link_within_the_site_leads_somewhere(site):
    pages = {page: page.read_text() for page in site.rglob("*.html") if page.name != "404.html"}
    for page, html in pages.items():
        for link in re.findall(r"\bhref=\"?(?!\w+:|//)([^\"\s>]+)", html):
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or target not in pages or f'id="{anchor}"' in pages[target], f"{page.name}: {link}"


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "first_steps.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_citation_is_a_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    assert cited["cff-version"] == "1.2.0" and cited["version"] == version
    assert {"message", "title", "authors", "license", "type"} <= cited.keys()
