"""Tables of webhooks and push subscriptions, and the search for the ledger entries that each must still deliver."""

from __future__ import annotations

from collections.abc import Sequence

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.notifications.model.web_push import Subscription, SubscriptionId
from ostiaryd.notifications.model.webhooks import Webhook, WebhookId

_COLUMNS = (
    "webhook_id, url, form, actions, created_at, next_idx, attempts, due_at, busy_until, delivered, delivered_at, "
    "lost, failed, gone_at"
)
_ALL = sql(f"select {_COLUMNS} from webhook order by webhook_id")
_GET = sql(f"select {_COLUMNS} from webhook where webhook_id = :id")
_BY_URL = sql(f"select {_COLUMNS} from webhook where url = :url")
_INSERT = sql(
    """insert into webhook
         (webhook_id, url, form, actions, created_at, next_idx, attempts, due_at, busy_until, delivered, lost, failed)
       values (:id, :url, :form, :actions, :created_at, :next_idx, 0, 0, 0, 0, 0, '')"""
)
_DELETE = sql("delete from webhook where webhook_id = :id")
_CLAIM = sql(
    """update webhook set busy_until = :until, next_idx = :idx
       where webhook_id = :id and gone_at is null and busy_until <= :now and due_at <= :now and next_idx <= :idx"""
)
_SETTLE = sql(
    """update webhook set next_idx = :next_idx, attempts = :attempts, due_at = :due_at, busy_until = :busy_until,
         delivered = :delivered, delivered_at = :delivered_at, lost = :lost, failed = :failed, gone_at = :gone_at
       where webhook_id = :id and busy_until = :claim"""
)
_SKIP = sql("update webhook set next_idx = :idx where webhook_id = :id and busy_until <= :now and next_idx < :idx")
_HAPPENED = "from entry where action = :action and idx >= :start and outcome not in ('refused', 'error')"
_NEXT = sql(f"select idx {_HAPPENED} order by idx limit :limit")
_WAITING = sql(f"select count(*), min(at) from (select at {_HAPPENED} order by idx limit :limit) waiting")


def webhooks(reader: Reader) -> list[Webhook]:
    """Return all webhooks, in the order of their ids."""
    return [_webhook(row) for row in reader.all(_ALL)]


def get(reader: Reader, id: str) -> Webhook | None:
    """Return the webhook with this id; None if there is none."""
    row = reader.one(_GET, id=id)
    return None if row is None else _webhook(row)


def by_url(reader: Reader, url: str) -> Webhook | None:
    """Return the webhook with this URL; None if there is none."""
    row = reader.one(_BY_URL, url=url)
    return None if row is None else _webhook(row)


def insert(tx: Tx, webhook: Webhook) -> None:
    """Insert a new webhook."""
    tx.run(
        _INSERT,
        id=webhook.webhook_id,
        url=webhook.url,
        form=webhook.form,
        actions=" ".join(webhook.actions),
        created_at=webhook.created_at,
        next_idx=webhook.next_idx,
    )


def delete(tx: Tx, id: WebhookId) -> int:
    """Delete a webhook; return the number of deleted rows."""
    return tx.run(_DELETE, id=id)


def claim(tx: Tx, id: WebhookId, *, idx: int, until: int) -> bool:
    """Claim the delivery of entry `idx` for this process until `until` (microseconds), and mark earlier entries as
    handled. Return False if another process has the claim or has handled `idx`, or if the webhook has ended or is not
    due.
    """
    return tx.run(_CLAIM, id=id, idx=idx, until=until, now=tx.now) == 1


def settle(tx: Tx, webhook: Webhook, *, claim: int) -> bool:
    """Store the webhook after an attempt, unless another process has replaced the claim that ends at `claim`; return
    whether the webhook was stored.
    """
    changed = tx.run(
        _SETTLE,
        id=webhook.webhook_id,
        claim=claim,
        next_idx=webhook.next_idx,
        attempts=webhook.attempts,
        due_at=webhook.due_at,
        busy_until=webhook.busy_until,
        delivered=webhook.delivered,
        delivered_at=webhook.delivered_at,
        lost=webhook.lost,
        failed=webhook.failed,
        gone_at=webhook.gone_at,
    )
    return changed == 1


def skip(tx: Tx, id: WebhookId, *, idx: int) -> None:
    """Store that the webhook needs no entry before `idx`, unless a process has the claim of a delivery."""
    tx.run(_SKIP, id=id, idx=idx, now=tx.now)


def next_events(reader: Reader, actions: Sequence[str], start: int, *, limit: int) -> list[tuple[int, str]]:
    """Return (index, action) of the first `limit` entries from index `start` on with one of these actions, in order.
    Entries of refused or failed acts are left out.
    """
    rows = [
        (idx, action) for action in actions for (idx,) in reader.all(_NEXT, action=action, start=start, limit=limit)
    ]
    return sorted(rows)[:limit]


def waiting(reader: Reader, actions: Sequence[str], start: int, *, limit: int) -> tuple[int, int | None]:
    """Return the number of entries from index `start` on that wait for delivery, counted up to `limit` for each action,
    and the time of the oldest in microseconds (None if no entry waits).
    """
    counts = [reader.one(_WAITING, action=action, start=start, limit=limit) for action in actions]
    since = [row[1] for row in counts if row is not None and row[1] is not None]
    return sum(row[0] for row in counts if row is not None), min(since, default=None)


