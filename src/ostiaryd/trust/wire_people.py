"""Logins of people, for administrators: setup links, ways to sign in, and sessions.

Times are in seconds since the epoch.
"""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import store
from ostiaryd.trust.flows import credentials
from ostiaryd.trust.flows.sessions import end_session, end_sessions
from ostiaryd.trust.flows.setup import DEFAULT_HOURS, create_setup_link
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.sessions import Session


class NewSetupLink(msgspec.Struct, forbid_unknown_fields=True):
    """A request for a setup link. `hours` is the lifetime of the link in hours."""

    hours: int = DEFAULT_HOURS


class SetupLinkBody(TypedDict):
    """A link with which a person sets up a login; it is shown once, and can be used once."""

    person_id: str
    url: str
    expires_at: int


class SessionBody(TypedDict):
    """The session of a person in one browser. `authenticated_at` is the time of the oldest proof that `acr` needs."""

    session_id: str
    person_id: str
    acr: str
    amr: list[str]
    provider: str
    authenticated_at: int
    network: str
    browser: str
    created_at: int
    used_at: int
    expires_at: int


class SessionsBody(TypedDict):
    """The live sessions of a person, the last used first."""

    sessions: list[SessionBody]


class PasskeyBody(TypedDict):
    """A passkey of a person. `used_at`: time of its last use to sign in; null if it was never used."""

    name: str
    added_at: int
    used_at: int | None


class LoginBody(TypedDict):
    """The ways by which a person signs in with a local account. `recovery_codes` is the number of unused codes."""

    person_id: str
    password: bool
    authenticator_app: bool
    passkeys: list[PasskeyBody]
    recovery_codes: int


class EndedSessionsBody(TypedDict):
    """The number of sessions that were ended."""

    ended: int


async def invite_person(call: Call) -> Reply:
    """Create a setup link, with which a person registers a passkey or a password.

    The link replaces every earlier setup link of the person.
    """
    new = call.json(NewSetupLink)
    config = call.world.config
    made = await act_as(
        call,
        "person.invite",
        lambda act: create_setup_link(act, call.params["name"], config=config, hours=new.hours),
    )
    body = SetupLinkBody(person_id=made.person, url=made.url, expires_at=made.expires_at // SECOND)
    return reply(body, status=201, headers=[NO_STORE])


async def show_person_login(call: Call) -> Reply:
    """Show the ways by which a person signs in with a local account."""
    reader = call.world.db.read()
    person = registry.find_person(reader, call.params["name"])
    login = credentials.describe(reader, person.person_id)
    passkeys = [
        PasskeyBody(
            name=one.name,
            added_at=one.added_at // SECOND,
            used_at=None if one.used_at is None else one.used_at // SECOND,
        )
        for one in login.passkeys
    ]
    return reply(
        LoginBody(
            person_id=person.person_id,
            password=login.has_password,
            authenticator_app=login.has_totp,
            passkeys=passkeys,
            recovery_codes=login.recovery_codes,
        )
    )


async def reset_person_login(call: Call) -> Reply:
    """Remove every credential and setup link of a person, and end every session.

    To sign in again, the person needs a new setup link.
    """
    ended = await act_as(call, "person.reset_login", lambda act: credentials.reset(act, call.params["name"]))
    return reply(EndedSessionsBody(ended=ended))


async def list_sessions(call: Call) -> Reply:
    """List the live sessions of a person."""
    reader = call.world.db.read()
    person = registry.find_person(reader, call.params["name"])
    live = store.people.sessions_of(reader, person.person_id, now=call.world.now())
    return reply(SessionsBody(sessions=[_render(one) for one in live]))


async def end_person_sessions(call: Call) -> Reply:
    """End every session of a person."""

    def run(act: Act) -> int:
        return end_sessions(act, registry.find_person(act.tx, call.params["name"]).person_id)

    return reply(EndedSessionsBody(ended=await act_as(call, "person.end_sessions", run)))


async def end_person_session(call: Call) -> Reply:
    """End one session of a person."""

    def run(act: Act) -> None:
        person = registry.find_person(act.tx, call.params["name"]).person_id
        end_session(act, call.params["session"], person=person)

    await act_as(call, "person.end_session", run)
    return reply(EndedSessionsBody(ended=1))


def _render(one: Session) -> SessionBody:
    return SessionBody(
        session_id=one.id,
        person_id=one.person,
        acr=one.acr,
        amr=list(one.amr),
        provider=one.provider,
        authenticated_at=one.authenticated_at // SECOND,
        network=one.network,
        browser=one.browser,
        created_at=one.created_at // SECOND,
        used_at=one.used_at // SECOND,
        expires_at=one.expires_at // SECOND,
    )


ROUTES = (
    Route(
        "POST", "/api/v1/persons/{name}/invite", invite_person, ADMIN, body=NewSetupLink, answers={201: SetupLinkBody}
    ),
    Route("GET", "/api/v1/persons/{name}/login", show_person_login, READ, answers={200: LoginBody}),
    Route(
        "DELETE",
        "/api/v1/persons/{name}/login",
        reset_person_login,
        ADMIN,
        stops=True,
        answers={200: EndedSessionsBody},
    ),
    Route("GET", "/api/v1/persons/{name}/sessions", list_sessions, READ, answers={200: SessionsBody}),
    Route(
        "DELETE",
        "/api/v1/persons/{name}/sessions",
        end_person_sessions,
        ADMIN,
        stops=True,
        answers={200: EndedSessionsBody},
    ),
    Route(
        "DELETE",
        "/api/v1/persons/{name}/sessions/{session}",
        end_person_session,
        ADMIN,
        stops=True,
        answers={200: EndedSessionsBody},
    ),
)
