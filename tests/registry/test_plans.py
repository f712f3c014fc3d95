"""Statements that run while others wait find their rows by an index, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.clock import Clock, SeededRandom
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Sql
from ostiaryd.ground.world import World, open_world
from ostiaryd.registry.store import agents, holdings, keys, owners, resources
from ostiaryd.tasks.store import tasks

STATEMENTS = {
    f"{module.__name__}.{name} {number}": statement
    for module in (agents, holdings, keys, owners, resources, tasks)
    for name, value in vars(module).items()
    for number, statement in enumerate(value.values() if isinstance(value, dict) else [value])
    if isinstance(statement, Sql) and not statement.sqlite.lstrip().startswith("insert")
}
WHOLE = {"ostiaryd.registry.store.agents._RAISE_EPOCHS 0", "ostiaryd.tasks.store.tasks._END_ALL 0"}
"""Statements of a recovery for every agent and task, run once, while nothing else is granted."""
OF_OUR_OWN = {"SCAN above", "SCAN doomed", "SCAN tree", "SCAN line", "SCAN CONSTANT ROW"}
"""Not tables: what a statement has gathered so far."""


@pytest.fixture
async def sqlite_world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(Config(data_dir=str(tmp_path)), now=Clock(), random=SeededRandom("plans")) as world:
        yield world


async def test_only_statements_of_a_recovery_read_a_whole_table(sqlite_world: World) -> None:
    assert len(STATEMENTS) > 40
    reader = sqlite_world.db.read()
    scanning = {}
    for name, statement in STATEMENTS.items():
        explain = Sql("")
        explain.names, explain.sqlite = statement.names, f"explain query plan {statement.sqlite}"
        plan = [row[3] for row in reader.all(explain, **dict.fromkeys(statement.names, 1))]
        if found := [step for step in plan if step.startswith("SCAN") and step not in OF_OUR_OWN]:
            scanning[name] = found
    assert scanning.keys() == WHOLE
