"""Wrapped answers, stored under the keyed hash of their wrapping token."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.sealing import Envelope

_COLUMNS = "holding, accessor, agent, path, seconds, created_at, expires_at, wrapped_key, sealed"
_GET = sql(f"select {_COLUMNS} from wrapped_answer where digest = :digest")
_INSERT = sql(
    f"""insert into wrapped_answer (digest, {_COLUMNS}) values (:digest, :holding, :accessor, :agent, :path, :seconds,
        :created_at, :expires_at, :wrapped_key, :sealed)"""
)
_DELETE = sql("delete from wrapped_answer where digest = :digest")
_COUNT = sql("select count(*) from (select 1 from wrapped_answer where agent = :agent limit :limit) as counted")
_PRUNE = sql(
    """delete from wrapped_answer where digest in
        (select digest from wrapped_answer where expires_at < :before order by expires_at limit :limit)""",
    prunes=True,
)


class WrappedAnswer(NamedTuple):
    """A stored response of the Vault API that its wrapping token can open once. `path`: the path of the wrapped
    request. Times are microseconds since the epoch.
    """

    holding: str
    accessor: str
    agent: str
    path: str
    seconds: int
    created_at: int
    expires_at: int
    envelope: Envelope


def get(reader: Reader, digest: bytes) -> WrappedAnswer | None:
    """Return the answer whose wrapping token has this keyed hash; None if there is none."""
    return reader.one_as(_GET, _wrapped, digest=digest)


def insert(tx: Tx, digest: bytes, wrapped: WrappedAnswer) -> None:
    """Insert an answer that a wrapping token opens, under the digest of the token."""
    facts = wrapped._asdict()
    tx.run(_INSERT, digest=digest, **facts.pop("envelope")._asdict(), **facts)


def delete(tx: Tx, digest: bytes) -> None:
    """Delete the answer that the wrapping token with this digest opens."""
    tx.run(_DELETE, digest=digest)


def count(reader: Reader, agent: str, *, limit: int) -> int:
    """Return the number of stored wrapped answers of an agent, counted up to `limit`."""
    row = reader.one(_COUNT, agent=agent, limit=limit)
    return 0 if row is None else int(row[0])


def prune(tx: Tx, *, limit: int) -> int:
    """Delete at most `limit` wrapped answers that have expired; return their number."""
    return tx.run(_PRUNE, before=tx.now, limit=limit)


def _wrapped(row: Row) -> WrappedAnswer:
    holding, accessor, agent, path, seconds, created, expires, wrapped_key, sealed = row
    envelope = Envelope(bytes(wrapped_key), bytes(sealed))
    return WrappedAnswer(holding, accessor, agent, path, seconds, created, expires, envelope)
