"""Our engine against Cedar's own on generated policies and requests, counted construct by construct.

A pair is one policy and one request. Most policy sets hold permits alone, so that Cedar's answer says of each policy
whether it held, did not hold, or erred; sets of mixed policies compare the decision as a whole.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from random import Random
from types import ModuleType
from typing import Any, Literal, TypeAlias

from cedarpy import _internal as oracle

from harness.cedar_differential import (  # noqa: F401 - importing them is what fills CONSTRUCTS
    constructs_of_data,
    constructs_of_extensions,
    constructs_of_logic,
)
from harness.cedar_differential.maker import CONSTRUCTS, Maker
from harness.cedar_differential.scopes import SCOPE_CONSTRUCTS, mixed_policy, scoped_policy
from harness.cedar_differential.world import Name, Request, World, make_request, make_world
from ostiary.authorization.cedar import compile as compile_
from ostiary.authorization.cedar import ir, values
from ostiaryd.policy.model import lower

TOGETHER = "policies together"
SINGLE = (*CONSTRUCTS, *SCOPE_CONSTRUCTS)
POLICIES, REQUESTS, SETS = 40, 4, 6  # permits in a set, requests for each set, sets for each world
_POLICY_ID = re.compile(r"evaluating policy `(\w+)`")

Answer: TypeAlias = Literal["true", "false", "error"]


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that is compared with Cedar: the modules of this tree, or copies of them with a fault in one."""

    ir: ModuleType = ir
    values: ModuleType = values
    compile: ModuleType = compile_
    lower: ModuleType = lower


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request; reasons and errors in order, so that one counted twice would show."""

    allowed: bool
    reasons: tuple[str, ...]
    errors: tuple[str, ...]

    def of(self, policy_id: str) -> Answer:
        return "error" if policy_id in self.errors else "true" if policy_id in self.reasons else "false"


@dataclass(frozen=True, slots=True)
class Mismatch:
    construct: str
    policy: str
    request: Request
    ours: str
    theirs: str


@dataclass(slots=True)
class Report:
    counts: dict[str, Counter[Answer]] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        return sum(count.total() for count in self.counts.values())

    def share(self, answer: Answer) -> float:
        return sum(count[answer] for count in self.counts.values()) / self.pairs

    def complaints(self, *, at_least: int) -> list[str]:
        """Return the gaps of this run: constructs with fewer than `at_least` pairs, or whose result was nearly always
        the same.
        """
        found = []
        for construct in (*SINGLE, TOGETHER):
            count = self.counts.get(construct, Counter())
            for answer in ("true", "false"):
                if count[answer] < at_least * 0.03:
                    found.append(f"{construct}: {answer} only {count[answer]} times")
            if count.total() < at_least:
                found.append(f"{construct}: {count.total()} pairs, wanted {at_least}")
        if self.share("error") > 0.3 or self.share("true") < 0.2 or self.share("false") < 0.2:
            found.append(f"lopsided: {self}")
        return found

    def __str__(self) -> str:
        return f"{self.pairs} pairs, " + ", ".join(
            f"{self.share(answer):.0%} {answer}" for answer in ("true", "false", "error")
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy set and its requests. `constructs` has the construct of each policy; None if only the decision of the
    whole set is compared.
    """

    world: World
    policies: list[str]
    constructs: list[str] | None
    requests: list[Request]


Answered: TypeAlias = "tuple[Trial, list[Outcome]]"


def trials(seed: int) -> Iterator[Trial]:
    """Yield trials without end, the same for the same seed. The constructs take turns."""
    random = Random(seed)
    turn = cycle(SINGLE)
    while True:
        world = make_world(random)
        for _ in range(SETS):
            make = Maker(random, world)
            requests = [make_request(random, world) for _ in range(REQUESTS)]
            principals = tuple(request.principal for request in requests)
            resources = tuple(request.resource for request in requests)
            constructs = list(islice(turn, POLICIES))
            policies = [_permit(make, construct, principals, resources) for construct in constructs]
            yield Trial(world, policies, constructs, requests)
            mixed = [mixed_policy(make, principals, resources) for _ in range(random.randrange(1, 10))]
            yield Trial(world, mixed, None, requests)


def _permit(make: Maker, construct: str, principals: tuple[Name, ...], resources: tuple[Name, ...]) -> str:
    if construct in SCOPE_CONSTRUCTS:
        return scoped_policy(make, construct, principals, resources)
    return f"permit(principal, action, resource) when {{ {make.policy(construct, make.random.randrange(1, 4))} }};"


