"""Delivery to webhooks, one attempt at a time for each webhook, independent of other webhooks.

    signed      POST URL    webhook-id, webhook-timestamp, webhook-signature: v1,BASE64    {"type", "timestamp", "data"}
    chats       POST URL    the form of Slack, Teams, Mattermost or a reader of plain text
    mail        SMTP        by the operator's mail server

Any 2xx status acknowledges a message. A message may arrive more than once; a receiver discards duplicates by
`webhook-id` (Standard Webhooks 1.0.0).
"""

from __future__ import annotations

import logging
from functools import partial

from ostiary.protocol.errors import Invalid, Unavailable
from ostiaryd.ground.database.line import SERVER, Priority, priority
from ostiaryd.ground.http.html import page_url
from ostiaryd.ground.outbound.fetch import deliver
from ostiaryd.ground.outbound.mail import send_mail
from ostiaryd.ground.process.running import RunningTasks
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.notifications import flows, store
from ostiaryd.notifications.model import alerts
from ostiaryd.notifications.model.links import PURPOSE
from ostiaryd.notifications.model.webhooks import (
    MAIL,
    SECOND,
    TRY_S,
    Outcome,
    Webhook,
    headers,
    message,
    message_id,
    outcome_of_mail,
    secret,
)

PASSED = 1000
"""Number of entries in sequence that a webhook does not receive. After this number, the webhook stores its position, so
that the next search begins after these entries.
"""
Events = list[tuple[int, str]]
"""Pairs (index of an entry, action), in order."""
log = logging.getLogger("ostiary")


class RunningDeliveries(RunningTasks):
    """The deliveries in progress: at most one for each webhook or browser."""


async def deliver_due(world: World) -> None:
    """Start a delivery for each webhook whose next attempt is due and that has no delivery in progress. Returns before
    the deliveries end.
    """
    now = world.now()
    for webhook in await world.db.scan(store.webhooks):
        if webhook.is_due(now):
            world.get_singleton(RunningDeliveries).begin(webhook.webhook_id, partial(_deliver_pending, world, webhook))


async def _deliver_pending(world: World, webhook: Webhook) -> None:
    """Deliver the pending events of a webhook in order, until no event is left or an attempt fails. If the disk is
    full, the claims of deliveries are written with the space that is reserved for stops, because the alert about the
    full disk is one of the events.
    """
    priority.set(Priority(SERVER.client, is_essential=True))
    try:
        again: Webhook | None = webhook
        while again is not None and await deliver_next(world, again):
            again = store.get(world.db.read(), webhook.webhook_id)
    except Exception:
        log.exception("delivery to the webhook %s failed", webhook.webhook_id)


async def deliver_next(world: World, webhook: Webhook) -> bool:
    """Make one attempt to deliver the next events of a webhook; return whether the receiver accepted the events. False
    without an attempt if no event is pending or another process has the claim.
    """
    size, events = await world.db.scan(lambda reader: (flows.ledger_size(reader), flows.next_events(reader, webhook)))
    if not events:
        if size > webhook.next_idx + PASSED:
            await world.writer.submit(lambda tx: store.skip(tx, webhook.webhook_id, idx=size))
        return False
    claimed = await world.writer.submit(lambda tx: flows.claim_delivery(tx, webhook, events[0][0]))
    if claimed is None:
        return False
    outcome = await (_send_to_people if webhook.is_for_people else _send_to_program)(world, claimed, events)
    if outcome.is_accepted:
        await world.writer.submit(lambda tx: flows.record_delivered(tx, claimed, events))
    elif flows.is_over(claimed, outcome):
        await act(world, "webhook.give_up", lambda act: flows.give_up(act, claimed, outcome))
    else:
        await world.writer.submit(lambda tx: flows.postpone(tx, claimed, outcome))
    return outcome.is_accepted


async def _send_to_program(world: World, webhook: Webhook, events: Events) -> Outcome:
    """Send one event to a program, as a signed message; return the outcome."""
    ((index, _),) = events
    key = secret(world.keys.secret("nonce"), webhook.webhook_id)
    body = message(index, flows.entry(world.db.read(), index))
    at = world.now() // SECOND
    return await _post(world, webhook, body, headers(key, id=message_id(webhook.webhook_id, index), at=at, body=body))


async def _send_to_people(world: World, webhook: Webhook, events: Events) -> Outcome:
    """Send one message about all these events to people; return the outcome."""
    site, key = page_url(world.config), world.keys.derive(PURPOSE)
    alert_rows = await world.db.scan(lambda reader: flows.describe_events(reader, events, site=site, secret=key))
    subject, text = alerts.subject(alert_rows, events), alerts.text(alert_rows, events)
    if webhook.form == "mail":
        return await _mail(world, webhook, subject, text, id=message_id(webhook.webhook_id, events[0][0]))
    kind, body = alerts.chat(webhook.form, subject, text)
    return await _post(world, webhook, body, {"content-type": kind})


async def _post(world: World, webhook: Webhook, body: bytes, extra_headers: dict[str, str]) -> Outcome:
    try:
        private = world.config.private
        status, after_s = await deliver(webhook.url, body, headers=extra_headers, within_s=TRY_S, private=private)
    except (Invalid, Unavailable) as error:
        return Outcome(0, error.message)
    return Outcome(status, f"the remote server answers {status}", after_s)


async def _mail(world: World, webhook: Webhook, subject: str, text: str, *, id: str) -> Outcome:
    config = world.config
    if not config.mail_server:
        return Outcome(0, "no mail server is configured")
    to = webhook.url.removeprefix(MAIL)
    made = alerts.mail(subject, text, sender=config.mail_from, to=to, id=id, at=world.now())
    try:
        code = await send_mail(
            made,
            server=config.mail_server,
            user=config.mail_user,
            password=config.mail_password,
            name=config.trust_domain,
            within_s=TRY_S,
        )
    except Unavailable as error:
        return Outcome(0, error.message)
    return outcome_of_mail(code)
