"""Every link and every path of the pages and of the program leads to something that exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.sources import ROOT, files, sources

PAGES = [path for path in files() if path.endswith(".md") and not path.startswith(("src/", "tests/", "benchmarks/"))]
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\]\(([^)\s]+)\)")
_EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:")
_PATH = re.compile(r"(?<![\w/.-])(?:docs|tests|src|harness|benchmarks|requirements)/[\w/.*-]*\w|\btest_\w+\.\w+\b")
_MODULE = re.compile(r"`(ostiaryd?(?:\.[A-Za-z_]\w*)+)(?:\(\))?`")
_NO_MODULE = {"ostiary.NAME", "ostiary.service", "ostiary.suites", "ostiary.levels", "ostiary.db", "ostiary.toml"}
"""A placeholder, a unit of systemd, a group of entry points, a member of data, and files."""
_KEPT = re.compile(r"docs/(adr/\d|extending/|upstream/)|CHANGELOG\.md")
"""A decision record and the changelog keep the paths of their time. The pages of `extending` name files to make, and
`test_extending.py` checks the others.
"""


def prose(text: str) -> str:
    """Remove the code of a page, which holds brackets that are no links."""
    return re.sub(r"`[^`\n]*`(?!\])", "", _FENCED.sub("", text))


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of the headings of a page, as GitHub and the site write them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", path.read_text("utf-8")), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page: str) -> None:
    broken = []
    for link in _LINK.findall(prose((ROOT / page).read_text("utf-8"))):
        if _EXTERNAL.match(link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.resolve())):
            broken.append(link)
    assert not broken


def test_the_link_pattern_finds_more_than_a_hundred_links() -> None:
    links = sum(len(_LINK.findall(prose((ROOT / page).read_text("utf-8")))) for page in PAGES)
    assert links > 100, "the pattern finds the links"


def test_the_index_of_decision_records_lists_the_missing_numbers() -> None:
    numbers = {int(Path(page).name[:4]) for page in PAGES if re.match(r"docs/adr/\d{4}-", page)}
    [named] = re.findall(r"a number can be missing \(([\d, ]+)\)", (ROOT / "docs/adr/README.md").read_text("utf-8"))
    assert set(map(int, named.split(", "))) == set(range(max(numbers))) - numbers


def texts() -> list[tuple[str, str]]:
    """Return the pages and modules that speak of the present tree, with their texts."""
    paths = [*(page for page in PAGES if not _KEPT.match(page)), *(s.path for s in sources("src"))]
    return [(path, (ROOT / path).read_text("utf-8")) for path in paths]


def test_every_path_in_a_page_or_a_module_exists() -> None:
    tree = {file for path in files() for file in (path, *map(str, Path(path).parents))}
    names = {Path(path).name for path in files()}
    named = [(path, name) for path, text in texts() for name in _PATH.findall(text)]
    missing = [
        f"{path}: {name}"
        for path, name in named
        if name not in tree and name not in names and not ("*" in name and any(ROOT.glob(name)))
    ]
    assert len(named) > 300, "the pattern finds the paths"
    assert not missing


def test_every_module_name_in_a_page_or_a_module_exists() -> None:
    modules = {source.module: source.text for source in sources("src")}
    named = [(path, name) for path, text in texts() for name in _MODULE.findall(text) if name not in _NO_MODULE]
    missing = []
    for path, name in named:
        module, members = name, list[str]()
        while module not in modules:
            module, _, member = module.rpartition(".")
            members.append(member)
        if not all(re.search(rf"\b{member}\b", modules[module]) for member in members):
            missing.append(f"{path}: {name}")
    assert len(named) > 30, "the pattern finds the names"
    assert not missing
