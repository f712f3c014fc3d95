"""The table of agents for the console: sorted and filtered pages, the number of agents per value, and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import NamedTuple, TypedDict

from ostiary.protocol.errors import Invalid
from ostiary.provenance.noticing.risk import OVER_AFTER
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_SNIFF, NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import MAX_ROWS, encode_rows, parse_page
from ostiaryd.ground.http.routes import NOT_FOUND, Content, PageBody, Query, Route
from ostiaryd.ground.world import World
from ostiaryd.registry import flows, store
from ostiaryd.registry.flows.show import seconds
from ostiaryd.registry.model import READ
from ostiaryd.registry.store.agent_table import AgentRow, Examined, Sort
from ostiaryd.registry.store.agents import AgentFilter
from ostiaryd.registry.wire_admin.agents import AGENT_QUERY, member_of, parse_filter

BY_RISK = "-risk"
MAX_CURSOR_AGE_US = 3_600_000_000
_CURSOR = re.compile(r"([0-9]{1,16})\.([0-9]{1,3})\.(ag_[0-9a-z-]{1,64})")
"""Cursor of the order by risk: the time of the first page in seconds, and the points and the id of the last row."""
_FORMULA = re.compile(
    r"^(?=[\t\r\n])|(?:^|[;\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029])[ \"\xa0\u3000]*(?=[=+\-@\uff1d\uff0b\uff0d\uff20])"
)
"""Places at which spreadsheets recognise a formula: the beginning of a cell, the beginning of a line in a cell, and
after a semicolon, which separates cells in many countries.
"""


class AgentTableRow(TypedDict):
    """An agent in the table. Times are in seconds since the epoch; `risk` is 0 to 100 points."""

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
    """The numbers of agents by state, kind, risk tier and segment. At most 200 segments are listed, those with the most
    agents first.
    """

    total: int
    state: dict[str, int]
    kind: dict[str, int]
    risk_tier: dict[str, int]
    segment: dict[str, int]


async def show_table(call: Call) -> Reply:
    """List agents by name, by registration or by risk score, with the score and the last use.

    A page with a `next` can have fewer rows than `limit`, or none, because a request examines at most 2,000 agents.
    With `sort=-risk` the list has the agents with a risk score above 0, at most 1,000.
    """
    page, chosen, sort = parse_page(call.query_one("limit"), call.query_one("after")), parse_filter(call), _sort(call)
    now = call.world.now()
    if sort is None:
        place = _parse_place(page.after, now)
        examined = await call.world.db.scan(partial(_by_risk, chosen=chosen, place=place, limit=page.limit))
    else:
        examined = await call.world.db.scan(
            partial(store.agent_table.examine, chosen=chosen, sort=sort, after=page.after, limit=page.limit)
        )

    def cursor(row: AgentRow) -> str:
        if sort is None:
            return _place_of(row, place.at)
        return row.name if sort in (Sort.NAME, Sort.NAME_DESCENDING) else row.agent_id

    body = encode_rows("agents", examined.rows, lambda row: _render(row, now), cursor=cursor, following=examined.after)
    return Reply(200, body, headers=[NO_STORE])


async def export_table(call: Call) -> Reply:
    """Return all agents of the table as CSV (RFC 4180), in the order of `sort`.

    An apostrophe is put before each character that a spreadsheet would read as the beginning of a formula.
    """
    chosen, sort = parse_filter(call), _sort(call)
    if sort is None:
        raise Invalid(f"`sort` of the CSV cannot be `{BY_RISK}`", hint="sort by name or registration")
    disposition = (b"content-disposition", b'attachment; filename="agents.csv"')
    return Reply(200, _csv(call.world, chosen, sort), "text/csv; charset=utf-8", [NO_STORE, disposition, NO_SNIFF])


async def _csv(world: World, chosen: AgentFilter, sort: Sort) -> AsyncGenerator[bytes, None]:
    yield (",".join(AgentTableRow.__annotations__) + "\r\n").encode()
    after: str | None = ""
    while after is not None:
        now = world.now()
        examined = await world.db.scan(
            partial(store.agent_table.examine, chosen=chosen, sort=sort, after=after, limit=MAX_ROWS)
        )
        if examined.rows:
            yield _csv_lines(_render(row, now) for row in examined.rows)
        after = examined.after


def _csv_lines(rows: Iterable[AgentTableRow]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, AgentTableRow.__annotations__)
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> str:
    """Return a value as text, with an apostrophe before each character with which a formula would begin."""
    return "" if value is None else _FORMULA.sub(lambda match: f"{match[0]}'", str(value))


async def count_agents(call: Call) -> Reply:
    """Count the agents by state, kind, risk tier and segment. The numbers are at most five seconds old."""
    counts = await call.world.get_singleton(flows.AgentCounts).read()
    return reply({"total": sum(counts["state"].values()), **counts}, headers=[NO_STORE])


class RiskPlace(NamedTuple):
    """A position in the list by risk, whose scores are those at the time `at` (microseconds): after the agent with
    these points and this id.
    """

    at: int
    points: int
    agent_id: str


def _parse_place(after: str, now: int) -> RiskPlace:
    """Return the position of a cursor; without a cursor, the beginning. Raises Invalid for another or an old cursor."""
    if not after:
        return RiskPlace(now, 101, "")
    match = _CURSOR.fullmatch(after)
    if match is None or int(match[1]) > now:
        raise Invalid("`after` is not a cursor", hint="send the `next` of the previous page")
    if int(match[1]) < now - MAX_CURSOR_AGE_US:
        raise Invalid("the cursor `after` is older than an hour", hint="read the list from its beginning")
    return RiskPlace(int(match[1]), int(match[2]), match[3])


def _place_of(row: AgentRow, at: int) -> str:
    return f"{at}.{row.risk.points(at)}.{row.agent_id}"


def _by_risk(reader: Reader, chosen: AgentFilter, place: RiskPlace, limit: int) -> Examined[AgentRow]:
    """Return agents with a risk score, the highest score first, from a position on.

    The scores of the time of the first page are used on all pages, so that their decay neither hides nor repeats an
    agent.
    """
    worst = store.risks.list_riskiest_agents(reader, since=place.at - OVER_AFTER, limit=MAX_ROWS)
    ranks = [(-points, id) for id, risk in worst if (points := risk.points(place.at))]
    ids = [id for rank, id in sorted(ranks) if (rank, id) > (-place.points, place.agent_id)]
    rows = store.agent_table.rows_of(reader, ids, chosen)
    return Examined(rows[:limit], _place_of(rows[limit - 1], place.at) if len(rows) > limit else None)


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
    """Return the requested order of the table; None for the order by risk score. Raises Invalid for an unknown order,
    or an order that other parameters exclude.
    """
    if call.query_one("sort") != BY_RISK:
        return member_of(call, "sort", Sort) or Sort.NAME
    if call.query_one("unused") is not None:
        raise Invalid(f"`unused` cannot be combined with `sort={BY_RISK}`", hint="sort by name or registration")
    return None


FILTERS = tuple(one for one in AGENT_QUERY if one.name not in ("last_use", "total", "limit", "after"))
SORT = Query("sort", f"Order: {', '.join(f'`{one}`' for one in Sort)}, or `{BY_RISK}`; `name` by default.")
ROUTES = (
    Route(
        "GET",
        "/api/v1/agent-table",
        show_table,
        READ,
        area="agents",
        errors=(NOT_FOUND,),
        answers={200: PageBody("agents", AgentTableRow)},
        query=(*FILTERS, SORT, *(one for one in AGENT_QUERY if one.name in ("limit", "after"))),
    ),
    Route(
        "GET",
        "/api/v1/agent-table/csv",
        export_table,
        READ,
        area="agents",
        errors=(NOT_FOUND,),
        streams=True,
        answers={200: Content(media_types=("text/csv",))},
        query=(*FILTERS, SORT),
    ),
    Route("GET", "/api/v1/agent-table/counts", count_agents, READ, area="agents", answers={200: AgentCountsBody}),
)
