"""`context.risk`: the scores of agent, task, chain and call, and their maximum; absent if no policy reads it."""

from __future__ import annotations

import pytest

from ostiary.decision.access import Facts, Policies, decide, resolve, risk_context
from ostiary.provenance.noticing import HALF_LIFE, Risk
from tests.decision.chain_fixtures import chained, link
from tests.decision.risk_conditions import over
from tests.support.decision_fixtures import (
    AGENT,
    NOW,
    PARENT,
    PERMIT,
    call,
    codes,
    policy,
    principal,
    resource,
    rules,
)

CALM = {"score": 0, "agent": 0, "task": 0, "chain": 0, "call": 0}


def forbids(part: str = "score", limit: int = 50, **annotations: str) -> Policies:
    return rules(PERMIT, policy("forbid", over(part, limit), id="risk_context", **annotations))


def risk(points: int) -> Risk:
    return Risk(points * 1000, NOW)


@pytest.mark.parametrize(("points", "allowed"), [(0, True), (49, True), (50, True), (51, False), (100, False)])
@pytest.mark.parametrize(("subject", "part"), [(AGENT, "agent"), ("tk_1", "task")])
def test_a_policy_sees_the_risk_scores_of_the_agent_and_of_the_task(
    subject: str, part: str, points: int, allowed: bool
) -> None:
    for of in ("score", part):
        decision = call(policies=forbids(of), risks={subject: risk(points)})
        assert decision.allowed is allowed
        assert decision.call_context == {"risk": CALM | {"score": points, part: points}}
    for other in {"agent", "task", "chain", "call"} - {part}:
        assert call(policies=forbids(other), risks={subject: risk(points)}).allowed


def test_the_chain_risk_covers_agents_behind_and_tasks_above_and_not_the_acting_agent() -> None:
    who = chained(link(PARENT), link(AGENT))
    for subject in (PARENT, "tk_0"):
        decision = call(who, policies=forbids("chain"), risks={subject: risk(60), AGENT: risk(40), "tk_1": risk(70)})
        assert codes(decision) == ["forbidden_by_policy"]
        assert decision.call_context == {"risk": {"score": 70, "agent": 40, "task": 70, "chain": 60, "call": 0}}


def test_a_risk_score_halves_in_its_half_life() -> None:
    aged = {AGENT: Risk(100_000, NOW - HALF_LIFE)}
    assert call(policies=forbids(), risks=aged).allowed
    assert not call(policies=forbids(limit=49), risks=aged).allowed
    assert not call(policies=forbids(), risks={AGENT: Risk(100_000, NOW - HALF_LIFE + 60_000_000)}).allowed


def test_the_risk_of_an_unrelated_agent_or_task_is_not_in_the_context() -> None:
    decision = call(policies=forbids(), risks={PARENT: risk(100), "tk_0": risk(100)})
    assert (decision.allowed, decision.call_context) == (True, {"risk": CALM})


def test_the_risk_context_is_absent_if_no_policy_reads_the_risk() -> None:
    assert call(risks={AGENT: risk(100)}).call_context is None


def test_a_policy_in_watch_mode_reads_the_risk_context_and_denies_nothing() -> None:
    decision = call(policies=forbids(mode="watch"), risks={AGENT: risk(60)})
    assert (decision.allowed, decision.watched) == (True, ("risk_context",))
    assert decision.call_context is not None


def test_an_argument_named_risk_does_not_replace_the_risk_context() -> None:
    """The server sets the attributes of the context; an argument with such a name stays an argument."""
    facts = Facts(resource(), forbids(), risks={AGENT: risk(60)})
    decision = decide(resolve(principal(), "read_file", {"path": "x", "risk": CALM}, facts, NOW))
    assert not decision.allowed


def test_the_points_of_the_call_count_in_the_risk_score() -> None:
    risks = {"a": risk(10), "t": risk(20), "b": risk(30)}
    for points, score in ((29, 30), (30, 30), (31, 31)):
        made = risk_context(risks, agents=("a", "b"), tasks=("t",), now=NOW, call=points)
        assert made == {"score": score, "agent": 10, "task": 20, "chain": 30, "call": points}
    assert risk_context({}, agents=("a",), tasks=("t",), now=NOW) == CALM
