"""Stored clients of login sessions, and logout tokens that wait for delivery (Back-Channel Logout 1.0)."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql

_PUT = sql(
    """insert into logout_token (id, client_id, uri, person, session, attempts, next_at, expires_at)
       values (:id, :client_id, :uri, :person, :session, 0, :now, :expires_at)"""
)
_DUE = sql(
    """select id, client_id, uri, person, session, attempts, expires_at from (
         select *, row_number() over (partition by client_id order by next_at) as place
         from logout_token where next_at <= :now) as waiting
       where place <= :share order by next_at limit :limit"""
)
_POSTPONE = sql("update logout_token set next_at = :next_at where client_id = :client_id and next_at < :next_at")
_RETRY = sql("update logout_token set attempts = attempts + 1, next_at = :next_at where id = :id")
_DELETE = sql("delete from logout_token where id = :id")
_PUT_CLIENT = sql(
    """insert into session_client (session, client_id, expires_at) values (:session, :client_id, :expires_at)
       on conflict do nothing"""
)
_CLIENTS_OF = sql("select client_id from session_client where session = :session order by client_id")
_DROP_CLIENTS = sql("delete from session_client where session = :session")
_PRUNE_CLIENTS = sql(
    """delete from session_client where expires_at <= :before and not exists
       (select 1 from person_session where id = session_client.session and person_session.expires_at > :before)""",
    prunes=True,
)


class Waiting(NamedTuple):
    """A logout token that waits for delivery. `id` becomes its `jti`; `attempts` is the number of failed attempts."""

    id: str
    client_id: str
    uri: str
    person: str
    session: str
    attempts: int
    expires_at: int


def put(tx: Tx, waiting: Waiting) -> None:
    """Store a logout token; its delivery is due at once."""
    tx.send(
        _PUT,
        id=waiting.id,
        client_id=waiting.client_id,
        uri=waiting.uri,
        person=waiting.person,
        session=waiting.session,
        now=tx.now,
        expires_at=waiting.expires_at,
    )


def due(reader: Reader, *, now: int, limit: int, share: int) -> list[Waiting]:
    """Return at most `limit` logout tokens that are due, oldest first, with at most `share` of each client."""
    return [Waiting(*row) for row in reader.all(_DUE, now=now, limit=limit, share=share)]


def postpone(tx: Tx, client_id: str, *, until: int) -> None:
    """Let all tokens for a client wait until the time `until` (microseconds) at least."""
    tx.send(_POSTPONE, client_id=client_id, next_at=until)


def record_failure(tx: Tx, id: str, *, next_at: int) -> None:
    """Record that a logout token was not delivered, and the time (microseconds) of the next attempt."""
    tx.send(_RETRY, id=id, next_at=next_at)


def delete(tx: Tx, id: str) -> bool:
    """Delete a logout token; return whether it was stored."""
    return tx.run(_DELETE, id=id) == 1


def put_client(tx: Tx, session: str, client_id: str, *, expires_at: int) -> None:
    """Record that a login session signed in its person at a client. `expires_at` is the present end of the session, in
    microseconds; a new login in the session postpones that end.
    """
    tx.send(_PUT_CLIENT, session=session, client_id=client_id, expires_at=expires_at)


def take_clients(tx: Tx, session: str) -> list[str]:
    """Delete the recorded clients of a login session, and return their ids."""
    clients = [client_id for (client_id,) in tx.all(_CLIENTS_OF, session=session)]
    tx.send(_DROP_CLIENTS, session=session)
    return clients


def prune_clients(tx: Tx, *, before: int) -> int:
    """Delete the recorded clients of login sessions that expired at or before `before` (microseconds); return the
    number of rows.
    """
    return tx.run(_PRUNE_CLIENTS, before=before)
