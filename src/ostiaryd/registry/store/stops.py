"""Stored stops of the kill switch, and agents that wait for a person's decision. The package `incidents` writes both
tables.
"""

from __future__ import annotations

from ostiaryd.ground.database import Read, Reader, Row, Tx, sql
from ostiaryd.registry.model import Stop

_ALL = sql("select what, value, since, said_by, why, incident from stop order by what, value", steady=True)
_PUT = sql(
    """insert into stop (what, value, since, said_by, why, incident)
       values (:what, :value, :since, :said_by, :why, :incident) on conflict (what, value) do nothing"""
)
_DELETE = sql("delete from stop where what = :what and value = :value")
_AWAITS = sql("select incident from awaiting where agent = :agent")
_AWAIT = sql(
    """insert into awaiting (agent, incident) values (:agent, :incident)
       on conflict (agent) do update set incident = excluded.incident"""
)
_DONE = sql("delete from awaiting where agent = :agent")


def read_of_stops() -> Read:
    """Return the read that `list_stops` makes."""
    return Read(_ALL, {})


def list_stops(reader: Reader) -> list[Stop]:
    """Return all stops in force; they are few."""
    rows = reader.all(_ALL)
    return [_stop(row) for row in rows] if rows else []


def put(tx: Tx, stop: Stop) -> bool:
    """Store a stop. Return false if its target is already stopped."""
    tx.touch("stop", f"{stop.target_kind} {stop.value}")
    count = tx.run(
        _PUT,
        what=stop.target_kind,
        value=stop.value,
        since=stop.since,
        said_by=stop.said_by,
        why=stop.why,
        incident=stop.incident,
    )
    return count == 1


def delete(tx: Tx, target_kind: str, value: str) -> bool:
    """Delete a stop; return whether it was in force."""
    tx.touch("stop", f"{target_kind} {value}")
    return tx.run(_DELETE, what=target_kind, value=value) == 1


def find_awaited_incident(reader: Reader, agent: str) -> str | None:
    """Return the id of the incident on which a person must decide before the agent may act again; None if there is
    none.
    """
    row = reader.one(_AWAITS, agent=agent)
    return None if row is None else row[0]


def require_person(tx: Tx, agent: str, incident: str) -> None:
    """Make an agent wait for a person's decision on an incident."""
    tx.touch("awaiting", agent)
    tx.send(_AWAIT, agent=agent, incident=incident)


def release_agent(tx: Tx, agent: str) -> None:
    """End the wait of an agent for a person's decision."""
    tx.touch("awaiting", agent)
    tx.send(_DONE, agent=agent)


def _stop(row: Row) -> Stop:
    target_kind, value, since, said_by, why, incident = row
    return Stop(target_kind=target_kind, value=value, since=since, said_by=said_by, why=why, incident=incident)
