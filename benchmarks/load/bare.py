"""The same HTTP stack with nothing behind it, as a server of its own: what HTTP alone costs.

Run: python -m benchmarks.load.bare raw|starlette|straight PORT
"""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ostiaryd.ground.http.edge import Call, Endpoint, Reply, render_admin
from ostiaryd.ground.http.protocol import Protocol
from ostiaryd.ground.http.router import SegmentRouter
from ostiaryd.ground.process.clock import wall_clock

ANSWER = b'{"access_token":"' + b"x" * 700 + b'","token_type":"DPoP","expires_in":300}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
PATHS = 60


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, answer as many bytes as a token has."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


class Raw:
    """An object that Starlette takes for an ASGI application rather than for a function of a request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await raw(scope, receive, send)


async def wire(call: Call) -> Reply:
    return Reply(200, ANSWER)


def build(kind: str) -> tuple[ASGIApp, Any]:
    """The application, and what speaks HTTP for it."""
    if kind == "raw":
        return raw, "httptools"
    world: Any = SimpleNamespace(config=SimpleNamespace(max_request_bytes=1 << 20), now=wall_clock, random=bytes)
    endpoint = Raw() if kind == "starlette" else Endpoint(world, wire, render=render_admin)
    routes = [Route("/token", endpoint, methods=["POST"])]
    routes += [Route(f"/api/v1/other{number}/{{id}}", Raw(), methods=["GET"]) for number in range(PATHS)]
    app = Starlette(routes=routes)
    return app, "httptools" if kind == "starlette" else partial(Protocol, SegmentRouter(routes).find_target)


if __name__ == "__main__":
    app, http = build(sys.argv[1])
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        http=http,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
