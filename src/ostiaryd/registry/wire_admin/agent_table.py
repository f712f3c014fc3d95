"""The table of agents for people: sorted and filtered pages, the number of agents per value, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator
from functools import partial
from typing import TypedDict

from ostiary.protocol.errors import Invalid
from ostiary.provenance.noticing.risk import OVER_AFTER
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import MAX_ROWS, encode_rows, parse_page
from ostiaryd.ground.http.routes import NOT_FOUND, Content, PageBody, Query, Route
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.model import READ
from ostiaryd.registry.store import agent_table, risks
from ostiaryd.registry.store.agent_table import AgentRow, Examined, Sort
from ostiaryd.registry.store.agents import AgentFilter
from ostiaryd.registry.wire_admin.agents import AGENT_QUERY, member_of, parse_filter
from ostiaryd.registry.wire_admin.render import seconds

BY_RISK = "-risk"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which spreadsheets recognize a formula."""


class AgentTableRow(TypedDict):
    """An agent in the table; times in seconds since the epoch, `risk` 0 to 100 points."""

    agent_id: str
    name: str
    state: str
    risk: int
    owner: str | None
    owner_id: str
    purpose: str
    kind: str
    provider: str
    model: str
    risk_tier: str
    segment: str
    created_at: int | None
    expires_at: int | None
    last_used_at: int | None


class AgentCountsBody(TypedDict):
    """The number of agents by state, kind, risk tier and segment; at most 200 segments, the largest first."""

    total: int
    state: dict[str, int]
    kind: dict[str, int]
    risk_tier: dict[str, int]
    segment: dict[str, int]


async def show_table(call: Call) -> Reply:
    """List agents by name, by registration or by risk score, with the score and the last use.

    A page can have fewer rows than `limit`, or none, and a `next`: a request examines at most 2,000 agents. With
    `sort=-risk` the list has the agents with a risk score above 0, at most 1,000.
    """
    page, chosen, sort = parse_page(call.query_one("limit"), call.query_one("after")), parse_filter(call), _sort(call)
    now = call.world.now()

    def read(reader: Reader) -> Examined[AgentRow]:
        if sort is None:
            return _by_risk(reader, chosen, after=page.after, limit=page.limit, now=now)
        return agent_table.examine(reader, chosen, sort, after=page.after, limit=page.limit)

    examined = await call.world.db.scan(read)
    is_by_name = sort in (Sort.NAME, Sort.NAME_DESCENDING)
    body = encode_rows(
        "agents",
        examined.rows,
        lambda row: _render(row, now),
        cursor=lambda row: row.name if is_by_name else row.agent_id,
        following=examined.after,
    )
    return Reply(200, body, headers=[NO_STORE])


async def export_table(call: Call) -> Reply:
    """Return all agents of the table as CSV (RFC 4180), in the order of `sort`.

    A cell that a spreadsheet would read as a formula begins with an apostrophe.
    """
    chosen, sort = parse_filter(call), _sort(call)
    if sort is None:
        raise Invalid(f"`sort` of the CSV cannot be `{BY_RISK}`", hint="sort by name or registration")
    disposition = (b"content-disposition", b'attachment; filename="agents.csv"')
    return Reply(200, _csv(call.world, chosen, sort), "text/csv; charset=utf-8", [NO_STORE, disposition])


async def _csv(world: World, chosen: AgentFilter, sort: Sort) -> AsyncGenerator[bytes, None]:
    names = list(AgentTableRow.__annotations__)
    yield _csv_lines([names])
    after: str | None = ""
    while after is not None:
        now = world.now()
        examined = await world.db.scan(
            partial(agent_table.examine, chosen=chosen, sort=sort, after=after, limit=MAX_ROWS)
        )
        rows = [_render(row, now) for row in examined.rows]
        if rows:
            yield _csv_lines([[_cell(value) for value in row.values()] for row in rows])
        after = examined.after


def _csv_lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


async def count_agents(call: Call) -> Reply:
    """Count the agents by state, kind, risk tier and segment. The numbers are at most five seconds old."""
    counts = await call.world.keep(flows.AgentCounts).read()
    return reply({"total": sum(counts["state"].values()), **counts}, headers=[NO_STORE])


def _by_risk(reader: Reader, chosen: AgentFilter, *, after: str, limit: int, now: int) -> Examined[AgentRow]:
    """Return agents with a risk score, the highest first, behind the agent `after`."""
    worst = risks.worst_agents(reader, since=now - OVER_AFTER, limit=MAX_ROWS)
    points = {id: score for id, risk in worst if (score := risk.points(now))}
    ids = sorted(points, key=lambda id: (-points[id], id))
    start = ids.index(after) + 1 if after in points else (len(ids) if after else 0)
    rows = [row for row in agent_table.rows_of(reader, ids[start:]) if _matches(row, chosen)]
    return Examined(rows[:limit], rows[limit - 1].agent_id if len(rows) > limit else None)


def _matches(row: AgentRow, chosen: AgentFilter) -> bool:
    text = chosen.text.lower()
    return (
        chosen.owner in (None, row.owner_id)
        and chosen.state in (None, row.state)
        and chosen.kind in (None, row.kind)
        and chosen.risk_tier in (None, row.risk_tier)
        and chosen.segment in (None, row.segment)
        and (text in row.name.lower() or text in row.purpose.lower())
    )


def _render(row: AgentRow, now: int) -> AgentTableRow:
    return {
        "agent_id": row.agent_id,
        "name": row.name,
        "state": row.state,
        "risk": row.risk.points(now),
        "owner": row.owner,
        "owner_id": row.owner_id,
        "purpose": row.purpose,
        "kind": row.kind,
        "provider": row.provider,
        "model": row.model,
        "risk_tier": row.risk_tier,
        "segment": row.segment,
        "created_at": seconds(row.created_at),
        "expires_at": seconds(row.expires_at),
        "last_used_at": seconds(row.last_used_at),
    }


def _sort(call: Call) -> Sort | None:
    """Return the order of the table; None: by risk score. Raises Invalid."""
    if call.query_one("sort") != BY_RISK:
        return member_of(call, "sort", Sort) or Sort.NAME
    if call.query_one("unused") is not None:
        raise Invalid(f"`unused` cannot go with `sort={BY_RISK}`", hint="sort by name or registration")
    return None


FILTERS = tuple(one for one in AGENT_QUERY if one.name not in ("last_use", "total", "limit", "after"))
SORT = Query("sort", f"Order: {', '.join(f'`{one}`' for one in Sort)}, or `{BY_RISK}`; `name` by default.")
ROUTES = (
    Route(
        "GET",
        "/api/v1/agent-table",
        show_table,
        READ,
        errors=(NOT_FOUND,),
        answers={200: PageBody("agents", AgentTableRow)},
        query=(*FILTERS, SORT, *(one for one in AGENT_QUERY if one.name in ("limit", "after"))),
    ),
    Route(
        "GET",
        "/api/v1/agent-table/csv",
        export_table,
        READ,
        errors=(NOT_FOUND,),
        streams=True,
        answers={200: Content(media_types=("text/csv",))},
        query=(*FILTERS, SORT),
    ),
    Route("GET", "/api/v1/agent-table/counts", count_agents, READ, answers={200: AgentCountsBody}),
)
