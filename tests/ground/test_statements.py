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


FEW = {
    "ostiaryd.certs.store.trust_domains._DUE 0",
    "ostiaryd.ground.database.server_keys._FORGET 0",
    "ostiaryd.watch.store.threats._DUE 0",
}
"""Statements on tables that have few rows."""


@pytest.mark.parametrize("database", ["sqlite"])
async def test_rows_that_are_due_or_expired_are_found_by_an_index_on_their_time(world: World) -> None:
    """Background loops run these statements every few seconds, however many rows the table has."""
    wrong, reader = {}, world.db.read()
    for name, statement in named_statements():
        if name.endswith(("._DUE 0", "._EXPIRED 0", "._ENDED 0", "._FORGET 0")):
            explain = Sql("")
            explain.names, explain.sqlite = statement.names, f"explain query plan {statement.sqlite}"
            plan = [step for *_, step in reader.all(explain, **dict.fromkeys(statement.names, 1))]
            first = next(step for step in plan if step.startswith(("SEARCH", "SCAN")))
            is_found = re.search(r"\(.*_at[<>]\?\)|next_idx<\?|not_after<\?", first)
            if name.endswith("._FORGET 0"):
                is_found = re.search(r"\((.*_)?(at|until)<\?\)|PRIMARY KEY", first)
            if not is_found:
                wrong[name] = first
    assert wrong.keys() == FEW, wrong


LOOKED_UP = {
    "ostiaryd.approvals.store._DENIED_OF_TOOL 0",
    "ostiaryd.approvals.store._OPEN_OF_AGENT 0",
    "ostiaryd.approvals.store._OPEN_OF_TASK 0",
    "ostiaryd.certs.store.acme._IS_PROVED 0",
    "ostiaryd.certs.store.acme._OPEN_ORDERS 0",
    "ostiaryd.certs.store.acme._REPLACING 0",
    "ostiaryd.certs.store.acme._UNUSED_KEYS 0",
    "ostiaryd.incidents.store._ACTED 0",
    "ostiaryd.incidents.store._COUNT_WAITING 0",
    "ostiaryd.incidents.store._HALTED 0",
    "ostiaryd.incidents.store._HAS_ACTED 0",
    "ostiaryd.ledger.store.tree._ACTIONS 0",
    "ostiaryd.notifications.store._WAITING 0",
    "ostiaryd.registry.store.agents._COUNT_ACTIVE 0",
    "ostiaryd.tasks.store.tasks._COUNT_LIVE 0",
    "ostiaryd.tasks.store.tasks._COUNT_LIVE_FOR 0",
    "ostiaryd.tasks.store.tasks._COUNT_UNDER 0",
    "ostiaryd.trust.store.people._COUNT_RECOVERY 0",
    "ostiaryd.watch.store.findings._COUNT_OPEN 0",
}
"""Counts that look up each row of one agent, owner, task, account or time in its table, or each entry of one action
since a time, up to a maximum.
"""


@pytest.mark.parametrize("database", ["sqlite"])
async def test_only_listed_counts_look_up_rows_beside_an_index(world: World) -> None:
    """A count that looks up each of its rows takes longer the larger the table is, as those of quotas once did."""
    looked_up, reader = set(), world.db.read()
    for name, statement in named_statements():
        if "select count(" in statement.sqlite:
            explain = Sql("")
            explain.names, explain.sqlite = statement.names, f"explain query plan {statement.sqlite}"
            plan = [row[3] for row in reader.all(explain, **dict.fromkeys(statement.names, 1))]
            if any(" USING INDEX " in step for step in plan):
                looked_up.add(name)
    assert looked_up == LOOKED_UP


async def test_each_statement_can_be_planned_by_both_databases(world: World) -> None:
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
