"""The steps of a decision, each on its limit and on both sides; and that whatever fails, fails closed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import Actor
from ostiary.cli.audit import hints_of
from ostiary.decision.access import (
    AgentStatus,
    Decision,
    DecisionInputs,
    Facts,
    Policies,
    PolicyResult,
    Principal,
    decide,
    resolve,
)
from ostiary.decision.access.remote_policies import MAX_QUESTION
from ostiary.provenance.intent import Intent
from ostiary.provenance.origins import Memory, remember
from tests.support.decision_fixtures import (
    AGENT,
    CONTEXT,
    END,
    FAILS,
    NOW,
    PARENT,
    PERMIT,
    PRINCIPAL,
    RESOURCE,
    SECOND,
    URI,
    call,
    codes,
    policy,
    principal,
    resource,
    rules,
)


def test_the_decision_of_an_allowed_call_names_the_policy_and_the_policy_set() -> None:
    assert call() == Decision(True, True, "hash", (), ("permit",), arguments={"path": "/srv/x"})


# --- liveness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "alive"), [(END * SECOND - 1, True), (END * SECOND, False), (END * SECOND + 1, False)])
def test_a_token_is_expired_from_the_instant_of_its_expiry(now: int, alive: bool) -> None:
    decision = call(now=now)
    assert decision.allowed is alive
    assert codes(decision) == ([] if alive else ["token_expired"])


@pytest.mark.parametrize(
    ("fact", "epoch", "code"),
    [
        (AgentStatus("suspended", 0), 0, "agent_not_active"),
        (AgentStatus("quarantined", 0), 0, "agent_not_active"),
        (AgentStatus("decommissioned", 5), 5, "agent_not_active"),
        (AgentStatus("a state of tomorrow", 0), 0, "agent_not_active"),
        (AgentStatus("active", 5), 4, "token_revoked"),
        (AgentStatus("active", 5), 5, None),
        (AgentStatus("active", 5), 6, None),
    ],
)
def test_a_call_requires_an_active_agent_and_a_token_of_at_least_its_epoch(
    fact: AgentStatus, epoch: int, code: str | None
) -> None:
    decision = call(principal(epoch=epoch), agents={AGENT: fact})
    assert codes(decision) == ([code] if code else [])
    assert decision.allowed is (code is None)


def test_a_call_on_behalf_of_a_suspended_agent_is_denied() -> None:
    who = principal(sub="pe_1", act=Actor(AGENT, Actor(PARENT)))
    assert call(who).allowed
    assert codes(call(who, agents={PARENT: AgentStatus("suspended", 1)})) == ["agent_not_active"]
    assert call(who, agents={PARENT: AgentStatus("active", 9)}).allowed  # the epoch in the token is not the parent's


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"ended_tasks": {"tk_1"}}, "task_ended"),
        ({"ended_tokens": {"tok_1"}}, "token_revoked"),
        ({"revoked_keys": {"thumb"}}, "key_revoked"),
        ({"ended_tasks": {"tk_2"}, "ended_tokens": {"tok_2"}, "revoked_keys": {"thum"}}, None),
    ],
)
def test_a_call_with_an_ended_task_or_a_revoked_token_or_key_is_denied(facts: dict[str, Any], code: str | None) -> None:
    assert codes(call(**facts)) == ([code] if code else [])


def test_a_changed_fact_applies_to_the_next_call() -> None:
    ended: set[str] = set()
    facts = Facts(resource(), rules(PERMIT), ended_tasks=ended)
    who = principal()
    assert decide(resolve(who, "read_file", {}, facts, NOW)).allowed
    ended.add("tk_1")
    assert not decide(resolve(who, "read_file", {}, facts, NOW)).allowed


@pytest.mark.parametrize("audience", [URI + "/", URI.upper(), "https://files.example", "", "https://other.example/mcp"])
def test_a_token_for_another_audience_is_denied(audience: str) -> None:
    assert codes(call(principal(aud=audience))) == ["wrong_audience"]


# --- the task -------------------------------------------------------------------------------------------------------


def test_a_tool_that_the_catalogue_lacks_is_denied_with_the_command_that_adds_it() -> None:
    decision = call(tool="read_files")
    assert codes(decision) == ["unknown_tool"]
    assert decision.reasons[0].hint == "ostiary resource catalogue files FILE"
    assert codes(call(at=resource(catalogue=None))) == ["unknown_tool"]


@pytest.mark.parametrize("scope", ["", "files:write", "files:rea", "other:read", "files:read2", "read"])
def test_a_call_without_the_scope_of_its_tool_is_outside_the_task(scope: str) -> None:
    assert codes(call(principal(scope=scope))) == ["outside_task"]


START = "ostiary task start --agent AGENT --purpose WORDS"


@pytest.mark.parametrize(
    ("task", "hint", "command"),
    [
        ("tk_" + "1" * 32, f"ostiary agent allow {AGENT} files:read", ""),  # the standing task of this agent
        ("", f"ostiary agent allow {AGENT} files:read", ""),
        ("tk_" + "2" * 32, "start a task that has the scope `files:read`", f"{START} --scope files:read"),
    ],
)
def test_the_hint_for_a_missing_scope_is_the_command_that_would_allow_the_call(
    task: str, hint: str, command: str
) -> None:
    [reason] = call(principal(scope="", task=task)).reasons
    assert reason.hint == hint
    recorded = {"code": reason.code, "message": reason.message}
    assert hints_of({"tool": "files/read_file", "reasons": [recorded]}) == [command or hint], "of ostiary audit show"


def test_the_hint_of_a_call_outside_the_bounds_is_the_command_that_states_bounds() -> None:
    [reason] = call(principal(authorization_details=[detail(actions=["pay"])])).reasons
    assert reason.hint == f"{START} --bounds FILE"
    assert hints_of({"reasons": [{"code": reason.code, "message": reason.message}]}) == [reason.hint]


def detail(**more: Any) -> dict[str, Any]:
    return {"type": "tool", "locations": [URI], "actions": ["read_file"]} | more


@pytest.mark.parametrize(
    ("details", "allowed"),
    [
        ([], True),
        ([detail()], True),
        ([detail(actions=["pay"])], False),
        ([detail(locations=["https://other.example"])], False),
        ([detail(arguments={"path": {"prefix": "/srv/"}})], True),
        ([detail(arguments={"path": {"prefix": "/etc/"}})], False),
        ([detail(arguments={"path": {"prefix": "/etc/"}}), detail(arguments={"path": {"max_length": 6}})], True),
        ([detail(arguments={"path": {"prefix": "/etc/"}}), detail(actions=["pay"])], False),
        ([detail(arguments={"other": {"eq": "x"}})], False),
    ],
)
def test_a_call_must_be_within_one_of_the_bounds_of_its_token(details: list[dict[str, Any]], allowed: bool) -> None:
    decision = call(principal(authorization_details=details))
    assert decision.allowed is allowed
    assert codes(decision) == ([] if allowed else ["outside_task"])


def test_bounds_without_the_scope_of_a_tool_do_not_allow_the_tool() -> None:
    assert codes(call(principal(scope="", authorization_details=[detail()]))) == ["outside_task"]


def test_a_reused_principal_gets_the_same_decision_for_each_tool_every_time() -> None:
    who = principal(authorization_details=[detail()])
    answers = [call(who, tool=tool, arguments={}).allowed for tool in ("read_file", "pay", "read_file", "pay")]
    assert answers == [True, False, True, False]


# --- arguments ------------------------------------------------------------------------------------------------------


def test_arguments_that_violate_the_schema_are_denied_before_policies_are_evaluated() -> None:
    decision = call(arguments={"path": 5}, policies=rules(PERMIT, policy("forbid", FAILS)))
    assert codes(decision) == ["bad_arguments"]


def test_policies_read_arguments_by_their_declared_type() -> None:
    small = [
        "binary",
        "decimal_less_than",
        ["get", ["get", CONTEXT, "arguments"], "amount"],
        ["unary", "decimal", ["lit", "10.0"]],
    ]
    policies = rules(policy("permit", small))
    assert call(tool="pay", arguments={"amount": 9}, policies=policies).allowed
    assert call(tool="pay", arguments={"amount": 9.99}, policies=policies).allowed
    assert codes(call(tool="pay", arguments={"amount": 10}, policies=policies)) == ["no_permit"]
    unreadable = call(tool="pay", arguments={"amount": 9.99999}, policies=policies)
    assert codes(unreadable) == ["policy_error"]
    assert "`context.arguments.amount` is a number with more than four decimal places" in unreadable.reasons[0].message
    assert call(tool="pay", arguments={"amount": 9.99999}, policies=rules(PERMIT)).allowed
    assert codes(call(tool="pay", arguments={"amount": None}, policies=policies)) == ["policy_error"]


@pytest.mark.parametrize("arguments", [[], "x", None, 5])
def test_arguments_that_are_not_an_object_are_denied(arguments: Any) -> None:
    facts = Facts(resource(), rules(PERMIT))
    decision = decide(resolve(principal(), "read_file", arguments, facts, NOW))
    assert codes(decision) == ["bad_arguments"]


# --- policies -------------------------------------------------------------------------------------------------------


def test_a_call_that_no_policy_permits_is_denied() -> None:
    assert codes(call(policies=rules())) == ["no_permit"]


def test_a_forbid_overrides_a_permit_and_supplies_the_reason_and_the_hint() -> None:
    forbid = policy("forbid", id="no-files", reason="files are closed on Sundays", hint="ask on Monday")
    decision = call(policies=rules(PERMIT, forbid))
    assert not decision.allowed
    assert [(one.code, one.message, one.hint) for one in decision.reasons] == [
        ("forbidden_by_policy", "files are closed on Sundays", "ask on Monday")
    ]
    assert decision.policies == ("no-files",)


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_an_error_in_an_enforced_policy_denies_the_call(effect: str) -> None:
    decision = call(policies=rules(PERMIT, policy(effect, FAILS, id="broken")))
    assert not decision.allowed
    assert codes(decision) == ["policy_error"]
    assert decision.policies == ("broken",)
    assert [name for name, _ in decision.errors] == ["broken"]


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_an_error_in_a_policy_in_watch_mode_is_reported_and_denies_nothing(effect: str) -> None:
    decision = call(policies=rules(PERMIT, policy(effect, FAILS, id="broken", mode="watch")))
    assert decision.allowed
    assert decision.policies == ("permit",)
    assert [name for name, _ in decision.errors] == ["broken"]


def test_a_forbid_in_watch_mode_is_reported_and_denies_nothing() -> None:
    decision = call(policies=rules(PERMIT, policy("forbid", mode="watch")))
    assert (decision.allowed, decision.verdict, decision.watched) == (True, True, ("forbid",))


def test_a_permit_in_watch_mode_permits_nothing() -> None:
    decision = call(policies=rules(policy("permit", mode="watch")))
    assert (codes(decision), decision.watched) == (["no_permit"], ("permit",))


def test_policies_see_the_tool_the_agent_and_the_task() -> None:
    def equals(base: Any, attr: str, value: Any) -> Any:
        return ["binary", "eq", ["get", base, attr], value]

    conditions = [
        equals(RESOURCE, "name", ["lit", "read_file"]),
        equals(RESOURCE, "effect", ["lit", "read"]),
        equals(RESOURCE, "scope", ["lit", "files:read"]),
        equals(RESOURCE, "resource", ["entity", ["Resource", "files"]]),
        equals(RESOURCE, "segment", ["get", PRINCIPAL, "segment"]),
        equals(RESOURCE, "open_world", ["lit", True]),
        ["binary", "in", RESOURCE, ["entity", ["Resource", "files"]]],
        ["binary", "in", RESOURCE, ["entity", ["Segment", "default"]]],
        ["binary", "in", PRINCIPAL, ["entity", ["Owner", "pe_1"]]],
        ["binary", "in", PRINCIPAL, ["entity", ["Segment", "default"]]],
        equals(PRINCIPAL, "id", ["lit", AGENT]),
        equals(CONTEXT, "task", ["lit", "tk_1"]),
        equals(CONTEXT, "subject", ["lit", "pe_9"]),
        ["binary", "contains", ["get", CONTEXT, "actors"], ["entity", ["Agent", PARENT]]],
        ["binary", "contains", ["get", CONTEXT, "scopes"], ["lit", "files:read"]],
        ["binary", "contains", ["get", CONTEXT, "amr"], ["lit", "hwk"]],
        equals(CONTEXT, "acr", ["lit", "high"]),
        equals(CONTEXT, "now", ["unary", "datetime", ["lit", "2027-01-15T07:59:00Z"]]),
        equals(["get", CONTEXT, "arguments"], "path", ["lit", "/srv/x"]),
    ]
    who = principal(sub="pe_9", act=Actor(AGENT, Actor(PARENT)), acr="high", amr=["hwk"])
    behind = policy("permit", equals(PRINCIPAL, "id", ["lit", PARENT]), id="the agent behind it")
    decision = call(who, policies=rules(policy("permit", *conditions), behind))
    assert decision.allowed, decision


def test_policies_see_the_current_resource_for_a_reused_principal() -> None:
    by_scope = ["binary", "in", RESOURCE, ["entity", ["Segment", "lab"]]]
    who, policies = principal(), rules(policy("permit", by_scope))
    segments = ("default", "lab", "default", "lab")
    answers = [call(who, at=resource(segment=segment), policies=policies).allowed for segment in segments]
    assert answers == [False, True, False, True]


def test_arguments_cannot_replace_other_attributes_of_the_context() -> None:
    forged = {"path": "x", "task": "tk_9", "__entity": {"type": "Agent", "id": PARENT}, "now": 0}
    same_task = ["binary", "eq", ["get", CONTEXT, "task"], ["lit", "tk_1"]]
    assert call(arguments=forged, policies=rules(policy("permit", same_task))).allowed


# --- mode watch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"tool": "nothing"}, "unknown_tool"),
        ({"who": principal(scope="")}, "outside_task"),
        ({"arguments": {"path": 1}}, "bad_arguments"),
        ({"policies": rules()}, "no_permit"),
        ({"policies": rules(PERMIT, policy("forbid", FAILS))}, "policy_error"),
    ],
)
def test_a_resource_in_watch_mode_allows_a_call_whose_verdict_is_deny(asked: dict[str, Any], code: str) -> None:
    decision = call(at=resource(mode="watch"), **asked)
    assert (decision.allowed, decision.verdict, codes(decision)) == (True, False, [code])


@pytest.mark.parametrize(
    "asked",
    [
        {"now": END * SECOND},
        {"agents": {AGENT: AgentStatus("suspended", 1)}},
        {"ended_tasks": {"tk_1"}},
        {"ended_tokens": {"tok_1"}},
        {"revoked_keys": {"thumb"}},
        {"who": principal(aud="https://other.example")},
    ],
)
def test_a_resource_in_watch_mode_denies_an_ended_token_and_a_token_for_another_audience(asked: dict[str, Any]) -> None:
    decision = call(at=resource(mode="watch"), **asked)
    assert (decision.allowed, decision.verdict) == (False, False)


# --- policies that are run elsewhere --------------------------------------------------------------------------------


def mixed(*policies: dict[str, Any], watches: bool = False) -> Policies:
    parsed = ir.parse(json.dumps({"version": 1, "policies": policies}).encode())
    return Policies("hash", parsed, remote={"rego": watches})


def test_a_remote_policy_that_cannot_be_queried_denies_unless_it_is_in_watch_mode() -> None:
    denied = call(policies=mixed(PERMIT))
    assert (denied.allowed, codes(denied), denied.policies) == (False, ["policy_error"], ("rego",))
    watched = call(policies=mixed(PERMIT, watches=True))
    assert (watched.allowed, watched.policies, watched.errors[0][0]) == (True, ("permit",), "rego")


def test_remote_policies_are_not_queried_after_a_cedar_forbid_or_error() -> None:
    def never(question: bytes) -> tuple[PolicyResult, ...]:
        raise AssertionError("asked")

    assert codes(call(policies=mixed(PERMIT, policy("forbid")), elsewhere=never)) == ["forbidden_by_policy"]
    assert codes(call(policies=mixed(PERMIT, policy("forbid", FAILS)), elsewhere=never)) == ["policy_error"]


@pytest.mark.parametrize(
    ("said", "allowed", "why"),
    [
        ((PolicyResult("rego", permits=True),), True, []),
        ((PolicyResult("rego"),), False, ["no_permit"]),
        ((PolicyResult("rego", permits=True, forbids=("",)),), False, ["forbidden_by_policy"]),
        ((PolicyResult("rego", permits=True, error="x"),), False, ["policy_error"]),
        ((PolicyResult("other", permits=True),), False, ["policy_error"]),
        ((), False, ["policy_error"]),
    ],
)
def test_the_result_of_a_remote_policy_counts_like_that_of_a_local_policy(
    said: tuple[PolicyResult, ...], allowed: bool, why: list[str]
) -> None:
    decision = call(policies=mixed(), elsewhere=lambda _: said)
    assert (decision.allowed, codes(decision)) == (allowed, why)
    assert call(policies=mixed(watches=True), elsewhere=lambda _: said).allowed is False
    assert call(policies=mixed(PERMIT, watches=True), elsewhere=lambda _: said).allowed is True


def test_a_call_that_is_too_large_for_a_remote_policy_request_is_denied() -> None:
    arguments = {"path": "x" * MAX_QUESTION}
    decision = call(policies=mixed(), elsewhere=lambda _: (PolicyResult("rego", permits=True),), arguments=arguments)
    assert codes(decision) == ["policy_error"]


# --- data classes -----------------------------------------------------------------------------------------------------


def classified(*classes: str, resource: tuple[str, ...] = ()) -> Catalogue:
    tools = [{"name": "read_file", "effect": "read", "data_classes": list(classes)}]
    return Catalogue.parse(json.dumps({"resource": "files", "tools": tools, "data_classes": list(resource)}))


def limited(*classes: str) -> Principal:
    return principal(authorization_details=[{"type": "tool", "locations": [URI], "datatypes": list(classes)}])


@pytest.mark.parametrize(
    ("tool", "of_resource", "allowed"),
    [
        ((), (), False),
        (("health",), (), True),
        ((), ("health",), True),
        (("public",), ("health",), True),
        (("secret",), ("health",), False),
        (("health",), ("secret",), False),
    ],
)
def test_a_call_stays_within_the_data_classes_of_its_bounds(
    tool: tuple[str, ...], of_resource: tuple[str, ...], allowed: bool
) -> None:
    at = resource(catalogue=classified(*tool, resource=of_resource))
    decision = call(limited("health", "public"), at=at, arguments={})
    assert codes(decision) == ([] if allowed else ["outside_task"])


def test_a_changed_catalogue_applies_at_once_to_live_tokens() -> None:
    who = limited("health")
    harmless, secret = (resource(catalogue=classified(*classes)) for classes in (("health",), ("health", "secret")))
    verdicts = [call(who, at=at, arguments={}).allowed for at in (harmless, secret, harmless)]
    assert verdicts == [True, False, True]


def test_policies_see_the_data_classes_of_the_tool_and_of_the_token() -> None:
    handles = ["binary", "contains", ["get", RESOURCE, "data_classes"], ["lit", "personal"]]
    only = ["binary", "contains", ["get", CONTEXT, "datatypes"], ["lit", "health"]]
    at = resource(catalogue=classified("health", resource=("personal",)))
    seen = rules(policy("permit", handles, ["has", CONTEXT, "datatypes"], only))
    assert call(limited("health", "personal"), at=at, arguments={}, policies=seen).allowed
    assert codes(call(principal(), at=at, arguments={}, policies=seen)) == ["no_permit"]
    elsewhere = [{"type": "tool", "locations": ["https://mail.example/"]}]
    details = [*limited("health", "personal").claims.authorization_details, *elsewhere]
    assert call(principal(authorization_details=details), at=at, arguments={}, policies=seen).allowed


def test_a_call_that_requires_the_memory_of_its_task_is_denied_without_the_memory() -> None:
    tools = [
        {"name": "pay", "effect": "pay", "scope": "read", "kinds": {"to": "account"}},
        {"name": "go", "effect": "pay"},
        {"name": "look", "effect": "read", "open_world": False},
    ]
    catalogue = Catalogue.parse(json.dumps({"resource": "files", "tools": tools}))
    facts = Facts(resource(catalogue=catalogue), rules(PERMIT))
    who = principal(memory="tk_1", scope="files:read files:write")

    def decided(tool: str, memory: Memory | None) -> Decision:
        return decide(resolve(who, tool, {"to": "ann"}, facts, NOW), DecisionInputs(memory))

    assert codes(decided("pay", None)) == ["memory_unavailable"]
    assert codes(decided("go", None)) == ["memory_unavailable"], "the catalogue states no kinds"
    assert decided("look", None).allowed, "a read in a closed world is not judged"
    found = decided("pay", remember(bytes(32), Intent(words="pay ann")))
    assert (found.allowed, found.call_context) == (
        True,
        {
            "origin": {"to": "person"},
            "origin_worst": "person",
            "object_worst": "person",
            "done_worst": "person",
            "recipient_worst": "person",
            "origin_best": "person",
            "mentioned": False,
        },
    )
