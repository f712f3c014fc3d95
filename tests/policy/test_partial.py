"""Partial evaluation is sound: no completion of an unknown request has an outcome that it excludes.

The policies, entities and contexts are those of the comparison with Cedar, so every construct of the language is there.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random
from typing import Any

import pytest

from harness.cedar_differential.run import trials
from harness.cedar_differential.world import attributes
from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.compile import compile_set
from ostiary.authorization.cedar.extensions import Unusable
from ostiary.authorization.cedar.partial import PartialRecord, Request, Result, Unknown, evaluate_policy
from ostiary.authorization.cedar.values import Entities, Record, Uid, absent, entity, parse_entities, parse_record
from ostiary.decision.access import ALWAYS, Foresight, Policies
from ostiaryd.policy.model.lower import lower

SETS = 60
COMPLETIONS = 12


def opened(random: Random, context: Record) -> tuple[PartialRecord, set[tuple[str, ...]]]:
    """The context with about a third of its members unknown, at the top or one level down, and their paths."""
    paths = set[tuple[str, ...]]()
    members: dict[str, object] = dict(context)
    for name, value in context.items():
        if isinstance(value, dict) and random.random() < 0.6:
            inner: dict[str, object] = dict(value)
            for deep in value:
                if random.random() < 0.5:
                    inner[deep] = Unknown(f"{name}.{deep}", optional=True)
                    paths.add((name, deep))
            members[name] = PartialRecord(inner)
        elif random.random() < 0.4:
            members[name] = Unknown(name, optional=True)
            paths.add((name,))
    return PartialRecord(members), paths


def completed(context: Record, paths: set[tuple[str, ...]], values: Record) -> Record:
    """The context with the members at these paths as `values` has them."""
    made: dict[str, Any] = {name: dict(value) if isinstance(value, dict) else value for name, value in context.items()}
    for path in paths:
        record, source = made, values
        for name in path[:-1]:
            record = record[name]
            source = inner if isinstance(inner := source.get(name), dict) else {}
        record.pop(path[-1], None)
        if path[-1] in source:
            record[path[-1]] = source[path[-1]]
    return made


def outcome(holds: Any, request: Request, context: Record) -> str:
    verdict = holds.decide(request.principal.uid, request.action.uid, request.resource.uid, context, request.entities)
    return "error" if verdict.errors else "true" if verdict.allowed else "false"


def excluded(result: Result) -> set[str]:
    """The outcomes that partial evaluation excludes."""
    found = set() if result.may_hold else {"true"}
    found |= set() if result.may_fail or result.fails else {"error"}
    found |= {"true", "false"} if result.fails else set()
    return found | ({"false", "error"} if result.must_hold else set())


def test_partial_evaluation_excludes_no_outcome_that_a_completion_has() -> None:
    random = Random(11)
    counts = Counter[str]()
    for trial in islice(trials(7), SETS):
        store: Entities = parse_entities(trial.world.entities)
        policies = lower("\n".join(trial.policies)).policies
        compiled = [compile_set(ir.PolicySetIR((ir_permit(policy),))) for policy in policies]
        for asked in trial.requests[:2]:
            names = (Uid(*asked.principal), Uid(*asked.action), Uid(*asked.resource))
            principal, action, resource = (store.get(name) or absent(name) for name in names)
            known = parse_record(asked.context)
            context, paths = opened(random, known)
            request = Request(principal, action, resource, context, store)
            results = [evaluate_policy(policy, request) for policy in policies]
            for _ in range(COMPLETIONS):
                values = parse_record(attributes(random, trial.world.names))
                whole = completed(known, paths, values)
                for policy, holds, result in zip(policies, compiled, results, strict=True):
                    was = outcome(holds, request, whole)
                    assert was not in excluded(result), (policy, whole, result)
                    counts[f"{'certain' if len(excluded(result)) >= 2 else 'open'} {was}"] += 1
            assert all(result.inputs for result in results if result.unknown)
    assert min(counts[f"certain {was}"] for was in ("true", "false", "error")) > 300, counts
    assert sum(counts[f"open {was}"] for was in ("true", "false", "error")) < 0.7 * counts.total(), counts


def ir_permit(policy: ir.PolicyIR) -> ir.PolicyIR:
    """The policy as a permit, so that a decision says whether it held."""
    return ir.PolicyIR(policy.id, "permit", policy.principal, policy.action, policy.resource, policy.conditions)


AGENT, CALL, TOOL = Uid("Agent", "a"), Uid("Action", "call"), Uid("Tool", "t")
STORE = {AGENT: entity(AGENT, {"team": "blue"}), CALL: entity(CALL), TOOL: entity(TOOL)}


def foreseen(text: str, arguments: PartialRecord) -> Foresight:
    policies = Policies("hash", lower(text))
    return policies.foresee([AGENT], CALL, TOOL, PartialRecord({"arguments": arguments, "n": 1}), STORE)


PATH = PartialRecord({"path": Unknown("path", kind=str)})
READS = 'context.arguments.path like "/tmp/*"'
PERMIT = "permit (principal, action, resource)"
FORBID = "forbid (principal, action, resource)"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (f"{PERMIT};", ALWAYS),
        (f"{PERMIT} when {{ {READS} }};", "path"),
        (f'{PERMIT} when {{ {READS} && principal.team == "red" }};', "deny"),
        (f'{PERMIT} when {{ principal.team == "red" && {READS} }};', "deny"),
        (f'{PERMIT} when {{ {READS} || principal.team == "blue" }};', ALWAYS),
        (f"{PERMIT}; {FORBID} when {{ {READS} }};", "path"),
        (f"{FORBID}; {PERMIT} when {{ {READS} }};", "deny"),
        (f"{PERMIT}; {PERMIT} when {{ {READS} }};", ALWAYS),
        (f"{PERMIT} when {{ {READS} || true }};", ALWAYS),
        (f"{PERMIT} when {{ if {READS} then context.n == 1 else true }};", ALWAYS),
        (f"{PERMIT} when {{ context.arguments.path == context.n }};", "path"),
        (f"{PERMIT} when {{ context.arguments has path }};", ALWAYS),
        (f"{PERMIT} when {{ context.arguments has other }};", "deny"),
        (f"{PERMIT}; {PERMIT} when {{ context.arguments.other }};", "deny"),
        (f"{PERMIT} when {{ context.arguments == {{}} }};", "path"),
        (f"{PERMIT} when {{ [context.arguments].contains(context.n) }};", "path"),
        (f'{PERMIT} when {{ {{a: context.arguments.path}}.a == "x" }};', "path"),
        (f"{PERMIT} when {{ ip(context.arguments.path).isLoopback() }};", "path"),
        (f"{PERMIT}; {FORBID} when {{ ip(context.arguments.path).isLoopback() && false }};", "path"),
    ],
)
def test_the_verdict_is_permit_deny_or_the_inputs_on_which_it_depends(text: str, verdict: object) -> None:
    found = foreseen(text, PATH)
    assert (found if found.must else "deny" if not found.may else ",".join(sorted(found.inputs))) == verdict


def test_an_unknown_number_may_be_a_value_that_cedar_cannot_hold() -> None:
    amount = PartialRecord({"amount": Unknown("amount", kind=int)})
    text = f"{PERMIT}; {PERMIT} when {{ context.arguments.amount == 1 }};"
    found = foreseen(text, amount)
    assert (found.may, found.must) == (True, False)
    policies = Policies("hash", lower(text))
    context: Record = {"arguments": {"amount": Unusable("is too large", 2**64)}}
    assert policies.judge(AGENT, CALL, TOOL, context, STORE).because == "policy_error"


@pytest.mark.parametrize(
    "reads",
    [
        "context.arguments == {}",
        "[context.arguments].isEmpty()",
        "[[context.arguments]].contains([1])",
        "{a: context.arguments, b: context.n} == {a: 1}",
        "context == {}",
        "{a: context.arguments, b: context.arguments.s} == {a: 1}",
        '(if context.arguments.s == "x" then context.arguments else {n: 1}) == {n: 2}',
    ],
)
def test_the_comparison_of_a_record_fails_if_a_member_is_a_value_that_cedar_cannot_hold(reads: str) -> None:
    arguments = PartialRecord({"amount": Unknown("amount", kind=int), "s": Unknown("s", kind=str)})
    text = f"{PERMIT}; {PERMIT} when {{ {reads} }};"
    found = foreseen(text, arguments)
    assert (found.may, found.must) == (True, False)
    context: Record = {"n": 1, "arguments": {"amount": Unusable("is too large", 2**64), "s": "x"}}
    assert Policies("hash", lower(text)).judge(AGENT, CALL, TOOL, context, STORE).because == "policy_error"


def test_partial_evaluation_requires_a_permit_for_every_agent_of_a_chain() -> None:
    other = Uid("Agent", "b")
    store = STORE | {other: entity(other, {"team": "red"})}
    policies = Policies("hash", lower(f'{PERMIT} when {{ principal.team == "blue" }};'))
    context = PartialRecord({"arguments": PATH})
    assert policies.foresee([AGENT], CALL, TOOL, context, store).must
    assert not policies.foresee([AGENT, other], CALL, TOOL, context, store).may
