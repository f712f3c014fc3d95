"""The page of guarantees: each promise names a test that exists, and states its fault and its bound."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "guarantees.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """The cells of each row that makes a promise."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row[0] != "promise" and not set(row[0]) <= {"-"}]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_guarantee_has_no_empty_cell_and_names_a_test_that_exists() -> None:
    promises = rows()
    assert promises
    for row in promises:
        assert len(row) == 4, row
        assert all(row), f"an empty cell: {row}"
        named = TEST.findall(row[3])
        assert named, f"no test named: {row[0]}"
        for file, function in named:
            assert function in functions(ROOT / file), f"{row[0]}: {file}::{function} does not exist"


def test_each_file_of_fault_tests_is_named_by_a_guarantee() -> None:
    """A fault test that no promise names is an experiment without a claim."""
    named = {file for row in rows() for file, _ in TEST.findall(row[3])}
    missing = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "faults").glob("test_*.py")} - named
    assert not missing
