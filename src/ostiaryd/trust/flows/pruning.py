"""What is remembered is forgotten when it can no longer matter."""

from __future__ import annotations

from ostiaryd.ground.world import World
from ostiaryd.trust import store

BATCH = 5000


async def prune(world: World) -> int:
    """Forget proofs and join tokens that are past their time, in small batches; how many.

    Nothing that counts is changed, so this leaves no entry.
    """
    forgotten = 0
    while True:
        count = await world.writer.submit(lambda tx: store.prune_replay(tx, now=tx.now, count=BATCH))
        forgotten += count
        if count < BATCH:
            break
    return forgotten + await world.writer.submit(lambda tx: store.prune_join_tokens(tx, before=tx.now))
