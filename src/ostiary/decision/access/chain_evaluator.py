"""Policies for a delegation chain: the verdict for a principal, joined with the verdicts for the agents behind it.

Most policies give the same verdict for every agent. Most other policies give one agent the same verdict on every call.
A `ChainCache` stores these verdicts, and the policies whose scope can match. A cache is valid for one principal with
the agents behind it, and for one store of entities.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ostiary.authorization.cedar.compile import Compiled, Question, Verdict, compile_set
from ostiary.authorization.cedar.ir import PolicyIR, PolicySetIR, reads
from ostiary.authorization.cedar.values import Entities, Record, Uid

MAX_CACHED = 1024


class ChainInvariants(NamedTuple):
    """Facts about the agents behind a principal that are equal for every call of the principal on one action and
    resource.
    """

    permits: frozenset[str]
    """Policies that permit at least one agent behind the principal."""
    lacking: tuple[tuple[Uid, frozenset[str]], ...]
    """Agents behind the principal that no policy of `permits` permits. Each agent is paired with the policies whose
    verdict for it is always the verdict for the principal.
    """
    varying: tuple[Uid, ...]
    """Agents behind the principal for which the verdict of some policy depends on the context of the call."""
    verdicts: dict[tuple[str, ...], Verdict]
    """Joint verdict for the principal and all agents behind it, by the ids of the policies that permit the principal.
    Used only if `varying` is empty.
    """
    denied: bool
    """True if a policy forbids an agent behind the principal, or a policy has failed for such an agent."""


ChainCache = dict[tuple["ChainEvaluator", Uid, Uid], tuple[Question, ChainInvariants | None]]
"""A cache by (policy set, action, resource): the prepared question for the principal, and the invariants of the agents
behind the principal.
"""


class ChainEvaluator:
    """A compiled policy set in four parts, by the inputs on which the verdict of a policy for an agent depends.
    `common`: the verdict is the same for all agents; `steady`: the verdict depends on the agent only; `scoped`: on
    agent and context, for the agents in the policy's scope; `varying`: on agent and context, for all agents.
    """

    __slots__ = ("_again", "_common", "_scoped", "_steady", "_varying", "compiled")

    def __init__(self, policies: tuple[PolicyIR, ...]) -> None:
        """Prepare the evaluation of policies for chains of agents. Raises Invalid beyond the limits of the IR."""
        about = [policy for policy in policies if _has_scope(policy) or reads(policy, "principal")]
        calls = [policy for policy in about if reads(policy, "context")]
        scoped = [replace(policy, effect="permit", conditions=()) for policy in calls if not reads(policy, "principal")]
        self.compiled = _compile(policies)
        self._common = frozenset(policy.id for policy in policies) - {policy.id for policy in about}
        self._steady = _compile(policy for policy in about if not reads(policy, "context"))
        self._scoped = _compile(scoped)
        self._varying = _compile(policy for policy in calls if reads(policy, "principal"))
        self._again = _compile(calls)

    def decide(
        self,
        principal: Uid,
        behind: Sequence[Uid],
        action: Uid,
        resource: Uid,
        context: Record,
        entities: Entities,
        cache: ChainCache | None = None,
    ) -> tuple[Verdict, str]:
        """Return (joint verdict, agent). The verdict allows if policies permit the principal and each agent behind it,
        and forbid none of them. If the verdict denies because of an agent behind the principal, the second value is
        the id of this agent; otherwise it is empty.
        """
        if cache is None:
            first, steady = self.compiled.decide(principal, action, resource, context, entities), None
        else:
            key = (self, action, resource)
            if (cached := cache.get(key)) is None:
                if len(cache) >= MAX_CACHED:
                    cache.clear()
                cached = cache[key] = self._look(principal, behind, action, resource, entities)
            question, steady = cached
            first = self.compiled.answer(question, context)
        if not behind:
            return first, ""
        if steady is not None and not denies(first):
            permitted = steady.verdicts.get(first.reasons)
            if permitted is None:
                permitted = self._permitted(first, steady, action, resource, context, entities)
            if permitted is not None:
                return permitted, ""
        others = [self.compiled.decide(one, action, resource, context, entities) for one in behind]
        denied = (one.id for one, verdict in zip(behind, others, strict=True) if denies(verdict))
        of = "" if denies(first) else next(denied, "")
        verdicts = [first, *others]
        denying = [one for one in verdicts if not one.allowed]
        if any(not one.reasons for one in denying):
            return join_verdicts(verdicts, allowed=False, reasons=()), of
        return join_verdicts(verdicts, allowed=not denying, reasons=policy_names(denying or verdicts)), of

    def _permitted(
        self, first: Verdict, steady: ChainInvariants, action: Uid, resource: Uid, context: Record, entities: Entities
    ) -> Verdict | None:
        """Return the joint verdict if the cached invariants prove that the principal and all agents behind it are
        permitted; otherwise None.
        """
        if steady.denied:
            return None
        lacking = {agent for agent, shared in steady.lacking if shared.isdisjoint(first.reasons)}
        permits = steady.permits
        for one in steady.varying:
            verdict = self._again.decide(one, action, resource, context, entities)
            if _forbids(verdict):
                return None
            permits = permits.union(verdict.reasons)
            if verdict.allowed:
                lacking.discard(one)
        if lacking:
            return None
        permitted = Verdict(True, tuple(sorted(permits.union(first.reasons))), (), False)
        if not steady.varying and len(steady.verdicts) < MAX_CACHED:
            steady.verdicts[first.reasons] = permitted
        return permitted

    def _look(
        self, principal: Uid, behind: Sequence[Uid], action: Uid, resource: Uid, entities: Entities
    ) -> tuple[Question, ChainInvariants | None]:
        question = self.compiled.question(principal, action, resource, entities)
        return question, self._steady_of(principal, behind, action, resource, entities) if behind else None

    def _steady_of(
        self, principal: Uid, behind: Sequence[Uid], action: Uid, resource: Uid, entities: Entities
    ) -> ChainInvariants:
        def scope_of(agent: Uid) -> frozenset[str]:
            return frozenset(self._scoped.decide(agent, action, resource, {}, entities).reasons)

        own = scope_of(principal)
        verdicts = {one: self._steady.decide(one, action, resource, {}, entities) for one in behind}
        return ChainInvariants(
            permits=frozenset(name for one in verdicts.values() for name in one.reasons),
            lacking=tuple((one, self._common | (own & scope_of(one))) for one in behind if not verdicts[one].allowed),
            varying=tuple(
                one for one in behind if scope_of(one) - own or self._varying.concerns(one, action, resource, entities)
            ),
            verdicts={},
            denied=any(map(_forbids, verdicts.values())),
        )


def _compile(policies: Iterable[PolicyIR]) -> Compiled:
    return compile_set(PolicySetIR(tuple(policies)))


def _has_scope(policy: PolicyIR) -> bool:
    """Return whether the scope of the policy limits it to some agents."""
    scope = policy.principal
    return scope.equals is not None or scope.within is not None or scope.type not in (None, "Agent")


def _forbids(verdict: Verdict) -> bool:
    return bool(verdict.errors) or (bool(verdict.reasons) and not verdict.allowed)


def denies(verdict: Verdict) -> bool:
    """Return whether the verdict is deny, or a policy has failed."""
    return bool(verdict.errors) or not verdict.allowed


def join_verdicts(verdicts: list[Verdict], *, allowed: bool, reasons: tuple[str, ...]) -> Verdict:
    """Return one verdict: with the result `allowed`, with `reasons`, and with the errors of all `verdicts`."""
    errors = tuple(sorted({error for one in verdicts for error in one.errors}))
    return Verdict(allowed, reasons, errors, any(one.forbid_errors for one in verdicts))


def policy_names(verdicts: list[Verdict]) -> tuple[str, ...]:
    """Return the ids of all policies that decided one of the verdicts, sorted."""
    return tuple(sorted({name for one in verdicts for name in one.reasons}))
