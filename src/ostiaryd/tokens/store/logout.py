"""Logout tokens that wait to be delivered (Back-Channel Logout 1.0)."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql

_PUT = sql(
    """insert into logout_token (id, client_id, uri, person, session, attempts, next_at, expires_at)
       values (:id, :client_id, :uri, :person, :session, 0, :now, :expires_at)"""
)
_DUE = sql(
    """select id, client_id, uri, person, session, attempts, expires_at from logout_token
       where next_at <= :now order by next_at limit :limit"""
)
_RETRY = sql("update logout_token set attempts = attempts + 1, next_at = :next_at where id = :id")
_DELETE = sql("delete from logout_token where id = :id")


class Waiting(NamedTuple):
    """A logout token that is not delivered; `id` becomes its `jti`."""

    id: str
    client_id: str
    uri: str
    person: str
    session: str
    attempts: int
    expires_at: int


def put(tx: Tx, waiting: Waiting) -> None:
    """Store a logout token to be delivered at once."""
    tx.run(
        _PUT,
        id=waiting.id,
        client_id=waiting.client_id,
        uri=waiting.uri,
        person=waiting.person,
        session=waiting.session,
        now=tx.now,
        expires_at=waiting.expires_at,
    )


def due(reader: Reader, *, now: int, limit: int) -> list[Waiting]:
    """Return the logout tokens to deliver now, the oldest first."""
    return [Waiting(*row) for row in reader.all(_DUE, now=now, limit=limit)]


def retry(tx: Tx, id: str, *, next_at: int) -> None:
    """Note a failed attempt, and the time of the next one."""
    tx.run(_RETRY, id=id, next_at=next_at)


def delete(tx: Tx, id: str) -> bool:
    """Forget a logout token; return whether it was there."""
    return tx.run(_DELETE, id=id) == 1
