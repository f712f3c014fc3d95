"""Persons and teams. A person leaves by `POST /api/v1/revoke` of the kind `owner`."""

from __future__ import annotations

from typing import Any

import msgspec

from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page, reply_short_list
from ostiaryd.ground.http.routes import PAGE, PageBody, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows, store
from ostiaryd.registry.model import ADMIN, READ, Person, PersonKey
from ostiaryd.registry.wire_admin import render
from ostiaryd.registry.wire_admin.render import PersonBody, PersonKeyBody, RevokedBody, TeamBody


class NewPerson(msgspec.Struct, forbid_unknown_fields=True):
    """A person to register. `jwk` is the public key with which the person answers approval requests."""

    name: str
    email: str | None = None
    deputy: str | None = None
    jwk: dict[str, Any] | None = None


class NewPersonKey(msgspec.Struct, forbid_unknown_fields=True):
    jwk: dict[str, Any]


class NewTeam(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    members: list[str] = []
    deputy: str | None = None


class Deputy(msgspec.Struct, forbid_unknown_fields=True):
    deputy: str | None


async def create_person(call: Call) -> Reply:
    """Register a person, with a public key if there is one."""
    new = call.json(NewPerson)

    def create(act: Act) -> Person:
        made = flows.create_person(act, name=new.name, email=new.email, deputy=new.deputy)
        if new.jwk is not None:
            flows.add_person_key(act, made.person_id, new.jwk)
        return made

    made = await flows.act_as(call, "person.create", create)
    return reply(render.person(call.world.db.read(), made), status=201)


async def list_persons(call: Call) -> Reply:
    """List the persons."""
    return await reply_page(
        call, "persons", store.owners.persons, render.person, cursor=lambda person: person.person_id
    )


async def show_person(call: Call) -> Reply:
    """Show a person."""
    reader = call.world.db.read()
    return reply(render.person(reader, flows.find_person(reader, call.params["name"])))


async def set_person_deputy(call: Call) -> Reply:
    """Set the deputy, who becomes the owner of the person's agents when this person leaves.

    An agent with an active deputy of its own passes to that deputy instead.
    """
    body = call.json(Deputy)
    await flows.act_as(
        call,
        "person.set_deputy",
        lambda act: flows.set_deputy(act, flows.find_person(act.tx, call.params["name"]).person_id, body.deputy),
    )
    return await show_person(call)


async def return_person(call: Call) -> Reply:
    """Make a person active again who has left, so that the person can own agents."""
    await flows.act_as(
        call,
        "person.return",
        lambda act: flows.return_person(act, call.params["name"]),
    )
    return await show_person(call)


async def list_person_keys(call: Call) -> Reply:
    """List the keys of a person, the oldest first, including revoked keys."""
    person = flows.find_person(call.world.db.read(), call.params["name"])
    return await reply_short_list(
        call,
        "keys",
        lambda reader: store.person_keys.of_person(reader, person.person_id),
        lambda _, key: render.person_key(key),
        cursor=_kid,
    )


def _kid(key: PersonKey) -> str:
    return key.jkt


async def add_person_key(call: Call) -> Reply:
    """Register a key with which the person answers approval requests."""
    new = call.json(NewPersonKey)
    added = await flows.act_as(
        call, "person.add_key", lambda act: flows.add_person_key(act, call.params["name"], new.jwk)
    )
    return reply(render.person_key(added), status=201)


async def revoke_person_key(call: Call) -> Reply:
    """Revoke a key of a person, every token of the person, and every unused approval that was signed with the key."""
    ended = await flows.act_as(
        call,
        "person.revoke_key",
        lambda act: dict(flows.revoke_person_key(act, call.params["name"], call.params["kid"])),
    )
    return reply({"revoked": ended})


async def create_team(call: Call) -> Reply:
    """Create a team."""
    new = call.json(NewTeam)
    made = await flows.act_as(
        call,
        "team.create",
        lambda act: flows.create_team(act, name=new.name, members=new.members, deputy=new.deputy),
    )
    return reply(render.team(call.world.db.read(), made), status=201)


async def list_teams(call: Call) -> Reply:
    """List the teams."""
    return await reply_page(call, "teams", store.owners.teams, render.team, cursor=lambda team: team.team_id)


async def show_team(call: Call) -> Reply:
    """Show a team with its members."""
    reader = call.world.db.read()
    return reply(render.team(reader, flows.find_team(reader, call.params["name"])))


async def set_team_deputy(call: Call) -> Reply:
    """Set the deputy, who becomes the owner of the team's agents when the team has no active member left.

    An agent with an active deputy of its own passes to that deputy instead.
    """
    body = call.json(Deputy)
    await flows.act_as(
        call,
        "team.set_deputy",
        lambda act: flows.set_deputy(act, flows.find_team(act.tx, call.params["name"]).team_id, body.deputy),
    )
    return await show_team(call)


async def add_member(call: Call) -> Reply:
    """Add a person to a team."""
    await flows.act_as(
        call,
        "team.add_member",
        lambda act: flows.add_member(act, call.params["name"], call.params["person"]),
    )
    return await show_team(call)


async def remove_member(call: Call) -> Reply:
    """Remove a person from a team."""
    await flows.act_as(
        call,
        "team.remove_member",
        lambda act: flows.remove_member(act, call.params["name"], call.params["person"]),
    )
    return await show_team(call)


ROUTES = (
    Route("POST", "/api/v1/persons", create_person, ADMIN, body=NewPerson, answers={201: PersonBody}),
    Route("GET", "/api/v1/persons", list_persons, READ, answers={200: PageBody("persons", PersonBody)}, query=PAGE),
    Route("GET", "/api/v1/persons/{name}", show_person, READ, answers={200: PersonBody}),
    Route("PUT", "/api/v1/persons/{name}/deputy", set_person_deputy, ADMIN, body=Deputy, answers={200: PersonBody}),
    Route("POST", "/api/v1/persons/{name}/return", return_person, ADMIN, answers={200: PersonBody}),
    Route(
        "GET",
        "/api/v1/persons/{name}/keys",
        list_person_keys,
        READ,
        answers={200: PageBody("keys", PersonKeyBody)},
        query=PAGE,
    ),
    Route(
        "POST", "/api/v1/persons/{name}/keys", add_person_key, ADMIN, body=NewPersonKey, answers={201: PersonKeyBody}
    ),
    Route(
        "DELETE", "/api/v1/persons/{name}/keys/{kid}", revoke_person_key, ADMIN, stops=True, answers={200: RevokedBody}
    ),
    Route("POST", "/api/v1/teams", create_team, ADMIN, body=NewTeam, answers={201: TeamBody}),
    Route("GET", "/api/v1/teams", list_teams, READ, answers={200: PageBody("teams", TeamBody)}, query=PAGE),
    Route("GET", "/api/v1/teams/{name}", show_team, READ, answers={200: TeamBody}),
    Route("PUT", "/api/v1/teams/{name}/deputy", set_team_deputy, ADMIN, body=Deputy, answers={200: TeamBody}),
    Route("PUT", "/api/v1/teams/{name}/members/{person}", add_member, ADMIN, answers={200: TeamBody}),
    Route("DELETE", "/api/v1/teams/{name}/members/{person}", remove_member, ADMIN, stops=True, answers={200: TeamBody}),
)
