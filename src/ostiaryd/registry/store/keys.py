"""Stored public keys of agents, by thumbprint. A key is never deleted, so that it cannot be registered for another
agent.
"""

from __future__ import annotations

from ostiary.protocol import canonical
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.registry.model import AgentId, AgentKey

_SELECT = "select jkt, agent, alg, jwk, added_at, not_after, revoked_at from agent_key "
_BY_JKT = sql(_SELECT + "where jkt = :jkt")
_OWNER = sql(
    """select agent from agent_key where jkt = :jkt
       union all select resource_id from resource where jkt = :jkt
       union all select person from person_key where jkt = :jkt"""
)
_OF_AGENT = sql(_SELECT + "where agent = :agent order by added_at, jkt")
_ACTIVE = sql(
    _SELECT
    + "where agent = :agent and revoked_at is null and (not_after is null or not_after > :now) order by added_at, jkt"
)
_INSERT = sql(
    """insert into agent_key (jkt, agent, alg, jwk, added_at, not_after)
       values (:jkt, :agent, :alg, :jwk, :added_at, :not_after)"""
)
_REVOKE = sql("update agent_key set revoked_at = :now where jkt = :jkt and revoked_at is null")
_SHORTEN = sql(
    """update agent_key set not_after = :not_after
       where agent = :agent and jkt <> :kept and revoked_at is null and (not_after is null or not_after > :not_after)
       returning jkt"""
)
_DUE = sql("select jkt from agent_key where revoked_at is null and not_after <= :now order by not_after limit :limit")
_REVOKED = sql("select jkt, revoked_at from agent_key where revoked_at > :since order by revoked_at, jkt")


def insert(tx: Tx, key: AgentKey) -> None:
    """Insert a key."""
    tx.touch("key", key.jkt)
    jwk = canonical.encode(key.jwk).decode()
    tx.send(_INSERT, jkt=key.jkt, agent=key.agent, alg=key.alg, jwk=jwk, added_at=key.added_at, not_after=key.not_after)


def get_key(reader: Reader, jkt: str) -> AgentKey | None:
    """Return a key by its thumbprint; None if it was never registered."""
    row = reader.one(_BY_JKT, jkt=jkt)
    return None if row is None else _key(row)


def find_key_owner(reader: Reader, jkt: str) -> str | None:
    """Return the id of the agent, the resource (for a guard) or the person that registered the key, even if it was
    revoked; None for an unknown key.
    """
    row = reader.one(_OWNER, jkt=jkt)
    return None if row is None else str(row[0])


def of_agent(reader: Reader, agent: AgentId) -> list[AgentKey]:
    """Return all keys of an agent, including revoked keys."""
    return [_key(row) for row in reader.all(_OF_AGENT, agent=agent)]


def list_active(reader: Reader, agent: AgentId, *, now: int) -> list[AgentKey]:
    """Return the keys with which an agent can authenticate at `now` (microseconds), the oldest first."""
    return [_key(row) for row in reader.all(_ACTIVE, agent=agent, now=now)]


def revoke(tx: Tx, jkt: str) -> int:
    """Revoke a key; return 1, or 0 if it was revoked before."""
    tx.touch("key", jkt)
    return tx.run(_REVOKE, jkt=jkt, now=tx.now)


def shorten_others(tx: Tx, agent: AgentId, *, kept: str, not_after: int) -> int:
    """Set the end of all keys of an agent except `kept` to `not_after` (microseconds), unless a key ends earlier;
    return the number of changed keys.
    """
    shortened = tx.all(_SHORTEN, agent=agent, kept=kept, not_after=not_after)
    for (jkt,) in shortened:
        tx.touch("key", jkt)
    return len(shortened)


def list_due(reader: Reader, *, now: int, limit: int) -> list[str]:
    """Return the thumbprints of at most `limit` expired keys that are not marked as revoked yet."""
    return [row[0] for row in reader.all(_DUE, now=now, limit=limit)]


def list_revoked_keys(reader: Reader, *, since: int) -> list[tuple[str, int]]:
    """Return the keys that were revoked after `since` (microseconds), as (thumbprint, time)."""
    return [(jkt, at) for jkt, at in reader.all(_REVOKED, since=since)]


def _key(row: Row) -> AgentKey:
    jkt, agent, alg, jwk, added_at, not_after, revoked_at = row
    parsed = canonical.parse(jwk)
    assert isinstance(parsed, dict)
    return AgentKey(
        jkt=jkt, agent=agent, alg=alg, jwk=parsed, added_at=added_at, not_after=not_after, revoked_at=revoked_at
    )
