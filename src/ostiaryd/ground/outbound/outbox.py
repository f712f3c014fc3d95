"""The outbox: messages for other parties, written by the act that causes them, numbered in commit order.

Numbers of one database never repeat and never decrease: writers have one order, so a reader of a number has read all
messages before it.
"""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql

_INSERT = sql(
    """insert into outbox (seq, topic, body, at)
       values ((select coalesce(max(seq), 0) + 1 from outbox), :topic, :body, :at)"""
)
_AFTER = sql("select seq, at, body from outbox where topic = :topic and seq > :after order by seq limit :count")
_HEAD = sql("select coalesce(max(seq), 0) from outbox")
_OLDEST = sql("select coalesce(min(seq), 0) from outbox where topic = :topic")
_PRUNE = sql("delete from outbox where topic = :topic and at < :before and seq < (select max(seq) from outbox)")


def emit(tx: Tx, topic: str, body: bytes) -> None:
    """Append a message to `topic`; listeners wake after the commit."""
    tx.run(_INSERT, topic=topic, body=body, at=tx.now)
    tx.topics.add(topic)


def after(reader: Reader, topic: str, seq: int, *, count: int = 1000) -> list[tuple[int, int, bytes]]:
    """Return messages of `topic` numbered above `seq`: (number, time in microseconds, body), oldest first."""
    return [(number, at, bytes(body)) for number, at, body in reader.all(_AFTER, topic=topic, after=seq, count=count)]


def head(reader: Reader) -> int:
    """Return the highest number so far, over all topics."""
    row = reader.one(_HEAD)
    assert row is not None
    return int(row[0])


def oldest(reader: Reader, topic: str) -> int:
    """Return the lowest number of `topic` that is still stored; 0 if there is none."""
    row = reader.one(_OLDEST, topic=topic)
    assert row is not None
    return int(row[0])


def prune(tx: Tx, topic: str, *, before: int) -> int:
    """Delete messages older than `before`; the newest message stays, so that numbers never repeat."""
    return tx.run(_PRUNE, topic=topic, before=before)
