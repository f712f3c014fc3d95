"""Stored state of the feed: the position of each spool, the servers of the database, profiles, and sources of
arguments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql

_SPOOL = sql("select resource_id, next_number, closed_at from spool where id = :id")
_SAVE = sql(
    """insert into spool (id, resource_id, next_number, reported_at) values (:id, :resource_id, :next, :now)
       on conflict (id) do update set next_number = excluded.next_number, reported_at = excluded.reported_at"""
)
_CLOSE = sql("update spool set closed_at = :now where id = :id")
_TURN = sql("update spool set turn = :turn where id = :id and turn < :turn")
_POSITION = sql(
    """select (select coalesce(max(seq), 0) from outbox),
           coalesce((select checkpoint from log_head where id = 1), '')"""
)
_LAST_REPORTS = sql(
    """select resource.resource_id, resource.name, max(reported_at) from spool
       join resource on resource.resource_id = spool.resource_id
       where reported_at > :since group by resource.resource_id, resource.name order by resource.name"""
)
_AUDIENCE = sql("select audience from holding where id = :id")
_ENDED = sql(
    """select id, expires_at from holding
       where ended_at > :since and +expires_at > :now and audience = :audience"""
)
"""The plus sign keeps the database from using the index on `expires_at`: nearly all holdings expire later, and few have
ended.
"""


_PROFILE = sql("select packed, told_at from profile where agent = :agent and resource_id = :resource_id")
_PROFILES = sql(
    """select agent, packed from profile where resource_id = :resource_id order by learned_at desc, agent
       limit :limit"""
)
_LEARN = sql(
    """insert into profile (agent, resource_id, packed, learned_at, told_at)
       values (:agent, :resource_id, :packed, :now, :told_at)
       on conflict (agent, resource_id) do update
       set packed = excluded.packed, learned_at = excluded.learned_at, told_at = excluded.told_at"""
)
_FORGET_PROFILES = sql("delete from profile where learned_at < :before")
_SOURCES = sql(
    """select tool, argument, source_tool, source_field, tasks, agents from argument_source
       where resource_id = :resource_id"""
)
_ONE_SOURCE = sql(
    """select tool, argument, source_tool, source_field, tasks, agents from argument_source
       where resource_id = :resource_id and tool = :tool and argument = :argument and source_tool = :source_tool
       and source_field = :source_field"""
)
_COUNT_SOURCES = sql("select count(*) from argument_source where resource_id = :resource_id")
_PUT_SOURCE = sql(
    """insert into argument_source (resource_id, tool, argument, source_tool, source_field, tasks, agents)
       values (:resource_id, :tool, :argument, :source_tool, :source_field, :tasks, :agents)
       on conflict (resource_id, tool, argument, source_tool, source_field) do update
       set tasks = excluded.tasks, agents = excluded.agents"""
)
_SERVERS = sql("select server, beat, guards from feed_server order by server")
_PUT_SERVER = sql(
    """insert into feed_server (server, beat, guards) values (:server, :beat, :guards)
       on conflict (server) do update set beat = excluded.beat, guards = excluded.guards"""
)
_DROP_SERVER = sql("delete from feed_server where server = :server")


class ArgumentSource(NamedTuple):
    """A record field (`source_tool`, `source_field`) from which an argument took values. `tasks` and `agents` are the
    concatenated digests of the tasks and agents with such calls, 6 bytes each.
    """

    tool: str
    argument: str
    source_tool: str
    source_field: str
    tasks: bytes
    agents: bytes


def sources(reader: Reader, resource_id: str) -> list[ArgumentSource]:
    """Return, for each argument of the resource's tools, the fields of results from which agents took its values."""
    return [_argument_source(row) for row in reader.all(_SOURCES, resource_id=resource_id)]


def source(reader: Reader, resource_id: str, of: ArgumentSource) -> ArgumentSource | None:
    """Return the stored row with the same argument and source field as `of`; None if there is none."""
    row = reader.one(
        _ONE_SOURCE,
        resource_id=resource_id,
        tool=of.tool,
        argument=of.argument,
        source_tool=of.source_tool,
        source_field=of.source_field,
    )
    return None if row is None else _argument_source(row)


def count_sources(reader: Reader, resource_id: str) -> int:
    """Return the number of pairs (argument, source field) stored for a resource."""
    row = reader.one(_COUNT_SOURCES, resource_id=resource_id)
    assert row is not None
    count: int = row[0]
    return count


def put_source(tx: Tx, resource_id: str, row: ArgumentSource) -> None:
    """Store a source of an argument; replace the earlier row of the same argument and field."""
    tx.send(_PUT_SOURCE, resource_id=resource_id, **row._asdict())


