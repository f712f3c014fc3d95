"""Every function that writes a guarded row says so: `tx.touch`, so that the entry of the act holds the row's digest."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ostiaryd.ground.database.guarded import GUARDED
from tests.support.sources import sources

TABLES = {spec.table: set(re.findall(r"\w+", spec.columns)) for spec in GUARDED.values()}
EXEMPT = {
    "registry/store/holdings.py::insert_holding": "the entry that issues a token names it; only its end is guarded",
    "tasks/store/pruning.py::prune": "a task that ended longer ago than ends are remembered",
    "registry/store/holdings.py::end_all_holdings": "a recovery ends what is live, and no entry names that",
    "registry/store/holdings.py::prune": "expired tokens are not compared",
}


def _writes_guarded(text: str) -> bool:
    """Whether a statement inserts or deletes guarded rows, or updates a guarded column."""
    for table, columns in TABLES.items():
        if re.search(rf"\b(?:insert into|delete from)\s+{table}\b", text):
            return True
        if (update := re.search(rf"\bupdate\s+{table}\s+set\b(.*)", text, re.S)) is not None:
            assigned = update[1].partition("where")[0]
            if any(re.search(rf"\b{column}\s*=", assigned) for column in columns):
                return True
    return False


def _text(node: ast.AST) -> str:
    return " ".join(
        part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )


def _writers() -> Iterator[tuple[str, bool]]:
    """(function, whether it touches) of each function that uses a statement which writes guarded rows."""
    for source in sources("src/ostiaryd"):
        tree = source.tree
        writing = set[str]()
        for assigned in tree.body:
            if isinstance(assigned, ast.Assign) and _writes_guarded(_text(assigned.value)):
                writing |= {target.id for target in assigned.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            if names & writing:
                touches = any(isinstance(one, ast.Attribute) and one.attr == "touch" for one in ast.walk(node))
                yield f"{source.path.rpartition('ostiaryd/')[2]}::{node.name}", touches


def test_every_function_that_writes_guarded_rows_touches_them() -> None:
    found = dict(_writers())
    assert len(found) > 25, "the statements are not found any more"
    assert {name for name, touches in found.items() if not touches} == set(EXEMPT)
