"""Stored client secrets of agents and resources."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.trust.model import Secret

_SECRETS = sql(
    "select id, agent, digest, created_at, expires_at from client_secret where agent = :holder order by created_at, id",
    steady=True,
)
_SECRET_HOLDERS = sql("select distinct agent from client_secret")
_ADD_SECRET = sql(
    """insert into client_secret (id, agent, digest, created_at, expires_at)
       values (:id, :holder, :digest, :created_at, :expires_at)"""
)
_DELETE_SECRET = sql("delete from client_secret where id = :id")


def secrets(reader: Reader, holder: str) -> list[Secret]:
    """Return the client secrets of an agent or a resource, the oldest first, including expired secrets."""
    return [Secret(*row) for row in reader.all(_SECRETS, holder=holder)]


def secret_holders(reader: Reader) -> list[str]:
    """Return the ids of all agents and resources that have a client secret."""
    return [holder for (holder,) in reader.all(_SECRET_HOLDERS)]


def add_secret(tx: Tx, one: Secret) -> None:
    """Store a client secret."""
    tx.touch("secret", one.id)
    tx.send(_ADD_SECRET, **one._asdict())


def delete_secret(tx: Tx, id: str) -> None:
    """Delete a client secret."""
    tx.touch("secret", id)
    tx.send(_DELETE_SECRET, id=id)
