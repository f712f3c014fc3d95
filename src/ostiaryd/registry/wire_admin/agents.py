"""Agents and their keys."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, Wire, reply
from ostiaryd.ground.http.pages import Page, fill_page, parse_page, reply_page, reply_short_list
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows, store
from ostiaryd.registry.flows.show import (
    SECOND,
    AgentBody,
    AgentDetail,
    AgentKeyBody,
    MovedAgent,
    StateChange,
    last_use_of,
    show_agent_briefly,
    show_agent_detail,
    show_agent_key,
    show_moved_agent,
)
from ostiaryd.registry.model import (
    ADMIN,
    DEFAULT_DEPTH,
    READ,
    SELF,
    Agent,
    AgentKey,
    AgentSpec,
    AgentState,
    Holding,
    Kind,
    RiskTier,
    Verb,
)
from ostiaryd.registry.store.agents import AgentFilter
from ostiaryd.registry.wire_admin import render
from ostiaryd.registry.wire_admin.render import HoldingsBody, RevokedBody

E = TypeVar("E", bound=StrEnum)
MAX_TEXT = 200


class NewAgent(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    owner: str
    purpose: str
    kind: Kind = Kind.ASSISTANT
    deputy: str | None = None
    provider: str = ""
    model: str = ""
    risk_tier: RiskTier = RiskTier.MEDIUM
    segment: str = "default"
    scopes: list[str] = []
    max_depth: int = DEFAULT_DEPTH
    expires_in: int | None = None
    jwk: dict[str, Any] | None = None
    undeclared: bool = False
    """True if `scopes` may contain scopes that no resource declares."""


class AgentChange(msgspec.Struct, forbid_unknown_fields=True):
    """Members of an agent to change. `expires_in: null` removes the end. `deputy` can only be sent with `owner`."""

    scopes: list[str] | UnsetType = UNSET
    undeclared: bool = False
    max_depth: int | UnsetType = UNSET
    speaks: bool | UnsetType = UNSET
    """True if the agent may state the words of its person for a task."""
    expires_in: int | UnsetType | None = UNSET
    owner: str | UnsetType = UNSET
    segment: str | UnsetType = UNSET
    deputy: str | None = None


class NewAgentKey(msgspec.Struct, forbid_unknown_fields=True):
    jwk: dict[str, Any]
    expires_in: int | None = None


class AgentKeyRotation(msgspec.Struct, forbid_unknown_fields=True):
    jwk: dict[str, Any]
    overlap_s: int = 3600


async def create_agent(call: Call) -> Reply:
    """Register an agent. With a `jwk` the agent is active immediately."""
    new = call.json(NewAgent)

    def create(act: Act) -> Agent:
        agent = flows.create_agent(
            act,
            AgentSpec(
                name=new.name,
                owner=new.owner,
                purpose=new.purpose,
                kind=new.kind,
                deputy=new.deputy,
                provider=new.provider,
                model=new.model,
                risk_tier=new.risk_tier,
                segment=new.segment,
                scopes=new.scopes,
                expires_at=_end(act, new.expires_in),
                max_depth=new.max_depth,
            ),
        )
        if not new.undeclared:
            flows.check_declared(act.tx, agent.scopes)
        if new.jwk is not None:
            flows.add_key(act, agent.agent_id, new.jwk)
        return agent

    made = await flows.act_as(call, "agent.create", create)
    return _show(call, made.agent_id, status=201)


async def list_agents(call: Call) -> Reply:
    """List agents in the order of their registration; each query parameter filters the list.

    `owner`, `state`, `kind`, `risk_tier` and `segment` select by value, `text` by a part of the name or of the purpose.
    `unused` selects agents that were not used for that many seconds, without decommissioned agents. With
    `last_use=true` each row has `last_used_at`. With `total=true` the response has the number of all agents that match.
    """
    domain = call.world.config.trust_domain
    chosen = parse_filter(call)
    has_last_use = _flag(call, "last_use")

    def row(reader: Reader, agent: Agent) -> AgentBody:
        shown = show_agent_briefly(reader, agent, trust_domain=domain)
        if has_last_use:
            shown["last_used_at"] = last_use_of(reader, agent)
        return shown

    return await reply_page(
        call,
        "agents",
        lambda reader, page: store.agents.list_agents(reader, page, chosen),
        row,
        cursor=lambda agent: agent.agent_id,
        count=(lambda reader: store.agents.count(reader, chosen)) if _flag(call, "total") else None,
    )


def parse_filter(call: Call) -> AgentFilter:
    """Return the filter of a list of agents. Raises Invalid for an invalid parameter, and NotFound for an unknown
    owner.
    """
    owner, unused = call.query_one("owner"), call.query_one("unused")
    if unused is not None and not (unused.isascii() and unused.isdigit() and len(unused) <= 10):
        raise Invalid("`unused` must be a number of seconds")
    since = None if unused is None else call.world.now() - int(unused) * SECOND
    text = call.query_one("text") or ""
    if len(text) > MAX_TEXT:
        raise Invalid(f"`text` must have at most {MAX_TEXT} characters")
    return AgentFilter(
        owner=None if owner is None else flows.find_owner(call.world.db.read(), owner).id,
        state=member_of(call, "state", AgentState),
        kind=member_of(call, "kind", Kind),
        risk_tier=member_of(call, "risk_tier", RiskTier),
        segment=call.query_one("segment"),
        text=text,
        created_before=since,
        used_from=None if since is None else ledger.count_entries_before(call.world.db.read(), since),
    )


def member_of(call: Call, name: str, of: type[E]) -> E | None:
    """Return the member of an enumeration that a query parameter names; None without the parameter. Raises Invalid for
    any other word.
    """
    text = call.query_one(name)
    try:
        return None if text is None else of(text)
    except ValueError:
        raise Invalid(f"`{name}` must be one of {', '.join(map(str, of))}") from None


def _flag(call: Call, name: str) -> bool:
    if (text := call.query_one(name) or "false") not in ("true", "false"):
        raise Invalid(f"`{name}` must be `true` or `false`")
    return text == "true"


async def show_agent(call: Call) -> Reply:
    """Show an agent with its newest keys."""
    return _show(call, call.params["name"])


async def list_holdings(call: Call) -> Reply:
    """List the live holdings of an agent, and count the holdings that a stop of the agent would end.

    The holding with the latest end is the first.
    """
    agent = flows.find_agent(call.world.db.read(), call.params["name"])
    now, page = call.world.now(), parse_page(call.query_one("limit"), call.query_one("after"))
    _place(page.after)

    def read(reader: Reader, part: Page) -> list[Holding]:
        at, before = _place(part.after)
        return store.holdings.live_of_agent(reader, agent.agent_id, now=now, at=at, before=before, limit=part.limit)

    def fill(reader: Reader) -> bytes:
        return fill_page(
            "holdings",
            page,
            partial(read, reader),
            render.holding,
            cursor=lambda one: f"{one.expires_at}:{one.id}",
            extra={"ends": store.holdings.count_of_agent(reader, agent.agent_id, now=now)},
        )

    return Reply(200, await call.world.db.scan(fill), headers=[NO_STORE])


def _place(cursor: str) -> tuple[int, str]:
    """Return the end (microseconds) and the id in a cursor of the list of holdings. Raises Invalid for any other
    cursor.
    """
    at, _, id = cursor.partition(":")
    if not cursor:
        return 1 << 62, ""
    if not (at.isascii() and at.isdigit() and len(at) <= 18):
        raise Invalid("`after` is not a cursor", hint="send the `next` of the previous page")
    return int(at), id


async def change_agent(call: Call) -> Reply:
    """Change the owner, deputy, segment, scopes, depth or end of an agent, or whether it states its person's words."""
    change = call.json(AgentChange)
    name = call.params["name"]

    def apply(act: Act) -> None:
        if change.owner is not UNSET:
            flows.transfer_agent(act, name, change.owner, deputy=change.deputy)
        if change.segment is not UNSET:
            flows.set_segment(act, name, change.segment)
        if change.scopes is not UNSET:
            before = flows.find_agent(act.tx, name).scopes
            changed = flows.set_scopes(act, name, change.scopes)
            if not change.undeclared:
                flows.check_declared(act.tx, changed.scopes - before)
        if change.max_depth is not UNSET:
            flows.set_depth(act, name, change.max_depth)
        if change.speaks is not UNSET:
            flows.set_speaks(act, name, change.speaks)
        if change.expires_in is not UNSET:
            flows.set_end(act, name, _end(act, change.expires_in))

    await flows.act_as(call, "agent.change", apply)
    return _show(call, name)


