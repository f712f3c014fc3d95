"""Operations on webhooks: one function per verb."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ostiary.protocol.addresses import check_address
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.notifications import store
from ostiaryd.notifications.model.alerts import Alert, alert, gravest
from ostiaryd.notifications.model.webhooks import (
    MAIL,
    MAX_WEBHOOKS,
    SECOND,
    STALLED_S,
    TEST,
    TRY_S,
    WAITING_LIMIT,
    Form,
    Outcome,
    Webhook,
    WebhookId,
    check_actions,
    check_form,
    origin,
    record_delivery,
    secret,
    tried,
)
from ostiaryd.registry import flows as registry

GONE = 410


def add(
    act: Act, *, url: str, actions: tuple[str, ...], form: Form = "signed", private: Collection[str] = ()
) -> tuple[Webhook, bytes]:
    """Add a webhook for events from now on; return the webhook and the secret that signs its messages.

    `private`: hosts that the operator opens although their addresses are not public.

    Raises Invalid, Conflict (`webhook_exists`, `too_many_webhooks`).
    """
    if url.startswith(MAIL):
        check_address(url.removeprefix(MAIL), name="what follows `mailto:`")
    else:
        check_named(url, of="the URL of a webhook", private=private)
    registry.note(act, object=origin(url))
    check_form(url, form)
    actions = check_actions(actions)
    if store.by_url(act.tx, url) is not None:
        raise Conflict("a webhook for this URL exists already", hint="ostiary webhook list", code="webhook_exists")
    if len(store.webhooks(act.tx)) >= MAX_WEBHOOKS:
        raise Conflict(
            f"the server has {MAX_WEBHOOKS} webhooks, which is the limit",
            hint="ostiary webhook remove",
            code="too_many_webhooks",
        )
    start = size(act.tx)
    made = Webhook(
        webhook_id=WebhookId(act.new_id("wh")), url=url, actions=actions, created_at=act.now, next_idx=start, form=form
    )
    store.insert(act.tx, made)
    registry.note(act, object=made.webhook_id, origin=origin(url), form=form, events=list(actions))
    return made, secret_of(act.tx, made)


def remove(act: Act, id: str) -> None:
    """Remove a webhook. Raises NotFound."""
    webhook = find(act.tx, id)
    registry.note(act, object=webhook.webhook_id, origin=origin(webhook.url))
    store.delete(act.tx, webhook.webhook_id)


def test(act: Act) -> None:
    """An entry that every webhook hears of."""
    act.entry.action = TEST


def find(reader: Reader, id: str) -> Webhook:
    """Return a webhook by id. Raises NotFound."""
    if (webhook := store.get(reader, id)) is None:
        raise NotFound("there is no such webhook", hint="ostiary webhook list")
    return webhook


def secret_of(tx: Tx, webhook: Webhook) -> bytes:
    """Return the signing secret of the webhook."""
    return secret(tx.keys.secret("nonce"), webhook.webhook_id)


def size(reader: Reader) -> int:
    """Return the number of entries in the ledger."""
    return ledger.get_head(reader)[0].size


def next_events(reader: Reader, webhook: Webhook) -> list[tuple[int, str]]:
    """Return the next events for the webhook in order, as (index, action): one, or every due event for a webhook for
    people.
    """
    limit = WAITING_LIMIT if webhook.is_for_people else 1
    return store.next_events(reader, (*webhook.actions, TEST), webhook.next_idx, limit=limit)


def alerts(reader: Reader, events: list[tuple[int, str]]) -> list[Alert]:
    """Return an alert for each of the gravest events."""
    return [_alert(reader, index) for index in gravest(events)]


def entry(reader: Reader, index: int) -> Entry:
    """An entry that there is."""
    body = ledger.get_entry_body(reader, index)
    assert body is not None, "an entry stays"
    return decode_entry(body)


def _alert(reader: Reader, index: int) -> Alert:
    public = entry(reader, index)
    agent = None if public.agent is None else registry.get_agent(reader, public.agent)
    owner = None if public.owner is None else registry.get_owner(reader, public.owner)
    return alert(index, public, agent=agent.name if agent else "", owner=owner.name if owner else "")


def begin(tx: Tx, webhook: Webhook, index: int) -> Webhook | None:
    """Take a try upon oneself; None where another process has, or the webhook is not due any more."""
    until = tx.now + (TRY_S + 5) * SECOND
    if not store.claim(tx, webhook.webhook_id, idx=index, until=until):
        return None
    return store.get(tx, webhook.webhook_id)


def confirm(tx: Tx, webhook: Webhook, events: list[tuple[int, str]]) -> None:
    """Record a successful delivery. If the claim has expired meanwhile, another process delivers the events again."""
    after = record_delivery(webhook, now=tx.now, through=events[-1][0], count=len(events))
    store.settle(tx, after, claim=webhook.busy_until)


def postpone(tx: Tx, webhook: Webhook, outcome: Outcome) -> None:
    """Schedule the next try after a failure. `give_up` handles the last one."""
    store.settle(tx, _after(tx, webhook, outcome), claim=webhook.busy_until)


def give_up(act: Act, webhook: Webhook, outcome: Outcome) -> None:
    """Leave an event out, or end a webhook whose receiver is gone (410); both leave an entry."""
    after = _after(act.tx, webhook, outcome)
    registry.note(act, object=webhook.webhook_id, index=webhook.next_idx, failed=outcome.failed)
    store.settle(act.tx, after, claim=webhook.busy_until)


def is_over(webhook: Webhook, outcome: Outcome) -> bool:
    """Return whether no try follows."""
    return outcome.status == GONE or tried(webhook, outcome, now=0, jitter=0).lost > webhook.lost


def _after(tx: Tx, webhook: Webhook, outcome: Outcome) -> Webhook:
    after = tried(webhook, outcome, now=tx.now, jitter=tx.random(1)[0] / 255)
    return after if outcome.status != GONE else msgspec.structs.replace(after, gone_at=tx.now)


def pass_over(tx: Tx, webhook: Webhook, index: int) -> None:
    """Skip the entries before `index`."""
    store.skip(tx, webhook.webhook_id, idx=index)


def troubles(reader: Reader, *, now: int) -> list[str]:
    """Return the problems of all webhooks in words. A URL may hold a secret, so only its origin is named."""
    webhooks = store.webhooks(reader)
    return [f"{origin(one.url)}: {wrong}" for one in webhooks for wrong in _troubles(reader, one, now=now)]


def lost(reader: Reader) -> tuple[int, list[str]]:
    """Return the number of webhooks, and a line for each that lost events."""
    webhooks = store.webhooks(reader)
    return len(webhooks), [f"{origin(one.url)}: {one.lost} events were left out" for one in webhooks if one.lost]


def _troubles(reader: Reader, webhook: Webhook, *, now: int) -> list[str]:
    if webhook.gone_at is not None:
        return ["the receiver is gone (410)"]
    count, since = store.waiting(reader, (*webhook.actions, TEST), webhook.next_idx, limit=WAITING_LIMIT)
    wrong = []
    if count >= WAITING_LIMIT:
        wrong.append(f"the queue is full: {WAITING_LIMIT} events or more wait")
    if since is not None and now - since > STALLED_S * SECOND:
        wrong.append(
            f"stalled for {(now - since) // SECOND} s, try {webhook.attempts}: {webhook.failed or 'no answer'}"
        )
    return wrong
