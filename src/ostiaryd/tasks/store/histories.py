"""Stored histories of calls: one row for the topmost task of a tree, and one row for each day of an agent or of its
standing task.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.provenance import history
from ostiary.provenance.history import NOTHING, History
from ostiaryd.ground.database import Reader, Tx, sql

_GET = sql("select seq, body from history where holder = :holder and day = :day")
_OPEN = sql(
    """insert into history (holder, day, seq, body) values (:holder, :day, 0, :body)
       on conflict (holder, day) do nothing"""
)
_LOCK = sql("update history set seq = seq where holder = :holder and day = :day")
_WRITE = sql("update history set seq = :seq, body = :body where holder = :holder and day = :day")
_DROP = sql("delete from history where holder = :holder")
_PRUNE = sql(
    """delete from history where (holder, day) in
           (select holder, day from history where day > 0 and day < :before limit :limit)"""
)


class HistoryRow(NamedTuple):
    """A stored history of allowed calls. `seq`: number of changes that were made to it so far."""

    seq: int
    history: History


_NONE = HistoryRow(0, NOTHING)


def get(reader: Reader, holder: str, day: int) -> HistoryRow:
    """Return the history of allowed calls of a holder (a task, or an agent on a day); an empty history if there is
    none.
    """
    row = reader.one(_GET, holder=holder, day=day)
    return _NONE if row is None else HistoryRow(row[0], history.unpack_history(bytes(row[1])))


def lock(tx: Tx, holder: str, day: int) -> HistoryRow:
    """Return the history of a holder, locked until the end of this act. If none is stored, store an empty history."""
    tx.send(_OPEN, holder=holder, day=day, body=history.pack_history(NOTHING))
    tx.send(_LOCK, holder=holder, day=day)
    return get(tx, holder, day)


def write(tx: Tx, holder: str, day: int, row: HistoryRow) -> None:
    """Replace the history of allowed calls of a holder (a task, or an agent on a day), which `lock` returned in this
    act.
    """
    tx.send(_WRITE, holder=holder, day=day, seq=row.seq, body=history.pack_history(row.history))


def drop(tx: Tx, holder: str) -> None:
    """Delete the histories of a holder."""
    tx.send(_DROP, holder=holder)


def prune(tx: Tx, *, before: int, limit: int) -> int:
    """Delete at most `limit` histories of allowed calls of days before the day `before`; return the number of deleted
    histories.
    """
    return tx.run(_PRUNE, before=before, limit=limit)
