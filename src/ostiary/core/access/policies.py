"""A policy set made ready: what it enforces, what it only watches, and its answer to one question.

Cedar skips a policy that errors. Here an error in a policy that is enforced denies, whether it permits or forbids: what
it would have said is not known. A policy with the annotation `@mode("watch")` neither permits nor denies; that it held,
or failed, is told beside the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from ostiary.core.cedar.compile import Compiled, compile_set
from ostiary.core.cedar.ir import PolicyIR, PolicySetIR
from ostiary.core.cedar.values import Entities, Entity, Record, Uid, entity

CALL = Uid("Action", "call")
BASE_TYPES = frozenset({"Agent", "Owner", "Segment", "Blueprint", "Task", "Tool", "Resource", "Action"})
"""Entity types whose attributes the registry states and nobody else."""


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """`because`: why not; `policies` decided it; `watched` held without counting; `errors`: (policy id, message)."""

    allowed: bool
    because: Literal["", "policy_error", "forbidden_by_policy", "no_permit"]
    policies: tuple[str, ...]
    errors: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()


class Policies:
    """A compiled set under its `hash`. Immutable, so that many threads may ask it at once.

    `actions` are those of the set's schema, each with all the groups that it is in; `entities` what the set itself
    states; `known` both.
    """

    __slots__ = ("_enforced", "_watched", "entities", "hash", "hints", "known", "reasons")

    def __init__(
        self,
        hash: str,
        policies: PolicySetIR,
        actions: Mapping[Uid, Entity] | None = None,
        entities: Mapping[Uid, Entity] | None = None,
    ) -> None:
        """Raises Invalid for what breaks a bound of the IR."""
        watched = tuple(filter(_is_watched, policies.policies))
        enforced = tuple(policy for policy in policies.policies if not _is_watched(policy))
        self.hash = hash
        self._enforced: Compiled = compile_set(PolicySetIR(enforced))
        self._watched: Compiled | None = compile_set(PolicySetIR(watched)) if watched else None
        self.entities: dict[Uid, Entity] = dict(entities or {})
        self.known: dict[Uid, Entity] = {CALL: entity(CALL)} | dict(actions or {}) | self.entities
        self.reasons = _annotated(policies, "reason")
        self.hints = _annotated(policies, "hint")

    def states(self, type: str, id: str) -> bool:
        """Whether the set itself has that entity."""
        return Uid(type, id) in self.entities

    def judge(self, principal: Uid, action: Uid, resource: Uid, context: Record, entities: Entities) -> Judgement:
        """What the policies say; `entities` must hold the actions too."""
        verdict = self._enforced.decide(principal, action, resource, context, entities)
        if self._watched is None and verdict.allowed and not verdict.errors:
            return Judgement(True, "", verdict.reasons)
        errors, watched = verdict.errors, verdict.reasons[:0]
        if self._watched is not None:
            other = self._watched.decide(principal, action, resource, context, entities)
            errors, watched = errors + other.errors, other.reasons
        if verdict.errors:
            failed = tuple(policy for policy, _ in verdict.errors)
            return Judgement(False, "policy_error", failed, errors, watched)
        if verdict.allowed:
            return Judgement(True, "", verdict.reasons, errors, watched)
        return Judgement(
            False, "forbidden_by_policy" if verdict.reasons else "no_permit", verdict.reasons, errors, watched
        )


def _is_watched(policy: PolicyIR) -> bool:
    return policy.annotations.get("mode") == "watch"


def _annotated(policies: PolicySetIR, name: str) -> dict[str, str]:
    return {policy.id: policy.annotations[name] for policy in policies.policies if name in policy.annotations}
