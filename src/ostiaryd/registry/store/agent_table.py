"""The table of agents: rows by name or by registration, and the number of agents of each state, kind, tier and segment.

A request examines at most `MAX_EXAMINED` agents, even if few of them match; the next request continues after the
examined agents.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from ostiary.provenance.noticing import Risk
from ostiaryd.ground.database import Reader, Row, Sql, sql
from ostiaryd.ledger.model import USES
from ostiaryd.registry.store.agents import FILTERS, AgentFilter

T = TypeVar("T")
MAX_EXAMINED = 2000
MAX_SEGMENTS = 200
_LEADING = ("owner", "segment", "state", "risk_tier", "kind")
"""Filters for which there is an index ordered by name. The first filter in this order that a request has selects the
agents to examine.
"""
_COLUMNS = "agent_id, name, state, owner, purpose, kind, provider, model, risk_tier, segment, created_at, expires_at"
_SHOWN = f"""select {_COLUMNS},
    coalesce((select person.name from person where person_id = owner),
        (select team.name from team where team_id = owner)),
    (select millis from risk where subject = agent_id), (select risk.at from risk where subject = agent_id),
    (select entry.at from entry where entry.agent = agent_id and action in {USES} order by entry.idx desc limit 1)
    from """
_COUNTS = {
    name: sql(f"select {name}, count(*) from agent group by {name} order by 2 desc, 1 limit {MAX_SEGMENTS}")
    for name in ("state", "kind", "risk_tier", "segment")
}


class Sort(StrEnum):
    """The order of the rows. `created` is the order of registration; a minus reverses the order."""

    NAME = "name"
    NAME_DESCENDING = "-name"
    CREATED = "created"
    CREATED_DESCENDING = "-created"


class AgentRow(NamedTuple):
    """A row of the table of agents. Times are in microseconds."""

    agent_id: str
    name: str
    state: str
    owner_id: str
    purpose: str
    kind: str
    provider: str
    model: str
    risk_tier: str
    segment: str
    created_at: int
    expires_at: int | None
    owner: str | None
    risk: Risk
    last_used_at: int | None


class Examined(NamedTuple, Generic[T]):
    """The result of `examine`: the rows that match, and the cursor after all rows that were examined (None at the end
    of the table).
    """

    rows: list[T]
    after: str | None


def examine(reader: Reader, chosen: AgentFilter, sort: Sort, *, after: str, limit: int) -> Examined[AgentRow]:
    """Return rows of the table: at most `limit` of the `MAX_EXAMINED` agents that follow the cursor `after`."""
    parameters = chosen.parameters()
    column = "name" if sort in (Sort.NAME, Sort.NAME_DESCENDING) else "agent_id"
    leading = next((name for name in _LEADING if name in parameters), None) if column == "name" else None
    rest = tuple(sorted(parameters.keys() & FILTERS.keys() - {leading}))
    most = MAX_EXAMINED if rest else limit
    rows_statement, end_statement = _statements(column, sort.startswith("-"), leading, rest, bool(after))
    arguments = {**parameters, "after": after} if after else parameters
    rows = [_row(row) for row in reader.all(rows_statement, most=most, limit=limit, **arguments)]
    if len(rows) == limit:
        return Examined(rows, rows[-1].name if column == "name" else rows[-1].agent_id)
    bounds = {name: arguments[name] for name in (leading, "after") if name is not None and name in arguments}
    end = reader.one(end_statement, skipped=most - 1, **bounds) if rest else None
    return Examined(rows, None if end is None else end[0])


def rows_of(reader: Reader, ids: Collection[str], chosen: AgentFilter) -> list[AgentRow]:
    """Return the rows of the agents `ids` that match the filter, in the order of `ids`."""
    parameters = chosen.parameters()
    statement = _row_statement(tuple(sorted(parameters.keys() & FILTERS.keys())))
    rows = (reader.one(statement, id=id, **parameters) for id in ids)
    return [_row(row) for row in rows if row is not None]


@lru_cache(maxsize=1 << len(FILTERS))
def _row_statement(names: tuple[str, ...]) -> Sql:
    return sql(" and ".join((f"{_SHOWN} agent where agent_id = :id", *(FILTERS[name] for name in names))))


def counts(reader: Reader) -> dict[str, dict[str, int]]:
    """Return the number of agents by state, kind, tier and segment (the `MAX_SEGMENTS` largest). Reads one index for
    each.
    """
    return {name: dict(reader.all(statement)) for name, statement in _COUNTS.items()}


@lru_cache(maxsize=256)
def _statements(
    column: str, is_descending: bool, leading: str | None, rest: tuple[str, ...], has_after: bool
) -> tuple[Sql, Sql]:
    """Return two SQL statements for a page of the table of agents: the first returns the rows, the second the last
    row that the first examines.
    """
    order = f"{column} desc" if is_descending else column
    bounds = [FILTERS[name] for name in (leading,) if name is not None]
    if has_after:
        bounds.append(f"{column} {'<' if is_descending else '>'} :after")
    start = f"agent where {' and '.join(bounds) or '1 = 1'} order by {order}"
    examined = f"(select * from {start} limit :most) as examined"
    matching = f"(select * from {examined} where {' and '.join(FILTERS[name] for name in rest) or '1 = 1'}"
    rows = f"{_SHOWN} {matching} order by {order} limit :limit) as matching order by {order}"
    return sql(rows), sql(f"select {column} from {start} limit 1 offset :skipped")


def _row(row: Row) -> AgentRow:
    *facts, owner, millis, at, last_used_at = row
    return AgentRow._make((*facts, owner, Risk(millis or 0, at or 0), last_used_at))
