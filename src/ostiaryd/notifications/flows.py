"""Operations on webhooks and on the push subscriptions of browsers: one function for each verb."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from ostiary.protocol.addresses import check_address
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.approvals import flows as approvals
from ostiaryd.approvals.model import REQUEST_ACTIONS, Question
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.notifications import store
from ostiaryd.notifications.model.alerts import Alert, alert, plain_text, select_gravest
from ostiaryd.notifications.model.links import sign_link
from ostiaryd.notifications.model.web_push import (
    MAX_OF_PERSON,
    PUSH_TRY_S,
    PushMessage,
    Subscription,
    SubscriptionId,
    after_push,
)
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
    after_delivery,
    after_failed_attempt,
    check_actions,
    check_form,
    origin,
    secret,
)
from ostiaryd.registry import flows as registry

GONE = 410


def add(
    act: Act, *, url: str, actions: tuple[str, ...], form: Form = "signed", private: Collection[str] = ()
) -> tuple[Webhook, bytes]:
    """Add a webhook that receives the ledger entries with one of `actions` (empty: the actions in `TITLES`) from now
    on; return the webhook and its secret, which signs messages of the form `signed` and has no use for other forms.

    `private`: hosts with private addresses that the operator's configuration allows.

    Raises Invalid for an invalid URL, action or form, Conflict if a webhook with this URL exists (`webhook_exists`) or
    the server has the maximum number of webhooks (`too_many_webhooks`).
    """
    if url.startswith(MAIL):
        check_address(url.removeprefix(MAIL), name="the address after `mailto:`")
    else:
        check_named(url, of="the URL of a webhook", private=private)
    registry.fill_entry(act, object=origin(url))
    check_form(url, form)
    actions = check_actions(actions)
    if store.by_url(act.tx, url) is not None:
        hint = "find its id with `ostiary webhook list`, then run: ostiary webhook remove WEBHOOK_ID"
        raise Conflict("a webhook for this URL exists already", hint=hint, code="webhook_exists")
    if len(store.webhooks(act.tx)) >= MAX_WEBHOOKS:
        raise Conflict(
            f"the server has {MAX_WEBHOOKS} webhooks, which is the limit",
            hint="remove a webhook: ostiary webhook remove WEBHOOK_ID",
            code="too_many_webhooks",
        )
    start = ledger_size(act.tx)
    made = Webhook(
        webhook_id=WebhookId(act.new_id("wh")), url=url, actions=actions, created_at=act.now, next_idx=start, form=form
    )
    store.insert(act.tx, made)
    registry.fill_entry(act, object=made.webhook_id, origin=origin(url), form=form, events=list(actions))
    return made, secret_of(act.tx, made)


def remove(act: Act, id: str) -> None:
    """Delete a webhook. Raises NotFound for an unknown webhook."""
    webhook = find(act.tx, id)
    registry.fill_entry(act, object=webhook.webhook_id, origin=origin(webhook.url))
    store.delete(act.tx, webhook.webhook_id)


def record_test(act: Act) -> None:
    """Make the ledger entry of `act` a test event (action `webhook.test`), which every webhook receives."""
    act.entry.action = TEST


def find(reader: Reader, id: str) -> Webhook:
    """Return a webhook by its id. Raises NotFound if there is none."""
    if (webhook := store.get(reader, id)) is None:
        raise NotFound("webhook not found", hint="list the webhooks with `ostiary webhook list`")
    return webhook


def secret_of(tx: Tx, webhook: Webhook) -> bytes:
    """Return the secret that signs the webhook's messages."""
    return secret(tx.keys.secret("nonce"), webhook.webhook_id)


def ledger_size(reader: Reader) -> int:
    """Return the number of entries in the ledger, which is the index of the next entry."""
    return ledger.get_head(reader)[0].size


def next_events(reader: Reader, webhook: Webhook) -> list[tuple[int, str]]:
    """Return the events that the webhook must receive next, oldest first, as (index of the ledger entry, action). A
    webhook for programs gets at most one event, a webhook for people all pending events up to `WAITING_LIMIT`.
    """
    limit = WAITING_LIMIT if webhook.is_for_people else 1
    return store.next_events(reader, (*webhook.actions, TEST), webhook.next_idx, limit=limit)


def describe_events(reader: Reader, events: list[tuple[int, str]], *, site: str, secret: bytes) -> list[Alert]:
    """Return an alert for each of the gravest of `events`, at most `IN_WORDS` alerts. `site` is the base URL of the
    server's pages for people; `secret` signs the links to approval requests.
    """
    return [_alert(reader, index, site=site, secret=secret) for index in select_gravest(events)]


def entry(reader: Reader, index: int) -> Entry:
    """Return the ledger entry at `index`, which must exist."""
    body = ledger.get_entry_body(reader, index)
    assert body is not None, "entries are never deleted"
    return decode_entry(body)


