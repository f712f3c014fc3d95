"""The same HTTP stack with nothing behind it, as a server of its own: what HTTP alone costs.

Run: python -m benchmarks.load.bare raw|starlette PORT
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

ANSWER = b'{"access_token":"' + b"x" * 700 + b'","token_type":"DPoP","expires_in":300}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
PATHS = 60


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, answer as many bytes as a token has."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


class Endpoint:
    """What Starlette takes for an ASGI application rather than for a function of a request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await raw(scope, receive, send)


def build(kind: str) -> ASGIApp:
    if kind == "raw":
        return raw
    routes = [Route("/token", Endpoint(), methods=["POST"])]
    routes += [Route(f"/api/v1/other{number}/{{id}}", Endpoint(), methods=["GET"]) for number in range(PATHS)]
    return Starlette(routes=routes)


if __name__ == "__main__":
    uvicorn.run(
        build(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), http="httptools", lifespan="off",
        log_level="warning", access_log=False, server_header=False,
    )  # fmt: skip
