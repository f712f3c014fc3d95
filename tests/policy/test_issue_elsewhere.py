"""Rego decides on tokens and parts of tasks: the act is repeated with the result; its caller authenticates once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.registry_fixtures import call_admin_api, get_agent, run_act
from ostiary.authorization.assurance import KEY
from ostiary.authorization.cedar import ir
from ostiary.decision.access import Policies, PolicyResult, RemoteAnswers
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.policy import flows
from ostiaryd.policy.flows.external_pdp import MAX_RETRIES, Engines, act_with_answers
from ostiaryd.policy.flows.external_retry import FRESH, RemotePoliciesNeeded, Retry
from tests.support.api_fixtures import FILES, Client
from tests.support.delegation_fixtures import agents, exchange, token_for
from tests.support.rego_fixtures import put

TOKENS = """package ostiary.tokens
import rego.v1
default permit := false
permit if { input.action.name == "issue_token"; input.resource.attributes.uri != "https://mail.example/mcp" }
permit if { input.action.name == "delegate"; input.context.depth < 2 }
forbid contains "nobody writes" if "files:write" in input.context.scopes
"""


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": action}, limit=50)]


class Counted:
    """How often the engines were asked."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        engines, self.count = world.get_singleton(Engines), 0
        before = engines.ask

        async def counting(*asked: Any) -> Any:
            self.count += 1
            return await before(*asked)

        monkeypatch.setattr(engines, "ask", counting)


@pytest.fixture
async def client(world: World) -> Client:
    (client,) = await agents(world, "one")
    await put(world, {"a.rego": TOKENS})
    return client


