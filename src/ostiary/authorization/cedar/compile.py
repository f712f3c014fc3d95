"""A compiled policy set: one function for each policy, with an index by action, principal and resource.

The semantics are Cedar's ("Authorization"): deny by default, forbid overrides permit, and a policy that fails is
skipped and reported. `Verdict.forbid_errors` reports failed forbid policies, so that the caller can deny.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.extensions import EvaluationError, Unreadable, Unusable
from ostiary.authorization.cedar.generate import Function, generate
from ostiary.authorization.cedar.values import Entities, Entity, Overlay, Record, Uid, absent

MAX_PATH = 200


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The verdict on a request. `reasons`: ids of the forbid policies that hold, or else of the permit policies
    that hold. `errors`: (policy id, message) of failed policies. Both are sorted by id. `forbid_errors`: true
    if a forbid policy failed.
    """

    allowed: bool
    reasons: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]
    forbid_errors: bool


_Place: TypeAlias = "tuple[str, str, Uid | str] | None"
"""The most selective part of a policy's scope: (`principal` or `resource`, `equals`, `type` or `within`, the entity or
type that this part requires); None if the scope has no part by which the policy can be indexed.
"""
_NOTHING_SAID = Verdict(allowed=False, reasons=(), errors=(), forbid_errors=False)


