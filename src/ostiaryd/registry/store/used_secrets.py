"""Stored prints of the secrets that proxies put into requests of agents. The package `secrets` adds them through
`registry.flows`.
"""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql

_UNTIL = sql("select until from used_secret where agent = :agent and digest = :digest")
_COUNT = sql("select count(*) from used_secret where agent = :agent and until > :now")
_PUT = sql(
    """insert into used_secret (agent, digest, prints, until) values (:agent, :digest, :prints, :until)
       on conflict (agent, digest) do update set until = excluded.until"""
)
_PRINTS = sql("select prints from used_secret where agent = :agent and until > :now")
_USERS = sql("select agent, max(until) from used_secret where until > :now group by agent order by agent")
_FORGET = sql("delete from used_secret where until <= :before")


def get_until(reader: Reader, agent: str, digest: bytes) -> int:
    """Return the time until which a secret is remembered for an agent, in microseconds; 0 if it is not."""
    row = reader.one(_UNTIL, agent=agent, digest=digest)
    return 0 if row is None else int(row[0])


def count(reader: Reader, agent: str, *, now: int) -> int:
    """Return the number of secrets that are remembered for an agent."""
    [[number]] = reader.all(_COUNT, agent=agent, now=now)
    return int(number)


def put(tx: Tx, agent: str, digest: bytes, prints: bytes, *, until: int) -> None:
    """Store the prints (keyed hashes) of a secret, or extend the time for which they are stored."""
    tx.send(_PUT, agent=agent, digest=digest, prints=prints, until=until)


def list_prints(reader: Reader, agent: str, *, now: int) -> list[bytes]:
    """Return the stored prints (keyed hashes) of the secrets that proxies put into requests of an agent."""
    return [bytes(prints) for (prints,) in reader.all(_PRINTS, agent=agent, now=now)]


def list_secret_users(reader: Reader, *, now: int) -> list[tuple[str, int]]:
    """Return the agents with remembered secrets, each with the time until which its calls are searched
    (microseconds).
    """
    return [(agent, int(until)) for agent, until in reader.all(_USERS, now=now)]


def forget(tx: Tx, *, before: int) -> int:
    """Delete the prints (keyed hashes of secrets) whose time ended before `before` (microseconds); return the number of
    deleted prints.
    """
    return tx.run(_FORGET, before=before)
