"""The part of the server's API that these tests need, with its gate: a route that returns the caller, and the routes of
`trust`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp

from ostiary.protocol import dpop
from ostiaryd.ground.http.edge import Call, Endpoint, Reply, render_admin, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ground.world import World
from ostiaryd.registry.model import Caller
from ostiaryd.tokens import wire_admin as tokens_admin
from ostiaryd.trust import wire_access
from ostiaryd.trust import wire_admin as trust_admin
from tests.support.api_fixtures import ISSUER, Answer, Client, send

API = f"{ISSUER}/api/v1"


async def whoami(call: Call) -> Reply:
    caller = call.caller
    return reply({name: getattr(caller, name) for name in ("kind", "id", "name", "owner", "jkt", "task", "token")})


ROUTES = (
    Route("GET", "/api/v1/whoami", whoami, "self"),
    Route("POST", "/api/v1/whoami", whoami, "self"),
    Route("GET", "/api/v1/secret", whoami, "ostiary:admin"),
    *trust_admin.ROUTES,
    *tokens_admin.ROUTES,
)


def api_app(world: World) -> ASGIApp:
    return Starlette(
        routes=[
            StarletteRoute(
                one.path, Endpoint(world, one.wire, render=render_admin, gate=gate(one.scope)), methods=[one.method]
            )
            for one in ROUTES
        ]
    )


def gate(scope: str) -> Callable[[Call], Awaitable[Caller]] | None:
    async def check(call: Call) -> Caller:
        caller = await wire_access.authenticate_access(call)
        wire_access.require_scope(call, caller, scope)
        return caller

    return check if scope else None


def nonce_of(client: Client) -> str:
    return dpop.make_nonce(client.world.keys.secret("nonce"), b"rs", client.world.now())


def proof_of(client: Client, token: str, path: str, *, method: str = "GET", **said: Any) -> str:
    """Return a valid DPoP proof for a request at the server's API, with the given members replaced."""
    good = {"method": method, "uri": ISSUER + path, "access_token": token, "nonce": nonce_of(client)}
    return client.proof(**good | said)


async def call(
    client: Client, token: str, path: str = "/api/v1/whoami", *, method: str = "GET", body: Any = None, **said: Any
) -> Answer:
    """Send a request to the server's API with a token and a proof of its key."""
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof_of(client, token, path, method=method, **said))]
    if body is not None:
        headers.append(("content-type", "application/json"))
    text = b"" if body is None else json.dumps(body).encode()
    return await send(api_app(client.world), method, path, headers=headers, body=text)
