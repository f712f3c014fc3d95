"""Stored restrictions of agents. The package `incidents` adds them through `registry.flows`; guards and the token
endpoint apply them.

The row of an agent contains the end of its last restriction, so this table is read only for restricted agents.
"""

from __future__ import annotations

from ostiary.decision.access import Restriction
from ostiary.decision.access.restrictions import MINUTE, RestrictionKind
from ostiaryd.ground.database import Reader, Tx, sql

_OF_AGENT = sql("select kind, most, since, until from hold where agent = :agent order by kind", steady=True)
_IN_FORCE = sql("select agent, kind, most, since, until from hold where until > :now order by agent, kind")
_PUT = sql(
    """insert into hold (agent, kind, most, since, until) values (:agent, :kind, :most, :since, :until)
       on conflict (agent, kind) do update
       set most = excluded.most, since = excluded.since, until = excluded.until"""
)
_END = sql("update hold set until = :now where agent = :agent and kind = :kind")
_NOTE = sql(
    """update agent set held_until = (select coalesce(max(until), 0) from hold where hold.agent = agent.agent_id)
       where agent_id = :agent"""
)
_TAKE = sql(
    """update hold set calls = case when minute >= :minute then calls + 1 else 1 end,
       minute = case when minute >= :minute then minute else :minute end
       where agent = :agent and kind = 'throttle' and until > :now
       and most > case when minute >= :minute then calls else 0 end"""
)
_FORGET = sql("delete from hold where until <= :before")


def list_restrictions_of_agent(reader: Reader, agent: str, *, now: int) -> tuple[Restriction, ...]:
    """Return the restrictions of an agent that are in force at `now` (microseconds)."""
    restrictions = [Restriction(*row) for row in reader.all(_OF_AGENT, agent=agent)]
    return tuple(one for one in restrictions if one.until > now)


def list_restrictions(reader: Reader, *, now: int) -> list[tuple[str, Restriction]]:
    """Return all restrictions in force at `now` (microseconds), as (agent id, restriction)."""
    return [(agent, Restriction(*row)) for agent, *row in reader.all(_IN_FORCE, now=now)]


def put(tx: Tx, agent: str, restriction: Restriction) -> None:
    """Insert or replace a restriction."""
    tx.send(
        _PUT,
        agent=agent,
        kind=restriction.kind,
        most=restriction.limit,
        since=restriction.since,
        until=restriction.until,
    )
    tx.send(_NOTE, agent=agent)


def count_call(tx: Tx, agent: str) -> bool:
    """Count a call of a throttled agent. Return false if it exceeds the limit for this minute."""
    return tx.run(_TAKE, agent=agent, now=tx.now, minute=tx.now // MINUTE) == 1


def end(tx: Tx, agent: str, kind: RestrictionKind) -> None:
    """End a restriction of an agent now."""
    tx.send(_END, agent=agent, kind=kind, now=tx.now)
    tx.send(_NOTE, agent=agent)


def forget(tx: Tx, *, before: int) -> int:
    """Delete the restrictions that ended before `before` (microseconds); return their number."""
    return tx.run(_FORGET, before=before)
