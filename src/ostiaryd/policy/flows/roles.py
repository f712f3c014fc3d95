"""Rights of people: role policies decide each use of the administration API by a person (ADR 79)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import islice

from msgspec.structs import replace

from ostiary.authorization.assurance import AMRS
from ostiary.authorization.cedar.values import Entity
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.database import Reader
from ostiaryd.policy.flows.entity_lookup import agent_with_facts, resource_with_facts
from ostiaryd.policy.flows.sets import active_set
from ostiaryd.policy.model.roles import Holder, RouteFacts
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ, SELF, Agent, Caller, Person, Resource

MAX_HINTED = 5
"""Number of roles that the hint of a refusal names."""


def authorize_person(reader: Reader, caller: Caller, route: RouteFacts, *, now: int, acr: str) -> Caller:
    """Check that role policies permit the caller, a person, the `route` at `now` (microseconds); return the caller with
    the scopes that these policies give for this request. `acr`: the assurance of the session or token.

    On a route with the scope `self`, the person also reaches objects of other persons if the policies would permit the
    route with `ostiary:read` (if it reads) or `ostiary:admin`. Raises Forbidden (`role_required`) if no role of the
    person permits the route.
    """
    holder = _holder(reader, caller.id, caller.name, acr)
    permitted = _permitted_scopes(reader, holder, route, now=now)
    if not permitted:
        suitable = ", ".join(_sufficient_roles(reader, holder, route, now=now))
        raise Forbidden(
            f"none of your roles permits `{route.method} {route.path}`",
            hint=(f"roles that permit it: {suitable}; " if suitable else "")
            + "an administrator grants roles: ostiary role grant NAME ROLE",
            code="role_required",
        )
    return replace(caller, scopes=caller.scopes | (permitted - {SELF}))


def list_operations(reader: Reader, caller: Caller, routes: Iterable[RouteFacts], *, now: int, acr: str) -> list[str]:
    """Return, as `METHOD PATH`, each of `routes` that role policies permit the caller at `now` (microseconds). The
    caller must be a person.
    """
    holder = _holder(reader, caller.id, caller.name, acr)
    return [
        f"{route.method} {route.path}"
        for route in routes
        if route.scope and _permitted_scopes(reader, holder, route, now=now)
    ]


def list_readable_areas(reader: Reader, caller: Caller, areas: Iterable[str], *, now: int, acr: str) -> frozenset[str]:
    """Return those of `areas` (such as `agents`) whose lists the caller may read at `now` (microseconds). For a person,
    role policies decide; any other caller, which must have the scope `ostiary:read`, may read all.
    """
    if caller.kind != "person":
        return frozenset(areas)
    holder = _holder(reader, caller.id, caller.name, acr)
    routes = {area: RouteFacts("GET", f"/api/v1/{area}", READ, False, False) for area in areas}
    return frozenset(area for area, route in routes.items() if _permitted_scopes(reader, holder, route, now=now))


def may_answer(reader: Reader, person: str, agent: Agent, *, now: int) -> bool:
    """Return whether role policies permit a person to answer the approval requests of an agent, even if the person is
    not accountable for the agent.
    """
    roles = active_set(reader).roles
    record = registry.find_person(reader, person)
    holder = _holder(reader, person, record.name, "")
    return roles.may_answer(holder, agent_with_facts(agent)[0], now=now).allowed


def check_consent(
    reader: Reader,
    person: str,
    resource: Resource,
    *,
    client: str,
    is_registered: bool,
    scopes: Collection[str],
    now: int,
) -> None:
    """Check that role policies permit the person to let a client act for the person at a resource, with these scopes.
    `is_registered`: an administrator registered the client. Raises Forbidden (`role_required`) otherwise.
    """
    holder = _holder(reader, person, registry.find_person(reader, person).name, "")
    entity, _ = resource_with_facts(reader, resource)
    verdict = active_set(reader).roles.may_consent(
        holder, entity, client=client, is_registered=is_registered, scopes=scopes, now=now
    )
    if not verdict.allowed:
        raise Forbidden(
            f"none of your roles permits this client to act for you at `{resource.name}`",
            hint="an administrator grants roles: ostiary role grant NAME ROLE",
            code="role_required",
        )


def check_person_certificate(
    reader: Reader,
    person: Person,
    *,
    profile: str,
    names: Collection[str],
    key_type: str,
    lifetime_s: int,
    now: int,
) -> None:
    """Check that role policies permit a person a certificate with this profile, names, key type and lifetime. Raises
    Forbidden (`role_required`) otherwise.
    """
    holder = _holder(reader, person.person_id, person.name, "")
    verdict = active_set(reader).roles.may_have_certificate(
        holder, profile=profile, names=names, key_type=key_type, lifetime_s=lifetime_s, now=now
    )
    if not verdict.allowed:
        raise Forbidden(
            f"no role of `{person.name}` permits this certificate",
            hint="an administrator grants roles: ostiary role grant NAME ROLE",
            code="role_required",
        )


def known_roles(reader: Reader) -> frozenset[str]:
    """Return the roles that the active policies name."""
    return active_set(reader).roles.names


def _holder(reader: Reader, person: str, name: str, acr: str) -> Holder:
    return Holder(person, name, registry.list_person_roles(reader, person), acr, AMRS.get(acr, ()))


def _permitted_scopes(reader: Reader, holder: Holder, route: RouteFacts, *, now: int) -> set[str]:
    roles = active_set(reader).roles
    return {scope for scope in _scopes(route) if roles.may_use(holder, _entity(route, scope), now=now).allowed}


def _sufficient_roles(reader: Reader, holder: Holder, route: RouteFacts, *, now: int) -> list[str]:
    """Return at most `MAX_HINTED` roles, each of which would permit the holder to use `route`, in order of name."""
    suitable = (
        role
        for role in sorted(known_roles(reader))
        if _permitted_scopes(reader, holder._replace(roles=frozenset({*holder.roles, role})), route, now=now)
    )
    return [*islice(suitable, MAX_HINTED)]


def _scopes(route: RouteFacts) -> tuple[str, ...]:
    if route.scope != SELF:
        return (route.scope,)
    return (SELF, READ, ADMIN) if route.method == "GET" else (SELF, ADMIN)


@lru_cache(maxsize=1024)
def _entity(route: RouteFacts, scope: str) -> Entity:
    return route.entity(scope)