def move(verb: Verb) -> Wire:
    """Return the wire function (HTTP handler) that changes the state of an agent by the verb `verb`."""

    async def wire(call: Call) -> Reply:
        name, why = call.params["name"], call.json(StateChange).why

        def run(act: Act) -> int:
            flows.set_agent_state(act, name, verb, why=why, by=call.caller)
            return outbox.highest_number(act.tx)

        seq = await flows.act_as(call, f"agent.{verb}", run)
        committed_at, domain = call.world.now(), call.world.config.trust_domain
        reader = call.world.db.read()
        return reply(show_moved_agent(reader, name, trust_domain=domain, seq=seq, committed_at=committed_at))

    wire.__doc__ = f"{verb.capitalize()} an agent."
    return wire


async def list_keys(call: Call) -> Reply:
    """List the keys of an agent, the oldest first, including revoked keys."""
    agent = flows.find_agent(call.world.db.read(), call.params["name"])
    return await reply_short_list(
        call,
        "keys",
        lambda reader: store.keys.of_agent(reader, agent.agent_id),
        lambda _, key: show_agent_key(key),
        cursor=_kid,
    )


async def add_key(call: Call) -> Reply:
    """Register a key; the first key makes a pending agent active."""
    new = call.json(NewAgentKey)
    added = await flows.act_as(
        call,
        "key.add",
        lambda act: flows.add_key(act, call.params["name"], new.jwk, not_after=_end(act, new.expires_in)),
    )
    return reply(show_agent_key(added), status=201)


