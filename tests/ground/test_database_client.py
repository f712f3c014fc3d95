"""The pools of connections to databases of the organisation."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ostiaryd.ground.outbound.database_client import _Pool
from ostiaryd.ground.outbound.database_driver import DatabaseTarget

ROUNDS = 20_000
TARGET = DatabaseTarget("postgresql", "/tmp", "shop", "root", (), False, "", 4)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that take turns between any two steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_a_pooled_connection_has_one_user_at_a_time_and_is_not_lost() -> None:
    """Jobs take connections and give them back, while another thread closes the idle ones."""
    pool = _Pool(TARGET)
    in_use, opened, closed = set[int](), list[Any](), list[Any]()
    wrong = list[str]()
    working = threading.Event()
    working.set()

    def work() -> None:
        for _ in range(ROUNDS):
            taken = pool.take()
            if taken is None:
                raw: Any = object()
                opened.append(raw)
            else:
                raw = taken[1]
            if id(raw) in in_use:
                wrong.append("two jobs have one connection")
            in_use.add(id(raw))
            in_use.discard(id(raw))
            pool.give(raw)

    def close() -> None:
        while working.is_set():
            for raw in pool.take_stale(math.inf):
                if id(raw) in in_use:
                    wrong.append("a connection in use is closed")
                closed.append(raw)

    jobs = [threading.Thread(target=work) for _ in range(3)]
    closer = threading.Thread(target=close)
    for thread in (*jobs, closer):
        thread.start()
    for thread in jobs:
        thread.join()
    working.clear()
    closer.join()
    closed += pool.take_stale(math.inf)
    assert wrong == []
    assert (len(closed), len({id(raw) for raw in closed})) == (len(opened), len(opened))


def test_a_recently_used_connection_is_not_stale() -> None:
    pool = _Pool(TARGET)
    pool.give("old")
    time.sleep(0.001)
    before = time.monotonic()
    pool.give("recent")
    assert pool.take_stale(before) == ["old"]
    assert (taken := pool.take()) is not None
    assert taken[1] == "recent"