def _argument_source(row: Any) -> ArgumentSource:
    tool, argument, source_tool, source_field, tasks, agents = row
    return ArgumentSource(tool, argument, source_tool, source_field, bytes(tasks), bytes(agents))


def servers(reader: Reader) -> list[tuple[str, int, bytes]]:
    """Return (server id, number of the last heartbeat, encoded list of its guards) for each server of the database."""
    return [(server, beat, bytes(guards)) for server, beat, guards in reader.all(_SERVERS)]


def put_server(tx: Tx, server: str, *, beat: int, guards: bytes, gone: list[str]) -> None:
    """Write the row of a server; delete the rows of the servers in `gone`."""
    tx.send(_PUT_SERVER, server=server, beat=beat, guards=guards)
    drop_servers(tx, gone)


def drop_servers(tx: Tx, servers: list[str]) -> None:
    """Delete the rows of the servers with these ids. Such a row also lists the guards of the server."""
    for server in servers:
        tx.send(_DROP_SERVER, server=server)


def position(reader: Reader) -> tuple[int, str]:
    """Return the number of the newest message in the outbox (of any topic), and the ledger's signed checkpoint, both as
    of the same commit.
    """
    row = reader.one(_POSITION)
    assert row is not None
    return row[0], row[1]


def spool(reader: Reader, id: str) -> tuple[str, int, bool] | None:
    """Return (resource id, number of the next expected record, whether the spool is closed); None for an
    unknown spool.
    """
    row = reader.one(_SPOOL, id=id)
    return None if row is None else (row[0], row[1], row[2] is not None)


def save_spool(tx: Tx, id: str, *, resource_id: str, next: int) -> None:
    """Store that a spool belongs to a resource, and the number of the record that the server expects next."""
    tx.send(_SAVE, id=id, resource_id=resource_id, next=next, now=tx.now)


def take_turn(tx: Tx, id: str, turn: int) -> bool:
    """Store `turn` as the number of the spool's last request about budgets, if it is higher than the stored number.
    Return whether it is higher; if not, the request is outdated and must be ignored.
    """
    return tx.run(_TURN, id=id, turn=turn) == 1


def close_spool(tx: Tx, id: str) -> None:
    """Mark the spool of a guard as closed now, at the end of its use."""
    tx.send(_CLOSE, id=id, now=tx.now)


def last_reports(reader: Reader, *, since: int) -> list[tuple[str, str, int]]:
    """Return (resource id, name, time of the last report in microseconds) of each resource whose guards have reported
    since `since`.
    """
    return [(id, name, at) for id, name, at in reader.all(_LAST_REPORTS, since=since)]


def audience(reader: Reader, token: str) -> str | None:
    """Return the URI of the resource for which a token was issued; None if the token is unknown."""
    row = reader.one(_AUDIENCE, id=token)
    return None if row is None else row[0]


def ended_tokens(reader: Reader, audience: str, *, since: int, now: int) -> list[tuple[str, int]]:
    """Return (token id, expiry) of each token for a resource that was ended since `since` and would expire after `now`.
    Times are microseconds.
    """
    return sorted((id, until) for id, until in reader.all(_ENDED, audience=audience, since=since, now=now))


def profile(reader: Reader, agent: str, resource_id: str) -> tuple[bytes, int] | None:
    """Return the packed profile of an agent at a resource, and the time when guards last got it; None if there is no
    profile.
    """
    row = reader.one(_PROFILE, agent=agent, resource_id=resource_id)
    return None if row is None else (bytes(row[0]), row[1])


def profiles(reader: Reader, resource_id: str, *, limit: int) -> list[tuple[str, bytes]]:
    """Return (agent id, packed profile) of at most `limit` agents at a resource, the profile that was learned last
    first.
    """
    return [(agent, bytes(packed)) for agent, packed in reader.all(_PROFILES, resource_id=resource_id, limit=limit)]


def put_profile(tx: Tx, agent: str, resource_id: str, packed: bytes, *, told_at: int) -> None:
    """Store or replace the profile (usual behaviour) of an agent at a resource. `packed`: the result of `pack`.
    `told_at`: when guards last got the profile, in microseconds.
    """
    tx.send(_LEARN, agent=agent, resource_id=resource_id, packed=packed, told_at=told_at, now=tx.now)


def forget_profiles(tx: Tx, *, before: int) -> int:
    """Delete the profiles of agents that have been inactive since `before` (microseconds); return the number of deleted
    profiles.
    """
    return tx.run(_FORGET_PROFILES, before=before)