def answered(seed: int) -> Iterator[Answered]:
    """Yield trials with the outcomes of Cedar's own engine, without end."""
    world, store = None, None
    for trial in trials(seed):
        if trial.world is not world:
            world, store = trial.world, oracle.Entities.from_json_str(json.dumps(trial.world.entities))
        assert store is not None
        yield trial, ask_cedar(trial, store)


def run(asked: Iterable[Answered], *, pairs: int, engine: Engine | None = None, stop_at: int | None = None) -> Report:
    """Send the requests to our engine, until `pairs` pairs are compared or `stop_at` mismatches are found."""
    engine = engine or Engine()
    report = Report()
    world, store, seen = None, None, 0
    for trial, theirs in asked:
        if seen >= pairs or (stop_at is not None and len(report.mismatches) >= stop_at):
            break
        if trial.world is not world:
            world, store = trial.world, engine.values.parse_entities(trial.world.entities)
        seen += compare(trial, ask_ours(trial, store, engine), theirs, report)
    return report


def ask_cedar(trial: Trial, store: oracle.Entities) -> list[Outcome]:
    requests = [
        {
            "principal": dict(zip(("type", "id"), request.principal, strict=True)),
            "action": dict(zip(("type", "id"), request.action, strict=True)),
            "resource": dict(zip(("type", "id"), request.resource, strict=True)),
            "context": json.dumps(request.context),
        }
        for request in trial.requests
    ]
    policies = oracle.PolicySet.from_str("\n".join(trial.policies))
    return [_outcome(json.loads(text)) for text in oracle.is_authorized_batch(requests, policies, store, None, False)]


def _outcome(answer: dict[str, Any]) -> Outcome:
    if answer["decision"] not in ("Allow", "Deny"):
        raise AssertionError(f"Cedar refuses a generated request: {answer}")
    found = [_POLICY_ID.search(message) for message in answer["diagnostics"]["errors"]]
    errors = sorted(match[1] for match in found if match)
    if len(errors) != len(found):
        raise AssertionError(f"an error of no policy: {answer}")
    return Outcome(answer["decision"] == "Allow", tuple(sorted(answer["diagnostics"]["reason"])), tuple(errors))


def ask_ours(trial: Trial, store: object, engine: Engine) -> list[Outcome | str]:
    """Return the outcome of our engine for each request, or the exception that it raised."""
    try:
        lowered = engine.lower.lower("\n".join(trial.policies))
        compiled = engine.compile.compile_set(engine.ir.parse(engine.ir.render(lowered)))
    except Exception as error:  # noqa: BLE001 - a fault may raise anything, and that is a finding
        return [repr(error)] * len(trial.requests)
    name = engine.values.Uid
    outcomes: list[Outcome | str] = []
    for request in trial.requests:
        try:
            verdict = compiled.decide(
                name(*request.principal),
                name(*request.action),
                name(*request.resource),
                engine.values.parse_record(request.context),
                store,
            )
            errors = tuple(policy_id for policy_id, _ in verdict.errors)
            outcomes.append(Outcome(verdict.allowed, verdict.reasons, errors))
        except Exception as error:  # noqa: BLE001 - as above
            outcomes.append(repr(error))
    return outcomes


def compare(trial: Trial, ours: list[Outcome | str], theirs: list[Outcome], report: Report) -> int:
    """Compare the outcomes, count them in the report, and return the number of pairs."""
    pairs = 0
    for request, our, their in zip(trial.requests, ours, theirs, strict=True):
        before = len(report.mismatches)
        for number, construct in enumerate(trial.constructs or ()):
            policy_id = f"policy{number}"
            answer = their.of(policy_id)
            report.counts.setdefault(construct, Counter())[answer] += 1
            our_answer = our if isinstance(our, str) else our.of(policy_id)
            if our_answer != answer:
                report.mismatches.append(Mismatch(construct, trial.policies[number], request, our_answer, answer))
        if trial.constructs is None:
            report.counts.setdefault(TOGETHER, Counter())["true" if their.allowed else "false"] += 1
        if our != their and len(report.mismatches) == before:
            report.mismatches.append(Mismatch(TOGETHER, "\n".join(trial.policies), request, str(our), str(their)))
        pairs += 1 if trial.constructs is None else len(trial.constructs)
    return pairs
