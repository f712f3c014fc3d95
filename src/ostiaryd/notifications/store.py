"""Webhooks, and the events that wait for them: entries of the ledger by their action."""

from __future__ import annotations

from collections.abc import Sequence

from ostiaryd.ground.database import Reader, Row, Tx, sql
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
    """Return all webhooks."""
    return [_webhook(row) for row in reader.all(_ALL)]


def get(reader: Reader, id: str) -> Webhook | None:
    """Return the webhook with this id."""
    row = reader.one(_GET, id=id)
    return None if row is None else _webhook(row)


def by_url(reader: Reader, url: str) -> Webhook | None:
    """Return the webhook with this URL."""
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
    """Claim the delivery of entry `idx` until then. Return False if it is claimed already, or not due."""
    return tx.run(_CLAIM, id=id, idx=idx, until=until, now=tx.now) == 1


def settle(tx: Tx, webhook: Webhook, *, claim: int) -> bool:
    """Write how it went; whether the claim, which ended at that instant, was still ours."""
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
    """Skip the entries before `idx`."""
    tx.run(_SKIP, id=id, idx=idx, now=tx.now)


def next_events(reader: Reader, actions: Sequence[str], start: int, *, limit: int) -> list[tuple[int, str]]:
    """Return index and action of the first successful entries from `start` on with one of these actions, in order."""
    rows = [
        (idx, action) for action in actions for (idx,) in reader.all(_NEXT, action=action, start=start, limit=limit)
    ]
    return sorted(rows)[:limit]


def waiting(reader: Reader, actions: Sequence[str], start: int, *, limit: int) -> tuple[int, int | None]:
    """Return the number of such entries from `start` on, at most `limit` per action, and the time of the oldest."""
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
