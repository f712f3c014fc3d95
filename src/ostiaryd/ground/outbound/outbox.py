"""The outbox: messages for other processes and parties, written by the act that causes them, and numbered in the order
of commits.

Numbers never repeat and never decrease. All writers commit in one order, so a reader that has seen a number has seen
all messages with lower numbers.
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
_PRUNE = sql(
    """delete from outbox
       where topic = :topic and at < :before and seq <= :through and seq < (select max(seq) from outbox)"""
)
_ALL = 2**63 - 1


def emit(tx: Tx, topic: str, body: bytes) -> None:
    """Append a message to a topic of the outbox in this transaction.

    After the commit, the writer calls its listeners with the names of the topics that have new messages; a listener
    reads the messages with `messages_after`.
    """
    tx.send(_INSERT, topic=topic, body=body, at=tx.now)
    tx.topics.add(topic)


def messages_after(reader: Reader, topic: str, seq: int, *, count: int = 1000) -> list[tuple[int, int, bytes]]:
    """Return at most `count` messages of a topic with numbers above `seq`, the oldest first, as (number, time in
    microseconds, body).
    """
    return [(number, at, bytes(body)) for number, at, body in reader.all(_AFTER, topic=topic, after=seq, count=count)]


def highest_number(reader: Reader) -> int:
    """Return the highest number of all messages so far, in all topics; 0 if there was none."""
    row = reader.one(_HEAD)
    assert row is not None
    return int(row[0])


def lowest_number(reader: Reader, topic: str) -> int:
    """Return the lowest number of a stored message of a topic; 0 if there is none."""
    row = reader.one(_OLDEST, topic=topic)
    assert row is not None
    return int(row[0])


def prune(tx: Tx, topic: str, *, before: int, through: int = _ALL) -> int:
    """Delete messages of a topic that are older than `before` (microseconds) and have a number up to `through`, except
    the newest message of all topics, so that numbers never repeat. Return the number of deleted messages.
    """
    return tx.run(_PRUNE, topic=topic, before=before, through=through)
