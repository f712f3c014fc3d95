"""A guard without a connection, callers that it admits, and the records of its spool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clock import Clock, SeededRandom
from harness.feeder import ISSUER, RESOURCE_ID, URI, Feeder
from ostiary.guard import Guard, Verified
from ostiary.keys import Credential
from ostiary.protocol.errors import Refused


def authenticate_at(guard: Guard, feeder: Feeder, token: str | None = None, **proof: Any) -> Verified:
    """Show a token and a proof to the guard."""
    token = feeder.token() if token is None else token
    shown = feeder.proof(token, **{"nonce": guard._proofs.nonce(), **proof})
    return guard.verify(authorization=f"DPoP {token}", proof=shown, method="POST", uri=URI)


def is_refused(function: Callable[[], object]) -> bool:
    try:
        function()
    except Refused:
        return True
    return False


def records(guard: Guard) -> list[dict[str, Any]]:
    batch = guard._spool.batch(count=100, size=1 << 20)
    return [] if batch is None else batch.records


@pytest.fixture
def guard(tmp_path: Path, clock: Clock, dice: SeededRandom) -> Iterator[Guard]:
    """Return a guard that is not connected; a `Feeder` sends it the messages of the feed."""
    credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
    guard = Guard(credential, spool_dir=tmp_path / "spool", now=clock, tick=clock, random=dice)
    yield guard
    guard._spool.close()


@pytest.fixture
def feeder(clock: Clock, guard: Guard) -> Feeder:
    """Return the server's side of the feed of the guard, which has sent a snapshot."""
    feeder = Feeder(clock, feed=guard.feed)
    feeder.snapshot()
    return feeder