def _alert(reader: Reader, index: int, *, site: str, secret: bytes) -> Alert:
    public = entry(reader, index)
    agent = None if public.agent is None else registry.get_agent(reader, public.agent)
    owner = None if public.owner is None else registry.get_owner(reader, public.owner)
    link = ""
    if public.action in REQUEST_ACTIONS and public.object is not None:
        question = approvals.get_question(reader, public.object)
        if question is not None:
            link = f"{site}/alerts/{sign_link(question.approval_id, ends_at=question.ends_at, secret=secret)}"
    return alert(index, public, agent=agent.name if agent else "", owner=owner.name if owner else "", link=link)


def claim_delivery(tx: Tx, webhook: Webhook, index: int) -> Webhook | None:
    """Claim the delivery of the event at `index` for this process; return the webhook. None if another process has the
    claim or has handled the event, or if the webhook was removed, has ended or waits for its next attempt.
    """
    until = tx.now + (TRY_S + 5) * SECOND
    if not store.claim(tx, webhook.webhook_id, idx=index, until=until):
        return None
    return store.get(tx, webhook.webhook_id)


def record_delivered(tx: Tx, webhook: Webhook, events: list[tuple[int, str]]) -> None:
    """Record the successful delivery of `events`. If another process has taken over the claim meanwhile, nothing is
    recorded, and the other process delivers the events again.
    """
    after = after_delivery(webhook, now=tx.now, through=events[-1][0], count=len(events))
    store.settle(tx, after, claim=webhook.busy_until)


def postpone(tx: Tx, webhook: Webhook, outcome: Outcome) -> None:
    """Schedule the next attempt to deliver the webhook's next event. The caller must have checked that this failed
    attempt was not the last (`is_over`).
    """
    store.settle(tx, _after(tx, webhook, outcome), claim=webhook.busy_until)


def give_up(act: Act, webhook: Webhook, outcome: Outcome) -> None:
    """Skip an event whose last attempt failed or, if the receiver answered 410 (gone), end the webhook. The act's
    ledger entry names the webhook and the error.
    """
    after = _after(act.tx, webhook, outcome)
    registry.fill_entry(act, object=webhook.webhook_id, index=webhook.next_idx, failed=outcome.failed)
    store.settle(act.tx, after, claim=webhook.busy_until)


def is_over(webhook: Webhook, outcome: Outcome) -> bool:
    """Return whether the failed attempt with this outcome is the last: the receiver answered 410 (gone), or the event
    has no attempt left.
    """
    return outcome.status == GONE or after_failed_attempt(webhook, outcome, now=0, jitter=0).lost > webhook.lost


def _after(tx: Tx, webhook: Webhook, outcome: Outcome) -> Webhook:
    after = after_failed_attempt(webhook, outcome, now=tx.now, jitter=tx.random(1)[0] / 255)
    return after if outcome.status != GONE else msgspec.structs.replace(after, gone_at=tx.now)


def describe_problems(reader: Reader, *, now: int) -> list[str]:
    """Return a sentence for each problem of a webhook. A sentence shows only the origin of the URL, since the rest of
    the URL may contain a secret.
    """
    webhooks = store.webhooks(reader)
    return [f"{origin(one.url)}: {wrong}" for one in webhooks for wrong in _describe_problems(reader, one, now=now)]


def describe_lost(reader: Reader) -> tuple[int, list[str]]:
    """Return the number of all webhooks, and a sentence for each webhook that lost events."""
    webhooks = store.webhooks(reader)
    return len(webhooks), [
        f"{origin(one.url)}: {one.lost} events could not be delivered and were skipped" for one in webhooks if one.lost
    ]


def _describe_problems(reader: Reader, webhook: Webhook, *, now: int) -> list[str]:
    if webhook.gone_at is not None:
        return ["the receiver answered 410 (gone): no further event is sent"]
    count, since = store.waiting(reader, (*webhook.actions, TEST), webhook.next_idx, limit=WAITING_LIMIT)
    wrong = []
    if count >= WAITING_LIMIT:
        wrong.append(f"the queue is full: at least {WAITING_LIMIT} events wait")
    if since is not None and now - since > STALLED_S * SECOND:
        waits = f"the oldest event has waited {(now - since) // SECOND} s"
        wrong.append(f"{waits}, attempt {webhook.attempts}: {webhook.failed or 'no answer'}")
    return wrong


MAX_ASKED = 100
"""Maximum number of approval requests that one push message covers."""


