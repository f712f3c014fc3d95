"""`ostiary run` in front of remote MCP servers: streamable HTTP and HTTP with Server-Sent Events, watched first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from harness.live_server import free_socket, serving
from harness.patience import PATIENCE_S
from harness.server import COMMAND
from tests.run.stdio_agent import HERE, StdioAgent

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as another user")
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
def test_a_remote_mcp_server_can_be_enforced(stdio_agent: StdioAgent, transport: str) -> None:
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


def test_an_unreachable_remote_server_is_reported_with_its_url(stdio_agent: StdioAgent) -> None:
    sock, port = free_socket()
    sock.close()
    entry = {"type": "http", "url": f"http://127.0.0.1:{port}/mcp"}
    stdio_agent.config.write_text(json.dumps({"mcpServers": {"files": entry}}))
    ran = stdio_agent.run(command=("true", "{mcp_config}"))
    assert ran.code == 0, ran.err
    assert "no catalogue of `files`" in ran.err
    assert f"http://127.0.0.1:{port}/mcp does not answer" in ran.err.replace("\n", " ")


API_AGENT = """
import json, os, urllib.error, urllib.request
url = os.environ["SHOP_URL"]
for method, path, body in (("GET", "/items/7?q=a", None), ("POST", "/orders", {"item": 7}), ("GET", "/secret", None)):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            print(json.dumps({"status": response.status, "body": json.load(response)}))
    except urllib.error.HTTPError as error:
        print(json.dumps({"status": error.code, "body": json.load(error)}))
"""
DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {
        "/items/{item}": {
            "get": {
                "operationId": "read_item",
                "parameters": [
                    {"name": "item", "in": "path", "required": True, "schema": {"type": "integer"}},
                    {"name": "q", "in": "query", "schema": {"type": "string"}},
                ],
            }
        },
        "/orders": {
            "post": {
                "operationId": "order",
                "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True},
            }
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("described", [True, False], ids=["openapi", "methods"])
def test_an_http_api_can_be_enforced(stdio_agent: StdioAgent, described: bool) -> None:
    ran: list[str] = []

    async def shop(request: Request) -> JSONResponse:
        ran.append(f"{request.method} {request.url.path} {(await request.body()).decode()}".strip())
        return JSONResponse({"path": request.url.path})

    methods = ["GET", "POST"]
    app = Starlette(routes=[Route("/api/{path:path}", shop, methods=methods)])
    sock, port = free_socket()
    document = stdio_agent.folder / "shop.json"
    document.write_text(json.dumps(DOCUMENT), "utf-8")
    options = ["--http", f"shop=http://127.0.0.1:{port}/api", *(["--openapi", f"shop={document}"] if described else [])]
    command = [
        str(COMMAND),
        "--data-dir",
        str(stdio_agent.server.folder),
        "run",
        "--agent",
        stdio_agent.name,
        *options,
        "--",
    ]

    def run() -> tuple[list[Any], str]:
        done = subprocess.run(
            [*command, sys.executable, "-c", API_AGENT], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    with serving(app, sock):
        watched, errors = run()
        assert [one["status"] for one in watched] == [200, 200, 200], errors
        assert errors.count("would be denied") + errors.count("passed undecided") >= 3
        assert ran == ["GET /api/items/7", 'POST /api/orders {"item": 7}', "GET /api/secret"]
        uri = f"http://localhost/stdio/{stdio_agent.name}/shop"
        entries = stdio_agent.ostiary("audit", "search", "--resource", uri, "--action", "tool.call")[::-1]
        tools = ["read_item", "order"] if described else ["get", "post", "get"]
        assert [one["tool"].rpartition("/")[2] for one in entries] == tools
        stdio_agent.ostiary("agent", "allow", stdio_agent.name, f"{stdio_agent.name}.shop:read")
        stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
        ran.clear()
        enforced, errors = run()
    assert [one["status"] for one in enforced] == ([200, 403, 403] if described else [200, 403, 200]), errors
    assert enforced[1]["body"]["error"] == "outside_task"
    assert ran == ["GET /api/items/7", *([] if described else ["GET /api/secret"])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--http", "shop"), "is not of the form"),
        (("--http", "shop=http://a", "--http", "shop=http://b"), "an API that an earlier option names"),
        (("--openapi", "shop=x.json"), "which no --http names"),
        (("--http", "a=http://a", "--secret", "A_URL=secret/a"), "two options set the variable A_URL"),
        (("--http", "a=http://a", "--config-env", "A_URL"), "two options set the variable A_URL"),
        (("--egress", "--secret", "HTTPS_PROXY=secret/a"), "two options set the variable HTTPS_PROXY"),
        (("--config-env", ""), "'' is not the name of a variable"),
        pytest.param(
            ("--egress", "--user", "nobody", "--secret", "HOME=secret/a"),
            "two options set the variable HOME",
            marks=AS_ROOT,
        ),
    ],
)
def test_options_that_contradict_each_other_or_name_no_api_are_refused(
    stdio_agent: StdioAgent, options: tuple[str, ...], message: str
) -> None:
    ran = stdio_agent.run([], *options, command=("true",))
    assert ran.code == 2
    assert message in ran.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://127.0.0.1:1/mcp", ("--http", "files=http://a"), "'files', 'files' would get the same name"),
        ("http://127.0.0.1:1/mcp", ("--http", "egress=http://a", "--egress"), "the servers 'egress', 'egress' would"),
        ("http://127.0.0.1:1/mcp", ("--http", "shop=ftp://a"), "'ftp://a' is not an http or https URL"),
        ("http://127.0.0.1:${UNSET}/mcp", (), "'http://127.0.0.1:${UNSET}/mcp' is not an http or https URL"),
        ("http://[::1", (), "'http://[::1' is not an http or https URL"),
    ],
)
def test_servers_that_cannot_be_guarded_are_refused_before_anything_is_registered(
    stdio_agent: StdioAgent, url: str, options: tuple[str, ...], message: str
) -> None:
    stdio_agent.config.write_text(json.dumps({"mcpServers": {"files": {"type": "http", "url": url}}}))
    ran = stdio_agent.run([], *options, command=("true", "{mcp_config}"))
    assert ran.code == 2
    assert message in ran.err.replace("\n", " ")
    assert not stdio_agent.keys.exists()


@pytest.mark.parametrize("text", ["{}", "null"])
def test_a_file_of_bounds_without_a_list_starts_no_command(stdio_agent: StdioAgent, text: str) -> None:
    (stdio_agent.folder / "bounds.json").write_text(text)
    ran = stdio_agent.run([], "--bounds", "bounds.json", command=("touch", "started", "{mcp_config}"))
    assert (ran.code, (stdio_agent.folder / "started").exists()) == (2, False)
    assert "bounds.json does not contain a JSON list" in ran.err.replace("\n", " ")
