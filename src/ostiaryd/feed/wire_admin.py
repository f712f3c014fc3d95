"""Routes about guards: list the connected guards with their progress, list missing guards, send a test message, and
show sources of arguments and the behaviour of agents.
"""

from __future__ import annotations

from typing import TypedDict

from ostiary.protocol.errors import Invalid
from ostiaryd.feed.flows import Guard, Guards, argument_sources, describe_behaviour, find_missing_guards, send_test
from ostiaryd.feed.flows.behaviour import BehaviourBody
from ostiaryd.feed.flows.sources import SourceOfArgument
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.registry.flows import act_as, find_agent, find_resource
from ostiaryd.registry.model import ADMIN, READ

MAX_WAIT_MS = 10_000
TEST_S = 3.0
SECOND = 1_000_000


class GuardBody(TypedDict):
    """A connected guard. `since`: when the guard connected, in seconds since the epoch. `seq`: the last change that the
    guard acknowledged. `applied`: whether the requested change is in force at the guard; without a requested change,
    whether all changes sent so far are. `ms`: the milliseconds from the request's `since` until then.
    """

    guard: str
    resource_id: str
    stream: str
    since: int
    seq: int | None
    applied: bool
    ms: float | None


class MissingGuardBody(TypedDict):
    """A resource without a connected guard, and the time of its last report in seconds since the epoch."""

    resource: str
    reported_at: int


class MissingGuardsBody(TypedDict):
    """Resources whose guards reported within a week, and of which none is connected."""

    missing: list[MissingGuardBody]


class TestedGuards(TypedDict):
    """The connected guards. `seq` is the number of the test message. `ms` of a guard is the time from the commit of the
    test message until the message was in force there.
    """

    seq: int
    guards: list[GuardBody]


class FlowsBody(TypedDict):
    """The fields of tool results from which the arguments of a resource's tools took values."""

    flows: list[SourceOfArgument]


async def feeds(call: Call) -> Reply:
    """List the connected guards of all servers of the database.

    With `seq`, the number of a change, the server waits until every guard has the change in force, at most `wait_ms`.
    With `since`, each guard has `ms`: the milliseconds from that time until the change was in force at the guard.
    """
    guards = call.world.get_singleton(Guards)
    seq, since = _number(call, "seq"), _number(call, "since")
    if seq is None:
        await guards.refresh()
        guards_shown = guards.all
    else:
        guards_shown = await guards.settled(seq, within_s=min(_number(call, "wait_ms") or 0, MAX_WAIT_MS) / 1000)
    rows = sorted(guards_shown, key=_stream)
    return await reply_short_list(
        call,
        "guards",
        lambda _: rows,
        lambda _, guard: _render(guard, guard.position if seq is None else seq, since),
        cursor=_stream,
    )


async def list_missing(call: Call) -> Reply:
    """List the resources whose guards reported within a week, and of which none is connected."""
    guards = call.world.get_singleton(Guards)
    await guards.refresh()
    rows = await call.world.db.scan(lambda reader: find_missing_guards(reader, guards.all, now=call.world.now()))
    return reply({"missing": [{"resource": name, "reported_at": at // SECOND} for name, at in rows]})


async def test_guards(call: Call) -> Reply:
    """Send a test message to every connected guard, and wait until the message is in force at each guard, at most 3 s.

    The message changes nothing. A guard whose `ms` is null did not acknowledge the message in time.
    """
    seq = await act_as(call, "feed.test", send_test)
    call.has_acted = False  # the caller may be stopped while the guards answer
    since = call.world.now()
    rows = sorted(await call.world.get_singleton(Guards).settled(seq, within_s=TEST_S), key=_stream)
    tested: TestedGuards = {"seq": seq, "guards": [_render(guard, seq, since) for guard in rows]}
    return reply(tested)


def _stream(guard: Guard) -> str:
    return guard.stream


def _render(guard: Guard, seq: int, since: int | None) -> GuardBody:
    at = guard.applied_at(seq)
    return {
        "guard": guard.resource,
        "resource_id": guard.resource_id,
        "stream": guard.stream,
        "since": guard.since // SECOND,
        "seq": guard.applied[-1][0] if guard.applied else None,
        "applied": at is not None,
        "ms": None if at is None or since is None else max(0, at - since) / 1000,
    }


def _number(call: Call, name: str) -> int | None:
    text = call.query_one(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Invalid(f"`{name}` must be a number of up to 18 digits")
    return int(text)


async def flows(call: Call) -> Reply:
    """List the fields of tool results from which guards saw the arguments of a resource's tools take values."""
    reader = call.world.db.read()
    resource = find_resource(reader, call.params["name"])
    return reply({"flows": argument_sources(reader, resource.resource_id)})


async def show_behaviour(call: Call) -> Reply:
    """Show how an agent uses its scopes and tools, beside its peers, and how often the agent acts on each day.

    The use of a tool is the number of recent tasks that called the tool, as guards reported the calls. Peers are the
    other agents of the same kind among the 200 last active agents at the resource.
    """
    now = call.world.now()
    agent = find_agent(call.world.db.read(), call.params["name"])
    return reply(
        await call.world.db.scan(lambda reader: describe_behaviour(reader, agent, now=now)), headers=[NO_STORE]
    )


FEEDS_QUERY = (
    Query("seq", "Number of a change in the feed: wait until the change is in force at every guard.", int),
    Query("since", "`committed_at` of the change that `seq` names, in microseconds since the epoch.", int),
    Query("wait_ms", f"Longest time to wait, in milliseconds; at most {MAX_WAIT_MS}.", int),
    *PAGE,
)

ROUTES = (
    Route("GET", "/api/v1/feeds", feeds, READ, answers={200: PageBody("guards", GuardBody)}, query=FEEDS_QUERY),
    Route("GET", "/api/v1/feeds/missing", list_missing, READ, answers={200: MissingGuardsBody}),
    Route("POST", "/api/v1/feeds/test", test_guards, ADMIN, answers={200: TestedGuards}),
    Route("GET", "/api/v1/resources/{name}/flows", flows, READ, answers={200: FlowsBody}),
    Route(
        "GET",
        "/api/v1/agents/{name}/behaviour",
        show_behaviour,
        READ,
        area="activity",
        answers={200: BehaviourBody},
        errors=(NOT_FOUND,),
    ),
)
