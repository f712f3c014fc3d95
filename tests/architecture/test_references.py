"""References in comments and docstrings exist: modules, their members, and files of this repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
PACKAGES = [path.name for path in (SRC / "ostiaryd").iterdir() if (path / "__init__.py").exists()]
ROOTS = [SRC, SRC / "ostiaryd", *(path for path in (SRC / "ostiary").iterdir() if path.is_dir()), SRC / "ostiary"]
NAME = re.compile(rf"`((?:ostiaryd?|{'|'.join(PACKAGES)})(?:\.[a-z]\w*)+)`")
FILE = re.compile(r"\b((?:docs|tests|benchmarks|harness)/[\w./-]+\.(?:md|py))\b")


def _exists(name: str, root: Path) -> bool:
    """Return whether the dotted name leads to a module, and its rest to a word of that module."""
    place, parts = root, name.split(".")
    while parts and (place / parts[0]).is_dir():
        place = place / parts.pop(0)
    if parts and (place / f"{parts[0]}.py").exists():
        text = (place / f"{parts.pop(0)}.py").read_text()
    elif place is not root and (place / "__init__.py").exists():
        text = (place / "__init__.py").read_text()
    else:
        return False
    return all(re.search(rf"\b{part}\b", text) for part in parts)


def missing(text: str) -> Iterator[str]:
    """Yield each name and file in a text that does not exist."""
    for name in dict.fromkeys(NAME.findall(text)):
        if not any(_exists(name, root) for root in ROOTS):
            yield name
    for file in dict.fromkeys(FILE.findall(text)):
        if not (ROOT / file).exists():
            yield file


def test_every_module_and_file_in_comments_and_docstrings_exists() -> None:
    found = {path: [*missing(path.read_text())] for path in SRC.rglob("*.py")}
    assert {str(path.relative_to(ROOT)): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text", ["`ground.guarded`", "`ostiary.core.budget`", "`ostiary.decision.access.gone`", "see docs/clients.md"]
)
def test_a_name_of_a_missing_module_or_file_is_reported(text: str) -> None:
    assert len([*missing(text)]) == 1


@pytest.mark.parametrize(
    "text", ["`ground.database.guarded`", "`ostiary.decision.access.decide`", "`watch.model.tally`", "docs/index.md"]
)
def test_a_name_of_an_existing_module_or_file_is_not_reported(text: str) -> None:
    assert [*missing(text)] == []
