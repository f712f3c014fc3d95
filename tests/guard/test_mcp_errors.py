"""Unsupported MCP requests: the guard returns the error code and HTTP status of the server without a guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from harness.feeder import RESOURCE_ID, TOOLS, Feeder
from harness.live_server import free_socket, serving
from ostiary.decision.feed import ResourceFact
from ostiary.guard import Guard
from ostiary.mcp import protect
from tests.guard.mcp_fixtures import Shows, files_server, records
from tests.guard.mcp_requests import LEGACY, META, MODERN, request


@pytest.fixture
def urls(guard: Guard, feeder: Feeder) -> Iterator[tuple[str, str]]:
    """The same server, bare and behind the guard."""
    with ExitStack() as stack:
        (bare, port), (sock, guarded) = free_socket(), free_socket()
        urls = f"http://127.0.0.1:{port}/mcp", f"http://127.0.0.1:{guarded}/mcp"
        feeder.say(
            ResourceFact(
                resource_id=RESOURCE_ID, name="files", uri=urls[1], mode="enforce", segment="default", catalogue=TOOLS
            )
        )
        stack.enter_context(serving(files_server([]).streamable_http_app(stateless_http=True), bare))
        stack.enter_context(serving(protect(files_server([]), guard, stateless_http=True), sock))
        yield urls


def answered(
    url: str, body: object, version: str, auth: httpx2.Auth | None = None
) -> tuple[int, object, object, object]:
    """HTTP status, error code (None: a result), id and result of what is answered."""
    method = body.get("method") if isinstance(body, dict) else None
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": version}
    headers |= {"content-type": "application/json"} | ({"mcp-method": method} if isinstance(method, str) else {})
    if isinstance(body, dict) and version == MODERN:
        body = body | {"params": body.get("params", {}) | {"_meta": META}}
    text = body if isinstance(body, str) else json.dumps(body)
    response = httpx2.post(url, content=text, headers=headers, auth=auth)
    found = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith(("{", "data: {"))]
    said = json.loads(found[-1]) if found else {}
    return response.status_code, said.get("error", {}).get("code"), said.get("id"), said.get("result")


UNSERVED: list[object] = [
    request("nope/nope"),
    request("tools/callx", {"name": "read_file"}),
    request("Tools/Call", {"name": "read_file", "arguments": {"path": "/a"}}),
    request("resources/subscribe", {"uri": "file:///secret"}),
    request("tasks/list"),
    request(
        "completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": ""}}
    ),
    request("tools/call", {"arguments": {}}),
    request("tools/call", {"name": "read_file", "arguments": [1]}),
    request("tools/call", {"name": "no_such_tool"}),
    request("tools/call", {"name": "resources/read", "arguments": {"uri": "file:///secret"}}),
    request("resources/read"),
    request("sampling/createMessage", {"messages": [], "maxTokens": 1}),
    {"jsonrpc": "2.0", "id": 7},
    {"jsonrpc": "1.0", "id": 7, "method": "ping"},
    {"jsonrpc": "2.0", "id": {"a": 1}, "method": "tools/call", "params": {"name": "read_file"}},
    [request("ping"), request("ping", id=8)],
    [],
    "{",
]


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_a_request_that_the_server_does_not_support_gets_the_same_response_without_the_guard(
    urls: tuple[str, str], feeder: Feeder, guard: Guard, version: str
) -> None:
    bare, guarded = urls
    for body in UNSERVED:
        expected = answered(bare, body, version)
        assert expected[1] is not None or expected[0] == 202 or "Unknown tool" in str(expected[3])
        assert answered(guarded, body, version, Shows(feeder)) == expected, body
    assert records(guard) == [], "nothing was asked for that is there"


@pytest.mark.parametrize(("version", "status"), [(MODERN, 404), (LEGACY, 200)])
def test_the_status_for_an_unknown_method_depends_on_the_protocol_version(
    urls: tuple[str, str], feeder: Feeder, version: str, status: int
) -> None:
    """In 2025-11-25 a 404 ends the client's session."""
    assert answered(urls[1], request("nope/nope"), version, Shows(feeder))[:3] == (status, -32601, 7)


def test_a_supported_method_is_decided_by_the_guard(urls: tuple[str, str], feeder: Feeder, guard: Guard) -> None:
    read = request("resources/read", {"uri": "file:///secret"})
    assert answered(urls[0], read, LEGACY)[:3] == (200, None, 7)
    assert answered(urls[1], read, LEGACY, Shows(feeder))[:3] == (200, -32001, 7)
    assert [record["outcome"] for record in records(guard)] == ["deny"]
