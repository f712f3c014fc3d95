"""A guard in front of a FastAPI or Starlette application: each route is a tool.

    app = FastAPI()
    ...
    app = protect(app, guard)             # an ASGI application: `uvicorn module:app`

The catalogue is made from the application: `ostiary protect module:app` registers the catalogue, and `catalogue_of`
returns it. `ostiary.routes` describes the tools, `ostiary.openapi` their arguments.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ostiary.asgi import MAX_BODY, GuardASGI
from ostiary.guard import Guard
from ostiary.routes import RouteTable

__all__ = ["catalogue_of", "protect"]


def protect(
    app: Any,
    guard: Guard,
    *,
    origin: str | None = None,
    proxies: str = "",
    origins: Collection[str] = (),
    max_body: int = MAX_BODY,
) -> GuardASGI:
    """Return the application behind the guard.

    `origin`: the public origin, if it differs from the resource's URI. `proxies`: networks of reverse proxies,
    separated by spaces, whose `Client-Cert` and `X-Forwarded-For` are trusted. `origins`: web origins whose scripts may
    call. `max_body`: maximum number of bytes of a request body. Raises Conflict for an application without routes,
    Malformed for an invalid web origin.
    """
    return GuardASGI(app, guard, origin=origin, proxies=proxies, origins=origins, max_body=max_body)


def catalogue_of(app: Any) -> dict[str, Any]:
    """Return the tools of an application in the form of a response to MCP's `tools/list`, for `ostiary resource
    create --catalogue`.
    """
    return RouteTable(app).listing
