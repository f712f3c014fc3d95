"""The statements that a database gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ostiaryd.ground.database.statement import Sql
from ostiaryd.ground.world import World


def record_statements(world: World, monkeypatch: pytest.MonkeyPatch, *, writer_only: bool = False) -> list[str]:
    """Return a list to which the first word of each further statement is added, savepoints left out."""
    statements: list[str] = []
    own, kind = world.writer._connection, type(world.writer._connection)

    def record(run: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(self: Any, statement: Sql, *values: Any) -> Any:
            word = statement.sqlite.split()[0]
            if (self is own or not writer_only) and word not in ("savepoint", "release", "rollback"):
                statements.append(word)
            return run(self, statement, *values)

        return recorded

    monkeypatch.setattr(kind, "execute", record(kind.execute))
    monkeypatch.setattr(kind, "many", record(kind.many))
    monkeypatch.setattr(kind, "queue", record(kind.queue))
    return statements
