from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ostiary.guard import Guard
from ostiary.keys import Credential
from tests.clock import Clock, Dice
from tests.guard.feeder import ISSUER, RESOURCE_ID, Feeder


@pytest.fixture
def guard(tmp_path: Path, clock: Clock, dice: Dice) -> Iterator[Guard]:
    """A guard that is not connected: a `Feeder` speaks to it."""
    credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
    guard = Guard(credential, spool_dir=tmp_path / "spool", now=clock, tick=clock, random=dice)
    yield guard
    guard._spool.close()


@pytest.fixture
def feeder(clock: Clock, guard: Guard) -> Feeder:
    """What speaks to the guard; it has said a snapshot."""
    feeder = Feeder(clock, feed=guard.feed)
    feeder.snapshot()
    return feeder
