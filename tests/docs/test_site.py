"""The documentation site builds without a broken link, and no page of it needs a network."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import site
from tests.support.sources import ROOT, files

SETTINGS = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text("utf-8"))
PAGES = [
    path.removeprefix("docs/")
    for path in files()
    if re.fullmatch(r"docs/.+\.md", path) and not re.match(r"docs/(adr/\d|upstream/)", path)
]


def named(nav: object) -> Iterator[str]:
    """Yield the pages of the navigation."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, list):
        for item in nav:
            yield from named(item)
    elif isinstance(nav, dict):
        for item in nav.values():
            yield from named(item)


def test_the_navigation_names_each_page_once() -> None:
    assert sorted(named(SETTINGS["project"]["nav"])) == sorted(PAGES)


def test_the_index_page_links_to_each_page() -> None:
    links = set(re.findall(r"\]\(([\w/-]+\.md)[)#]", (ROOT / "docs/index.md").read_text("utf-8")))
    assert {page for page in PAGES if not page.startswith("extending/")} - links == {"index.md"}


@pytest.mark.parametrize("page", PAGES)
def test_each_page_begins_with_its_readers_and_the_result_for_them(page: str) -> None:
    title, _, rest = (ROOT / "docs" / page).read_text("utf-8").partition("\n")
    opening = " ".join(rest.split("\n## ", 1)[0].split())
    assert title.startswith("# ")
    assert opening.startswith("This page is for ")
    assert re.search(r"(After reading|At the end of) (this page|it), ", opening)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    older = out / "0.0.9"
    older.mkdir()
    (older / "index.html").write_text("an older version", "utf-8")
    return site.build(out)


def test_the_site_lists_its_version_and_keeps_older_versions(built: Path) -> None:
    assert built.name == site.version()
    versions = json.loads((built.parent / "versions.json").read_text("utf-8"))
    assert [entry["version"] for entry in versions] == [site.version(), "0.0.9"]
    assert (built.parent / "0.0.9" / "index.html").read_text("utf-8") == "an older version"
    assert f"url={site.version()}/index.html" in (built.parent / "index.html").read_text("utf-8")


def test_the_site_has_a_search_index_and_its_own_diagram_script(built: Path) -> None:
    index = json.loads((built / "search.json").read_text("utf-8"))
    assert len(index["items"]) > 500
    assert (built / "assets" / "mermaid.js").stat().st_size > 1_000_000
    home = (built / "index.html").read_text("utf-8")
    assert 'class="mermaid"' in home
    assert 'src="./assets/mermaid.js"' in home


def test_no_page_loads_anything_from_another_host(built: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|iframe)[^>]*\ssrc=\"(?:https?:)?//|<link[^>]*stylesheet[^>]*href=\"(?:https?:)?//"
    )
    foreign = [page.name for page in built.rglob("*.html") if loads.search(page.read_text("utf-8"))]
    assert not foreign


def test_a_broken_link_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text("# Home\n\n[a page](missing.md)\n", "utf-8")
    settings = 'nav = ["index.md"]\nsite_name = "Test"\nextra_javascript = ["assets/mermaid.js"]'
    (pages / "zensical.toml").write_text(f"[project]\n{settings}\n", "utf-8")
    monkeypatch.setattr(site, "DOCS", pages)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        site.build(out)
    assert not (out / site.version()).exists(), "an older site is not replaced by a broken one"


def test_no_mermaid_diagram_contains_a_semicolon() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs" / page for page in PAGES)]
    diagrams = [text for page in pages for text in re.findall(r"```mermaid\n(.*?)```", page.read_text("utf-8"), re.S)]
    assert len(diagrams) >= 4
    assert not [text for text in diagrams if ";" in text]