async def rotate_key(call: Call) -> Reply:
    """Register a key; the other keys end after the overlap."""
    new = call.json(AgentKeyRotation)
    added = await flows.act_as(
        call, "key.rotate", lambda act: flows.rotate_key(act, call.params["name"], new.jwk, overlap_s=new.overlap_s)
    )
    return reply(show_agent_key(added), status=201)


async def revoke_key(call: Call) -> Reply:
    """Revoke a key and everything that was obtained with it."""
    name, kid = call.params["name"], call.params["kid"]

    def revoke(act: Act) -> dict[str, int]:
        return dict(flows.revoke_key(act, kid, of=flows.find_agent(act.tx, name).agent_id))

    return reply({"revoked": await flows.act_as(call, "key.revoke", revoke)})


def _kid(key: AgentKey) -> str:
    return key.jkt


def _show(call: Call, id_or_name: str, *, status: int = 200) -> Reply:
    return reply(_detail(call, id_or_name), status=status)


def _detail(call: Call, id_or_name: str) -> AgentDetail:
    return show_agent_detail(call.world.db.read(), id_or_name, trust_domain=call.world.config.trust_domain)


def _end(act: Act, expires_in: int | None) -> int | None:
    """Return the time that is `expires_in` seconds from now, in microseconds; None for None. Raises Invalid for a time
    out of range.
    """
    if expires_in is None:
        return None
    if not 1 <= expires_in <= flows.MAX_LIFETIME_S:
        raise Invalid(f"`expires_in` must be 1 to {flows.MAX_LIFETIME_S} seconds")
    return act.now + expires_in * SECOND


suspend = move(Verb.SUSPEND)

AGENT_QUERY = (
    Query("owner", "Name or id of the owner of the listed agents."),
    Query("state", "State of the listed agents.", AgentState),
    Query("kind", "Kind of the listed agents.", Kind),
    Query("risk_tier", "Risk tier of the listed agents.", RiskTier),
    Query("segment", "Segment of the listed agents."),
    Query("text", "Text that the name or the purpose contains."),
    Query("unused", "Minimum number of seconds without use; decommissioned agents are left out.", int),
    Query("last_use", "`true` adds `last_used_at` to each row.", Literal["true", "false"]),
    Query("total", "`true` adds the number of all agents that match.", Literal["true", "false"]),
    *PAGE,
)

ROUTES = (
    Route("POST", "/api/v1/agents", create_agent, ADMIN, body=NewAgent, answers={201: AgentDetail}),
    Route(
        "GET",
        "/api/v1/agents",
        list_agents,
        READ,
        errors=(NOT_FOUND,),
        answers={200: PageBody("agents", AgentBody)},
        query=AGENT_QUERY,
    ),
    Route("GET", "/api/v1/agents/{name}", show_agent, READ, answers={200: AgentDetail}),
    Route("GET", "/api/v1/agents/{name}/holdings", list_holdings, READ, answers={200: HoldingsBody}, query=PAGE),
    Route("PATCH", "/api/v1/agents/{name}", change_agent, ADMIN, body=AgentChange, answers={200: AgentDetail}),
    Route(
        "POST",
        "/api/v1/agents/{name}/suspend",
        suspend,
        SELF,
        body=StateChange,
        stops=True,
        proves_in_act=True,
        answers={200: MovedAgent},
    ),
    Route(
        "POST", "/api/v1/agents/{name}/resume", move(Verb.RESUME), ADMIN, body=StateChange, answers={200: MovedAgent}
    ),
    Route(
        "POST",
        "/api/v1/agents/{name}/quarantine",
        move(Verb.QUARANTINE),
        ADMIN,
        body=StateChange,
        stops=True,
        proves_in_act=True,
        answers={200: MovedAgent},
    ),
    Route(
        "POST", "/api/v1/agents/{name}/release", move(Verb.RELEASE), ADMIN, body=StateChange, answers={200: MovedAgent}
    ),
    Route(
        "GET", "/api/v1/agents/{name}/keys", list_keys, READ, answers={200: PageBody("keys", AgentKeyBody)}, query=PAGE
    ),
    Route("POST", "/api/v1/agents/{name}/keys", add_key, ADMIN, body=NewAgentKey, answers={201: AgentKeyBody}),
    Route(
        "POST",
        "/api/v1/agents/{name}/keys/rotate",
        rotate_key,
        ADMIN,
        body=AgentKeyRotation,
        answers={201: AgentKeyBody},
    ),
    Route(
        "DELETE",
        "/api/v1/agents/{name}/keys/{kid}",
        revoke_key,
        ADMIN,
        stops=True,
        proves_in_act=True,
        answers={200: RevokedBody},
    ),
)
