"""`ostiary run` in front of remote MCP servers: streamable HTTP and HTTP with Server-Sent Events, watched first."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from starlette.requests import Request

from harness.live_server import free_socket, serving
from tests.run.stdio_agent import HERE, StdioAgent

CALLS = [["write_file", {"path": "a.txt", "text": "one"}], ["read_file", {"path": "a.txt"}]]


class Files:
    """A remote server that notes what reaches it."""

    def __init__(self, transport: str) -> None:
        self.server = MCPServer("files", log_level="ERROR")
        self.ran: list[str] = []
        self.headers: list[str | None] = []
        self.server.add_tool(self.read_file, annotations=ToolAnnotations(read_only_hint=True))
        self.server.add_tool(self.write_file)
        app = self.server.sse_app() if transport == "sse" else self.server.streamable_http_app()
        self.path = "/sse" if transport == "sse" else "/mcp"
        self._app = app

    def read_file(self, path: str) -> str:
        """Read a file."""
        self.ran.append(f"read {path}")
        return f"text of {path}"

    def write_file(self, path: str, text: str) -> str:
        """Write a file."""
        self.ran.append(f"write {path}")
        return "written"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.headers.append(Request(scope).headers.get("authorization"))
        await self._app(scope, receive, send)

    @contextmanager
    def open(self) -> Iterator[str]:
        sock, port = free_socket()
        with serving(self, sock):
            yield f"http://127.0.0.1:{port}{self.path}"


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["http", "sse"])
def test_remote_is_watched_then_enforced(stdio_agent: StdioAgent, transport: str) -> None:
    files = Files(transport)
    own = [sys.executable, str(HERE / "agent_program.py"), "{mcp_config}", "files", json.dumps(CALLS)]
    with files.open() as url:
        entry = {"type": transport, "url": url, "headers": {"Authorization": "Bearer of-the-client"}}
        stdio_agent.config.write_text(json.dumps({"mcpServers": {"files": entry}}))
        watched = stdio_agent.run(command=own)
        assert watched.code == 0, watched.err
        assert [one["text"] for one in watched.said] == ["written", "text of a.txt"]
        assert watched.err.count("would be denied") >= 2
        assert set(files.headers) == {"Bearer of-the-client"}
        entries = stdio_agent.entries()
        assert [one["tool"].rpartition("/")[2] for one in entries] == ["write_file", "read_file"]
        stdio_agent.ostiary("agent", "allow", stdio_agent.name, f"{stdio_agent.name}.files:read")
        stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
        files.ran.clear()
        enforced = stdio_agent.run(command=own)
    assert [one["ok"] for one in enforced.said] == [False, True], enforced.err
    assert enforced.said[0]["code"] == -32001
    assert files.ran == ["read a.txt"]


def test_a_remote_server_that_does_not_answer_is_named(stdio_agent: StdioAgent) -> None:
    sock, port = free_socket()
    sock.close()
    entry = {"type": "http", "url": f"http://127.0.0.1:{port}/mcp"}
    stdio_agent.config.write_text(json.dumps({"mcpServers": {"files": entry}}))
    ran = stdio_agent.run(command=("true", "{mcp_config}"))
    assert ran.code == 0, ran.err
    assert "no catalogue of `files`" in ran.err
    assert f"http://127.0.0.1:{port}/mcp does not answer" in ran.err.replace("\n", " ")
