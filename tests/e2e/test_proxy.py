"""Clients that know nothing of tokens and proofs reach a guarded server through `ostiary proxy`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import PATIENCE_S, eventually_async
from harness.server import COMMAND
from ostiary.guard import Guard
from ostiary.mcp import DENIED, protect
from tests.e2e.mcp_files_server import files_server

PING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"accept": "application/json, text/event-stream"}
NODE = Path(__file__).parents[1] / "node"


@contextmanager
def proxying(to: str, credential: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """`ostiary proxy` until the block ends; then it must end with code 0. Gives the URL for clients."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
    words: list[str | Path] = [
        COMMAND,
        "--json",
        "proxy",
        "--to",
        to,
        "--as",
        credential,
        "--listen",
        "127.0.0.1:0",
        *options,
    ]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=others | dict(environment or {})
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors


class Guarded:
    """An MCP server behind a guard, which a test can restart."""

    def __init__(self, live_server: ServerFixture, folder: Path) -> None:
        self._folder = folder
        sock, self.port = free_socket()
        sock.close()
        self.uri = f"http://127.0.0.1:{self.port}/mcp"
        self.resource, self._key = live_server.resource(self.uri)
        self._running = ExitStack()
        self._starts = 0

    def start(self) -> None:
        self._starts += 1
        guard = Guard(self._key, spool_dir=self._folder / f"spool-{self._starts}")
        self._running.enter_context(guard)
        self._running.enter_context(serving(protect(files_server(), guard), listening_at(self.port)))

    def stop(self) -> None:
        self._running.close()


def listening_at(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    return sock


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Client, None]:
    """The official client, which knows nothing of tokens."""
    async with httpx2.AsyncClient() as http, Client(streamable_http_client(url, http_client=http)) as client:
        yield client


@pytest.fixture
def guarded(live_server: ServerFixture, tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(live_server, tmp_path)
    guarded.start()
    yield guarded
    guarded.stop()


async def test_the_official_client_calls_through_the_proxy_after_restarts_and_revocations(
    live_server: ServerFixture, guarded: Guarded
) -> None:
    agent, key = live_server.agent(f"{guarded.resource}:read")
    client_id = json.loads(key.read_text())["client_id"]
    assert httpx2.post(guarded.uri, json=PING, headers=ACCEPT).status_code == 401
    with proxying(guarded.uri, key) as url:
        async with connected(url) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"read_file", "write_file"}
            result: Any = await client.call_tool("read_file", {"path": "/a"})
            assert result.structured_content["result"] == ["text of /a", f"for {client_id}"]
            with pytest.raises(MCPError, match="write") as denied:
                await client.call_tool("write_file", {"path": "/a"})
            assert denied.value.code == DENIED
        guarded.stop()
        guarded.start()  # with other nonces
        async with connected(url) as client:
            assert (await client.call_tool("read_file", {"path": "/b"})).structured_content
        token = live_server.entries(action="token.issue", resource=guarded.uri)[0]["token"]
        live_server.api("POST", "/revoke", {"kind": "token", "id": token})
        async with connected(url) as client:
            assert (await client.call_tool("read_file", {"path": "/c"})).structured_content
        wrong = url[:-1] + ("A" if url[-1] != "A" else "B")
        assert httpx2.post(wrong, json={}).status_code == 404
        live_server.api("POST", "/revoke", {"kind": "agent", "id": agent})
        revoked = httpx2.post(url, json=PING, headers=ACCEPT)
        assert revoked.status_code == 403
        assert "www-authenticate" not in revoked.headers


def test_the_typescript_sdk_calls_through_the_proxy(live_server: ServerFixture, guarded: Guarded) -> None:
    _, key = live_server.agent(f"{guarded.resource}:read")
    with proxying(guarded.uri, key) as url:
        environment = {"PATH": os.environ["PATH"], "URL": url, "DIRECT": guarded.uri}
        run = subprocess.run(
            ["node", NODE / "mcp-through-proxy.mjs"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        seen = json.loads(run.stdout)
    assert seen["tools"] == ["read_file", "write_file"]
    assert f"for {json.loads(key.read_text())['client_id']}" in seen["read"]
    assert seen["denied"] == DENIED
    assert "no_credentials" in seen["direct"]


@pytest.mark.parametrize("mode", ["watch", "enforce"])
async def test_the_proxy_guards_a_server_without_a_guard(live_server: ServerFixture, tmp_path: Path, mode: str) -> None:
    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = live_server.resource(uri)
    live_server.api("PUT", f"/resources/{resource}/mode", {"mode": mode})
    _, key = live_server.agent(f"{resource}:read")
    with (
        serving(bare_server().streamable_http_app(), sock),
        proxying(uri, key, "--guard", str(guard_key), environment={"OSTIARY_URL": live_server.server.url}) as url,
    ):
        async with connected(url) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"read_file", "write_file"}
            read: Any = await client.call_tool("read_file", {"path": "/a"})
            assert read.structured_content == {"result": "text of /a"}
            if mode == "watch":
                written: Any = await client.call_tool("write_file", {"path": "/a"})
                assert written.structured_content == {"result": "wrote /a"}
            else:
                with pytest.raises(MCPError, match="write") as denied:
                    await client.call_tool("write_file", {"path": "/a"})
                assert denied.value.code == DENIED
        assert httpx2.put(url, content=b"").status_code == 405
        assert httpx2.get(f"{url}/elsewhere").status_code == 404
        mismatch = {"mcp-method": "tools/call", "mcp-name": "read_file", **ACCEPT}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "write_file", "arguments": {}}}
        assert httpx2.post(url, json=call, headers=mismatch).json()["error"] == "header_mismatch"
        expected = {f"{resource}/read_file", f"{resource}/write_file"}
        # while the guard runs: a guard that ends waits only a moment for the server to take its records
        await eventually_async(
            lambda: {one["tool"] for one in live_server.entries(resource=uri, action="tool.call")} == expected
        )


def bare_server() -> MCPServer:
    server = MCPServer("bare")

    @server.tool()
    def read_file(path: str) -> str:
        return f"text of {path}"

    @server.tool()
    def write_file(path: str) -> str:
        return f"wrote {path}"

    return server
