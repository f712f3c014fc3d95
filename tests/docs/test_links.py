"""Every link between the pages leads to a file that exists, and every anchor to a heading of it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.sources import ROOT, files

PAGES = [path for path in files() if path.endswith(".md") and not path.startswith(("src/", "tests/", "benchmarks/"))]
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\]\(([^)\s]+)\)")
_EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:")


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


def test_the_pages_link_to_each_other_at_all() -> None:
    links = sum(len(_LINK.findall(prose((ROOT / page).read_text("utf-8")))) for page in PAGES)
    assert links > 100, "the pattern finds the links"