class _Policy(NamedTuple):
    id: str
    forbids: bool
    holds: Function
    reads_context: bool
    needs: str | None
    """A member of the context without which the policy does not hold, because its condition begins with `context has`
    and this member; None if the condition begins with something else.
    """


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request without its context, together with the policies whose scope may match. While the entities do not
    change, a question can be answered with several contexts.
    """

    principal: Entity
    action: Entity
    resource: Entity
    entities: Entities
    candidates: list[_Policy]
    permits: list[str]
    """Ids of the candidates that permit whatever the context is."""
    forbids: list[str]
    """Ids of the candidates that forbid whatever the context is."""
    open: list[_Policy]
    """Candidates whose result depends on the context, and candidates that fail."""


class _Side:
    """The policies of one action, indexed by the scope on one variable: the principal or the resource. The index has
    three parts: by entity, by type, and by group.
    """

    __slots__ = ("exact", "groups", "within")

    def __init__(self) -> None:
        self.exact: dict[Uid | str, list[_Policy]] = {}
        self.within: dict[Uid | str, list[_Policy]] = {}
        self.groups: frozenset[Uid | str] = frozenset()
        """the keys of `within`; empty until `_Bucket.close`"""


class _Bucket:
    """The policies for one action. Each policy is stored once, under the most selective part of its scope."""

    __slots__ = ("_always", "_principal", "_resource", "_used")

    def __init__(self) -> None:
        self._always: list[_Policy] = []
        self._principal, self._resource = _Side(), _Side()
        self._used: tuple[tuple[bool, _Side], ...] = ()
        """(whether it is the side of the resource, the side) for each side with policies; empty until `close`"""

    def file(self, policy: _Policy, place: _Place) -> None:
        if place is None:
            self._always.append(policy)
            return
        name, part, key = place
        side = self._principal if name == "principal" else self._resource
        table = side.within if part == "within" else side.exact
        table.setdefault(key, []).append(policy)

    def close(self) -> None:
        """Finish the index after all policies for the action are added."""
        for side in (self._principal, self._resource):
            side.groups = frozenset(side.within)
        sides = ((False, self._principal), (True, self._resource))
        self._used = tuple((is_resource, side) for is_resource, side in sides if side.exact or side.within)

    def find(self, principal: Entity, resource: Entity, matching: list[_Policy]) -> None:
        matching += self._always
        for is_resource, side in self._used:
            entity = resource if is_resource else principal
            if side.exact:
                matching += side.exact.get(entity.uid, ())
                matching += side.exact.get(entity.uid.type, ())
            if side.within:
                for group in side.groups & entity.lineage:
                    matching += side.within[group]


class Compiled:
    """A compiled policy set. It never changes, so threads may share it."""

    __slots__ = ("_any_action", "_at_action", "_below_action", "size")

    def __init__(self, policies: ir.PolicySetIR) -> None:
        self.size = len(policies.policies)
        self._any_action: _Bucket | None = None  # policies that name no action
        self._at_action: dict[Uid, _Bucket] = {}  # policies for exactly this action
        self._below_action: dict[Uid, _Bucket] = {}  # policies for the members of this action group
        for policy in policies.policies:
            self._add(policy)
        for bucket in (self._any_action, *self._at_action.values(), *self._below_action.values()):
            if bucket is not None:
                bucket.close()

    def _add(self, source: ir.PolicyIR) -> None:
        place, scope = _place(source)
        holds = generate(source.conditions, scope)
        policy = _Policy(source.id, source.effect == "forbid", holds, ir.reads(source, "context"), _needs(source))
        if source.action.equals is not None:
            self._at_action.setdefault(source.action.equals, _Bucket()).file(policy, place)
        elif source.action.within is not None:
            for group in set(source.action.within):
                self._at_action.setdefault(group, _Bucket()).file(policy, place)
                self._below_action.setdefault(group, _Bucket()).file(policy, place)
        else:
            self._any_action = self._any_action or _Bucket()
            self._any_action.file(policy, place)

    def decide(self, principal: Uid, action: Uid, resource: Uid, context: Record, entities: Entities) -> Verdict:
        """Return the verdict on one request. An entity that is not in `entities` has no attributes."""
        return self.answer(self.question(principal, action, resource, entities), context)

    def question(self, principal: Uid, action: Uid, resource: Uid, entities: Entities) -> Question:
        """Return the part of a request that does not depend on its context, for callers that evaluate several
        contexts. Every value of the entities must be known.
        """
        p, a, r, candidates = self.match(principal, action, resource, entities)
        permits: list[str] = []
        forbids: list[str] = []
        open_ = [policy for policy in candidates if policy.reads_context]
        for policy in candidates:
            if policy.reads_context:
                continue
            try:
                if policy.holds(p, a, r, {}, entities):
                    (forbids if policy.forbids else permits).append(policy.id)
            except (EvaluationError, KeyError):
                open_.append(policy)
        return Question(p, a, r, entities, candidates, permits, forbids, open_)

    def match(
        self, principal: Uid, action: Uid, resource: Uid, entities: Entities
    ) -> tuple[Entity, Entity, Entity, list[_Policy]]:
        """Return the principal, the action, the resource, and the policies whose scope may match them, each once."""
        if isinstance(entities, Overlay):
            p, a, r = entities.find(principal, action, resource)
        else:
            p = entities.get(principal) or absent(principal)
            a = entities.get(action) or absent(action)
            r = entities.get(resource) or absent(resource)
        return p, a, r, self._candidates(p, a, r)

    def answer(self, question: Question, context: Record) -> Verdict:
        """Return the verdict on a question with this context."""
        if not question.candidates:
            return _NOTHING_SAID
        p, a, r, entities = question.principal, question.action, question.resource, question.entities
        permits, forbids = question.permits.copy(), question.forbids.copy()
        errors: list[tuple[str, str]] = []
        forbid_errors = False
        for policy_id, is_forbid, holds, _, needs in question.open:
            if needs is not None and needs not in context:
                continue
            try:
                if holds(p, a, r, context, entities):
                    (forbids if is_forbid else permits).append(policy_id)
            except (EvaluationError, KeyError) as error:
                errors.append((policy_id, _message(error, question, context)))
                forbid_errors |= is_forbid
        reasons = forbids or permits
        if len(reasons) > 1:
            reasons.sort()
        allowed = bool(permits) and not forbids
        return Verdict(allowed, tuple(reasons), tuple(sorted(errors)) if errors else (), forbid_errors)

    def concerns(self, principal: Uid, action: Uid, resource: Uid, entities: Entities) -> bool:
        """Return whether the scope of any policy may match this principal, action and resource. If not, the verdict is
        a denial without reasons, whatever the context.
        """
        _, _, _, candidates = self.match(principal, action, resource, entities)
        return bool(candidates)

    def _candidates(self, principal: Entity, action: Entity, resource: Entity) -> list[_Policy]:
        """Return the policies whose scope may match, each once."""
        candidates: list[_Policy] = []
        if self._any_action is not None:
            self._any_action.find(principal, resource, candidates)
        bucket = self._at_action.get(action.uid)
        if bucket is not None:
            bucket.find(principal, resource, candidates)
        if len(action.lineage) == 1:
            return candidates
        for group in (self._below_action.keys() & action.lineage) - {action.uid}:
            self._below_action[group].find(principal, resource, candidates)
        return list({policy.id: policy for policy in candidates}.values())


def compile_set(policies: ir.PolicySetIR) -> Compiled:
    """Return the compiled policy set. Raises Invalid beyond the limits of the IR."""
    ir.check(policies)
    return Compiled(policies)


def _place(policy: ir.PolicyIR) -> tuple[_Place, list[tuple[str, ir.Scope]]]:
    """Return the place of the policy in the index of its action, and the rest of its scope, which the policy's function
    must test.
    """
    scope = {"principal": policy.principal, "action": policy.action, "resource": policy.resource}
    scope["action"] = _without(policy.action, "within" if policy.action.equals is None else "equals")
    for part in ("equals", "within", "type"):
        for name in ("principal", "resource"):
            key = getattr(scope[name], part)
            if part == "within" and key is not None:
                key = key[0] if len(key) == 1 else None
            if key is not None:
                scope[name] = _without(scope[name], part)
                return (name, part, key), list(scope.items())
    return None, list(scope.items())


def _needs(policy: ir.PolicyIR) -> str | None:
    """Return the member of the context that the policy tests first, before anything that can fail; None if there is
    none.
    """
    first = policy.conditions[0] if policy.conditions else None
    while isinstance(first, ir.Binary) and first.op == "and":
        first = first.left
    match first:
        case ir.Has(ir.Var("context"), attr):
            return attr
        case _:
            return None


def _without(scope: ir.Scope, part: str) -> ir.Scope:
    return msgspec.structs.replace(scope, **{part: None})


def _message(error: Exception, question: Question, context: Record) -> str:
    if isinstance(error, KeyError):
        return f"there is no attribute {error.args[0]!r}"
    if isinstance(error, Unreadable):
        read = {"context": context} | {
            name: getattr(question, name).attrs for name in ("principal", "action", "resource")
        }
        return f"{_path_to(error.value, read)} {error.value.problem}"
    return str(error)


def _path_to(value: Unusable, read: Mapping[str, Mapping[str, object]]) -> str:
    """Return the path of an Unusable value in a request, such as `context.place.latitude`, at most 200 characters."""
    open_: list[tuple[str, Mapping[str, object]]] = list(read.items())
    while open_:
        path, record = open_.pop()
        for name, item in record.items():
            if item is value:
                return f"`{path}.{name}`"[:MAX_PATH]
            if isinstance(item, dict):
                open_.append((f"{path}.{name}", item))
    return "a value"
