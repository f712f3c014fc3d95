"""The MCP conformance suite against the server of `everything`, bare and behind a guard of a running Ostiary server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer

from harness.live_server import ServerFixture, free_socket, serving
from ostiary import ambient
from ostiary.agent import Agent
from ostiary.asgi import App, Message, Receive, Scope, Send
from ostiary.guard import Guard
from ostiary.keys import Credential, load_key
from ostiary.mcp import protect
from ostiary.protocol import dpop
from ostiary.protocol.jose import b64u
from tests.conformance.everything import Events, everything

NODE = Path(__file__).parents[1] / "node"
SUITE = NODE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
RUN_S = 300
OPTIONS: Mapping[str, Any] = {"retry_interval": 100}
METHODS = ("tools", "resources", "resource_templates", "prompts")

REVISIONS = ("2026-07-28", "2025-11-25")

Results = dict[str, list[tuple[str, str, str]]]
"""by scenario, its checks in order: name, status, what is wrong"""


class Presenting:
    """An ASGI application in front of a guarded one: adds the token of an agent and a proof for each request, as
    `ostiary.Agent` does, for clients that have none.
    """

    def __init__(self, app: App, credential: Credential, uri: str, url: str) -> None:
        self._app, self._credential, self._uri = app, credential, uri
        with Agent(credential, url=url) as agent:
            self._token = str(agent.token(resource=uri)["access_token"])
        self._nonce: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not await self._present(scope, receive, send):
            await self._present(scope, receive, send)

    async def _present(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """False: the guard asks for a nonce, before it has read the body."""
        is_asked = False

        async def sending(message: Message) -> None:
            nonlocal is_asked
            headers = dict(message.get("headers", ()))
            if b"dpop-nonce" in headers:
                is_asked = message["status"] == 401 and headers[b"dpop-nonce"].decode() != self._nonce
                self._nonce = headers[b"dpop-nonce"].decode()
            if not is_asked:
                await send(message)

        proof = dpop.make_proof(
            self._credential.key,
            method=scope["method"],
            uri=self._uri,
            now=ambient.now(),
            jti=b64u(ambient.random(16)),
            nonce=self._nonce,
            access_token=self._token,
        )
        shown = [(b"authorization", f"DPoP {self._token}".encode()), (b"dpop", proof.encode())]
        await self._app({**scope, "headers": [*scope["headers"], *shown]}, receive, sending)
        return not is_asked


async def listing(server: MCPServer) -> dict[str, Any]:
    """The server's listing as a client has it, from which a catalogue is imported."""
    async with Client(server) as client:
        pages = [await getattr(client, f"list_{name}")() for name in METHODS]
    return {
        name: value
        for page in pages
        for name, value in page.model_dump(by_alias=True, mode="json", exclude_none=True).items()
        if isinstance(value, list)
    }


@contextmanager
def guarded(live_server: ServerFixture, catalogue: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """The server behind a guard, with an agent in front that may do everything: its URL, and the agent's name."""
    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    (folder / "listing.json").write_text(json.dumps(catalogue))
    ostiary, key = live_server.server.ostiary, folder / "everything.json"
    ostiary(
        *("resource", "create", "everything", "--uri", uri, "--generate-key", str(key)),
        *("--catalogue", str(folder / "listing.json")),
    )
    agent, credential = live_server.agent("everything:read", "everything:write")
    with Guard(key, spool_dir=folder / "spool", url=live_server.server.url) as guard:
        app = protect(everything(), guard, event_store=Events(), **OPTIONS)
        with serving(Presenting(app, load_key(credential), uri, live_server.server.url), sock):
            yield uri, agent


@contextmanager
def bare() -> Iterator[str]:
    sock, port = free_socket()
    with serving(everything().streamable_http_app(event_store=Events(), **OPTIONS), sock):
        yield f"http://127.0.0.1:{port}/mcp"


def run(url: str, revision: str, folder: Path) -> Results:
    """The results of the suite for a server, by the requirements of that revision of MCP."""
    words = ["--url", url, "--requirements", revision, "--output-dir", str(folder)]
    done = subprocess.run(
        ["node", "--import", NODE / "glob_sync.mjs", SUITE, "server", *words],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert "=== SUMMARY ===" in done.stdout, done.stdout + done.stderr
    return {
        file.parent.name.removeprefix("server-").rpartition(f"-{file.parent.name[-24:-20]}")[0]: [
            (check["id"], check["status"], check.get("errorMessage", "")) for check in json.loads(file.read_text())
        ]
        for file in folder.glob("*/checks.json")
    }


def compare(
    live_server: ServerFixture, catalogue: Mapping[str, Any], folder: Path, revision: str
) -> tuple[Results, Results, str]:
    """The results of the suite for the server, bare and guarded, and the name of the agent that was in front."""
    with bare() as url, guarded(live_server, catalogue, folder) as (uri, agent), ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(run, one, revision, folder / name) for one, name in ((url, "bare"), (uri, "guarded"))]
        found, behind = (one.result() for one in runs)
    return found, behind, agent
