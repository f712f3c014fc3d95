"""The least privileged agent of a chain counts: policies are evaluated for each agent of the chain as principal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.render import render_record
from ostiary.authorization.cedar.values import Uid, parse_record
from ostiary.authorization.claims import Actor, Link
from ostiary.decision.access import CALL, Facts, PolicyResult, decide, resolve
from ostiary.decision.access.chain import ALONE, agent_of, chain_of, read_chain
from ostiary.protocol.errors import Invalid
from tests.decision.chain_fixtures import FIRST, chained, link, links
from tests.support.decision_fixtures import (
    AGENT,
    CONTEXT,
    FAILS,
    NOW,
    PARENT,
    PERMIT,
    PRINCIPAL,
    RESOURCE,
    call,
    codes,
    policy,
    principal,
    resource,
    rules,
)


def equals(attr: str, value: Any) -> Any:
    return ["binary", "eq", ["get", PRINCIPAL, attr], value]


CHAIN = (link(PARENT), link(FIRST, owner="pe_3", model="m-3", risk_tier="critical"))
OF_EACH = [
    equals("id", ["lit", FIRST]),
    equals("owner", ["entity", ["Owner", "pe_3"]]),
    equals("model", ["lit", "m-3"]),
    equals("risk_tier", ["lit", "critical"]),
    ["binary", "in", PRINCIPAL, ["entity", ["Owner", "pe_3"]]],
]


@pytest.mark.parametrize("condition", OF_EACH)
def test_a_forbid_for_an_agent_in_the_chain_denies_the_call(condition: Any) -> None:
    forbid = rules(PERMIT, policy("forbid", condition))
    assert call(policies=forbid).allowed
    assert call(chained(CHAIN[0]), policies=forbid).allowed
    decision = call(chained(*CHAIN), policies=forbid)
    assert (decision.allowed, codes(decision), decision.policies) == (False, ["forbidden_by_policy"], ("forbid",))
    assert FIRST in decision.reasons[0].message


def test_each_agent_in_the_chain_must_be_permitted_by_a_policy() -> None:
    one = policy("permit", equals("id", ["lit", AGENT]), id="one")
    two = policy("permit", equals("id", ["lit", PARENT]), id="two")
    assert call(chained(CHAIN[0]), policies=rules(one, two)).policies == ("one", "two")
    for missing in (one, two):
        assert codes(call(chained(CHAIN[0]), policies=rules(missing))) == ["no_permit"]
    assert codes(call(chained(*CHAIN), policies=rules(one, two))) == ["no_permit"]


def test_a_missing_permit_for_one_agent_is_not_hidden_by_a_forbid_for_another_agent() -> None:
    permits = policy("permit", equals("id", ["lit", AGENT]), id="permits")
    forbids = policy("forbid", equals("id", ["lit", AGENT]))
    assert codes(call(chained(CHAIN[0]), policies=rules(permits, forbids))) == ["no_permit"]


def test_a_policy_error_for_an_agent_in_the_chain_denies_the_call() -> None:
    fails = policy("forbid", equals("id", ["lit", FIRST]), FAILS)
    assert call(policies=rules(PERMIT, fails)).allowed
    decision = call(chained(*CHAIN), policies=rules(PERMIT, fails))
    assert codes(decision) == ["policy_error"]
    assert FIRST in decision.reasons[0].message


def test_an_agent_in_the_chain_that_is_known_only_by_its_id_is_in_no_segment() -> None:
    in_segment = policy("permit", ["binary", "in", PRINCIPAL, ["entity", ["Segment", "default"]]])
    assert call(chained(*CHAIN), policies=rules(in_segment)).allowed
    assert codes(call(principal(act=Actor(AGENT, Actor(PARENT))), policies=rules(in_segment))) == ["no_permit"]


def test_a_policy_in_watch_mode_is_reported_for_an_agent_in_the_chain_and_denies_nothing() -> None:
    watches = policy("forbid", equals("id", ["lit", FIRST]), id="watches", mode="watch")
    assert call(policies=rules(PERMIT, watches)).watched == ()
    decision = call(chained(*CHAIN), policies=rules(PERMIT, watches))
    assert (decision.allowed, decision.watched) == (True, ("watches",))


def test_remote_policies_receive_the_chain_and_are_not_queried_after_a_cedar_forbid() -> None:
    asked: list[bytes] = []

    def elsewhere(question: bytes) -> tuple[PolicyResult, ...]:
        asked.append(question)
        return (PolicyResult("rego", permits=True),)

    def both(*policies: dict[str, Any]) -> Any:
        made = rules(*policies)
        made.remote = {"rego": False}
        return made

    assert call(chained(*CHAIN), policies=both(), elsewhere=elsewhere).allowed
    assert len(asked) == 1
    assert b'"step":2' in asked[0] and FIRST.encode() in asked[0]  # noqa: PT018 because both are of one link
    forbids = both(PERMIT, policy("forbid", equals("id", ["lit", FIRST])))
    assert not call(chained(*CHAIN), policies=forbids, elsewhere=elsewhere).allowed
    assert len(asked) == 1


def test_a_chain_has_each_agent_once_and_not_the_acting_agent() -> None:
    chain = chain_of([link(AGENT), link(PARENT), link(AGENT), link(PARENT), link(FIRST)], holder=AGENT)
    assert [agent.uid.id for agent in chain.behind] == [PARENT, FIRST]
    assert chain_of([link(AGENT)], holder=AGENT) is ALONE


@given(links)
def test_a_recorded_chain_is_read_back_with_the_same_agents(links: list[Link]) -> None:
    chain = chain_of(links, holder=AGENT)
    assert read_chain(parse_record(render_record(chain.context))) == chain.behind
    nearest = {one.agent: one for one in reversed(links) if one.agent != AGENT}
    assert {agent.uid.id: agent for agent in chain.behind} == {id: agent_of(one) for id, one in nearest.items()}
    assert chain.context["actors"] == frozenset(Uid("Agent", id) for id in nearest)


@pytest.mark.parametrize("said", ["x", {"chain": "x"}, {"chain": [1]}, {"chain": [{"agent": "ag_1"}]}])
def test_a_malformed_chain_is_refused(said: Any) -> None:
    with pytest.raises(Invalid):
        read_chain(parse_record(said if isinstance(said, dict) else {"chain": said}))


def test_a_forbid_that_asks_a_person_also_applies_to_agents_in_the_chain() -> None:
    """A forbid without `ask` or a missing permit for any agent of the chain denies without an approval request."""
    asks = policy("forbid", equals("id", ["lit", FIRST]), id="asks", ask="person")
    two = policy("forbid", equals("id", ["lit", AGENT]), id="two", ask="two")
    hard = policy("forbid", equals("id", ["lit", PARENT]), id="hard")
    only = policy("permit", equals("owner", ["entity", ["Owner", "pe_1"]]), id="only")
    assert call(policies=rules(PERMIT, asks)).allowed
    decision = call(chained(*CHAIN), policies=rules(PERMIT, asks, two))
    assert (set(codes(decision)), decision.policies) == ({"approval_needed"}, ("asks", "two"))
    assert set(codes(call(chained(*CHAIN), policies=rules(PERMIT, asks, hard)))) == {"forbidden_by_policy"}
    assert codes(call(chained(*CHAIN), policies=rules(only, asks))) == ["no_permit"]


PATH = ["get", ["get", CONTEXT, "arguments"], "path"]
OTHERS = [
    equals("segment", ["entity", ["Segment", "default"]]),
    ["binary", "eq", PATH, ["lit", "/a"]],
    ["binary", "and", equals("id", ["lit", FIRST]), ["binary", "eq", PATH, ["lit", "/a"]]],
    ["binary", "or", equals("id", ["lit", AGENT]), ["binary", "eq", PATH, ["lit", "/b"]]],
    ["binary", "eq", ["get", RESOURCE, "effect"], ["lit", "read"]],
    ["get", PRINCIPAL, "nothing"],
    FAILS,
]
some_policies = st.lists(
    st.tuples(
        st.sampled_from(["permit", "permit", "forbid"]),
        st.sampled_from([None, *OF_EACH, *OTHERS]),
        st.sampled_from([{}, {"type": "Agent"}, {"equals": ["Agent", PARENT]}, {"within": [["Owner", "pe_1"]]}]),
    ),
    min_size=1,
    max_size=6,
)


@given(
    drawn=some_policies, links=st.integers(1, 2), paths=st.lists(st.sampled_from(["/a", "/b"]), min_size=2, max_size=4)
)
def test_cached_evaluations_of_agents_in_the_chain_change_no_verdict(drawn: Any, links: int, paths: list[str]) -> None:
    made = []
    for number, (effect, condition, scope) in enumerate(drawn):
        one = policy(effect, *([] if condition is None else [condition]), id=f"p{number}")
        made.append(one | {"principal": scope})
    policies, who = rules(*made), chained(*CHAIN[:links])
    where = Facts(resource(), policies)
    for path in paths:
        remembering = decide(resolve(who, "read_file", {"path": path}, where, NOW))
        afresh = decide(resolve(chained(*CHAIN[:links]), "read_file", {"path": path}, where, NOW))
        slow = policies.judge(
            who.entity.uid,
            CALL,
            where.resource.tools["read_file"].uid,
            {**who.context, "arguments": {"path": path}, "now": Datetime(NOW // 1000)},
            who.entity_overlay(where.entities)[0],
            behind=who.links,
        )
        assert remembering == afresh
        assert (remembering.allowed, remembering.policies) == (slow.allowed, slow.policies)
        assert remembering.errors == slow.errors


def asked_in_turn(*policies: dict[str, Any], paths: str = "babab") -> str:
    """Return `+` for each allowed and `-` for each denied call of one principal with a cache of its chain."""
    who, where = chained(*CHAIN), Facts(resource(), rules(*policies))
    asked = [decide(resolve(who, "read_file", {"path": f"/{path}"}, where, NOW)) for path in paths]
    return "".join("+" if decision.allowed else "-" for decision in asked)


AT_A = ["binary", "eq", PATH, ["lit", "/a"]]


def test_a_forbid_that_depends_on_the_call_is_evaluated_for_the_chain_at_each_call() -> None:
    of_first = policy("forbid", ["binary", "and", equals("id", ["lit", FIRST]), AT_A])
    assert asked_in_turn(PERMIT, of_first) == "+-+-+"
    scoped = policy("forbid", AT_A) | {"principal": {"equals": ["Agent", PARENT]}}
    assert asked_in_turn(PERMIT, scoped) == "+-+-+"


def test_a_permit_that_depends_on_the_call_is_evaluated_for_the_chain_at_each_call() -> None:
    own = policy("permit", equals("id", ["lit", AGENT]), id="own")
    assert asked_in_turn(own, policy("permit", AT_A, id="all")) == "-+-+-"
    of_parent = policy("permit", ["binary", "and", equals("id", ["lit", PARENT]), AT_A], id="parent")
    of_first = policy("permit", equals("id", ["lit", FIRST]), id="first")
    assert asked_in_turn(own, of_parent, of_first) == "-+-+-"
    shared = policy("permit", AT_A, id="shared") | {"principal": {"within": [["Segment", "default"]]}}
    assert asked_in_turn(own, shared) == "-+-+-"
