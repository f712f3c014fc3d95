"""Operations on webhooks and on push subscriptions: one function per verb."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from ostiary.protocol.addresses import check_address
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.approvals import flows as approvals
from ostiaryd.approvals.model import Question
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.notifications import store
from ostiaryd.notifications.model.alerts import Alert, alert, gravest, plain
from ostiaryd.notifications.model.links import sign_link
from ostiaryd.notifications.model.web_push import MAX_OF_PERSON, PushMessage, Subscription, SubscriptionId, delivered
from ostiaryd.notifications.model.web_push import TRY_S as PUSH_TRY_S
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
ASKED = "approval.ask"
"""The action of a new approval request."""


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
            hint="remove one: ostiary webhook remove WEBHOOK_ID",
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
    """Make this act a test event, which every webhook receives."""
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


def alerts(reader: Reader, events: list[tuple[int, str]], *, site: str, secret: bytes) -> list[Alert]:
    """Return an alert for each of the gravest events. `site` is the URL of the pages; `secret` signs links to them."""
    return [_alert(reader, index, site=site, secret=secret) for index in gravest(events)]


def entry(reader: Reader, index: int) -> Entry:
    """Return the entry at `index`, which must exist."""
    body = ledger.get_entry_body(reader, index)
    assert body is not None, "an entry stays"
    return decode_entry(body)


def _alert(reader: Reader, index: int, *, site: str, secret: bytes) -> Alert:
    public = entry(reader, index)
    agent = None if public.agent is None else registry.get_agent(reader, public.agent)
    owner = None if public.owner is None else registry.get_owner(reader, public.owner)
    question = approvals.get_question(reader, public.object) if public.action == ASKED and public.object else None
    link = ""
    if question is not None:
        link = f"{site}/alerts/{sign_link(question.approval_id, ends_at=question.ends_at, secret=secret)}"
    return alert(index, public, agent=agent.name if agent else "", owner=owner.name if owner else "", link=link)


def begin(tx: Tx, webhook: Webhook, index: int) -> Webhook | None:
    """Claim the delivery of the event at `index`. Return the webhook; None if another process has the claim, or the
    event is not due.
    """
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
    """Skip an event that could not be delivered, or end a webhook whose receiver is gone (410); both leave an entry."""
    after = _after(act.tx, webhook, outcome)
    registry.note(act, object=webhook.webhook_id, index=webhook.next_idx, failed=outcome.failed)
    store.settle(act.tx, after, claim=webhook.busy_until)


def is_over(webhook: Webhook, outcome: Outcome) -> bool:
    """Return whether the delivery has failed for good: no other attempt follows."""
    return outcome.status == GONE or tried(webhook, outcome, now=0, jitter=0).lost > webhook.lost


def _after(tx: Tx, webhook: Webhook, outcome: Outcome) -> Webhook:
    after = tried(webhook, outcome, now=tx.now, jitter=tx.random(1)[0] / 255)
    return after if outcome.status != GONE else msgspec.structs.replace(after, gone_at=tx.now)


def pass_over(tx: Tx, webhook: Webhook, index: int) -> None:
    """Skip the entries before `index`."""
    store.skip(tx, webhook.webhook_id, idx=index)


def troubles(reader: Reader, *, now: int) -> list[str]:
    """Return the problems of all webhooks in words. Only the origin of a URL is shown, since the rest may hold a
    secret.
    """
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


MAX_ASKED = 100
"""Requests that one message counts, at most."""


def subscribe(
    act: Act, person: str, *, endpoint: str, keys: tuple[bytes, bytes], browser: str, private: Collection[str]
) -> Subscription:
    """Let a browser of a person get a message about each approval request from now on that the person may answer.

    Raises Invalid, Conflict (`too_many_subscriptions`).
    """
    check_named(endpoint, of="`endpoint`", private=private)
    registry.note(act, object=origin(endpoint), browser=browser)
    others = [one for one in store.subscriptions(act.tx, person) if one.endpoint != endpoint]
    if len(others) >= MAX_OF_PERSON:
        raise Conflict(
            f"{MAX_OF_PERSON} of your browsers get notifications, which is the limit",
            hint="switch notifications off in another browser",
            code="too_many_subscriptions",
        )
    made = Subscription(
        subscription_id=SubscriptionId(act.new_id("pu")),
        person=person,
        endpoint=endpoint,
        public_key=keys[0],
        auth=keys[1],
        browser=browser,
        created_at=act.now,
        next_idx=size(act.tx),
    )
    store.insert_subscription(act.tx, made)
    registry.note(act, object=made.subscription_id, origin=origin(endpoint), browser=browser)
    return made


def unsubscribe(act: Act, person: str, id: str) -> None:
    """End a push subscription of a person. Raises NotFound."""
    subscription = store.get_subscription(act.tx, id)
    if subscription is None or subscription.person != person:
        raise NotFound("you have no such subscription", hint="GET /api/v1/push lists yours")
    registry.note(act, object=id, origin=origin(subscription.endpoint))
    store.delete_subscription(act.tx, subscription.subscription_id)


def end_push(act: Act, subscription: Subscription, *, failed: str) -> None:
    """End a subscription that the push service no longer knows, or whose person has left."""
    act.entry.person = subscription.person
    registry.note(act, object=subscription.subscription_id, origin=origin(subscription.endpoint), failed=failed)
    store.delete_subscription(act.tx, subscription.subscription_id)


def give_up_push(act: Act, subscription: Subscription, *, through: int, failed: str) -> None:
    """Drop a message after its last attempt failed."""
    act.entry.person = subscription.person
    registry.note(act, object=subscription.subscription_id, origin=origin(subscription.endpoint), failed=failed)
    after = delivered(subscription, through=through, now=act.now)
    store.settle_subscription(act.tx, after, claim=subscription.busy_until)


class DuePush(NamedTuple):
    """A browser without a message about the entries up to `through`, and the open requests that its person may
    answer.

    `has_left`: the person is no longer registered.
    """

    subscription: Subscription
    through: int
    questions: list[Question]
    has_left: bool


def list_due_pushes(reader: Reader, *, config: Config, now: int, limit: int) -> list[DuePush]:
    """Return the browsers with entries that are not yet delivered or skipped."""
    newest = store.newest_of(reader, ASKED)
    if newest is None:
        return []
    due = store.due_subscriptions(reader, newest=newest, now=now, limit=limit)
    return [_due_push(reader, one, newest, config=config, now=now) for one in due]


def _due_push(reader: Reader, subscription: Subscription, newest: int, *, config: Config, now: int) -> DuePush:
    person = registry.get_person(reader, subscription.person)
    if person is None or not person.is_active:
        return DuePush(subscription, newest, [], has_left=True)
    events = store.next_events(reader, (ASKED,), subscription.next_idx, limit=MAX_ASKED)
    through = newest if len(events) < MAX_ASKED else events[-1][0]  # the rest is for the next message
    ids = [object for index, _ in events if (object := entry(reader, index).object) is not None]
    questions = approvals.list_answerable(reader, ids, person.person_id, everything=config.all_approvers, now=now)
    return DuePush(subscription, through, questions, has_left=False)


def claim_push(tx: Tx, subscription: Subscription) -> Subscription | None:
    """Claim the next message to a browser; None if another process has claimed it."""
    until = tx.now + (PUSH_TRY_S + 5) * SECOND
    if not store.claim_subscription(tx, subscription, until=until):
        return None
    return store.get_subscription(tx, subscription.subscription_id)


def settle_push(tx: Tx, claimed: Subscription, after: Subscription) -> None:
    """Store the state of a subscription after a delivery."""
    store.settle_subscription(tx, after, claim=claimed.busy_until)


def pass_over_pushes(tx: Tx, due: Collection[DuePush]) -> None:
    """Skip the entries that do not concern the persons of these browsers."""
    for one in due:
        store.skip_subscription(tx, one.subscription.subscription_id, idx=one.through + 1)


def push_message(reader: Reader, questions: Sequence[Question]) -> PushMessage:
    """Return the message about these requests, of which there is at least one."""
    if len(questions) > 1:
        return PushMessage(f"{len(questions)} approval requests wait for an answer", "", "approvals")
    (question,) = questions
    agent = registry.get_agent(reader, question.agent)
    name = plain(agent.name if agent else question.agent)
    return PushMessage(f"{name} asks for approval", plain(question.tool), f"approvals/{question.approval_id}")
