"""Deletion of replay memory that can no longer matter."""

from __future__ import annotations

from ostiaryd.ground.world import World
from ostiaryd.trust import store

AT_ONCE = 1000


async def prune(world: World) -> int:
    """Forget proofs and join tokens that are past their time, in small batches; how many.

    Nothing that counts is changed, so this leaves no entry.
    """
    total = await world.writer.submit(lambda tx: store.prune_join_tokens(tx, before=tx.now))
    while True:
        count = await world.writer.submit(lambda tx: store.prune_spent(tx, before=world.now.horizon, limit=AT_ONCE))
        total += count
        if count < AT_ONCE:
            return total
