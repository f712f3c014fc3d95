"""How often functions are called, and which statements a database gets."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from ostiaryd.ground.database.statement import Sql
from ostiaryd.ground.world import World


@contextmanager
def counting_calls() -> Iterator[Counter[str]]:
    """Count the calls of functions, also of built-in ones, in this thread."""
    calls = Counter[str]()

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls[called.__qualname__] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def record_statements(world: World, monkeypatch: pytest.MonkeyPatch, *, writer_only: bool = False) -> list[str]:
    """Return a list to which the first word of each further statement is added."""
    statements: list[str] = []
    own, kind = world.writer._connection, type(world.writer._connection)

    def record(run: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(self: Any, statement: Sql, *values: Any) -> Any:
            if self is own or not writer_only:
                statements.append(statement.sqlite.split()[0])
            return run(self, statement, *values)

        return recorded

    monkeypatch.setattr(kind, "execute", record(kind.execute))
    monkeypatch.setattr(kind, "many", record(kind.many))
    return statements
