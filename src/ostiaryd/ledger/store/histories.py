"""Histories of the log, the known losses of entries, and the lost stops that were replayed."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.ground.database.pin import Head
from ostiaryd.ledger.store.tree import has_tree

_HISTORIES = sql("select id, ended_at from log_history")
_END_HISTORY = sql("update log_history set ended_at = :now where ended_at is null")
_BEGIN_HISTORY = sql("insert into log_history (id, began_at) values (:id, :now)")
_LOSSES = sql("select source, history, size, root, ours, at from loss order by size desc, source")
_PUT_LOSS = sql(
    """insert into loss (source, history, size, root, ours, at) values (:source, :history, :size, :root, :ours, :at)
       on conflict (source) do update set history = excluded.history, size = excluded.size, root = excluded.root
       where loss.size < excluded.size"""
)
_END_LOST = sql(
    """insert into log_history (id, began_at, ended_at)
       select history, :now, :now from loss
       where history <> '' and history not in (select id from log_history) group by history"""
)
_DROP_LOSSES = sql("delete from loss")
_REPLAYED = sql("select kind, subject, seen_at, source, at from replayed order by at, kind, subject")
_PUT_REPLAYED = sql(
    """insert into replayed (kind, subject, seen_at, source, at) values (:kind, :subject, :seen_at, :source, :at)
       on conflict (kind, subject) do update set seen_at = excluded.seen_at, source = excluded.source, at = excluded.at
       where replayed.seen_at < excluded.seen_at"""
)


class Loss(NamedTuple):
    """A head of the ledger that `source` has seen and that the database did not have when it had `ours` entries."""

    source: str
    head: Head
    ours: int
    at: int
    """microseconds since the epoch"""


class Replayed(NamedTuple):
    """A lost stop that `source` had kept and that was carried out again. The server had first sent it at `seen_at`."""

    kind: str
    subject: str
    seen_at: int
    source: str
    at: int


def histories(reader: Reader) -> dict[str, bool]:
    """Return the ids of all histories of this log, each with whether it has ended by a recovery."""
    return {id: ended_at is not None for id, ended_at in reader.all(_HISTORIES)}


def has_head(reader: Reader, head: Head) -> bool:
    """Return whether the log has had that head, or a recovery has dealt with it since.

    A head of another log counts as dealt with: callers check before, by the key, that the head is of this log. A head
    without a history id is older than history ids.
    """
    has_ended = histories(reader)
    history = head.history or next((id for id in has_ended), "")
    if history not in has_ended:
        return False
    if has_ended[history] or (not head.history and len(has_ended) > 1):
        return True
    return has_tree(reader, head)


def renew_history(tx: Tx) -> str:
    """End the present history and every history that a loss names. Begin another history without losses, and return its
    id.

    A database that was restored from before a recovery does not have the later histories; these have ended too.
    """
    id = tx.random(16).hex()
    tx.run(_END_HISTORY, now=tx.now)
    tx.run(_END_LOST, now=tx.now)
    tx.run(_BEGIN_HISTORY, id=id, now=tx.now)
    tx.run(_DROP_LOSSES)
    return id


def losses(reader: Reader) -> list[Loss]:
    """Return the known missing parts of the history, the largest head first. If there is any, the server is in
    recovery.
    """
    rows = reader.all(_LOSSES)
    return [
        Loss(source, Head(b"", history, size, bytes.fromhex(root)), ours, at)
        for source, history, size, root, ours, at in rows
    ]


def put_loss(tx: Tx, loss: Loss) -> None:
    """Record a head that the database lacks; only the largest head of each source is kept."""
    head = loss.head
    tx.run(
        _PUT_LOSS,
        source=loss.source,
        history=head.history,
        size=head.size,
        root=head.root.hex(),
        ours=loss.ours,
        at=loss.at,
    )


def replayed(reader: Reader) -> list[Replayed]:
    """Return the lost stops that were replayed, the first one first."""
    return [Replayed(*row) for row in reader.all(_REPLAYED)]


def put_replayed(tx: Tx, stop: Replayed) -> bool:
    """Record a replayed stop. Return whether it is later than the recorded stop of the same subject."""
    count = tx.run(
        _PUT_REPLAYED, kind=stop.kind, subject=stop.subject, seen_at=stop.seen_at, source=stop.source, at=stop.at
    )
    return count == 1
