"""An MCP server behind a guard: DPoP honoured, each call decided on its body, every failure a denial."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from harness.clock import Clock
from harness.feeder import ISSUER, RESOURCE_ID, TOOLS, URI, Feeder
from ostiary.catalogue_advisor.reading import propose_catalogue
from ostiary.decision.feed import ResourceFact, TokenFact
from ostiary.guard import Guard
from ostiary.guard.mcp import extract_outputs
from ostiary.mcp import DENIED, protect
from ostiary.protocol.errors import Conflict
from tests.guard.mcp_fixtures import Shows, files_server, ran, records, url

__all__ = ["ran", "url"]


@asynccontextmanager
async def connected(url: str, feeder: Feeder) -> AsyncGenerator[Client, None]:
    async with (
        httpx2.AsyncClient(auth=Shows(feeder)) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


async def test_a_call_with_token_and_proof_runs_the_tool_and_is_on_record(
    url: str, guard: Guard, feeder: Feeder, ran: list[str]
) -> None:
    async with connected(url, feeder) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"read_file", "write_file", "fail"}
        result: Any = await client.call_tool("read_file", {"path": "/a"})
    assert result.content[0].text == "text of /a"
    assert ran == ["read_file"]
    call, outcome = records(guard)
    assert (call["tool"], call["outcome"]) == ("read_file", "allow")
    assert outcome["status"] == "ok"
    assert outcome["bytes"] > 10
    assert outcome["records"] == 1


async def test_a_tool_call_without_http_is_denied_because_it_has_no_token(guard: Guard, ran: list[str]) -> None:
    server = files_server(ran)
    protect(server, guard)
    async with Client(server) as client:  # without HTTP: the same in memory as on standard input and output
        assert len((await client.list_tools()).tools) == 3
        with pytest.raises(MCPError, match="the call has no verified token"):
            await client.call_tool("read_file", {"path": "/a"})
    assert ran == []


async def test_a_denial_is_an_error_with_the_reason_and_the_tool_does_not_run(
    url: str, guard: Guard, feeder: Feeder, ran: list[str]
) -> None:
    async with connected(url, feeder) as client:
        with pytest.raises(MCPError, match="files:write") as denied:
            await client.call_tool("write_file", {"path": "/a"})
    assert denied.value.code == DENIED
    assert denied.value.data["error"] == "outside_task"
    assert denied.value.data["reasons"][0]["hint"]
    assert ran == []


async def test_a_tool_that_fails_is_on_record_as_failed(url: str, guard: Guard, feeder: Feeder) -> None:
    async with connected(url, feeder) as client:
        result: Any = await client.call_tool("fail", {})
    assert result.is_error
    assert records(guard)[1]["status"] == "error"


async def test_a_resource_read_is_decided_as_a_call_of_the_tool_of_that_name(
    url: str, guard: Guard, feeder: Feeder, ran: list[str]
) -> None:
    async with connected(url, feeder) as client:
        with pytest.raises(MCPError, match="resources/read") as denied:
            await client.read_resource("file:///secret")
        assert denied.value.code == DENIED
        assert ran == []
        listed = '"tools":[{"name":"resources/read","effect":"read"},'
        feeder.say(
            ResourceFact(
                resource_id=RESOURCE_ID,
                name="files",
                uri=url,
                mode="enforce",
                segment="default",
                catalogue=TOOLS.replace('"tools":[', listed),
            )
        )
        await client.read_resource("file:///secret")
    assert ran == ["resource"]


async def test_a_call_after_the_revocation_of_its_token_is_denied(url: str, feeder: Feeder, ran: list[str]) -> None:
    async with connected(url, feeder) as client:
        await client.call_tool("read_file", {"path": "/a"})
        feeder.say(TokenFact("tok_1", 1 << 52))
        with pytest.raises(MCPError, match="revoked"):
            await client.call_tool("read_file", {"path": "/a"})
    assert ran == ["read_file"]


async def test_any_error_of_the_hook_is_a_denial(
    url: str, guard: Guard, feeder: Feeder, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(url, feeder) as client:
        monkeypatch.setattr("ostiary.mcp.map_request", lambda *_: 1 / 0)
        with pytest.raises(MCPError) as denied:
            await client.call_tool("read_file", {"path": "/a"})
        assert denied.value.code == DENIED
        monkeypatch.undo()
        monkeypatch.setattr("ostiary.decision.access.decide", lambda *_, **__: 1 / 0)
        with pytest.raises(MCPError, match="guard failed"):
            await client.call_tool("read_file", {"path": "/a"})
    assert ran == []


async def test_a_tool_call_while_the_feed_is_stale_is_denied(
    url: str, feeder: Feeder, clock: Clock, ran: list[str]
) -> None:
    async with connected(url, feeder) as client:
        clock.advance(6)
        with pytest.raises(MCPError, match="server"):
            await client.call_tool("read_file", {"path": "/a"})
    assert ran == []


async def test_a_tool_with_another_definition_than_the_approved_one_is_denied(
    url: str, guard: Guard, feeder: Feeder, ran: list[str]
) -> None:
    """The definition comes from the server itself, whether or not the caller has listed the tool."""

    def approve(tools: list[dict[str, Any]]) -> None:
        text = json.dumps(propose_catalogue("files", {"tools": tools}).catalogue.render())
        fact = ResourceFact(
            resource_id=RESOURCE_ID, name="files", uri=url, mode="enforce", segment="default", catalogue=text
        )
        feeder.say(fact)

    async with connected(url, feeder) as client:
        listed = (await client.list_tools()).model_dump(by_alias=True, mode="json", exclude_none=True)["tools"]
        approve(listed)
        await client.call_tool("read_file", {"path": "/a"})
        assert ran == ["read_file"], "what a client hears is what the guard compares"
        approve([tool | {"description": "was approved"} for tool in listed])
        with pytest.raises(MCPError) as denial:
            await client.call_tool("read_file", {"path": "/a"})
    assert denial.value.error.data["error"] == "tool_changed"
    assert ran == ["read_file"]
    guard.listing._now.clear()
    async with connected(url, feeder) as client:
        with pytest.raises(MCPError):
            await client.call_tool("read_file", {"path": "/a"})
    assert guard.listing.knows("write_file")


@pytest.mark.parametrize("authorization", [None, "Bearer"])
def test_a_request_without_a_proof_gets_a_challenge_and_runs_no_tool(
    url: str, feeder: Feeder, authorization: str | None, ran: list[str]
) -> None:
    headers = {} if authorization is None else {"authorization": f"{authorization} {feeder.token(aud=url)}"}
    response = httpx2.post(url, json=call_of("read_file", {"path": "/a"}), headers=headers)
    assert response.status_code == 401
    assert 'resource_metadata="' in response.headers["www-authenticate"]
    assert response.json()["error"]["code"] == DENIED
    assert ran == []


def test_the_metadata_are_public(url: str) -> None:
    response = httpx2.get(url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"))
    assert response.json()["resource"] == url


@pytest.mark.parametrize(("in_header", "in_body"), [("read_file", "write_file"), ("write_file", "read_file")])
def test_a_tool_name_in_the_header_that_differs_from_the_body_is_refused(
    url: str, feeder: Feeder, ran: list[str], in_header: str, in_body: str
) -> None:
    body = call_of(in_body, {"path": "/a"})
    headers = {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": in_header,
        "accept": "application/json, text/event-stream",
    }
    response = httpx2.post(url, json=body, headers=headers, auth=Shows(feeder))
    assert response.status_code == 400
    assert ran == []


def test_an_mcp_server_with_its_own_authorization_cannot_be_protected(guard: Guard) -> None:
    class Nobody:
        async def verify_token(self, token: str) -> None:
            return None

    settings = AuthSettings.model_validate(
        {"issuer_url": ISSUER, "resource_server_url": URI, "validate_token_resource": True}
    )
    with pytest.raises(Conflict):
        protect(MCPServer("files", token_verifier=Nobody(), auth=settings), guard)


def call_of(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return json.loads(json.dumps(body))  # type: ignore[no-any-return]


def test_a_single_text_of_a_result_is_one_output_text() -> None:
    text = {"type": "text", "text": "Eve"}
    assert extract_outputs({"content": [text]}) == ["Eve"], "a list of one name would be a field of data"
    assert extract_outputs({"content": [text, text]}) == [["Eve", "Eve"]]
    assert extract_outputs({"content": []}) == [[]]
    assert extract_outputs({"contents": [text]}) == [{"contents": [text]}]


@pytest.mark.parametrize(
    ("structured", "texts", "outputs"),
    [
        ({"result": "Ann"}, ["Ann"], ["Ann"]),
        ({"result": ["Ann", 5]}, ["Ann", "5"], [["Ann", 5]]),
        ({"result": {"a": 1}}, ['{\n "a": 1\n}'], [{"a": 1}]),
        ({"a": 1, "b": [2]}, ['{"b": [2], "a": 1}'], [{"a": 1, "b": [2]}]),
        (["Ann"], ['["Ann"]'], [["Ann"]]),
        ({"a": 1, "b": 2}, [], [{"a": 1, "b": 2}]),
        ({"result": ["Ann"]}, ["Eve"], [["Ann"], "Eve"]),
        ({"result": ["Ann"]}, ["Ann", "Eve"], [["Ann"], ["Ann", "Eve"]]),
        ({"result": "Ann"}, ["Ann and Eve"], ["Ann", "Ann and Eve"]),
        ({"eve@far.example": 1}, ["1"], [{"eve@far.example": 1}, "1"]),
        ({"result": None}, ["Eve"], [None, "Eve"]),
    ],
    ids=str,
)
def test_content_that_the_structured_content_does_not_repeat_is_an_output(
    structured: object, texts: list[str], outputs: list[object]
) -> None:
    content = [{"type": "text", "text": text} for text in texts]
    assert extract_outputs({"structuredContent": structured, "content": content}) == outputs
