"""Histories of the ledger, the known losses of entries, and the lost stops that were applied again."""

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
_LOST_AT = sql(
    """select max(at) from (
           select at from loss
           union all select began_at as at from log_history where (select count(*) from log_history) > 1) as times"""
)
_DROP_LOSSES = sql("delete from loss")
_REPLAYED = sql("select kind, subject, seen_at, source, at from replayed order by at, kind, subject")
_PUT_REPLAYED = sql(
    """insert into replayed (kind, subject, seen_at, source, at) values (:kind, :subject, :seen_at, :source, :at)
       on conflict (kind, subject) do update set seen_at = excluded.seen_at, source = excluded.source, at = excluded.at
       where replayed.seen_at < excluded.seen_at"""
)


class Loss(NamedTuple):
    """A head of the ledger that this database lacks. `source` says who has seen the head, such as "the pin of this
    server". `ours` is the number of entries of the database at the detection, `at` the time of the detection.
    """

    source: str
    head: Head
    ours: int
    at: int
    """microseconds since the epoch"""


class Replayed(NamedTuple):
    """A lost stop that was applied again. `source` had kept it, `seen_at` is when the server first sent it to guards,
    `at` is when it was applied again (both microseconds since the epoch).
    """

    kind: str
    subject: str
    seen_at: int
    source: str
    at: int


def histories(reader: Reader) -> dict[str, bool]:
    """Return the id of each history of this ledger (the part between two recoveries), the first one first, with whether
    a recovery has ended it.
    """
    return {id: ended_at is not None for id, ended_at in reader.all(_HISTORIES)}


def has_head(reader: Reader, head: Head) -> bool:
    """Return whether the tree contains that head, or a recovery has ended the head's history (the part of the ledger
    between two recoveries), so that it need not be contained.

    A head of an unknown history is not contained. The caller has checked that the head is signed by this log. A head
    without a history id was made before histories had ids, and belongs to the first history.
    """
    has_ended = histories(reader)
    history = head.history or next((id for id in has_ended), "")
    if history not in has_ended:
        return False
    if has_ended[history] or (not head.history and len(has_ended) > 1):
        return True
    return has_tree(reader, head)


def renew_history(tx: Tx) -> str:
    """End the present history and each history that a loss names, delete the losses, and begin a new history. Return
    the id of the new history.

    A database that was restored from before a recovery does not contain the histories after that recovery; the losses
    name them.
    """
    id = tx.random(16).hex()
    tx.send(_END_HISTORY, now=tx.now)
    tx.send(_END_LOST, now=tx.now)
    tx.send(_BEGIN_HISTORY, id=id, now=tx.now)
    tx.send(_DROP_LOSSES)
    return id


def list_losses(reader: Reader) -> list[Loss]:
    """Return the known losses of entries, the largest head first. If there is a loss, the server is in recovery."""
    rows = reader.all(_LOSSES)
    return [
        Loss(source, Head(b"", history, size, bytes.fromhex(root)), ours, at)
        for source, history, size, root, ours, at in rows
    ]


def lost_at(reader: Reader) -> int:
    """Return the time of the last detection of a loss or of the last recovery, in microseconds; 0 if there was none."""
    row = reader.one(_LOST_AT)
    return 0 if row is None or row[0] is None else int(row[0])


def put_loss(tx: Tx, loss: Loss) -> None:
    """Store a loss (a head of the ledger that the database lacks, and its source); of each source, only the loss with
    the largest head is kept.
    """
    head = loss.head
    tx.send(
        _PUT_LOSS,
        source=loss.source,
        history=head.history,
        size=head.size,
        root=head.root.hex(),
        ours=loss.ours,
        at=loss.at,
    )


def list_replayed(reader: Reader) -> list[Replayed]:
    """Return the lost stops that were applied again, the first one first."""
    return [Replayed(*row) for row in reader.all(_REPLAYED)]


def put_replayed(tx: Tx, stop: Replayed) -> bool:
    """Store a stop that is applied again. Return whether the stop is the first of its subject, or later than the stored
    stop of this subject; only then must the caller apply the stop.
    """
    count = tx.run(
        _PUT_REPLAYED, kind=stop.kind, subject=stop.subject, seen_at=stop.seen_at, source=stop.source, at=stop.at
    )
    return count == 1
