"""Confused deputies: a credential for one purpose is tried for another, against all routes of the server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import ASGIApp

from harness.registry_fixtures import agent_caller, create_holding, is_live, newest_entry, register_agent, run_act
from ostiary.authorization.bounds import parse_details
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.claims import parse_access
from ostiary.decision.access import Decision, Principal, decide, resolve
from ostiary.decision.feed import TYP as FEED_TYP
from ostiary.guard.knowledge import Knowledge
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Refused
from ostiaryd.app import build_app
from ostiaryd.feed.flows.snapshot import snapshot
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy.model import starter_files
from ostiaryd.policy.wire_authzen import EVALUATION
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import RiskTier
from ostiaryd.registry.store import resources
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.attack.api_calls import call
from tests.support.api_fixtures import FILES, ISSUER, Answer, Client, claims_of, guard, register, send, sign
from tests.support.approval_fixtures import open_bank
from tests.support.delegation_fixtures import ACCESS, MAIL, SCOPES, exchange, exchange_token, start, token_for, uri
from tests.support.policy_fixtures import Ask, put

API = f"{ISSUER}/api/v1"
BANK = "https://bank.example/mcp"


class House:
    """Two agents, a guard and the application."""

    def __init__(self, world: World, app: ASGIApp, agent: Client, other: Client, guard: Client) -> None:
        self.world, self.app, self.agent, self.other, self.guard = world, app, agent, other, guard


@pytest.fixture
async def house(world: World) -> House:
    app = build_app(world)
    people = []
    for name in ("reader", "writer"):
        agent, key = await register(world, name=name)
        people.append(Client(app, world, agent.agent_id, key))
    id, key = await guard(world)
    clients = [*people, Client(app, world, id, key)]
    for client in clients:
        await client.ask()
    return House(world, app, *clients)


async def api_token(client: Client, **said: Any) -> str:
    return str((await client.token(resource=API, **said))["access_token"])


OTHERS = "/api/v1/tasks/{task}"


@pytest.mark.parametrize("who", ["agent", "guard"])
async def test_an_agent_or_guard_without_the_permission_is_refused(house: House, who: str) -> None:
    task = await act(house.world, "test", lambda a: tasks.start(a, TaskSpec(agent="writer", purpose="its own")))
    client: Client = getattr(house, who)
    cases: list[tuple[str, str, Any]] = [
        ("GET", "/api/v1/agents", None),
        ("POST", "/api/v1/agents", {"name": "x", "owner": "ann", "purpose": "p"}),
        ("GET", "/api/v1/audit", None),
        ("GET", "/api/v1/doctor", None),
        ("GET", "/api/v1/feeds", None),
        ("GET", "/ledger/v1/tile/entries/000.p/1", None),
        ("POST", "/api/v1/policies", {"files": {"a.cedar": "permit (principal, action, resource);"}}),
        ("POST", "/api/v1/keys/rotate", {}),
        ("POST", "/access/v1/evaluation", {}),
        ("PUT", "/api/v1/resources/files/mode", {"mode": "watch"}),
        ("POST", "/api/v1/agents/writer/suspend", {}),
        ("POST", "/api/v1/agents/writer/join-token", {}),
        ("POST", "/api/v1/revoke", {"kind": "agent", "id": "writer"}),
        ("POST", "/api/v1/revoke", {"kind": "owner", "id": "ann"}),
        ("POST", "/api/v1/tasks", {"agent": "writer", "purpose": "as another"}),
        ("GET", "/api/v1/tasks?agent=writer", None),
        ("GET", OTHERS, None),
        ("POST", OTHERS + "/renew", {}),
        ("POST", OTHERS + "/end", {}),
    ]
    token = await api_token(client)
    for method, path, body in cases:
        answer = await call(client, token, method, path.format(task=task.task_id), body)
        assert answer.status == 403, (method, path, answer.body)


@pytest.mark.parametrize("path", ["/feed/v1/stream?stream=0123456789abcdef", "/feed/v1/report", "/feed/v1/applied"])
async def test_an_agent_cannot_use_the_feed(house: House, path: str) -> None:
    method = "GET" if "stream" in path else "POST"
    assert (await house.agent.ask(resource=API, scope="ostiary:feed")).error == "invalid_scope"
    assert (await call(house.agent, await api_token(house.agent), method, path, {})).status == 403


async def test_a_token_for_a_tool_server_is_refused_by_the_api(house: House) -> None:
    token = str((await house.agent.token(resource=FILES))["access_token"])
    assert (await call(house.agent, token, "GET", "/api/v1/tasks")).status == 401


async def test_an_agent_gets_no_token_for_a_task_of_another_agent(house: House) -> None:
    task = await act(house.world, "test", lambda a: tasks.start(a, TaskSpec(agent="writer", purpose="its own")))
    for id in (task.task_id, "tk_" + house.other.id.removeprefix("ag_")):
        assert (await house.agent.ask(task=id, resource=FILES)).error == "invalid_grant"


async def test_a_header_cannot_change_the_uri_that_a_proof_is_checked_against(house: House) -> None:
    token = await api_token(house.agent)
    path = "/api/v1/tasks"
    cases: list[tuple[tuple[str, str], ...]] = [
        (("host", "evil.example"),),
        (("x-forwarded-host", "evil.example"),),
        (("forwarded", "host=evil.example;proto=https"),),
        (("x-forwarded-prefix", "/evil"),),
    ]
    for headers in cases:
        assert (await call(house.agent, token, "GET", path, headers=headers)).status == 200, headers
        answer = await call(house.agent, token, "GET", path, headers=headers, uri=f"https://evil.example{path}")
        assert answer.status == 401, headers


async def test_a_header_that_is_sent_twice_is_refused(house: House) -> None:
    token = await api_token(house.agent)
    for name, status in (("authorization", 400), ("dpop", 401)):  # RFC 6750 section 3.1, RFC 9449 section 4.3
        answer = await call(house.agent, token, "GET", "/api/v1/tasks", headers=((name, "x"),))
        assert answer.status == status


async def test_a_token_signed_by_the_agent_is_refused(house: House) -> None:
    token = await api_token(house.agent)
    cases: list[dict[str, Any]] = [{}, {"alg": "none"}, {"alg": "HS256"}, {"typ": "JWT"}, {"typ": None}, {"jku": "x"}]
    for header in cases:
        claims = claims_of(token) | {"scope": "ostiary:admin"}
        ours = json.loads(jose.unb64u(token.split(".")[0]))
        head = ours | {"jwk": house.agent.key.public.bare_jwk} | header
        answer = await call(house.agent, sign(house.agent.key, head, claims), "GET", "/api/v1/tasks")
        assert answer.status == 401, header


async def test_a_token_signed_by_another_key_of_the_server_is_refused(house: House) -> None:
    claims = claims_of(await api_token(house.agent))
    keys = house.world.keys
    for use, alg, typ in (("feed", "EdDSA", "at+jwt"), ("ledger", "EdDSA", "at+jwt"), ("token", "ES256", FEED_TYP)):
        token = jose.sign_jwt(keys.signer(use, alg), typ=typ, claims=claims)
        assert (await call(house.agent, token, "GET", "/api/v1/tasks")).status == 401


async def test_a_jwt_of_another_type_does_not_authenticate_a_client(house: House) -> None:
    cases: list[str] = ["enrol+jwt", "dpop+jwt", "at+jwt", "secevent+jwt", "ostiary-feed+jwt", ""]
    for typ in cases:
        assertion = house.agent.assertion(header={"typ": typ})
        assert (await house.agent.ask(client_assertion=assertion)).error == "invalid_client", typ


async def test_a_client_assertion_and_a_proof_for_another_server_are_refused_as_proofs(house: House) -> None:
    assert (await house.agent.ask(proof=house.agent.assertion())).error == "invalid_dpop_proof"
    elsewhere = house.agent.proof(uri="https://evil.example/token")
    assert (await house.agent.ask(proof=elsewhere)).error == "invalid_dpop_proof"


async def test_a_nonce_of_the_token_endpoint_is_refused_by_the_api(house: House) -> None:
    token = await api_token(house.agent)
    nonce = dpop.make_nonce(house.world.keys.secret("nonce"), b"as", house.world.now())
    proof = house.agent.proof(method="GET", uri=f"{API}/tasks", access_token=token, nonce=nonce)
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof)]
    answer = await send(house.app, "GET", "/api/v1/tasks", headers=headers)
    assert answer.error == "use_dpop_nonce"


# ------------------------------------------------------------------------- agents that let others act, form by form
#
# The names of the forms are those of the OWASP Top 10 for Agentic Applications 2026 (ASI01 to ASI10), RFC 8693, MCP's
# authorization, AuthZEN and AIMS; docs/explanation/threat-model.md has the table.

TOOLS = {
    "files": [{"name": "read_file", "effect": "read"}, {"name": "write_file", "effect": "write"}],
    "mail": [{"name": "send", "effect": "send", "scope": "send"}],
}
POLICIES = {name: text for name, text in starter_files().files.items() if name.endswith(".cedar")}
LOW_NEVER_SENDS = {
    "low.cedar": """
        @id("low-never-sends")
        @reason("this agent reads what strangers write")
        forbid (principal is Agent, action == Action::"call", resource is Tool)
        when { principal.risk_tier == "critical" && resource.effect == "send" };
    """
}


@pytest.fixture
async def pair(world: World) -> tuple[Client, Client]:
    """`low`, which a policy keeps from sending, and `high`, which may send; both have the scopes."""
    low, high = await enrolled(world, "low", risk_tier=RiskTier.CRITICAL), await enrolled(world, "high")
    await put(world, POLICIES | LOW_NEVER_SENDS)
    return low, high


async def enrolled(world: World, name: str, *, scopes: tuple[str, ...] = SCOPES, **more: Any) -> Client:
    agent, key = await register(world, name=name, scopes=scopes, **more)
    if resources.get_resource(world.db.read(), "mail") is None:
        await run_act(world, lambda a: registry.create_resource(a, name="mail", uri=MAIL))
        for name, tools in TOOLS.items():
            catalogue = Catalogue.parse(json.dumps({"resource": name, "tools": tools}))
            await run_act(world, lambda a, name=name, catalogue=catalogue: registry.set_catalogue(a, name, catalogue))  # type: ignore[misc]
    client = Client(build_app(world), world, agent.agent_id, key)
    await client.ask()
    return client


def at_guard(world: World, token: str, tool: str = "mail/send", **arguments: Any) -> Decision:
    """The decision of a guard with the whole feed: its facts are those of the feed."""
    resource = registry.find_resource(world.db.read(), tool.partition("/")[0])
    knowledge = Knowledge()
    for fact in snapshot(world.db.read(), world.keys, resource, now=world.now()):
        knowledge.learn(fact)
    principal = Principal(parse_access(claims_of(token)))
    facts = knowledge.present().facts
    return decide(resolve(principal, tool.partition("/")[2], arguments, facts, world.now()))


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


async def send_token(client: Client, **said: Any) -> str:
    return str((await client.token(resource=MAIL, scope="mail:send", **said))["access_token"])


def question(client: Client, tool: str = "mail/send", **context: Any) -> dict[str, Any]:
    """The question of a PEP about a call."""
    return {
        "subject": {"type": "agent", "id": client.id},
        "action": {"name": "call"},
        "resource": {"type": "tool", "id": tool},
        "context": context,
    }


async def test_asi03_cross_agent_trust_a_forbid_for_the_giver_applies_to_its_subtask(
    world: World, pair: tuple[Client, Client], ask: Ask
) -> None:
    """The classic confused deputy: low lets high do a forbidden call, at the guard, in an evaluation or a search."""
    low, high = pair
    part = await start(world, agent="high", parent=(await start(world, agent="low")).task_id)
    assert at_guard(world, await send_token(high)).allowed
    decision = at_guard(world, await send_token(high, task=part.task_id))
    assert (decision.allowed, decision.policies) == (False, ("low-never-sends",))
    assert low.id in decision.reasons[0].message
    for task, allowed in ((None, True), (part.task_id, False)):
        context = {} if task is None else {"task": task}
        assert (await ask(EVALUATION, question(high, **context)))[1]["decision"] is allowed
        sought = question(high, **context) | {"resource": {"type": "tool"}}
        found = (await ask("/access/v1/search/resource", sought))[1]["results"]
        assert ("mail/send" in [one["id"] for one in found]) is allowed
        assert "files/read_file" in [one["id"] for one in found]


async def test_asi03_cross_agent_trust_a_forbid_for_the_giver_applies_to_its_exchanged_token(
    world: World, pair: tuple[Client, Client]
) -> None:
    low, high = pair
    token = await token_for(low, "high", scope="mail:send")
    decision = at_guard(world, await exchange_token(high, token, scope="mail:send"))
    assert (decision.allowed, decision.policies) == (False, ("low-never-sends",))
    mid = await enrolled(world, "mid")
    further = await exchange_token(high, token, resource=uri("mid"), scope="mail:send")
    assert not at_guard(world, await exchange_token(mid, further, scope="mail:send")).allowed


async def test_asi03_cross_agent_trust_a_permit_of_an_earlier_agent_does_not_help_the_current_actor(
    world: World,
) -> None:
    """RFC 8693 section 4.1: prior actors never grant a permission."""
    high, low = await enrolled(world, "high"), await enrolled(world, "low")
    only_high = f"""
        permit (principal == Agent::"{high.id}", action == Action::"call", resource);
        permit (principal, action == Action::"issue_token", resource);
    """
    await put(world, {"a.cedar": only_high})
    part = await start(world, agent="low", parent=(await start(world, agent="high")).task_id)
    assert codes(at_guard(world, await send_token(low, task=part.task_id))) == ["no_permit"]


async def test_asi03_cross_agent_trust_a_rule_for_autonomous_agents_holds_for_their_helpers(world: World) -> None:
    """A rule for agents that act for themselves holds for what such an agent lets another do."""
    rule = """@id("alone") forbid (principal is Agent, action == Action::"call", resource is Tool)
              when { resource.effect == "send" && context.subject == principal.id };"""
    low, high = await enrolled(world, "low"), await enrolled(world, "high")
    await put(world, POLICIES | {"a.cedar": rule})
    token = await token_for(low, "high", scope="mail:send")
    assert at_guard(world, await exchange_token(high, token, scope="mail:send")).policies == ("alone",)
    person = await start(world, agent="low", on_behalf_of="ann")
    part = await start(world, agent="high", parent=person.task_id)
    assert at_guard(world, await send_token(high, task=part.task_id)).allowed


async def test_asi03_unscoped_privilege_inheritance_a_worker_gets_only_scopes_of_its_own(world: World) -> None:
    await enrolled(world, "manager")
    worker = await enrolled(world, "worker", scopes=("files:read",))
    whole = await start(world, agent="manager")
    part = await start(world, agent="worker", parent=whole.task_id)
    assert part.scopes == frozenset({"files:read"})
    with pytest.raises(Refused):
        await start(world, agent="worker", parent=whole.task_id, scopes=["mail:send"])
    assert (await worker.ask(task=part.task_id, resource=MAIL, scope="mail:send")).error == "invalid_scope"
    assert (await worker.ask(task=whole.task_id, resource=FILES)).error == "invalid_grant"


async def test_asi03_memory_based_privilege_retention_tokens_and_subtasks_end_with_their_task(world: World) -> None:
    """A token that is kept for a later session, and the part of a task that is kept open."""
    await enrolled(world, "one")
    two = await enrolled(world, "two")
    whole = await start(world, agent="one")
    part = await start(world, agent="two", parent=whole.task_id)
    kept = await send_token(two, task=part.task_id)
    assert at_guard(world, kept).allowed
    await run_act(world, lambda a: tasks.end(a, whole.task_id))
    assert codes(at_guard(world, kept)) == ["task_ended"]
    assert (await two.ask(task=part.task_id, resource=MAIL)).error == "invalid_grant"


@pytest.mark.parametrize("who", ["one", "two"])
async def test_asi03_time_of_check_to_time_of_use_an_agent_that_changes_segment_loses_its_tokens(
    world: World, who: str, ask: Ask
) -> None:
    """Tokens state the segment, so they end for the holder and for agents in the chain, and none is issued across."""
    one, two = await enrolled(world, "one"), await enrolled(world, "two")
    part = await start(world, agent="two", parent=(await start(world, agent="one")).task_id)
    mine = {"one": await send_token(one), "two": await send_token(two, task=part.task_id)}
    handed = await exchange_token(two, await token_for(one, "two", scope="mail:send"), scope="mail:send")
    await run_act(world, lambda a: registry.set_segment(a, who, "quarantine-ward"))
    dead = [handed, mine["two"], mine[who]]
    assert all(codes(at_guard(world, token)) == ["token_revoked"] for token in dead)
    assert not any(is_live(world, claims_of(token)["jti"]) for token in dead)
    assert (await two.ask(task=part.task_id, resource=MAIL)).error == "invalid_grant"
    assert (await ask(EVALUATION, question(two, task=part.task_id)))[1]["decision"] is False
    moved = {"one": one, "two": two}[who]
    assert codes(at_guard(world, await send_token(moved))) == ["no_permit"]
    await run_act(world, lambda a: registry.set_segment(a, who, "default"))
    assert at_guard(world, await send_token(two, task=part.task_id)).allowed


async def test_asi03_time_of_check_to_time_of_use_a_new_policy_applies_to_issued_tokens(
    world: World,
) -> None:
    await enrolled(world, "low", risk_tier=RiskTier.CRITICAL)
    high = await enrolled(world, "high")
    part = await start(world, agent="high", parent=(await start(world, agent="low")).task_id)
    token = await send_token(high, task=part.task_id)
    assert at_guard(world, token).allowed
    await put(world, POLICIES | LOW_NEVER_SENDS)
    assert not at_guard(world, token).allowed


async def test_asi03_synthetic_identity_injection_an_agent_cannot_register_or_describe_an_agent(
    world: World, pair: tuple[Client, Client], ask: Ask
) -> None:
    """`Admin Helper`: an agent registers none, and neither a PEP nor a form says owner, segment or tier of one."""
    low, _ = pair
    token = await api_token(low)
    body = {"name": "admin-helper", "owner": "ann", "purpose": "p", "scopes": ["mail:send"]}
    assert (await call(low, token, "POST", "/api/v1/agents", body)).status == 403
    assert (await call(low, token, "PATCH", "/api/v1/agents/low", {"segment": "finance"})).status == 403
    claimed = question(low) | {"subject": {"type": "agent", "id": low.id, "properties": {"risk_tier": "low"}}}
    assert (await ask(EVALUATION, claimed))[1]["decision"] is False
    for stranger in ("ag_" + "0" * 32, "admin-helper"):
        answer = (await ask(EVALUATION, question(low) | {"subject": {"type": "agent", "id": stranger}}))[1]
        assert answer["decision"] is False
    assert claims_of(await send_token(low, risk_tier="low", segment="x"))["risk_tier"] == "critical"


async def test_mcp_token_passthrough_a_token_for_one_server_is_refused_by_another(world: World) -> None:
    """MCP 2026-07-28: a server must not accept or forward tokens of others."""
    one = await enrolled(world, "one")
    token = str((await one.token(resource=FILES))["access_token"])
    assert at_guard(world, token, "files/read_file").allowed
    assert codes(at_guard(world, token, "mail/send")) == ["wrong_audience"]


async def test_aims_forwarding_a_tool_server_cannot_use_the_token_of_its_caller(world: World) -> None:
    """Not at another server, not at our API, and not by exchange: neither as itself nor as an agent of its own."""
    one, accomplice = await enrolled(world, "one"), await enrolled(world, "accomplice")
    token = str((await one.token(resource=FILES))["access_token"])
    id, key = await guard(world)
    files = Client(one.app, world, id, key)
    await files.ask()
    assert codes(at_guard(world, token, "mail/send")) == ["wrong_audience"]
    assert (await call(files, token, "GET", "/api/v1/tasks")).status == 401
    assert (await exchange(files, token)).error == "unauthorized_client"
    assert (await exchange(accomplice, token)).error == "invalid_request"
    with_its_token = {"subject_token": await token_for(accomplice, "one"), "actor_token": token}
    assert (await exchange(accomplice, None, **with_its_token, actor_token_type=ACCESS)).error == "invalid_request"


async def test_rfc8693_an_actor_token_of_another_agent_or_with_a_chain_is_refused(world: World) -> None:
    one, two, three = [await enrolled(world, name) for name in ("one", "two", "three")]
    subject = await token_for(one, "two", scope="files:read")
    part = await start(world, agent="two", parent=(await start(world, agent="three")).task_id)
    others = await api_token(three)
    chained = str((await two.token(resource=API, task=part.task_id))["access_token"])
    for actor in (others, chained):
        assert (await exchange(two, subject, actor_token=actor, actor_token_type=ACCESS)).error == "invalid_request"
    own = await api_token(two)
    assert (await exchange(two, subject, actor_token=own, actor_token_type=ACCESS)).status == 200


async def test_rfc8693_impersonation_a_subject_token_is_exchanged_only_by_its_audience(world: World) -> None:
    """An agent that is not the audience cannot exchange the token, and the new token keeps `act`."""
    one, two, three = [await enrolled(world, name) for name in ("one", "two", "three")]
    token = await token_for(one, "two", scope="mail:send")
    assert (await exchange(three, token, scope="mail:send")).error == "invalid_request"
    claims = claims_of(await exchange_token(two, token, scope="mail:send"))
    assert (claims["sub"], claims["act"]["sub"]) == (one.id, two.id)
    assert claims["cnf"]["jkt"] == two.key.public.thumbprint


async def test_chain_truncation_an_agent_cannot_remove_earlier_agents_from_the_chain(
    world: World, pair: tuple[Client, Client]
) -> None:
    """After narrowing, a further subtask or an exchange, low stays in the chain, and so do its policies."""
    low, high = pair
    part = await start(world, agent="high", parent=(await start(world, agent="low")).task_id)
    again = await start(world, agent="high", parent=part.task_id)
    token = await send_token(high, task=part.task_id)
    tries = [
        await exchange_token(high, token, resource=None, scope="mail:send"),
        await send_token(high, task=again.task_id),
        await exchange_token(high, await token_for(low, "high", scope="mail:send"), scope="mail:send"),
    ]
    for tried in tries:
        assert low.id in [link[0] for link in claims_of(tried)["chain"]]
        assert not at_guard(world, tried).allowed
    back = await exchange(high, token, resource=uri("low"), scope="mail:send")
    assert back.error == "invalid_target"


async def test_chain_truncation_a_pep_cannot_omit_or_replace_the_chain(
    world: World, pair: tuple[Client, Client], ask: Ask
) -> None:
    low, high = pair
    part = await start(world, agent="high", parent=(await start(world, agent="low")).task_id)
    lies: list[dict[str, Any]] = [{}, {"actors": []}, {"chain": []}, {"chain": [{"agent": high.id}], "subject": "pe_1"}]
    for said in lies:
        asked = question(high, task=part.task_id, **said)
        assert (await ask(EVALUATION, asked))[1]["decision"] is False
    assert low.id in newest_entry(world).actors


async def test_authzen_naming_another_an_agent_is_denied_under_the_task_of_another_agent(
    world: World, pair: tuple[Client, Client], ask: Ask
) -> None:
    """An evaluation grants no access, and its ledger entry names the caller and the subject."""
    low, high = pair
    task = await start(world, agent="high")
    foreign = (await ask(EVALUATION, question(low, task=task.task_id)))[1]
    assert (foreign["decision"], foreign["context"]["reasons"][0]["code"]) == (False, "not_found")
    other_verb = question(low, task=task.task_id) | {"action": {"name": "read_secret"}}
    assert (await ask(EVALUATION, other_verb))[1]["decision"] is False
    token = await api_token(low)
    assert (await call(low, token, "POST", EVALUATION, question(high))).status == 403


async def test_segments_an_agent_cannot_reach_another_segment_through_an_agent_of_it(world: World) -> None:
    """Subtasks and tokens, also through an agent between, do not cross segments in either direction."""
    far = await enrolled(world, "far", segment="finance")
    near, between = await enrolled(world, "near"), await enrolled(world, "between")
    await run_act(world, lambda a: registry.create_resource(a, name="bank", uri=BANK, segment="finance"))
    whole = await start(world, agent="near")
    for giver in (whole, await start(world, agent="between", parent=whole.task_id)):
        with pytest.raises(Refused) as refused:
            await start(world, agent="far", parent=giver.task_id)
        assert refused.value.code == "widens"
    assert (await exchange(far, await token_for(near, "far"), scope="mail:send")).error == "invalid_request"
    handed = await exchange_token(between, await token_for(near, "between"), resource=uri("far"))
    assert (await exchange(far, handed, scope="mail:send")).error == "invalid_request"
    assert (await ask_delegation(world, near, far))["decision"] is False


async def ask_delegation(world: World, giver: Client, receiver: Client) -> Any:
    posed = {
        "subject": {"type": "agent", "id": giver.id},
        "action": {"name": "delegate"},
        "resource": {"type": "agent", "id": receiver.id},
    }
    admin = await enrolled(world, "pep", scopes=("ostiary:decide",))
    return (await call(admin, await api_token(admin, scope="ostiary:decide"), "POST", EVALUATION, posed)).json


async def test_segments_a_permit_across_segments_does_not_help_agents_behind_its_agent(world: World) -> None:
    """A permit across segments is for its agent, and not for an agent that delegates to this agent."""
    clerk, other = await enrolled(world, "clerk"), await enrolled(world, "other")
    await run_act(world, lambda a: registry.create_resource(a, name="vault", uri=BANK, segment="finance"))
    tools = Catalogue.parse(json.dumps({"resource": "vault", "tools": [{"name": "look", "effect": "read"}]}))
    await run_act(world, lambda a: registry.set_catalogue(a, "vault", tools))
    for name in ("clerk", "other"):
        await run_act(world, lambda a, name=name: registry.set_scopes(a, name, [*SCOPES, "vault:read"]))  # type: ignore[misc]
    door = f'permit (principal == Agent::"{clerk.id}", action == Action::"call", resource in Resource::"vault");'
    await put(world, POLICIES | {"door.cedar": door})
    own = str((await clerk.token(resource=BANK))["access_token"])
    assert at_guard(world, own, "vault/look").allowed
    part = await start(world, agent="clerk", parent=(await start(world, agent="other")).task_id)
    sent = str((await clerk.token(resource=BANK, task=part.task_id))["access_token"])
    decision = at_guard(world, sent, "vault/look")
    assert codes(decision) == ["no_permit"]
    assert other.id in decision.reasons[0].message


async def test_asi07_insecure_inter_agent_communication_a_third_agent_cannot_use_a_subtask_or_token(
    world: World,
) -> None:
    """Who overhears the id of a part, or a token that is on its way to another agent, has nothing."""
    one, _, thief = [await enrolled(world, name) for name in ("one", "two", "thief")]
    part = await start(world, agent="two", parent=(await start(world, agent="one")).task_id)
    assert (await thief.ask(task=part.task_id, resource=MAIL)).error == "invalid_grant"
    token = await token_for(one, "two", scope="mail:send")
    assert (await exchange(thief, token)).error == "invalid_request"
    assert codes(at_guard(world, token)) == ["wrong_audience"]
    who = agent_caller(registry.find_agent(world.db.read(), "thief"))
    with pytest.raises(Refused):
        await run_act(
            world, lambda a: tasks.start(a, TaskSpec(agent="thief", purpose="p", parent=part.task_id, by=who))
        )


async def test_asi09_human_agent_trust_exploitation_an_approval_is_for_one_agent_and_task(
    world: World,
) -> None:
    """Approval laundering: an approval counts for the requesting agent, in its task, and once."""
    bank = await open_bank(world)
    other = await register_agent(world, "other", scopes=["bank:write"])
    part = await start(world, agent="other", parent=bank.task.task_id)
    again = await start(world, agent=bank.agent.name)
    await create_holding(world, other, "tok_2", audience=BANK, task=part.task_id, seconds=3600)
    await create_holding(world, bank.agent, "tok_3", audience=BANK, task=again.task_id, seconds=3600)
    await create_holding(world, other, "tok_4", audience=BANK, task=bank.task.task_id, seconds=3600)
    asked = await bank.ask()
    assert (await bank.answer(asked.approval)).state == "approved"
    for token in ("tok_2", "tok_3", "tok_4"):
        assert (await bank.ask(token=token)).state == "open", token
    assert (await bank.ask()).state == "spent"
    with pytest.raises(Refused):
        await bank.ask()


async def test_asi08_cascading_failures_a_chain_has_a_maximum_depth_and_one_revocation_ends_it(world: World) -> None:
    clients = {name: await enrolled(world, name, max_depth=2) for name in ("one", "two", "three", "four")}
    task = await start(world, agent="one")
    for name in ("two", "three"):
        task = await start(world, agent=name, parent=task.task_id)
    with pytest.raises(Refused) as refused:
        await start(world, agent="four", parent=task.task_id)
    assert refused.value.code == "too_deep"
    token = await send_token(clients["three"], task=task.task_id)
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.AGENT, "one"))
    assert codes(at_guard(world, token)) == ["agent_not_active"]


async def test_policies_for_issuance_and_delegation_see_the_chain_and_the_data_classes(world: World) -> None:
    """A forbid about an agent behind it stops the token and the next step; `datatypes` says how a part is limited."""
    low, high = await enrolled(world, "low", risk_tier=RiskTier.CRITICAL), await enrolled(world, "high")
    await enrolled(world, "third")
    rules = """
        @id("no-mail") forbid (principal is Agent, action == Action::"issue_token", resource is Resource)
        when { principal.risk_tier == "critical" && resource.name == "mail" };
        @id("no-step") forbid (principal is Agent, action == Action::"delegate", resource is Agent)
        when { principal.risk_tier == "critical" && context.depth > 1 };
        @id("limited") forbid (principal is Agent, action, resource)
        when { action in [Action::"issue_token", Action::"delegate"] && context has datatypes
               && context.datatypes.contains("personal") };
    """
    await put(world, POLICIES | {"a.cedar": rules})
    whole = await start(world, agent="low")
    part = await given(world, low, "high", whole.task_id)
    assert part.status == 201
    id = part.json["task_id"]
    assert (await high.ask(task=id, resource=MAIL)).error == "access_denied"
    assert (await high.ask(task=id, resource=FILES)).status == 200
    assert (await high.ask(resource=MAIL)).status == 200
    assert (await given(world, high, "third", id)).status == 403
    for classes, status in ((["internal"], 201), (["internal", "personal"], 403)):
        limited = await given(world, low, "high", whole.task_id, data_classes=classes)
        assert limited.status == status
    bounds = [{"type": "tool", "locations": [FILES], "datatypes": ["personal"]}]
    own = await start(world, agent="high", bounds=parse_details(bounds))
    assert (await high.ask(task=own.task_id, resource=FILES)).error == "access_denied"


async def given(world: World, giver: Client, to: str, parent: str, **more: Any) -> Answer:
    body = {"purpose": "p", "agent": to, "parent": parent, **more}
    return await call(giver, await api_token(giver), "POST", "/api/v1/tasks", body)