async def test_a_set_of_rego_policies_only_permits_the_issue_of_a_token(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, before = Counted(world, monkeypatch), len(entries(world, "token.issue"))
    assert (await client.token(resource=FILES, scope="files:read"))["scope"] == "files:read"
    assert counted.count == 1
    assert len(entries(world, "token.issue")) == before + 1, "one act, though it came twice"
    assert entries(world, "token.issue")[0].policies == ["tokens"]


async def test_a_token_that_rego_forbids_or_does_not_permit_is_denied_with_an_entry(
    world: World, client: Client
) -> None:
    denied = await client.ask(resource=FILES, scope="files:read files:write")
    assert (denied.error, "nobody writes" in denied.json["error_description"]) == ("access_denied", True)
    assert entries(world, "token.issue")[0].outcome == "refused"
    denied = await client.ask(resource="https://mail.example/mcp")
    assert (denied.error, "no policy permits" in denied.json["error_description"]) == ("access_denied", True)


async def test_a_token_that_cedar_forbids_is_not_evaluated_by_rego(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(world, {"a.rego": TOKENS, "a.cedar": 'forbid (principal, action == Action::"issue_token", resource);'})
    counted = Counted(world, monkeypatch)
    assert (await client.ask(resource=FILES, scope="files:read")).error == "access_denied"
    assert counted.count == 0


async def test_rego_is_evaluated_only_after_client_authentication_and_the_credentials_are_spent(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(world, monkeypatch)
    assert (await client.ask(resource=FILES, client_assertion="x.y.z")).error == "invalid_client"
    assert (await client.ask(resource=FILES, proof="x.y.z")).error == "invalid_dpop_proof"
    assert counted.count == 0
    used = {"client_assertion": client.assertion(), "proof": client.proof(), "resource": FILES, "scope": "files:read"}
    answers = await asyncio.gather(*(client.ask(**used) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [200, 401, 401], "one of them, however they meet"
    assert (await client.ask(**used)).error == "invalid_client"
    assert counted.count == 1


async def test_a_token_exchange_evaluates_rego_for_delegation_and_issue_with_the_depth(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = await agents(world, "one", "two", "three")
    await put(world, {"a.rego": TOKENS})
    token = await token_for(one, "two", scope="files:read")
    counted = Counted(world, monkeypatch)
    answer = await exchange(two, token, resource=f"{FILES.partition('/mcp')[0]}/mcp")
    assert answer.status == 200, answer.body
    assert counted.count == 2
    assert entries(world, "token.exchange")[0].policies == ["tokens", "tokens"]
    further = str(
        (await exchange(two, token, resource="https://ostiary.example.org/agents/three")).json["access_token"]
    )
    denied = await exchange(three, further)
    assert (denied.error, "no policy permits" in denied.json["error_description"]) == ("invalid_request", True)


async def test_a_part_of_a_task_is_delegated_only_if_rego_permits(world: World) -> None:
    await agents(world, "one", "two", "three")
    await put(world, {"a.rego": TOKENS})
    status, task = await call_admin_api(
        world, "POST", "/tasks", {"agent": "one", "purpose": "p", "scopes": ["files:read"]}
    )
    assert status == 201
    status, part = await call_admin_api(
        world, "POST", "/tasks", {"agent": "two", "purpose": "p", "scopes": ["files:read"], "parent": task["task_id"]}
    )
    assert status == 201, part
    status, denied = await call_admin_api(
        world, "POST", "/tasks", {"agent": "three", "purpose": "p", "scopes": ["files:read"], "parent": part["task_id"]}
    )
    assert (status, denied["error"], denied["message"]) == (403, "access_denied", "no policy permits the request")
    assert entries(world, "task.start")[0].outcome == "refused"


async def test_a_token_is_denied_if_rego_fails(world: World, client: Client) -> None:
    await put(world, {"a.rego": "package ostiary.tokens\nimport rego.v1\npermit if input.nothing"})
    denied = await client.ask(resource=FILES, scope="files:read")
    assert (denied.error, "undefined" in denied.json["error_description"]) == ("access_denied", True)


async def test_a_token_request_is_evaluated_again_if_the_set_changes_during_the_evaluation(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, swapped = world.get_singleton(Engines), TOKENS + 'forbid contains "swapped" if true\n'
    before = engines.ask

    async def swapping(*asked: Any) -> Any:
        found = await before(*asked)
        monkeypatch.setattr(engines, "ask", before)
        await put(world, {"a.rego": swapped})
        return found

    monkeypatch.setattr(engines, "ask", swapping)
    assert "swapped" in (await client.ask(resource=FILES, scope="files:read")).json["error_description"]


async def test_the_number_of_remote_evaluations_of_an_act_is_limited(world: World) -> None:
    await put(world, {"a.rego": TOKENS})
    tried: list[Retry | None] = []

    async def run(retry: Retry | None) -> str:
        tried.append(retry)
        if retry is not None and retry.is_last:
            return "done"
        remote = RemoteAnswers(flows.active_policies(world.db.read()), world.now())
        remote.look_up(b"{}")
        raise RemotePoliciesNeeded("", remote=remote)

    assert await act_with_answers(world, run) == "done"
    assert len(tried) == MAX_RETRIES + 1


async def test_only_recent_remote_results_of_the_same_set_are_used(world: World, client: Client) -> None:
    policies, now = flows.active_policies(world.db.read()), world.now()
    other = Policies("another", ir.PolicySetIR(()), remote=policies.remote)
    agent = get_agent(world, "one")

    async def issue(retry: Retry | None) -> str:
        return await act(
            world,
            "test",
            lambda a: flows.decide_issue(
                a, agent, flows.TaskChain(""), resource=None, uri=FILES, scopes=frozenset(), acr=KEY
            ),
            again=retry,
        )

    async def question(at: int) -> bytes:
        with pytest.raises(RemotePoliciesNeeded) as needed:
            await issue(Retry(RemoteAnswers(policies, at)))
        assert needed.value.remote.at == (at if now - FRESH <= at <= now else now)
        [asked] = needed.value.remote.missing
        return asked

    yes = (PolicyResult("tokens", permits=True),)
    for at, counts in ((now, True), (now - FRESH, True), (now - FRESH - 1, False), (now + 1, False)):
        retry = Retry(RemoteAnswers(policies, at, {await question(at): yes}), is_last=True)
        if counts:
            assert await issue(retry) == policies.hash
    with pytest.raises(RemotePoliciesNeeded):
        await issue(Retry(RemoteAnswers(other, now, {await question(now): yes})))
    with pytest.raises(Forbidden, match="no answer"):
        await issue(Retry(RemoteAnswers(policies, now, {b"another": yes}), is_last=True))


async def test_an_act_that_waits_for_remote_policies_leaves_no_entry(world: World, client: Client) -> None:
    agent = get_agent(world, "one")
    with pytest.raises(RemotePoliciesNeeded):
        await run_act(
            world,
            lambda a: flows.decide_issue(
                a, agent, flows.TaskChain(""), resource=None, uri=FILES, scopes=frozenset(), acr=KEY
            ),
            "test.unasked",
        )
    assert entries(world, "test.unasked") == []
