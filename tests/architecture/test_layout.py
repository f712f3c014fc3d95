"""The layout of test code: tests import helpers but not each other, and benchmarks do not import tests."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.support.sources import ROOT, files

_IMPORT = re.compile(r"^\s*(?:from|import) ((?:tests|harness|benchmarks)\b[\w.]*)(?: import (?!test_)(\w*))?", re.M)
"""Module, and the first name; the contract of the frameworks is a set of tests that their modules take over by name."""


def test_no_module_imports_a_test_module_or_a_conftest() -> None:
    offenders = [
        f"{path}: {module}"
        for folder in ("harness", "tests", "benchmarks", "docs")
        for path, module in _imports(folder)
        if any(part.startswith("test_") or part == "conftest" for part in module.split("."))
    ]
    assert not offenders, "move what both need to tests/support, harness, or a helper module of the folder"


def test_benchmarks_and_the_harness_do_not_import_tests() -> None:
    offenders = [
        f"{path}: {module}"
        for folder, above in (("harness", ("tests", "benchmarks")), ("benchmarks", ("tests",)))
        for path, module in _imports(folder)
        if module.split(".")[0] in above
    ]
    assert not offenders, "what tests and benchmarks share is in harness/"


def test_each_benchmark_is_named_on_a_page() -> None:
    pages = "".join((ROOT / path).read_text("utf-8") for path in files() if re.fullmatch(r"docs/.+\.md", path))
    names = {match[1] for path in files() if (match := re.fullmatch(r"benchmarks/([a-z]\w*)(?:/__main__)?\.py", path))}
    assert len(names) > 40
    assert [name for name in names if not re.search(rf"benchmarks[./]{name}\b|BENCH_ARGS=\"?{name}\b", pages)] == []


def test_the_tests_folder_contains_only_packages_and_its_conftest() -> None:
    assert {path for path in files() if path.startswith("tests/") and path.count("/") == 1} == {"tests/conftest.py"}


def test_no_path_is_named_end_to_end() -> None:
    assert [path for path in files() if "end_to_end" in path] == []


def _imports(folder: str) -> Iterator[tuple[str, str]]:
    """Path and module of each import of our own helpers, also in functions and in programs within strings."""
    for path in files():
        if path.startswith(f"{folder}/") and path.endswith(".py"):
            for module, name in _IMPORT.findall((ROOT / path).read_text("utf-8")):
                yield path, f"{module}.{name}".rstrip(".")
