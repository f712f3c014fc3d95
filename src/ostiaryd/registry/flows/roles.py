"""Roles of persons and teams: grant, revoke, and synchronize with the groups of an identity provider."""

from __future__ import annotations

from collections.abc import Collection

from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.find import find_owner
from ostiaryd.registry.model import Owner, check_name
from ostiaryd.registry.model.role import BY_HAND, RoleAssignment

MAX_ROLES = 32
"""Maximum number of roles of one person or team."""


def grant_role(act: Act, subject: str, role: str) -> Owner:
    """Give a role to a person or team (id or name), and return the owner. If an administrator gave the owner the role
    before, nothing changes. Raises NotFound for an unknown owner, Invalid for a malformed role, Conflict for too many
    roles.
    """
    owner = find_owner(act.tx, subject)
    fill_entry(act, object=owner.id, name=owner.name, role=role[:64])
    check_name(role, of="role")
    present = store.roles.of_subject(act.tx, owner.id)
    is_granted = any(one.role == role and one.source == BY_HAND for one in present)
    if not is_granted and len(present) >= MAX_ROLES:
        raise Conflict(f"`{owner.name}` has {MAX_ROLES} roles", hint="revoke a role first", code="too_many_roles")
    store.roles.add(act.tx, owner.id, role, BY_HAND)
    return owner


def revoke_role(act: Act, subject: str, role: str) -> Owner:
    """Take a role from a person or team (id or name), including assignments by identity providers, and return the
    owner. Raises NotFound for an unknown owner, or an owner without the role.
    """
    owner = find_owner(act.tx, subject)
    fill_entry(act, object=owner.id, name=owner.name, role=role[:64])
    mine = [one for one in store.roles.of_subject(act.tx, owner.id) if one.role == role]
    if not mine:
        raise NotFound(f"`{owner.name}` does not have the role {role[:64]!a}", hint="`ostiary role list` shows all")
    for one in mine:
        store.roles.remove(act.tx, owner.id, role, one.source)
    return owner


def set_roles_of_source(act: Act, person: str, names: Collection[str], *, source: str) -> None:
    """Set the roles that a person has from one source (the id of an identity provider). Roles from other sources are
    kept.
    """
    present = {one.role for one in store.roles.of_subject(act.tx, person) if one.source == source}
    for role in sorted(set(names) - present):
        store.roles.add(act.tx, person, role, source)
    for role in sorted(present - set(names)):
        store.roles.remove(act.tx, person, role, source)


def end_roles_of_source(act: Act, source: str) -> None:
    """End all roles that the rules of one identity provider (`source`) gave to persons."""
    for one in store.roles.of_source(act.tx, source):
        store.roles.remove(act.tx, one.subject, one.role, one.source)


def end_roles(act: Act, subject: str) -> None:
    """End all roles of a person or team that leaves. They are not restored when the person returns."""
    for one in store.roles.of_subject(act.tx, subject):
        store.roles.remove(act.tx, one.subject, one.role, one.source)


def list_role_assignments(reader: Reader, subject: str) -> list[RoleAssignment]:
    """Return the role assignments of a person or team (id or name). Raises NotFound for an unknown person or team."""
    return store.roles.of_subject(reader, find_owner(reader, subject).id)
