"""An HTTP server with the protocol class under test, and raw requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from ostiaryd.ground.http.router import SegmentRouter, Target


def find_target(app: Starlette) -> Callable[[str, bytes], Target | None]:
    """The function that finds the endpoints of an application without ASGI."""
    return SegmentRouter(cast(list[Route], app.routes)).find_target


@asynccontextmanager
async def serving(
    app: Starlette, http: Callable[..., asyncio.Protocol] | str, *, tls: tuple[Path, Path] | None = None
) -> AsyncIterator[int]:
    """The port of a server of that application; `tls` are its certificate and key."""
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        http=http,  # type: ignore[arg-type]  # it is only called
        port=0,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        lifespan="off",
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


def post(path: str, body: bytes = b"hello", *headers: str, version: str = "1.1") -> bytes:
    length = (
        [] if any(header.startswith("transfer-encoding") for header in headers) else [f"content-length: {len(body)}"]
    )
    lines = [f"POST {path} HTTP/{version}", "host: x", "x-request-id: rq_1", *length, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
