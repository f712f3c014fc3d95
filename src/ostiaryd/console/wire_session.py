"""The session of the person who uses the console: show the person and the operations that the person's roles permit,
and end the session.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypedDict

from ostiary.authorization.assurance import KEY
from ostiary.protocol.errors import Forbidden, NotFound
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import NOT_FOUND, EmptyBody, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model.roles import RouteFacts
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SELF
from ostiaryd.trust.flows.sessions import act_as_person, end_headers, end_session, session_of


class OwnSessionBody(TypedDict):
    """The calling person. `operations` lists each method and path that a role of the person permits.

    `issuer` is the identifier of this server, which a credential file states.
    """

    person_id: str
    name: str
    acr: str
    roles: list[str]
    operations: list[str]
    issuer: str


def session_routes(all_routes: Callable[[], Collection[RouteFacts]]) -> tuple[Route, ...]:
    """Return the routes of the session. `all_routes` is a function that returns all routes of the server."""

    async def show_session(call: Call) -> Reply:
        """Show the calling person and the permitted operations.

        The request restarts the idle timeout of the session.
        """
        caller, now = call.caller, call.world.now()
        if caller.kind != "person":
            raise Forbidden("the caller is not a person; only persons have a session", hint="use the token of a person")
        await session_of(call)
        reader = call.world.db.read()
        acr = caller.acr or KEY
        body: OwnSessionBody = {
            "person_id": caller.id,
            "name": caller.name,
            "acr": acr,
            "roles": sorted(registry.list_person_roles(reader, caller.id)),
            "operations": policy.list_operations(reader, caller, all_routes(), now=now, acr=acr),
            "issuer": call.world.config.issuer,
        }
        return reply(body, headers=[NO_STORE])

    return (
        Route("GET", "/api/v1/session", show_session, SELF, allows_people=True, answers={200: OwnSessionBody}),
        Route(
            "DELETE",
            "/api/v1/session",
            end_own_session,
            SELF,
            allows_people=True,
            answers={200: EmptyBody},
            errors=(NOT_FOUND,),
        ),
    )


async def end_own_session(call: Call) -> Reply:
    """End the browser session of the calling person."""
    session = await session_of(call)
    if session is None or session.person != call.caller.id:
        raise NotFound("session not found", hint="a caller with a token has no browser session")

    def end(act: Act) -> None:
        call.prove(act)
        end_session(act, session.id)

    await act_as_person(call, session, "person.logout", end)
    return reply({}, headers=[NO_STORE, *end_headers()])
