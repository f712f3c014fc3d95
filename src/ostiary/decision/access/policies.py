"""A policy set made ready: what it enforces, what it only watches, and its answer to one question.

Cedar skips a policy that errors. Here an error in a policy that is enforced denies, whether it permits or forbids: what
it would have said is not known. A policy with the annotation `@mode("watch")` neither permits nor denies; that it held,
or failed, is told beside the answer.

A set can have policies that are run elsewhere (`ostiary.decision.access.elsewhere`). They permit, forbid, fail and
watch like all others, and are asked after Cedar, so that what a Cedar policy forbids needs no answer of theirs.

Playbooks, which say what to do about agents, are none of its business: they are left out.

A `forbid` with the annotation `@ask("person")`, or `@ask("two")`, asks instead of denying: where nothing else denies,
the answer is `approval_needed`. With a yes to just this (`approved`), the policies that it names do not count. With
`@covers("counterpart")` beside it, a person may let a yes cover the same effect with the same counterpart.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Literal

import msgspec

from ostiary.authorization import assurance
from ostiary.authorization.assurance import StepUp
from ostiary.authorization.cedar.compile import Compiled, Verdict, compile_set
from ostiary.authorization.cedar.ir import PolicyIR, PolicySetIR, reads_context, reads_within
from ostiary.authorization.cedar.partial import PartialRecord, Request, evaluate_policy
from ostiary.authorization.cedar.values import Entities, Entity, Record, Uid, entity
from ostiary.decision.access.chain_evaluator import ChainCache, ChainEvaluator, names, together
from ostiary.decision.access.elsewhere import Elsewhere, Said, failed, question
from ostiary.decision.access.playbooks import is_playbook

CALL = Uid("Action", "call")
HISTORY, RISK = "history", "risk"
COUNTERPARTS = "counterparts"
BASE_TYPES = frozenset({"Agent", "Owner", "Segment", "Blueprint", "Task", "Tool", "Resource", "Action"})
"""Entity types whose attributes the registry states and nobody else."""


Because = Literal["", "policy_error", "forbidden_by_policy", "no_permit", "approval_needed"]
Needs = Literal["person", "two"]
"""How many must say yes: one person, or two different ones."""


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """`because`: why not; `policies` decided it; `watched` held without counting; `errors`: (policy id, message).

    `said`: (policy id, message) of those that forbid in words of their own. `of`: the agent behind the principal for
    which it is so, where it is not so for the principal.
    """

    allowed: bool
    because: Because
    policies: tuple[str, ...]
    errors: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()
    said: tuple[tuple[str, str], ...] = ()
    of: str = ""


class Foresight(msgspec.Struct, frozen=True, gc=False):
    """What can be decided of a request of which a part is unknown: whether some completion `may` be allowed, whether
    each of them `must`, and the `inputs` on which it depends.
    """

    may: bool
    must: bool
    inputs: frozenset[str] = frozenset()


class Policies:
    """A compiled set under its `hash`. Immutable, so that many threads may ask it at once.

    `actions` are those of the set's schema, each with all the groups that it is in; `entities` what the set itself
    states; `known` both. `elsewhere` are the policies that are run elsewhere, and whether each only watches. `asks` are
    the policies that ask, each with how many, `approvers` who may answer them (none: who answers for the agent),
    `covers` those of which a yes may cover more than one call.
    """

    __slots__ = (
        "_denying",
        "_enforced",
        "_sources",
        "_step_ups",
        "_watched",
        "approvers",
        "asks",
        "covers",
        "elsewhere",
        "entities",
        "hash",
        "hints",
        "known",
        "reads_counterparts",
        "reads_history",
        "reads_risk",
        "reasons",
        "relies_on_history",
        "relies_on_risk",
    )

    def __init__(
        self,
        hash: str,
        policies: PolicySetIR,
        actions: Mapping[Uid, Entity] | None = None,
        entities: Mapping[Uid, Entity] | None = None,
        elsewhere: Mapping[str, bool] | None = None,
    ) -> None:
        """Raises Invalid for what breaks a bound of the IR."""
        deciding = [policy for policy in policies.policies if not is_playbook(policy)]
        watched = tuple(filter(_is_watched, deciding))
        enforced = tuple(policy for policy in deciding if not _is_watched(policy))
        self.hash = hash
        self.relies_on_history = reads_context(PolicySetIR(enforced), HISTORY)
        """whether what happened before may decide"""
        self.reads_history = self.relies_on_history or reads_context(PolicySetIR(watched), HISTORY)
        self.reads_counterparts = self.reads_history and reads_within(policies, HISTORY, COUNTERPARTS)
        self.relies_on_risk = reads_context(PolicySetIR(enforced), RISK)
        self.reads_risk = self.relies_on_risk or reads_context(PolicySetIR(watched), RISK)
        self._enforced = ChainEvaluator(enforced)
        self._sources = {policy.id: policy for policy in enforced}
        self._watched: Compiled | None = compile_set(PolicySetIR(watched)) if watched else None
        self.asks: dict[str, Needs] = {policy.id: _needs(policy) for policy in enforced if _asks(policy)}
        self.approvers = {policy.id: approvers(policy) for policy in enforced if policy.id in self.asks}
        self.covers = frozenset(policy.id for policy in enforced if policy.annotations.get("covers") == "counterpart")
        self._denying = self._enforced
        """those that do not ask"""
        if self.asks:
            self._denying = ChainEvaluator(tuple(policy for policy in enforced if policy.id not in self.asks))
        self.entities: dict[Uid, Entity] = dict(entities or {})
        self.known: dict[Uid, Entity] = {CALL: entity(CALL)} | dict(actions or {}) | self.entities
        self.elsewhere: dict[str, bool] = dict(elsewhere or {})
        self.reasons = _annotated(policies, "reason")
        self.hints = _annotated(policies, "hint")
        self._step_ups = {
            policy.id: demand
            for policy in policies.policies
            if (demand := assurance.read_annotations(policy.annotations)) is not None
        }

    def states(self, type: str, id: str) -> bool:
        """Return whether the set itself has that entity."""
        return Uid(type, id) in self.entities

    def step_up(self, forbidding: tuple[str, ...]) -> StepUp | None:
        """What a token must say so that none of these policies forbids any more; None where no token helps.

        A person is asked last: what only waits for an answer does not stand in the way.
        """
        demands = [self._step_ups[name] for name in forbidding if name in self._step_ups]
        if not demands or not all(name in self._step_ups or name in self.asks for name in forbidding):
            return None
        return assurance.joined(demands)

    def asking(
        self, principal: Uid, action: Uid, resource: Uid, context: Record, entities: Entities
    ) -> tuple[str, ...]:
        """The policies that would ask, though nothing permits."""
        return tuple(
            policy
            for policy in self._enforced.compiled.decide(principal, action, resource, context, entities).reasons
            if policy in self.asks
        )

    def foresee(
        self, principals: Sequence[Uid], action: Uid, resource: Uid, context: PartialRecord, entities: Entities
    ) -> Foresight:
        """Return what `judge` can say of a request of which a part is unknown; the first principal is that of the
        request, the others are the agents behind it. Policies that ask count as those that forbid.
        """
        may, must, inputs = True, not any(not watches for watches in self.elsewhere.values()), set[str]()
        is_open = not must  # what the policies elsewhere say is not known
        for principal in principals:
            question = self._enforced.compiled.question(principal, action, resource, entities)
            request = Request(*question[:3], context, entities)
            found = [
                (policy.forbids, evaluate_policy(self._sources[policy.id], request)) for policy in question.candidates
            ]
            permits = [result for forbids, result in found if not forbids]
            forbids = [result for forbids, result in found if forbids]
            fails = any(result.fails for _, result in found)
            may &= not fails and not any(result.must_hold for result in forbids)
            may &= is_open or any(result.may_hold for result in permits)
            must &= any(result.must_hold for result in permits) and not any(result.may_hold for result in forbids)
            must &= not any(result.may_fail for _, result in found)
            inputs.update(*(result.inputs for _, result in found if result.unknown or result.may_fail))
        must = must and may
        return Foresight(may, must, frozenset() if must else frozenset(inputs))

    def judge(
        self,
        principal: Uid,
        action: Uid,
        resource: Uid,
        context: Record,
        entities: Entities,
        elsewhere: Elsewhere | None = None,
        approved: Container[str] = (),
        *,
        behind: Sequence[Uid] = (),
        cache: ChainCache | None = None,
    ) -> Judgement:
        """What the policies say; `entities` must hold the actions too, and the agents `behind` the principal.
        `approved`: policies that were told yes. `cache`: of these agents among these entities.
        """
        if self.reads_history and self.elsewhere and HISTORY in context:
            context[HISTORY]
        verdict, of = self._enforced.decide(principal, behind, action, resource, context, entities, cache)
        if self.asks and not (verdict.allowed or verdict.errors or self.asks.keys().isdisjoint(verdict.reasons)):
            asking = tuple(policy for policy in verdict.reasons if policy in self.asks and policy not in approved)
            verdict, of = self._denying.decide(principal, behind, action, resource, context, entities, cache)
            judged = self._join(verdict, of, principal, behind, action, resource, context, entities, elsewhere)
            return _asking(judged, asking) if judged.allowed and asking else judged
        return self._join(verdict, of, principal, behind, action, resource, context, entities, elsewhere)

    def _join(
        self,
        verdict: Verdict,
        of: str,
        principal: Uid,
        behind: Sequence[Uid],
        action: Uid,
        resource: Uid,
        context: Record,
        entities: Entities,
        elsewhere: Elsewhere | None,
    ) -> Judgement:
        """The verdict of those that are Cedar, with what the others say, and those that watch."""
        if self.elsewhere:
            watched = self._judge_watched((principal, *behind), action, resource, context, entities)
            if verdict.errors or (verdict.reasons and not verdict.allowed):
                return _judgement(verdict, watched, of)
            said = self._ask(principal, action, resource, context, entities, elsewhere)
            return _joined(_judgement(verdict, watched, of), said, self.elsewhere)
        if self._watched is None and verdict.allowed and not verdict.errors:
            return Judgement(True, "", verdict.reasons)
        watched = self._judge_watched((principal, *behind), action, resource, context, entities)
        return _judgement(verdict, watched, of)

    def _judge_watched(
        self, principals: Sequence[Uid], action: Uid, resource: Uid, context: Record, entities: Entities
    ) -> Verdict | None:
        """What held for any of them, and what failed."""
        if self._watched is None:
            return None
        said = [self._watched.decide(one, action, resource, context, entities) for one in principals]
        return said[0] if len(said) == 1 else together(said, allowed=False, reasons=names(said))

    def _ask(
        self,
        principal: Uid,
        action: Uid,
        resource: Uid,
        context: Record,
        entities: Entities,
        elsewhere: Elsewhere | None,
    ) -> list[Said]:
        """What each policy elsewhere says, one that says nothing included: it has failed."""
        if elsewhere is None:
            answers = failed(self.elsewhere, "it cannot be asked here")
        else:
            try:
                answers = elsewhere(question(principal, action, resource, context, entities))
            except ValueError as error:
                answers = failed(self.elsewhere, str(error))
        said = {one.policy: one for one in answers}
        return [said.get(policy) or Said(policy, error="it gave no answer") for policy in self.elsewhere]


def _judgement(verdict: Verdict, other: Verdict | None, of: str = "") -> Judgement:
    """What was enforced, and beside it what only watched."""
    errors, watched = verdict.errors, verdict.reasons[:0]
    if other is not None:
        errors, watched = errors + other.errors, other.reasons
    if verdict.errors:
        names = tuple(dict.fromkeys(policy for policy, _ in verdict.errors))
        return Judgement(False, "policy_error", names, errors, watched, of=of)
    if verdict.allowed:
        return Judgement(True, "", verdict.reasons, errors, watched)
    because: Because = "forbidden_by_policy" if verdict.reasons else "no_permit"
    return Judgement(False, because, verdict.reasons, errors, watched, of=of)


def _joined(cedar: Judgement, said: list[Said], watching: Mapping[str, bool]) -> Judgement:
    """The same with what was said elsewhere; `cedar` neither forbids nor has failed."""
    errors = cedar.errors + tuple((one.policy, one.error) for one in said if one.error)
    watched = cedar.watched + tuple(
        one.policy for one in said if watching[one.policy] and not one.error and (one.permits or one.forbids)
    )
    counts = [one for one in said if not watching[one.policy]]
    if wrong := tuple(one.policy for one in counts if one.error):
        return Judgement(False, "policy_error", wrong, errors, watched)
    if forbidding := [one for one in counts if one.forbids]:
        words = tuple((one.policy, "; ".join(filter(None, one.forbids))) for one in forbidding)
        names = tuple(one.policy for one in forbidding)
        return Judgement(False, "forbidden_by_policy", names, errors, watched, words)
    permitting = cedar.policies + tuple(one.policy for one in counts if one.permits)
    if permitting:
        return Judgement(True, "", permitting, errors, watched)
    return Judgement(False, "no_permit", (), errors, watched, of=cedar.of)


def _asking(judged: Judgement, policies: tuple[str, ...]) -> Judgement:
    """It would be allowed, did these not ask."""
    return Judgement(False, "approval_needed", policies, judged.errors, judged.watched)


def _asks(policy: PolicyIR) -> bool:
    return policy.effect == "forbid" and "ask" in policy.annotations


def _needs(policy: PolicyIR) -> Needs:
    """What is not known needs two: a set is checked where it is loaded."""
    return "person" if policy.annotations["ask"] == "person" else "two"


def approvers(policy: PolicyIR) -> tuple[str, ...]:
    """The persons and teams that `@approvers("finance, ada")` names, by name; none where it is not said."""
    return tuple(filter(None, (name.strip() for name in policy.annotations.get("approvers", "").split(","))))


def _is_watched(policy: PolicyIR) -> bool:
    return policy.annotations.get("mode") == "watch"


def _annotated(policies: PolicySetIR, name: str) -> dict[str, str]:
    return {policy.id: policy.annotations[name] for policy in policies.policies if name in policy.annotations}