def subscribe(
    act: Act, person: str, *, endpoint: str, keys: tuple[bytes, bytes], browser: str, private: Collection[str]
) -> Subscription:
    """Store a push subscription: the browser gets a message about each new approval request that the person may answer.
    A subscription with the same endpoint is replaced.

    `keys`: the browser's public key and authentication secret, as `parse_browser_keys` returns them. `private`: hosts
    with private addresses that the configuration allows. Raises Invalid for an invalid endpoint, Conflict if the person
    has too many browsers (`too_many_subscriptions`).
    """
    check_named(endpoint, of="`endpoint`", private=private)
    registry.fill_entry(act, object=origin(endpoint), browser=browser)
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
        next_idx=ledger_size(act.tx),
    )
    store.insert_subscription(act.tx, made)
    registry.fill_entry(act, object=made.subscription_id, origin=origin(endpoint), browser=browser)
    return made


def unsubscribe(act: Act, person: str, id: str) -> None:
    """Delete a push subscription of the person. Raises NotFound if the person has no subscription with this id."""
    subscription = store.get_subscription(act.tx, id)
    if subscription is None or subscription.person != person:
        raise NotFound("push subscription not found", hint="GET /api/v1/push lists your subscriptions")
    registry.fill_entry(act, object=id, origin=origin(subscription.endpoint))
    store.delete_subscription(act.tx, subscription.subscription_id)


def end_push(act: Act, subscription: Subscription, *, failed: str) -> None:
    """Delete a subscription that the push service no longer knows, or whose person is no longer active. `failed`: the
    reason, which is recorded in the act's ledger entry.
    """
    act.entry.person = subscription.person
    registry.fill_entry(act, object=subscription.subscription_id, origin=origin(subscription.endpoint), failed=failed)
    store.delete_subscription(act.tx, subscription.subscription_id)


def give_up_push(act: Act, subscription: Subscription, *, through: int, failed: str) -> None:
    """Skip a message whose last attempt failed with the error `failed`: mark the ledger entries up to index `through`
    as handled.
    """
    act.entry.person = subscription.person
    registry.fill_entry(act, object=subscription.subscription_id, origin=origin(subscription.endpoint), failed=failed)
    after = after_push(subscription, through=through, now=act.now)
    store.settle_subscription(act.tx, after, claim=subscription.busy_until)


class DuePush(NamedTuple):
    """A browser whose person may have new approval requests. `questions`: the open requests in the ledger entries up to
    index `through` that the person may answer.

    `has_left`: the person is no longer registered or active.
    """

    subscription: Subscription
    through: int
    questions: list[Question]
    has_left: bool


def list_due_pushes(reader: Reader, *, config: Config, now: int, limit: int) -> list[DuePush]:
    """Return at most `limit` browsers that have not handled the newest approval request and whose next attempt is due,
    each with the requests for its person.
    """
    newest = store.newest_of(reader, REQUEST_ACTIONS)
    if newest is None:
        return []
    due = store.due_subscriptions(reader, newest=newest, now=now, limit=limit)
    return [_due_push(reader, one, newest, config=config, now=now) for one in due]


def _due_push(reader: Reader, subscription: Subscription, newest: int, *, config: Config, now: int) -> DuePush:
    person = registry.get_person(reader, subscription.person)
    if person is None or not person.is_active:
        return DuePush(subscription, newest, [], has_left=True)
    events = store.next_events(reader, REQUEST_ACTIONS, subscription.next_idx, limit=MAX_ASKED)
    through = newest if len(events) < MAX_ASKED else events[-1][0]  # the next message covers the later requests
    ids = [object for index, _ in events if (object := entry(reader, index).object) is not None]
    questions = approvals.list_answerable(reader, ids, person.person_id, everything=config.approvers_of_all, now=now)
    return DuePush(subscription, through, questions, has_left=False)


def claim_push(tx: Tx, subscription: Subscription) -> Subscription | None:
    """Claim the next message to a browser for this process, and return the subscription; None if another process has
    the claim or has handled the message, or the next attempt is not due.
    """
    until = tx.now + (PUSH_TRY_S + 5) * SECOND
    if not store.claim_subscription(tx, subscription, until=until):
        return None
    return store.get_subscription(tx, subscription.subscription_id)


def skip_pushes(tx: Tx, due: Collection[DuePush]) -> None:
    """Mark the ledger entries up to `through` as handled for each of these browsers, without a message. The caller
    passes browsers whose persons have no request to answer.
    """
    for one in due:
        store.skip_subscription(tx, one.subscription.subscription_id, idx=one.through + 1)


def push_message(reader: Reader, questions: Sequence[Question]) -> PushMessage:
    """Return the push message about these approval requests (at least one)."""
    if len(questions) > 1:
        return PushMessage(f"{len(questions)} approval requests wait for an answer", "", "approvals")
    (question,) = questions
    agent = registry.get_agent(reader, question.agent)
    name = plain_text(agent.name if agent else question.agent)
    return PushMessage(f"{name} asks for approval", plain_text(question.tool), f"approvals/{question.approval_id}")
