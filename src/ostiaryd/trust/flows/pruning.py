"""What is remembered is forgotten when it can no longer matter."""

from __future__ import annotations

from functools import partial

from ostiaryd.ground.database import Tx
from ostiaryd.ground.world import World
from ostiaryd.trust import store


async def prune(world: World) -> int:
    """Forget proofs and join tokens that are past their time, in small batches; how many.

    Nothing that counts is changed, so this leaves no entry.
    """
    forgotten = await world.writer.submit(lambda tx: store.prune_join_tokens(tx, before=tx.now))
    for first_byte in range(256):
        forgotten += await world.writer.submit(partial(_prune_replay, first_byte))
    return forgotten


def _prune_replay(first_byte: int, tx: Tx) -> int:
    return store.prune_replay(tx, first_byte, now=tx.now)