def _webhook(row: Row) -> Webhook:
    (
        id,
        url,
        form,
        actions,
        created_at,
        next_idx,
        attempts,
        due_at,
        busy_until,
        delivered,
        delivered_at,
        lost,
        failed,
        gone_at,
    ) = row
    return Webhook(
        webhook_id=id,
        url=url,
        form=form,
        actions=tuple(actions.split(" ")),
        created_at=created_at,
        next_idx=next_idx,
        attempts=attempts,
        due_at=due_at,
        busy_until=busy_until,
        delivered=delivered,
        delivered_at=delivered_at,
        lost=lost,
        failed=failed,
        gone_at=gone_at,
    )


_SUBSCRIPTION = (
    "subscription_id, person, endpoint, public_key, auth, browser, created_at, next_idx, attempts, due_at, busy_until"
)
_SUBSCRIPTIONS = sql(f"select {_SUBSCRIPTION} from push_subscription where person = :person order by subscription_id")
_GET_SUBSCRIPTION = sql(f"select {_SUBSCRIPTION} from push_subscription where subscription_id = :id")
_DUE = sql(
    f"""select {_SUBSCRIPTION} from push_subscription
        where next_idx <= :newest and due_at <= :now and busy_until <= :now order by next_idx limit :limit"""
)
_NEWEST = sql("select idx from entry where action = :action order by idx desc limit 1")
_INSERT_SUBSCRIPTION = sql(
    f"""insert into push_subscription ({_SUBSCRIPTION})
        values (:id, :person, :endpoint, :public_key, :auth, :browser, :created_at, :next_idx, 0, 0, 0)"""
)
_DELETE_SUBSCRIPTION = sql("delete from push_subscription where subscription_id = :id")
_DELETE_ENDPOINT = sql("delete from push_subscription where endpoint = :endpoint")
_CLAIM_SUBSCRIPTION = sql(
    """update push_subscription set busy_until = :until
       where subscription_id = :id and next_idx = :idx and busy_until <= :now and due_at <= :now"""
)
_SETTLE_SUBSCRIPTION = sql(
    """update push_subscription set next_idx = :next_idx, attempts = :attempts, due_at = :due_at, busy_until = 0
       where subscription_id = :id and busy_until = :claim"""
)
_SKIP_SUBSCRIPTION = sql(
    """update push_subscription set next_idx = :idx
       where subscription_id = :id and busy_until <= :now and next_idx < :idx"""
)


def subscriptions(reader: Reader, person: str) -> list[Subscription]:
    """Return the push subscriptions of a person, the oldest first."""
    return [_subscription(row) for row in reader.all(_SUBSCRIPTIONS, person=person)]


def get_subscription(reader: Reader, id: str) -> Subscription | None:
    """Return the push subscription with this id; None if there is none."""
    row = reader.one(_GET_SUBSCRIPTION, id=id)
    return None if row is None else _subscription(row)


def due_subscriptions(reader: Reader, *, newest: int, now: int, limit: int) -> list[Subscription]:
    """Return at most `limit` push subscriptions that have not handled the entry `newest`, are due at `now`
    (microseconds), and are claimed by no process.
    """
    return [_subscription(row) for row in reader.all(_DUE, newest=newest, now=now, limit=limit)]


def newest_of(reader: Reader, actions: Sequence[str]) -> int | None:
    """Return the index of the newest entry with one of these actions; None if there is none."""
    rows = [reader.one(_NEWEST, action=action) for action in actions]
    return max((row[0] for row in rows if row is not None), default=None)


def insert_subscription(tx: Tx, subscription: Subscription) -> None:
    """Insert a push subscription. The insertion replaces a subscription with the same endpoint, since one endpoint is
    one browser.
    """
    tx.run(_DELETE_ENDPOINT, endpoint=subscription.endpoint)
    tx.run(
        _INSERT_SUBSCRIPTION,
        id=subscription.subscription_id,
        person=subscription.person,
        endpoint=subscription.endpoint,
        public_key=subscription.public_key,
        auth=subscription.auth,
        browser=subscription.browser,
        created_at=subscription.created_at,
        next_idx=subscription.next_idx,
    )


def delete_subscription(tx: Tx, id: SubscriptionId) -> int:
    """Delete a push subscription; return the number of deleted rows."""
    return tx.run(_DELETE_SUBSCRIPTION, id=id)


def claim_subscription(tx: Tx, subscription: Subscription, *, until: int) -> bool:
    """Claim the next message to a browser for this process until `until` (microseconds). Return False if another
    process has the claim or has handled the message, or the next attempt is not due.
    """
    id, idx = subscription.subscription_id, subscription.next_idx
    return tx.run(_CLAIM_SUBSCRIPTION, id=id, idx=idx, until=until, now=tx.now) == 1


def settle_subscription(tx: Tx, after: Subscription, *, claim: int) -> None:
    """Store the state `after` of a subscription, unless another process has replaced the claim that ends at `claim`."""
    tx.run(
        _SETTLE_SUBSCRIPTION,
        id=after.subscription_id,
        claim=claim,
        next_idx=after.next_idx,
        attempts=after.attempts,
        due_at=after.due_at,
    )


def skip_subscription(tx: Tx, id: SubscriptionId, *, idx: int) -> None:
    """Store that the subscription needs no entry before `idx`, unless a process has the claim of a message."""
    tx.run(_SKIP_SUBSCRIPTION, id=id, idx=idx, now=tx.now)


def _subscription(row: Row) -> Subscription:
    id, person, endpoint, public_key, auth, *rest = row
    browser, created_at, next_idx, attempts, due_at, busy_until = rest
    return Subscription(
        subscription_id=id,
        person=person,
        endpoint=endpoint,
        public_key=bytes(public_key),
        auth=bytes(auth),
        browser=browser,
        created_at=created_at,
        next_idx=next_idx,
        attempts=attempts,
        due_at=due_at,
        busy_until=busy_until,
    )
