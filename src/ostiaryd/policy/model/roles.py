"""Role policies: the policies of a set that decide which operations of the administration API a person may use (ADR
79).

A role policy in watch mode does not count. If any other role policy fails, the operation is denied, as in all
decisions.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.compile import Verdict, compile_set
from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.values import Entity, Record, Uid, entity
from ostiary.decision.access.policy_kinds import (
    ANSWER,
    API_ROUTE,
    CONSENT,
    HOLD_CERTIFICATE,
    PERSON,
    ROLE,
    USE_API,
    is_role_policy,
)


class RouteFacts(NamedTuple):
    """The facts about a route of the administration API that role policies see."""

    method: str
    path: str
    scope: str
    stops: bool
    for_people: bool
    own_area: str = ""
    """Area of the route; if empty, the area is the first part of the path after `/api/v1`."""

    def entity(self, scope: str) -> Entity:
        """Return the Cedar entity of the route. `scope`: the scope that the entity states, which can differ from the
        route's own.
        """
        operation = f"{self.method} {self.path}"
        parts = self.path.removeprefix("/api/v1").split("/")
        return entity(
            Uid(API_ROUTE, operation),
            {
                "operation": operation,
                "area": self.own_area or (parts[1] if len(parts) > 1 else ""),
                "scope": scope,
                "reads": self.method == "GET",
                "stops": self.stops,
                "for_people": self.for_people,
            },
        )


class Holder(NamedTuple):
    """A person with the roles of the person, and the assurance (`acr`, `amr`) of the session or token."""

    id: str
    name: str
    roles: frozenset[str]
    acr: str
    amr: Collection[str]

    def entity(self) -> Entity:
        """Return the Cedar entity of the person, which is a member of each of the roles."""
        return _person_entity(self.id, self.name, self.roles)


@lru_cache(maxsize=1024)
def _person_entity(id: str, name: str, roles: frozenset[str]) -> Entity:
    """Return the entity of a person. Cached, since the consent of a person is checked with each token."""
    return entity(Uid(PERSON, id), {"id": id, "name": name}, [Uid(ROLE, role) for role in roles])


class Roles:
    """The compiled role policies of a set: Cedar policies that permit persons requests by their roles. The object never
    changes.
    """

    def __init__(self, policies: ir.PolicySetIR) -> None:
        role_policies = [policy for policy in policies.policies if is_role_policy(policy)]
        enforced = tuple(policy for policy in role_policies if "mode" not in policy.annotations)
        self._compiled = compile_set(ir.PolicySetIR(enforced))
        self.names = frozenset(name for policy in enforced for name in _roles_of(policy))
        """names of the roles in the policies that are not in watch mode"""

    def may_use(self, holder: Holder, route: Entity, *, now: int) -> Verdict:
        """Return the verdict on whether a person may use a route at `now` (microseconds)."""
        context: Record = {"acr": holder.acr, "amr": frozenset(holder.amr), "now": Datetime(now // 1000)}
        return self._decide(holder, USE_API, route, context)

    def may_answer(self, holder: Holder, agent: Entity, *, now: int) -> Verdict:
        """Return the verdict on whether a person may answer the approval requests of an agent at `now`
        (microseconds).
        """
        return self._decide(holder, ANSWER, agent, {"now": Datetime(now // 1000)})

    def may_consent(
        self, holder: Holder, resource: Entity, *, client: str, is_registered: bool, scopes: Collection[str], now: int
    ) -> Verdict:
        """Return the verdict on whether a person may let a client act on the person's behalf at a resource, at `now`
        (microseconds).
        """
        context: Record = {
            "client": client,
            "registered": is_registered,
            "scopes": frozenset(scopes),
            "now": Datetime(now // 1000),
        }
        return self._decide(holder, CONSENT, resource, context)

    def may_have_certificate(
        self, holder: Holder, *, profile: str, names: Collection[str], key_type: str, lifetime_s: int, now: int
    ) -> Verdict:
        """Return the verdict on whether a person may get a certificate with these properties, at `now`
        (microseconds).
        """
        context: Record = {
            "profile": profile,
            "names": frozenset(names),
            "key_type": key_type,
            "lifetime": lifetime_s,
            "now": Datetime(now // 1000),
        }
        return self._decide(holder, HOLD_CERTIFICATE, holder.entity(), context)

    def _decide(self, holder: Holder, action: Uid, resource: Entity, context: Record) -> Verdict:
        person = holder.entity()
        entities = {person.uid: person, resource.uid: resource, action: _action_entity(action)}
        return self._compiled.decide(person.uid, action, resource.uid, context, entities)


_action_entity = lru_cache(maxsize=64)(entity)


def _roles_of(policy: ir.PolicyIR) -> list[str]:
    """Return the names of the roles in the principal scope of a policy."""
    scope = policy.principal
    named = [*(scope.within or ()), *([scope.equals] if scope.equals is not None else [])]
    return [uid.id for uid in named if uid.type == ROLE]
