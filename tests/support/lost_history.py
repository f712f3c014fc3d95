"""A database that has lost a part of its history: heads that it lacks, and the beginning and the end of a recovery."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.protocol.checkpoint import Checkpoint, sign_checkpoint
from ostiaryd.ground.database.pin import Head, InRecovery
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import act
from ostiaryd.recover import end_recovery

AHEAD = 1000
"""Entries of the lost future that a guard has seen."""


def head_of(world: World) -> Head:
    reader = world.db.read()
    return ledger.read_head(store.get_head(reader)[1].encode(), reader=reader, keys=world.keys)


def note(world: World, size: int, *, root: bytes = b"l" * 32, history: str | None = None) -> str:
    """A checkpoint that the log has signed, of a state that the database does not have."""
    key = store.get_log_key(world.db.read(), world.keys)
    id = ledger.present_history(world.db.read()) if history is None else history
    checkpoint = Checkpoint(key.name, size, root, (f"history {id}",) if id else ())
    return sign_checkpoint(checkpoint, key=key, sign=world.keys.signer("ledger").sign).decode()


def seen(world: World, size: int, **more: Any) -> Head:
    return ledger.read_head(note(world, size, **more).encode(), reader=world.db.read(), keys=world.keys)


async def lose(world: World) -> None:
    with pytest.raises(InRecovery):
        await ledger.examine_head(world, seen(world, AHEAD), source="a guard of files")


async def finish(world: World, *confirmed: str, count: int | None = None) -> None:
    await act(world, "history.recover", lambda act: end_recovery(act, list(confirmed), count))
    await ledger.check_history(world)
