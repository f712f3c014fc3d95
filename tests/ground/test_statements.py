"""Every statement of the server is one of both databases, whether or not a test runs it at both."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages

import psycopg
import pytest

import ostiaryd
from ostiaryd.ground.database import Sql
from ostiaryd.ground.world import World


def statements_in(value: object) -> Iterator[Sql]:
    if isinstance(value, Sql):
        yield value
    elif isinstance(value, dict):
        yield from statements_in(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from statements_in(one)


def named_statements() -> Iterator[tuple[str, Sql]]:
    for found in walk_packages(ostiaryd.__path__, "ostiaryd."):
        if not found.name.endswith(("__main__", "database.transaction")):  # the latter has savepoints, without a plan
            for name, value in vars(import_module(found.name)).items():
                for number, statement in enumerate(statements_in(value)):
                    yield f"{found.name}.{name} {number}", statement


FEW = {"ostiaryd.certs.store.trust_domains._DUE 0", "ostiaryd.watch.store.threats._DUE 0"}
"""Statements on tables that have few rows."""


@pytest.mark.parametrize("database", ["sqlite"])
async def test_what_is_due_or_has_ended_is_found_by_its_time(world: World) -> None:
    """Background loops run these statements every few seconds, however many rows the table has."""
    wrong, reader = {}, world.db.read()
    for name, statement in named_statements():
        if name.endswith(("._DUE 0", "._EXPIRED 0", "._ENDED 0")):
            explain = Sql("")
            explain.names, explain.sqlite = statement.names, f"explain query plan {statement.sqlite}"
            first = reader.all(explain, **dict.fromkeys(statement.names, 1))[0][3]
            if not re.search(r"\(.*_at[<>]\?\)|next_idx<\?|not_after<\?", first):
                wrong[name] = first
    assert wrong.keys() == FEW, wrong


async def test_both_databases_plan_every_statement(world: World) -> None:
    statements, reader, wrong = dict(named_statements()), world.db.read(), {}
    assert len(statements) > 500
    for name, statement in statements.items():
        explain = Sql("")
        explain.names, explain.sqlite = statement.names, f"explain {statement.sqlite}"
        explain.postgres = f"explain (generic_plan) {statement.postgres}"
        for number, parameter in enumerate(statement.names, 1):
            explain.postgres = explain.postgres.replace(f"%({parameter})s", f"${number}")
        try:
            reader.all(explain, **dict.fromkeys(statement.names))
        except (sqlite3.Error, psycopg.Error) as error:
            wrong[name] = str(error).partition("\n")[0]
    assert wrong == {}
