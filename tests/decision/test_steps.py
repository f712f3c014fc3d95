"""The decision as a generator: it yields what it needs, and an answer of None denies."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest

from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar import ir
from ostiary.decision.access import (
    Decision,
    DecisionInputs,
    Facts,
    History,
    Policies,
    PolicyResult,
    RemoteAnswers,
    RemotePolicies,
    Steps,
    TaskMemory,
    decide,
    decide_steps,
    resolve,
)
from ostiary.guard.decision import CallDecider
from ostiary.provenance.history import History as PastCalls
from ostiary.provenance.history import PriorHistory
from ostiary.provenance.intent import Intent
from ostiary.provenance.origins import remember
from tests.support.decision_fixtures import NOW, PERMIT, codes, policy, principal, resource, rules

PAY = {"name": "pay", "effect": "pay", "scope": "read", "kinds": {"to": "account"}}
BANK = resource(catalogue=Catalogue.parse(json.dumps({"resource": "files", "tools": [PAY]})))
READS_HISTORY = policy("forbid", ["has", ["get", ["var", "context"], "history"], "nothing"], id="reads")


def drive(steps: Steps[Decision], *answers: Any) -> tuple[list[type], Decision]:
    """Return the kinds of needs that the decision yields, and the decision, after these answers."""
    needs, sending = list[type](), iter((None, *answers))
    try:
        while True:
            needs.append(type(steps.send(next(sending))))
    except StopIteration as done:
        assert list(sending) == []
        return needs, done.value


def remote_set() -> Policies:
    parsed = ir.parse(json.dumps({"version": 1, "policies": [PERMIT]}).encode())
    return Policies("hash", parsed, remote={"rego": False})


def test_a_decision_with_all_its_inputs_yields_no_request() -> None:
    call = resolve(principal(), "read_file", {"path": "/srv/x"}, Facts(resource(), rules(PERMIT)), NOW)
    needs, decision = drive(decide_steps(call))
    assert (needs, decision.allowed) == ([], True)
    assert decision == decide(call)


def test_a_decision_by_the_task_memory_requests_the_memory_and_denies_without_it() -> None:
    call = resolve(principal(memory="tk_1"), "pay", {"to": "ann"}, Facts(BANK, rules(PERMIT)), NOW)
    needs, decision = drive(decide_steps(call), remember(b"k" * 32, Intent(words="pay ann")))
    assert (needs, decision.allowed) == ([TaskMemory], True)
    needs, decision = drive(decide_steps(call), None)
    assert (needs, codes(decision)) == ([TaskMemory], ["memory_unavailable"])


def test_a_decision_by_the_history_requests_the_history_and_denies_without_it() -> None:
    call = resolve(principal(), "read_file", {"path": "x"}, Facts(resource(), rules(PERMIT, READS_HISTORY)), NOW)
    needs, decision = drive(decide_steps(call), PriorHistory(b"k" * 32, PastCalls(), PastCalls(), 0, 0))
    assert (needs, decision.allowed) == ([History], True)
    needs, decision = drive(decide_steps(call), None)
    assert (needs, codes(decision)) == ([History], ["history_unavailable"])


@pytest.mark.parametrize(
    ("verdict", "due"),
    [
        ((PolicyResult("rego", permits=True),), []),
        ((PolicyResult("rego", forbids=("no",)),), ["forbidden_by_policy"]),
        (None, ["policy_error"]),
    ],
)
def test_a_decision_by_remote_policies_requests_their_results_and_denies_without_them(
    verdict: Any, due: list[str]
) -> None:
    facts = Facts(resource(), remote_set())
    call = resolve(principal(), "read_file", {"path": "x"}, facts, NOW)
    needs, decision = drive(decide_steps(call, DecisionInputs(remote=RemoteAnswers(facts.policies, NOW))), verdict)
    assert (needs, codes(decision)) == ([RemotePolicies], due)


def test_remote_results_under_another_policy_set_deny_with_a_policy_error() -> None:
    facts = Facts(resource(), remote_set())
    call = resolve(principal(), "read_file", {"path": "x"}, facts, NOW)
    asking = RemoteAnswers(facts.policies, NOW)
    drive(decide_steps(call, DecisionInputs(remote=asking)), None)
    [question] = asking.missing
    yes = {question: (PolicyResult("rego", permits=True),)}
    assert decide(call, DecisionInputs(remote=RemoteAnswers(facts.policies, NOW, yes))).allowed
    other = decide(call, DecisionInputs(remote=RemoteAnswers(remote_set(), NOW, yes)))
    assert codes(other) == ["policy_error"]
    assert "the policy set changed" in other.reasons[0].message


@pytest.mark.parametrize(("rules_of", "others"), [(decide, ()), (CallDecider.decide, (CallDecider,))])
def test_each_numbered_rule_of_the_docstring_is_cited_in_the_code(rules_of: Any, others: tuple[Any, ...]) -> None:
    listed = {int(number) for number in re.findall(r"(?m)^ *(\d+)\. [A-Z]", inspect.getdoc(rules_of) or "")}
    code = "".join(map(inspect.getsource, (rules_of, *others)))
    cited = {int(number) for number in re.findall(r"# (\d+)$", code, re.MULTILINE)}
    assert listed
    assert listed <= cited
