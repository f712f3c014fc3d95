"""Stored proofs that were used. A proof can be used once."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.trust.model import Spend, Spent

_SPENT_SINCE = sql("select seq, digest, until from spent where seq > :seq order by seq")
_ADD_SPENT = sql("insert into spent (seq, digest, until) values (:seq, :digest, :until)")
_IS_SPENT = sql("select seq from spent where digest = :digest")
_PRUNE_SPENT = sql(
    """delete from spent where seq in (select seq from spent order by seq limit :limit) and until <= :before
       and seq < (select max(seq) from spent)"""
)


def is_older_than_loss(tx: Tx, one: Spend) -> bool:
    """Return whether a proof was made before the last loss of history was detected, so that it may have been used in
    the lost part.
    """
    return one.made <= tx.pin.lost_at


def spend(tx: Tx, one: Spend) -> bool:
    """Store a proof as used; return false if it was stored before, or if it may have been used in a part of the history
    that the database lost. Return false also for an expired proof, because the record of its first use may already have
    been deleted.

    Lookups use a set in memory; the database has only a log of used proofs, because an index by digest would cost a
    database page for each proof.
    """
    spent = tx.get_singleton(Spent)
    if spent.read_in is not tx:  # during this transaction, no other process adds a proof
        spent.add_rows(tx.all(_SPENT_SINCE, seq=spent.seq))
        spent.read_in = tx
    if tx.now >= one.until or one.digest in spent or is_older_than_loss(tx, one):
        return False
    spent.add(one.digest, one.until)
    tx.defer(_write_spent, one)
    return True


def _write_spent(tx: Tx, spends: list[Spend]) -> None:
    spent = tx.get_singleton(Spent)
    spent.forget(now=tx.now)
    spent.read_in = None
    tx.many(_ADD_SPENT, [(seq, one.digest, one.until) for seq, one in enumerate(spends, spent.seq + 1)])


def is_spent(reader: Reader, digest: bytes) -> bool:
    """Return whether the database contains the digest of a used proof. The query reads the whole table."""
    return reader.one(_IS_SPENT, digest=digest) is not None


def prune_spent(tx: Tx, *, before: int, limit: int) -> int:
    """Delete used proofs that expired by `before` (microseconds), at most the `limit` oldest rows; return their number.

    The newest row is always kept, so that the numbers of rows continue to increase: other processes read only rows with
    higher numbers.
    """
    return tx.run(_PRUNE_SPENT, before=before, limit=limit)
