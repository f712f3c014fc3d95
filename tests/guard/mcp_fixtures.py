"""An MCP server behind a guard, and a client with tokens."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import httpx2
import pytest
from mcp.server.mcpserver import MCPServer

from harness.feeder import RESOURCE_ID, TOOLS, Feeder
from harness.live_server import free_socket, serving
from ostiary.decision.feed import ResourceFact
from ostiary.guard import Guard
from ostiary.mcp import protect


class Shows(httpx2.Auth):
    """Shows a token with a proof made now; answers a nonce as a client must."""

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self._nonce: str | None = None

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        for _ in range(2):
            url = str(request.url)
            token = self._feeder.token(aud=url)
            proof = self._feeder.proof(token, nonce=self._nonce, method=request.method, uri=url)
            request.headers["authorization"], request.headers["dpop"] = f"DPoP {token}", proof
            response = yield request
            if "dpop-nonce" not in response.headers:
                return
            self._nonce = response.headers["dpop-nonce"]


def files_server(ran: list[str]) -> MCPServer:
    server = MCPServer("files")

    @server.tool()
    def read_file(path: str) -> str:
        ran.append("read_file")
        return f"text of {path}"

    @server.tool()
    def write_file(path: str) -> str:
        ran.append("write_file")
        return "done"

    @server.tool()
    def fail() -> str:
        raise ValueError("it went wrong")

    @server.resource("file:///secret")
    def secret() -> str:
        ran.append("resource")
        return "secret"

    return server


@pytest.fixture
def ran() -> list[str]:
    """Which tools ran."""
    return []


@pytest.fixture
def url(guard: Guard, feeder: Feeder, ran: list[str]) -> Iterator[str]:
    """The MCP server behind the guard."""
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/mcp"
    feeder.say(
        ResourceFact(
            resource_id=RESOURCE_ID,
            name="files",
            uri=url,
            mode="enforce",
            segment="default",
            catalogue=TOOLS.replace('"tools":[', '"tools":[{"name":"fail","effect":"read"},'),
        )
    )
    with serving(protect(files_server(ran), guard), sock):
        yield url


def records(guard: Guard) -> list[dict[str, Any]]:
    batch = guard._spool.batch(count=100, size=1 << 20)
    return [] if batch is None else batch.records
