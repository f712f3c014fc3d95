"""Suspend and resume persons, for administrators."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, Person
from ostiaryd.tokens import flows


class Suspension(msgspec.Struct, forbid_unknown_fields=True):
    """The reason for the suspension or the resumption, which the ledger records."""

    why: str = ""


class PersonStateBody(TypedDict):
    """A person's id, name and new state."""

    person_id: str
    name: str
    state: str


async def suspend_person(call: Call) -> Reply:
    """Suspend a person: sessions, consents and tasks on behalf of the person end, and no login is accepted."""
    body = call.json(Suspension)
    person = await act_as(
        call, "person.suspend", lambda act: flows.suspend_person(act, call.params["name"], why=body.why)
    )
    return _show(person)


async def resume_person(call: Call) -> Reply:
    """Resume a suspended person, who can then sign in again. Ended sessions and consents are not restored."""
    body = call.json(Suspension)
    person = await act_as(
        call, "person.resume", lambda act: registry.resume_person(act, call.params["name"], why=body.why)
    )
    return _show(person)


def _show(person: Person) -> Reply:
    return reply(PersonStateBody(person_id=person.person_id, name=person.name, state=person.state.value))


ROUTES = (
    Route(
        "POST",
        "/api/v1/persons/{name}/suspend",
        suspend_person,
        ADMIN,
        stops=True,
        body=Suspension,
        answers={200: PersonStateBody},
    ),
    Route(
        "POST", "/api/v1/persons/{name}/resume", resume_person, ADMIN, body=Suspension, answers={200: PersonStateBody}
    ),
)
