"""The position in the feed up to which changes have become signals, the position among the unfinished effects of
received signals, and the risk levels that were sent to receivers.
"""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql

FEED, EFFECTS = 1, 2
"""Ids of the stored positions: in the guards' feed, and among the unfinished effects of received signals."""
_MARK = sql("select seq from ssf_mark where id = :id")
_SET_MARK = sql("insert into ssf_mark (id, seq) values (:id, :seq) on conflict (id) do update set seq = excluded.seq")
_LEVEL = sql("select level from ssf_level where agent = :agent")
_LEVELS = sql("select agent, level from ssf_level order by agent")
_SET_LEVEL = sql(
    """insert into ssf_level (agent, level) values (:agent, :level)
       on conflict (agent) do update set level = excluded.level"""
)
_DROP_LEVEL = sql("delete from ssf_level where agent = :agent")
_DROP_LEVELS = sql("delete from ssf_level")


def position(reader: Reader, of: int = FEED) -> int:
    """Return the number of the last message that was handled: the last change in the guards' feed that was made into
    signals (`FEED`), or the last unfinished effect (`EFFECTS`); 0 if there is none.
    """
    row = reader.one(_MARK, id=of)
    return 0 if row is None else int(row[0])


def set_position(tx: Tx, seq: int, of: int = FEED) -> None:
    """Store the number of the last message that was handled, as in `position`."""
    tx.run(_SET_MARK, id=of, seq=seq)


def level(reader: Reader, agent: str) -> str | None:
    """Return the risk level of the agent that was last sent to receivers; None for the lowest level."""
    row = reader.one(_LEVEL, agent=agent)
    return None if row is None else str(row[0])


def levels(reader: Reader) -> list[tuple[str, str]]:
    """Return (agent id, level) of the agents whose last sent risk level is not the lowest."""
    return [(agent, level) for agent, level in reader.all(_LEVELS)]


def set_level(tx: Tx, agent: str, level: str | None) -> None:
    """Store the risk level of the agent that was sent to receivers; None for the lowest level."""
    if level is None:
        tx.run(_DROP_LEVEL, agent=agent)
    else:
        tx.run(_SET_LEVEL, agent=agent, level=level)


def forget_levels(tx: Tx) -> None:
    """Delete the risk levels that were last sent, of all agents, so that each agent's next level counts as a change."""
    tx.run(_DROP_LEVELS)
