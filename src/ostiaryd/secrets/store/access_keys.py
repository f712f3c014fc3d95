"""Access keys of agents for the AWS API, with their encrypted secret keys."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.sealing import Envelope

_COLUMNS = "id, agent, network, wrapped_key, sealed, created_at, expires_at"
_GET = sql(f"select {_COLUMNS} from access_key where id = :id", steady=True)
_OF_AGENT = sql(f"select {_COLUMNS} from access_key where agent = :agent order by created_at, id")
_INSERT = sql(
    f"""insert into access_key ({_COLUMNS})
        values (:id, :agent, :network, :wrapped_key, :sealed, :created_at, :expires_at)"""
)
_DELETE = sql("delete from access_key where id = :id")
_PRUNE = sql(
    "delete from access_key where id in (select id from access_key where expires_at < :before limit 1000)", prunes=True
)


class AccessKey(NamedTuple):
    """An access key of an agent for the AWS API of this server. Its id is also the id of its holding, the record that
    ends with the agent. Times in microseconds.
    """

    id: str
    agent: str
    network: str
    secret: Envelope
    created_at: int
    expires_at: int


def get(reader: Reader, id: str) -> AccessKey | None:
    """Return the access key with the id `id`; None if there is none."""
    return reader.one_as(_GET, _key, id=id)


def of_agent(reader: Reader, agent: str) -> list[AccessKey]:
    """Return the access keys of an agent, the oldest first."""
    return [_key(row) for row in reader.all(_OF_AGENT, agent=agent)]


def insert(tx: Tx, key: AccessKey) -> None:
    """Insert an access key with a new id."""
    tx.run(
        _INSERT,
        id=key.id,
        agent=key.agent,
        network=key.network,
        created_at=key.created_at,
        expires_at=key.expires_at,
        **key.secret._asdict(),
    )


def delete(tx: Tx, id: str) -> None:
    """Delete an access key."""
    tx.run(_DELETE, id=id)


def prune(tx: Tx) -> int:
    """Delete at most 1,000 access keys that have expired; return their number."""
    return tx.run(_PRUNE, before=tx.now)


def _key(row: Row) -> AccessKey:
    id, agent, network, wrapped_key, sealed, created_at, expires_at = row
    return AccessKey(id, agent, network, Envelope(bytes(wrapped_key), bytes(sealed)), created_at, expires_at)
