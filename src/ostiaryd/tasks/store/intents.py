"""Stored intents of tasks, by digest. Each is written once, and shared by a task and the tasks under it."""

from __future__ import annotations

from ostiary.provenance.intent import Recorded
from ostiaryd.ground.database import Reader, Tx, sql

_INSERT = sql("insert into intent (digest, body) values (:digest, :body)")
_GET = sql("select body from intent where digest = :digest", steady=True)


def insert(tx: Tx, recorded: Recorded) -> str:
    """Store an intent; return its digest."""
    digest = recorded.digest
    tx.send(_INSERT, digest=digest, body=recorded.encode().decode())
    return digest


def get(reader: Reader, digest: str) -> Recorded:
    """Return an intent by its digest."""
    row = reader.one(_GET, digest=digest)
    assert row is not None  # the row exists, because rows are never deleted
    return Recorded.decode(row[0])
