"""Roles of people for administrators: list, grant and revoke roles (ADR 79)."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiary.protocol.errors import Invalid
from ostiary.protocol.nearest import nearest_hint
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import PAGE, EmptyBody, PageBody, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust.model import SECOND


class NewRole(msgspec.Struct, forbid_unknown_fields=True):
    """A role to grant. `subject`: the name or id of a person or team."""

    subject: str
    role: str


class RoleBody(TypedDict):
    """A role of a person or team. `source` is the login provider whose rule granted the role; empty if an
    administrator granted it.
    """

    subject: str
    name: str
    role: str
    source: str
    granted_at: int


class RoleNamesBody(TypedDict):
    """The roles that the active policies name."""

    roles: list[str]


async def list_roles(call: Call) -> Reply:
    """List the roles of persons and teams."""
    return await reply_page(
        call,
        "roles",
        registry.list_roles,
        lambda reader, one: {
            "subject": one.subject,
            "name": "" if (owner := registry.get_owner(reader, one.subject)) is None else owner.name,
            "role": one.role,
            "source": one.source,
            "granted_at": one.granted_at // SECOND,
        },
        cursor=registry.role_cursor,
    )


async def list_role_names(call: Call) -> Reply:
    """List the roles that the active policies name."""
    return reply({"roles": sorted(flows.known_roles(call.world.db.read()))})


async def grant_role(call: Call) -> Reply:
    """Grant a role to a person or team. A role exists if an active policy names it."""
    new = call.json(NewRole)

    def grant(act: Act) -> None:
        names = flows.known_roles(act.tx)
        if new.role not in names:
            raise Invalid(f"no active policy names the role {new.role[:64]!a}", hint=nearest_hint(new.role, names))
        registry.grant_role(act, new.subject, new.role)

    await registry.act_as(call, "role.grant", grant)
    return reply({}, status=201)


async def revoke_role(call: Call) -> Reply:
    """Revoke a role of a person or team.

    The role of the last administrator cannot be revoked. If a rule of a login provider granted the role, the next login
    of the person grants the role again.
    """
    subject, role = call.params["subject"], call.params["role"]
    await registry.act_as(call, "role.revoke", lambda act: registry.revoke_role(act, subject, role))
    return reply({})


ROUTES = (
    Route("GET", "/api/v1/roles", list_roles, READ, query=PAGE, answers={200: PageBody("roles", RoleBody)}),
    Route("GET", "/api/v1/roles/names", list_role_names, READ, answers={200: RoleNamesBody}),
    Route("POST", "/api/v1/roles", grant_role, ADMIN, body=NewRole, answers={201: EmptyBody}),
    Route("DELETE", "/api/v1/roles/{subject}/{role}", revoke_role, ADMIN, stops=True, answers={200: EmptyBody}),
)
