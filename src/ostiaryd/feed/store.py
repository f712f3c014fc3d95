"""What the feed remembers: how far each spool was reported, and for whom a token was."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql

_SPOOL = sql("select resource_id, next_number, closed_at from spool where id = :id")
_SAVE = sql(
    """insert into spool (id, resource_id, next_number, reported_at) values (:id, :resource_id, :next, :now)
       on conflict (id) do update set next_number = excluded.next_number, reported_at = excluded.reported_at"""
)
_CLOSE = sql("update spool set closed_at = :now where id = :id")
_TURN = sql("update spool set turn = :turn where id = :id and turn < :turn")
_AUDIENCE = sql("select audience from holding where id = :id")
_ENDED = sql(
    """select id, expires_at from holding
       where ended_at > :since and expires_at > :now and audience = :audience order by id"""
)


def spool(reader: Reader, id: str) -> tuple[str, int, bool] | None:
    """(resource, number that must come next, whether it is closed) of a spool, or None for a new one."""
    row = reader.one(_SPOOL, id=id)
    return None if row is None else (row[0], row[1], row[2] is not None)


def save_spool(tx: Tx, id: str, *, resource_id: str, next: int) -> None:
    tx.run(_SAVE, id=id, resource_id=resource_id, next=next, now=tx.now)


def take_turn(tx: Tx, id: str, turn: int) -> bool:
    """Whether no later one has been heard in that spool, nor this one."""
    return tx.run(_TURN, id=id, turn=turn) == 1


def close_spool(tx: Tx, id: str) -> None:
    tx.run(_CLOSE, id=id, now=tx.now)


def audience(reader: Reader, token: str) -> str | None:
    """The resource that a token is for, if it is known."""
    row = reader.one(_AUDIENCE, id=token)
    return None if row is None else row[0]


def ended_tokens(reader: Reader, audience: str, *, since: int, now: int) -> list[tuple[str, int]]:
    """Tokens for that resource that were ended since and would still be alive: (jti, when not any more)."""
    return [(id, until) for id, until in reader.all(_ENDED, audience=audience, since=since, now=now)]
