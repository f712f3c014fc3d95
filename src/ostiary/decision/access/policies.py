"""A compiled policy set: its enforced part, its watching part, and its answer to one question.

Cedar skips a policy that fails. Here a failed policy that is enforced leads to a denial, whether it is a `permit` or a
`forbid`, because its result is unknown. A policy with the annotation `@mode("watch")` neither permits nor denies; its
result is reported separately.

A set can have remote policies (`ostiary.decision.access.remote_policies`). They permit, forbid, fail and watch like
Cedar policies. They are asked after the Cedar policies, so a call that a Cedar policy forbids needs no remote verdict.

Playbooks and role policies of the set are not part of this evaluation: playbooks choose responses to findings about
agents, role policies state the permissions of people.

An *asking* policy is a `forbid` with the annotation `@ask("person")` or `@ask("two")`. If only asking policies forbid a
call, the result is `approval_needed` instead of a denial. An asking policy does not count for a call that has an
approval for this policy (`approved`). With the further annotation `@covers("counterpart")`, a person may extend an
approval to calls with the same effect on the same counterpart.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Literal

import msgspec

from ostiary.authorization import assurance
from ostiary.authorization.assurance import StepUp
from ostiary.authorization.cedar.compile import Compiled, Verdict, compile_set
from ostiary.authorization.cedar.ir import EntityLit, PolicyIR, PolicySetIR, children, reads_context, reads_within
from ostiary.authorization.cedar.partial import PartialRecord, Request, evaluate_policy
from ostiary.authorization.cedar.values import Entities, Entity, Record, Uid, entity
from ostiary.decision.access.chain_evaluator import ChainCache, ChainEvaluator, join_verdicts, policy_names
from ostiary.decision.access.policy_kinds import API_ROUTE, PERSON, ROLE, is_playbook, is_role_policy
from ostiary.decision.access.remote_policies import PolicyResult, RemoteSource, fail_all, question

CALL = Uid("Action", "call")
HISTORY, RISK = "history", "risk"
COUNTERPARTS = "counterparts"
BASE_TYPES = frozenset(
    {"Agent", "Owner", "Segment", "Blueprint", "Task", "Tool", "Resource", "Secret", "Action", API_ROUTE, PERSON, ROLE}
)
"""Entity types whose attributes only the registry states."""


Because = Literal["", "policy_error", "forbidden_by_policy", "no_permit", "approval_needed"]
Needs = Literal["person", "two"]
"""The number of persons who must approve: one, or two different ones."""


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """The result of evaluating a policy set for one request.

    `because`: the reason code of a denial, or empty; `policies`: ids of the policies that decided; `watched`: ids of
    policies in mode `watch` whose conditions hold; `errors`: (policy id, message) of failed policies; `messages`:
    (policy id, message) of remote policies that forbid with a message. `of`: id of the agent behind the principal
    because of which the call is denied; empty if the call is denied because of the principal itself.
    """

    allowed: bool
    because: Because
    policies: tuple[str, ...]
    errors: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    of: str = ""


class Foresight(msgspec.Struct, frozen=True, gc=False):
    """The possible results for a request with unknown parts. `may`: true if the request is allowed for at least one
    choice of values for the unknown parts; `must`: true if it is allowed for every choice. `inputs`: names of the
    unknown inputs on which the result depends.
    """

    may: bool
    must: bool
    inputs: frozenset[str] = frozenset()


class Policies:
    """A compiled policy set, named by its `hash`. Immutable, so that many threads may use it at once.

    `actions`: the actions of the set's schema, each with all its groups; `entities`: the entities that the set states;
    `known`: both. `remote`: the remote policies, and whether each only watches. `asks`: the asking policies (with
    `@ask`: persons must approve the call), each with the number of approvals; `approvers`: the persons who may answer
    them (empty: those accountable for the agent); `covers`: asking policies whose approval may cover more than one
    call.
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
        "remote",
    )

    def __init__(
        self,
        hash: str,
        policies: PolicySetIR,
        actions: Mapping[Uid, Entity] | None = None,
        entities: Mapping[Uid, Entity] | None = None,
        remote: Mapping[str, bool] | None = None,
    ) -> None:
        """Compile a policy set. Raises Invalid beyond the limits of the IR."""
        deciding = [policy for policy in policies.policies if not (is_playbook(policy) or is_role_policy(policy))]
        watched = tuple(filter(_is_watched, deciding))
        enforced = tuple(policy for policy in deciding if not _is_watched(policy))
        self.hash = hash
        self.relies_on_history = reads_context(PolicySetIR(enforced), HISTORY)
        """True if an enforced policy reads the history, so that it can change the verdict"""
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
        """the enforced policies, without the policies that ask a person (`@ask`)"""
        if self.asks:
            self._denying = ChainEvaluator(tuple(policy for policy in enforced if policy.id not in self.asks))
        self.entities: dict[Uid, Entity] = dict(entities or {})
        self.known: dict[Uid, Entity] = {CALL: entity(CALL)} | dict(actions or {}) | self.entities
        self.remote: dict[str, bool] = dict(remote or {})
        self.reasons = _annotated(policies, "reason")
        self.hints = _annotated(policies, "hint")
        self._step_ups = {
            policy.id: demand
            for policy in policies.policies
            if (demand := assurance.read_annotations(policy.annotations)) is not None
        }

    def states(self, type: str, id: str) -> bool:
        """Return whether the policy set itself states an entity with this type and id."""
        return Uid(type, id) in self.entities

    def step_up(self, forbidding: tuple[str, ...]) -> StepUp | None:
        """Return the requirement on a token that satisfies all policies in `forbidding`; None if one of them has no
        step-up annotation, or no token can satisfy all. Policies with `@ask` in `forbidding` are ignored, because a
        person is asked after the step-up.
        """
        demands = [self._step_ups[name] for name in forbidding if name in self._step_ups]
        if not demands or not all(name in self._step_ups or name in self.asks for name in forbidding):
            return None
        return assurance.join_demands(demands)

    def asking(
        self, principal: Uid, action: Uid, resource: Uid, context: Record, entities: Entities
    ) -> tuple[str, ...]:
        """Return the ids of the asking policies (with `@ask`: persons must approve the call) whose conditions hold for
        the principal, whether or not a policy permits the request.
        """
        return tuple(
            policy
            for policy in self._enforced.compiled.decide(principal, action, resource, context, entities).reasons
            if policy in self.asks
        )

    def foresee(
        self, principals: Sequence[Uid], action: Uid, resource: Uid, context: PartialRecord, entities: Entities
    ) -> Foresight:
        """Return the possible results for a request with unknown parts. The first of `principals` makes the request;
        the others are the agents behind it. A policy that requires an approval (`@ask`) counts as a policy that
        forbids.
        """
        may, must, inputs = True, not any(not watches for watches in self.remote.values()), set[str]()
        is_open = not must  # the results of remote policies are unknown
        for principal in principals:
            p, a, r, candidates = self._enforced.compiled.match(principal, action, resource, entities)
            request = Request(p, a, r, context, entities)
            results = [(policy.forbids, evaluate_policy(self._sources[policy.id], request)) for policy in candidates]
            permits = [result for forbids, result in results if not forbids]
            forbids = [result for forbids, result in results if forbids]
            fails = any(result.fails for _, result in results)
            may &= not fails and not any(result.must_hold for result in forbids)
            may &= is_open or any(result.may_hold for result in permits)
            must &= any(result.must_hold for result in permits) and not any(result.may_hold for result in forbids)
            must &= not any(result.may_fail for _, result in results)
            inputs.update(*(result.inputs for _, result in results if result.unknown or result.may_fail))
        must = must and may
        return Foresight(may, must, frozenset() if must else frozenset(inputs))

    def named_resources(self, kind: str) -> list[str]:
        """Return the ids of all resources of the entity type `kind` that enforced policies name, in their scopes or
        conditions.
        """
        uids: list[Uid | None] = []
        for policy in self._sources.values():
            uids += (policy.resource.equals, *(policy.resource.within or ()))
            nodes = list(policy.conditions)
            while nodes:
                node = nodes.pop()
                nodes += children(node)
                if isinstance(node, EntityLit):
                    uids.append(node.uid)
        return sorted({one.id for one in uids if one is not None and one.type == kind})

    def judge(
        self,
        principal: Uid,
        action: Uid,
        resource: Uid,
        context: Record,
        entities: Entities,
        remote: RemoteSource | None = None,
        approved: Container[str] = (),
        *,
        behind: Sequence[Uid] = (),
        cache: ChainCache | None = None,
    ) -> Judgement:
        """Return the judgement of the set on a request. `entities` must also contain the actions and the agents
        `behind` the principal.

        `remote`: function that answers the question to the remote policies; `approved`: ids of the policies with `@ask`
        for which the call has an approval; `cache`: the cache for these agents and these entities.
        """
        if self.reads_history and self.remote and HISTORY in context:
            context[HISTORY]  # computed here, because the question to remote policies has the whole context
        verdict, of = self._enforced.decide(principal, behind, action, resource, context, entities, cache)
        if self.asks and not (verdict.allowed or verdict.errors or self.asks.keys().isdisjoint(verdict.reasons)):
            asking = tuple(policy for policy in verdict.reasons if policy in self.asks and policy not in approved)
            verdict, of = self._denying.decide(principal, behind, action, resource, context, entities, cache)
            judgement = self._join(verdict, of, (principal, *behind), action, resource, context, entities, remote)
            return _asking(judgement, asking) if judgement.allowed and asking else judgement
        return self._join(verdict, of, (principal, *behind), action, resource, context, entities, remote)

    def _join(
        self,
        verdict: Verdict,
        of: str,
        principals: Sequence[Uid],
        action: Uid,
        resource: Uid,
        context: Record,
        entities: Entities,
        remote: RemoteSource | None,
    ) -> Judgement:
        """Return the judgement that joins the verdict of the Cedar policies with the results of the remote policies
        and of the policies in mode `watch`. `of`: see `Judgement`.
        """
        if self.remote:
            watched = self._judge_watched(principals, action, resource, context, entities)
            if verdict.errors or (verdict.reasons and not verdict.allowed):
                return _judgement(verdict, watched, of)
            results = self._ask(principals[0], action, resource, context, entities, remote)
            return _joined(_judgement(verdict, watched, of), results, self.remote)
        if self._watched is None and verdict.allowed and not verdict.errors:
            return Judgement(True, "", verdict.reasons)
        watched = self._judge_watched(principals, action, resource, context, entities)
        return _judgement(verdict, watched, of)

    def _judge_watched(
        self, principals: Sequence[Uid], action: Uid, resource: Uid, context: Record, entities: Entities
    ) -> Verdict | None:
        """Return a verdict with the ids of the policies in mode `watch` whose conditions hold for one of `principals`,
        and with the errors of failed ones; None if the set has no such policies.
        """
        if self._watched is None:
            return None
        verdicts = [self._watched.decide(one, action, resource, context, entities) for one in principals]
        return (
            verdicts[0]
            if len(verdicts) == 1
            else join_verdicts(verdicts, allowed=False, reasons=policy_names(verdicts))
        )

    def _ask(
        self,
        principal: Uid,
        action: Uid,
        resource: Uid,
        context: Record,
        entities: Entities,
        remote: RemoteSource | None,
    ) -> list[PolicyResult]:
        """Return the result of each remote policy. A policy without an answer has the result failed."""
        if remote is None:
            answers = fail_all(self.remote, "remote policies cannot be asked here")
        else:
            try:
                answers = remote(question(principal, action, resource, context, entities))
            except ValueError as error:
                answers = fail_all(self.remote, str(error))
        by_policy = {one.policy: one for one in answers}
        return [by_policy.get(policy) or PolicyResult(policy, error="no answer") for policy in self.remote]


