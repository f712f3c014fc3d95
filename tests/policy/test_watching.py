"""A watching policy set: its verdicts are recorded, and no decision changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.registry_fixtures import create_holding, feed_messages, newest_entry, register_agent, run_act
from ostiary.authorization.assurance import KEY
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.report import CallFacts, CallRecord, Report
from ostiaryd.feed.flows import take_report
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.policy import flows, store
from ostiaryd.policy.flows.sets import watch as let_watch
from ostiaryd.policy.model import load
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource
from tests.support.policy_fixtures import Ask

URI = "https://bank.example/mcp"
PUT, EVALUATION, EVALUATIONS = "/api/v1/policies", "/access/v1/evaluation", "/access/v1/evaluations"
ARGUMENTS = {"properties": {"amount": {"type": "integer"}}}
TOOLS = [{"name": "pay", "effect": "pay", "arguments": ARGUMENTS}, {"name": "read", "effect": "read"}]
CATALOGUE = {"resource": "bank", "tools": TOOLS}
CANDIDATE = {
    "a.cedarschema": "type Arguments = { amount?: Long };",
    "a.cedar": """
        @id("calls") permit (principal, action == Action::"call", resource);
        @id("tokens") permit (principal, action == Action::"issue_token", resource) when { resource.name == "bank" };
        @id("small") forbid (principal, action == Action::"call", resource)
        when { context.arguments has amount && context.arguments.amount > 99 };
    """,
}


@pytest.fixture
async def bank(world: World) -> Resource:
    await run_act(world, lambda a: registry.create_resource(a, name="bank", uri=URI))
    await run_act(world, lambda a: registry.set_catalogue(a, "bank", Catalogue.parse(json.dumps(CATALOGUE))))
    return registry.find_resource(world.db.read(), "bank")


@pytest.fixture
async def bot(world: World, bank: Resource) -> Agent:
    return await register_agent(world, scopes=["bank:read", "bank:write"])


@pytest.fixture
async def candidate(world: World) -> str:
    return await watch(world, CANDIDATE)


async def watch(world: World, files: dict[str, str]) -> str:
    loaded = load(files)
    return (await run_act(world, lambda a: let_watch(a, loaded, by=None))).hash


def question(bot: Agent, tool: str = "pay", **arguments: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": bot.agent_id},
        "action": {"name": "call"},
        "resource": {"type": "tool", "id": f"bank/{tool}"},
        "context": {"arguments": arguments},
    }


def said(entry: Entry) -> Any:
    return (entry.detail or {}).get("candidate")


async def test_a_watching_set_is_evaluated_and_recorded_without_changing_the_decision(
    world: World, ask: Ask, bot: Agent, candidate: str
) -> None:
    _, answer = await ask(EVALUATION, question(bot, amount=99))
    assert answer["decision"] is True
    assert said(newest_entry(world)) == {"policy": candidate, "verdict": "allow", "policies": ["calls"]}
    _, answer = await ask(EVALUATION, question(bot, amount=100))
    assert (answer["decision"], "candidate" in str(answer)) == (True, False)
    entry = newest_entry(world)
    assert said(entry) == {
        "policy": candidate,
        "verdict": "deny",
        "policies": ["small"],
        "because": "forbidden_by_policy",
    }
    assert (entry.outcome, entry.policy) == ("allow", flows.active_policies(world.db.read()).hash)
    assert (entry.detail or {})["asked"][0] == "agent"


async def test_a_request_denied_before_policies_is_not_evaluated_by_the_watching_set(
    world: World, ask: Ask, bot: Agent, candidate: str
) -> None:
    _, answer = await ask(EVALUATION, question(bot, "no_such_tool"))
    assert answer["decision"] is False
    assert said(newest_entry(world)) is None


async def test_the_entry_of_a_batch_counts_the_verdicts_of_the_watching_set(
    world: World, ask: Ask, bot: Agent, candidate: str
) -> None:
    items = [{"context": {"arguments": {"amount": amount}}} for amount in (1, 2, 200)]
    _, answer = await ask(EVALUATIONS, question(bot) | {"evaluations": items})
    assert [one["decision"] for one in answer["evaluations"]] == [True] * 3
    assert said(newest_entry(world)) == {"policy": candidate, "verdict": "deny", "verdicts": {"allow": 2, "deny": 1}}


async def test_a_watching_set_is_evaluated_when_a_token_is_issued(
    world: World, bot: Agent, bank: Resource, candidate: str
) -> None:
    for resource, verdict in ((bank, "allow"), (None, "deny")):
        await run_act(
            world,
            lambda a, resource=resource: flows.decide_issue(  # type: ignore[misc]
                a, bot, flows.TaskChain(""), resource=resource, uri=URI, scopes=frozenset(), acr=KEY
            ),
        )
        assert said(newest_entry(world))["verdict"] == verdict


async def reported(world: World, bot: Agent, bank: Resource, facts: dict[str, Any]) -> Entry:
    await create_holding(world, bot, "tok_1", audience=URI)
    kept = CallFacts(
        **{
            "owner": bot.owner,
            "segment": bot.segment,
            "resource_segment": bank.segment,
            "catalogue": bank.catalogue_hash or "",
            "context": {},
            "arguments": {"amount": 100},
        }
        | facts
    )
    record = CallRecord(
        at=world.now(), token="tok_1", agent=bot.agent_id, tool="pay", outcome="allow", verdict="allow", facts=kept
    )
    report = Report(spool="0" * 32, first=1, records=[record])
    await run_act(world, lambda a: take_report(a, report, resource_id=bank.resource_id), "feed.report")
    [entry] = [
        decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": "tool.call"}, limit=5)
    ]
    return entry


async def test_a_watching_set_is_evaluated_on_calls_that_guards_report(
    world: World, bot: Agent, bank: Resource, candidate: str
) -> None:
    entry = await reported(world, bot, bank, {})
    assert (entry.outcome, said(entry)["verdict"], said(entry)["policies"]) == ("allow", "deny", ["small"])


async def test_a_reported_call_with_a_hidden_argument_has_an_unknown_verdict_of_the_watching_set(
    world: World, bot: Agent, bank: Resource, candidate: str
) -> None:
    entry = await reported(world, bot, bank, {"arguments": {}, "hidden": ["amount"]})
    assert said(entry) == {"policy": candidate, "verdict": "unknown"}


async def test_a_watching_set_is_replaced_by_another_and_ends_when_activated_or_removed(
    world: World, ask: Ask, bot: Agent, candidate: str
) -> None:
    await ask(EVALUATION, question(bot, amount=100))
    assert said(newest_entry(world))["policy"] == candidate
    other = await watch(world, {"a.cedar": "permit (principal, action, resource);"})
    await ask(EVALUATION, question(bot, amount=100))
    assert said(newest_entry(world)) == {"policy": other, "verdict": "allow", "policies": ["a#1"]}
    await run_act(world, lambda a: flows.activate(a, candidate))
    assert store.watched(world.db.read()) == other
    await run_act(world, lambda a: flows.activate(a, other))
    assert store.watched(world.db.read()) is None
    await ask(EVALUATION, question(bot, amount=100))
    assert said(newest_entry(world)) is None
    await watch(world, CANDIDATE)
    assert (await ask(PUT + "/watching", method="DELETE"))[1] == {"hash": candidate}
    assert (newest_entry(world).action, newest_entry(world).object) == ("policy.unwatch", candidate)
    assert (await ask(PUT + "/watching", method="DELETE"))[0] == 404
    assert flows.find_set(world.db.read(), candidate).hash == candidate, "it stays on the shelf"


async def test_the_api_stores_a_watching_set_without_activating_it_or_informing_guards(world: World, ask: Ask) -> None:
    before, told = flows.active_policies(world.db.read()).hash, feed_messages(world)
    status, made = await ask(PUT + "?watch=true", {"files": CANDIDATE})
    assert (status, made["active"]) == (201, False)
    assert feed_messages(world) == told
    assert newest_entry(world).action == "policy.watch"
    assert flows.active_policies(world.db.read()).hash == before
    _, listed = await ask(PUT, method="GET")
    assert [(one["watching"], one["active"]) for one in listed["policies"]] == [(True, False), (False, True)]
    status, _ = await ask(
        PUT + "?watch=true&dry_run=true", {"files": {"a.cedar": "permit (principal, action, resource);"}}
    )
    assert (status, store.watched(world.db.read())) == (200, made["hash"])
    assert (await ask(PUT + "/watching", method="DELETE"))[0] == 200
    assert feed_messages(world) == told
    await run_act(world, lambda a: flows.activate(a, made["hash"]))
    assert [message["kind"] for message in feed_messages(world)[len(told) :]] == ["policy"], (
        "guards hear of enforcement"
    )


REFUSED = {
    "what-if": ("?watch=true&whatif=ticket", CANDIDATE, "`whatif` cannot be combined with `watch`"),
    "opa": ("?watch=true", {"p.opa.toml": 'path = "a"'}, "asks a remote OPA"),
    "rego": ("?watch=true", {"p.rego": "package ostiary.p\npermit := true"}, "cannot be a watching set"),
    "no flag": ("?watch=maybe", CANDIDATE, "`watch` must be true or false"),
}


async def test_a_set_or_request_that_cannot_watch_is_refused(world: World, ask: Ask) -> None:
    for case in REFUSED:
        query, files, words = REFUSED[case]
        status, refused = await ask(PUT + query, {"files": files})
        assert (status, words in refused["message"]) == (422, True), case
        assert store.watched(world.db.read()) is None, case
