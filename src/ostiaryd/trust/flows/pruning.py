"""Deletion of expired proofs, tokens, sessions, links and failed logins."""

from __future__ import annotations

from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.trust import store
from ostiaryd.trust.model.throttle import FORGET_AFTER

AT_ONCE = 1000
SESSIONS_AT_ONCE = 50


async def prune(world: World) -> int:
    """Delete expired proofs, join tokens, sessions, setup links and failed logins; return the number of deleted rows.

    Only the deletion of sessions and setup links is recorded in the ledger.
    """
    total = await world.writer.submit(lambda tx: store.join_tokens.prune_join_tokens(tx, before=tx.now))
    total += await _expire_logins(world)
    total += await world.writer.submit(lambda tx: store.people.prune_failures(tx, before=tx.now - FORGET_AFTER))
    while True:
        count = await world.writer.submit(
            lambda tx: store.proofs.prune_spent(tx, before=world.now.horizon, limit=AT_ONCE)
        )
        total += count
        if count < AT_ONCE:
            return total


async def _expire_logins(world: World) -> int:
    """Delete expired sessions and setup links, and return their number. These rows are protected by the ledger, so the
    deletion of each batch is recorded.
    """
    total = 0
    while store.people.any_expired(world.db.read(), now=world.now.horizon):

        def expire(act: Act) -> int:
            count = store.people.drop_expired(act.tx, now=world.now.horizon, limit=SESSIONS_AT_ONCE)
            act.entry.detail = {"expired": count}
            return count

        total += await act(world, "person.expire_sessions", expire)
    return total