def _judgement(verdict: Verdict, other: Verdict | None, of: str = "") -> Judgement:
    """Return the judgement for `verdict`, the verdict of the enforced Cedar policies; `other`: the verdict of the
    policies in mode `watch`.
    """
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


def _joined(cedar: Judgement, results: list[PolicyResult], watching: Mapping[str, bool]) -> Judgement:
    """Return the judgement `cedar`, which neither forbids nor has failed, joined with the results of remote policies.
    `watching`: whether each remote policy is in mode `watch`, by id.
    """
    errors = cedar.errors + tuple((one.policy, one.error) for one in results if one.error)
    watched = cedar.watched + tuple(
        one.policy for one in results if watching[one.policy] and not one.error and (one.permits or one.forbids)
    )
    counts = [one for one in results if not watching[one.policy]]
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


def _asking(judgement: Judgement, policies: tuple[str, ...]) -> Judgement:
    """Return the judgement `approval_needed` for a call that lacks only the approvals of the asking policies
    `policies`.
    """
    return Judgement(False, "approval_needed", policies, judgement.errors, judgement.watched)


def _asks(policy: PolicyIR) -> bool:
    return policy.effect == "forbid" and "ask" in policy.annotations


def _needs(policy: PolicyIR) -> Needs:
    """Return the number of approvals that an asking policy requires: `person` or `two`. The loader of policy sets
    refuses other values.
    """
    return "person" if policy.annotations["ask"] == "person" else "two"


def approvers(policy: PolicyIR) -> tuple[str, ...]:
    """Return the names of persons and teams in the annotation `@approvers("finance, ada")` of a policy; an empty tuple
    without the annotation.
    """
    return tuple(filter(None, (name.strip() for name in policy.annotations.get("approvers", "").split(","))))


def _is_watched(policy: PolicyIR) -> bool:
    return policy.annotations.get("mode") == "watch"


def _annotated(policies: PolicySetIR, name: str) -> dict[str, str]:
    return {policy.id: policy.annotations[name] for policy in policies.policies if name in policy.annotations}
