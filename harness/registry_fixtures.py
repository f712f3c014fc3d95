"""Acts, people, agents with keys, and requests at the admin API, for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from ostiary.audit.entries import EntryCheck
from ostiary.protocol import jose
from ostiary.protocol.errors import Refused
from ostiaryd.ground.http.edge import Call, Wire, render_admin
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.policy.wire_tasks import ROUTES as START_ROUTES
from ostiaryd.registry import flows
from ostiaryd.registry.model import Agent, AgentId, AgentSpec, Caller, Holding, HoldingId, Root
from ostiaryd.registry.store import agents, holdings, owners
from ostiaryd.registry.wire_admin import ROUTES as REGISTRY_ROUTES
from ostiaryd.tasks.wire_admin import ROUTES as TASK_ROUTES
from ostiaryd.tasks.wire_budgets import ROUTES as BUDGET_ROUTES
from ostiaryd.tasks.wire_holding import ROUTES as HOLDING_ROUTES
from ostiaryd.tokens.wire_clients import ROUTES as REGISTERED_CLIENT_ROUTES
from ostiaryd.tokens.wire_consents import ROUTES as CONSENT_ROUTES
from ostiaryd.tokens.wire_persons import ROUTES as PERSON_STATE_ROUTES
from ostiaryd.trust.wire_clients import ROUTES as CLIENT_ROUTES
from ostiaryd.trust.wire_clock import ROUTES as CLOCK_ROUTES

T = TypeVar("T")
SECOND = 1_000_000
ROUTES = (
    *REGISTRY_ROUTES,
    *START_ROUTES,
    *TASK_ROUTES,
    *BUDGET_ROUTES,
    *HOLDING_ROUTES,
    *CLIENT_ROUTES,
    *REGISTERED_CLIENT_ROUTES,
    *CONSENT_ROUTES,
    *PERSON_STATE_ROUTES,
    *CLOCK_ROUTES,
)


async def run_act(world: World, flow: Callable[[Act], T], action: str = "test") -> T:
    return await act(world, action, flow)


def new_jwk(alg: str = "ES256") -> dict[str, str]:
    return dict(jose.generate(alg).public.jwk)


async def create_person(world: World, name: str, **more: Any) -> str:
    made = await run_act(world, lambda a: flows.create_person(a, name=name, **more))
    return made.person_id


async def register_agent(
    world: World, name: str = "bot", *, owner: str = "alice", has_key: bool = True, **more: Any
) -> Agent:
    """Register an agent with a key, and its owner if the owner does not exist yet. Return the agent."""

    def flow(a: Act) -> Agent:
        if owners.get_owner(a.tx, owner) is None:
            flows.create_person(a, name=owner)
        agent = flows.create_agent(a, AgentSpec(**({"name": name, "owner": owner, "purpose": "to be tried on"} | more)))
        if has_key:
            flows.add_key(a, agent.agent_id, new_jwk())
        return flows.find_agent(a.tx, agent.agent_id)

    return await run_act(world, flow)


def get_agent(world: World, name: str) -> Agent:
    found = agents.get_agent(world.db.read(), name)
    assert found is not None
    return found


async def create_holding(world: World, agent: Agent | str, id: str, *, seconds: float = 60, **more: Any) -> Holding:
    """Give an agent a token."""
    holder = AgentId(agent if isinstance(agent, str) else agent.agent_id)
    held = Holding(
        id=HoldingId(id),
        kind=more.pop("kind", "token"),
        agent=holder,
        expires_at=world.now() + round(seconds * SECOND),
        **more,
    )
    await run_act(world, lambda a: flows.add_holding(a, held))
    return held


async def end_holdings(world: World, root: Root, value: str) -> dict[str, int]:
    return dict(await run_act(world, lambda a: flows.end_holdings(a, root, value, why="test")))


def is_live(world: World, id: str) -> bool:
    held = holdings.get_holding(world.db.read(), id)
    assert held is not None
    return held.is_live(world.now())


def feed_messages(world: World, after: int = 0) -> list[dict[str, Any]]:
    """Return the facts that guards received."""
    return [json.loads(body) for _, _, body in outbox.messages_after(world.db.read(), "feed", after)]


def newest_entry(world: World) -> Entry:
    """Return the newest entry, whose action an audit knows."""
    [(index, body)] = ledger.search_entries(world.db.read(), {}, limit=1)
    entry = decode_entry(body)
    assert "the action" not in EntryCheck(entry.at).check(index, body), entry
    return entry


def agent_caller(agent: Agent, *scopes: str) -> Caller:
    """Return the agent as the caller of a request with a verified token."""
    return Caller(
        kind="agent", id=agent.agent_id, name=agent.name, owner=agent.owner, scopes=frozenset(scopes), token="tok_1"
    )


def person_caller(person_id: str, *scopes: str) -> Caller:
    """Return the person as the caller of a request with a verified token."""
    return Caller(kind="person", id=person_id, name="somebody", owner=None, scopes=frozenset(scopes))


ADMIN = Caller(
    kind="agent",
    id="ag_admin",
    name="admin",
    owner="pe_admin",
    scopes=frozenset({"ostiary:admin", "ostiary:read"}),
    jkt="admin's key",
    task="tk_admin",
    token="tok_admin",
)


async def call_admin_api(
    world: World, method: str, target: str, body: Any = None, *, by: Caller = ADMIN
) -> tuple[int, dict[str, Any]]:
    """Call the handler of an admin route as the caller `by`, and return status and JSON."""
    path, _, query = target.partition("?")
    wire, params = _route(method, f"/api/v1{path}")
    call = Call(
        world,
        method,
        f"/api/v1{path}",
        params,
        query,
        [(b"content-type", b"application/json")],
        b"" if body is None else json.dumps(body).encode(),
        "rq_1",
        by,
    )
    try:
        answer = await wire(call)
    except Refused as refusal:
        answer = render_admin(refusal)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)


def _route(method: str, path: str) -> tuple[Wire, dict[str, str]]:
    for route in ROUTES:
        match = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path), path)
        if route.method == method and match is not None:
            return route.wire, match.groupdict()
    raise LookupError(f"no route {method} {path}")
