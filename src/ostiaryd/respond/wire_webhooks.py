"""Telling webhooks (Standard Webhooks 1.0.0), one try at a time for each, so that none waits for another.

    POST URL    webhook-id, webhook-timestamp, webhook-signature: v1,BASE64    {"type", "timestamp", "data"}

A message is taken by any 2xx. It is told at least once: a receiver drops what it has by `webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from ostiary.core.errors import Unavailable
from ostiaryd.ground.fetch import deliver
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.respond.flows import webhooks as flows
from ostiaryd.respond.model.webhooks import SECOND, TRY_S, Outcome, Webhook, headers, message, message_id, secret
from ostiaryd.respond.store import webhooks as store

PASSED = 1000
"""Entries that are none of its business; after so many the next look begins behind them."""
log = logging.getLogger("ostiary")


class Couriers:
    """Who is telling which webhook; lives on the event loop."""

    def __init__(self, world: World) -> None:
        self.running: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        for task in self.running.values():
            task.cancel()
        await asyncio.gather(*self.running.values(), return_exceptions=True)


async def tell_due(world: World) -> None:
    """Send a courier to each webhook that has something to hear and has none; waits for none of them."""
    now, running = world.now(), world.keep(Couriers).running
    for webhook in await world.db.scan(store.webhooks):
        id = webhook.webhook_id
        if webhook.is_due(now) and (id not in running or running[id].done()):
            running[id] = asyncio.create_task(_courier(world, webhook))


async def _courier(world: World, webhook: Webhook) -> None:
    """Tell it everything in order, as far as it takes it."""
    try:
        again: Webhook | None = webhook
        while again is not None and await tell_next(world, again):
            again = store.get(world.db.read(), webhook.webhook_id)
    except Exception:
        log.exception("telling the webhook %s failed", webhook.webhook_id)


async def tell_next(world: World, webhook: Webhook) -> bool:
    """Tell it of the next event; whether it took it."""
    size, found = await world.db.scan(lambda reader: (flows.size(reader), flows.next_event(reader, webhook)))
    if found is None:
        if size > webhook.next_idx + PASSED:
            await world.writer.submit(lambda tx: flows.pass_over(tx, webhook, size))
        return False
    index, body = found
    claimed = await world.writer.submit(lambda tx: flows.begin(tx, webhook, index))
    if claimed is None:
        return False
    outcome = await _try(world, claimed, message(index, decode_entry(body)), index)
    if outcome.is_taken:
        await world.writer.submit(lambda tx: flows.confirm(tx, claimed))
    elif flows.is_over(claimed, outcome):
        await act(world, "webhook.give_up", lambda act: flows.give_up(act, claimed, outcome))
    else:
        await world.writer.submit(lambda tx: flows.postpone(tx, claimed, outcome))
    return outcome.is_taken


async def _try(world: World, webhook: Webhook, body: bytes, index: int) -> Outcome:
    key = secret(world.keys.secret("nonce"), webhook.webhook_id)
    at = world.now() // SECOND
    said = headers(key, id=message_id(webhook.webhook_id, index), at=at, body=body)
    try:
        status, after = await deliver(webhook.url, body, headers=said, within_s=TRY_S)
    except Unavailable as error:
        return Outcome(0, error.message)
    with suppress(ValueError):
        return Outcome(status, f"it answers {status}", max(0, int(after[:10])))
    return Outcome(status, f"it answers {status}")
