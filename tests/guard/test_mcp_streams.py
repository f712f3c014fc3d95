"""An answer of an MCP server that goes on for long ends with the token that it was opened with."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from mcp.server.mcpserver import Context, MCPServer

from harness.feeder import AGENT, RESOURCE_ID, TASK, Feeder
from harness.live_server import free_socket, serving
from ostiary.authorization.assurance import BEARER
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.feed import AgentFact, Fact, KeyFact, ResourceFact, StopFact, TaskFact, TokenFact
from ostiary.guard import Guard
from ostiary.mcp import protect
from tests.guard.mcp_fixtures import Shows, records
from tests.guard.mcp_requests import META, MODERN, request

UNTIL = 1 << 52
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "follow", "arguments": {}, "_meta": {"progressToken": 1}},
}


def follower(guard: Guard, *, idles: bool) -> MCPServer:
    """A server with a tool that reports its progress before and after the facts arrive, and can then idle."""
    server = MCPServer("files")

    @server.tool()
    async def follow(context: Context) -> str:
        told, loop = asyncio.Event(), asyncio.get_running_loop()
        if not idles:
            guard.feed.listeners.append(lambda _: loop.call_soon_threadsafe(told.set))
        await context.report_progress(1, message="before")
        await told.wait()
        await context.report_progress(2, message="after")
        return "the end"

    return server


async def ask(guard: Guard, feeder: Feeder, *facts: Fact, idles: bool = False, later: float = 0) -> str:
    """Return the received part of an answer, until it ends or is cut; `facts` come `later` than its first part."""
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/mcp"
    catalogue = '{"resource":"files","tools":[{"name":"follow","effect":"read"}]}'
    feeder.say(
        ResourceFact(
            resource_id=RESOURCE_ID, name="files", uri=url, mode="enforce", segment="default", catalogue=catalogue
        ),
    )
    heard = ""
    with serving(protect(follower(guard, idles=idles), guard, stateless_http=True), sock):
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
        async with httpx2.AsyncClient(auth=Shows(feeder), headers=headers) as http:
            try:
                async with http.stream("POST", url, json=CALL) as response:
                    async for text in response.aiter_text():
                        if "before" in text:
                            feeder.clock.advance(later)
                            feeder.say(*facts)
                        heard += text
            except httpx2.RemoteProtocolError:
                heard += "(cut)"
    return heard


@pytest.mark.parametrize(
    "facts", [(KeyFact("another key", UNTIL),), (TokenFact("tok_2", UNTIL), AgentFact("ag_2", "suspended", 1, UNTIL))]
)
async def test_a_stream_goes_on_while_its_token_is_alive(guard: Guard, feeder: Feeder, facts: tuple[Fact, ...]) -> None:
    heard = await ask(guard, feeder, *facts)
    assert "before" in heard
    assert "after" in heard
    assert "the end" in heard


@pytest.mark.parametrize(
    "fact",
    [
        TokenFact("tok_1", UNTIL),
        AgentFact(AGENT, "quarantined", 1, UNTIL),
        AgentFact(AGENT, "active", 1, UNTIL),
        TaskFact(TASK, UNTIL),
        StopFact("everything", ""),
    ],
)
async def test_an_idle_stream_is_cut_as_soon_as_its_token_is_revoked(guard: Guard, feeder: Feeder, fact: Fact) -> None:
    heard = await ask(guard, feeder, fact, idles=True)
    assert "before" in heard
    assert "after" not in heard
    assert "the end" not in heard
    assert "(cut)" in heard
    assert not guard.connections._open


async def test_a_stream_whose_token_has_expired_is_cut_at_the_next_message(guard: Guard, feeder: Feeder) -> None:
    """When something is sent on it after that."""
    heard = await ask(guard, feeder, KeyFact("another key", UNTIL), later=400)
    assert "before" in heard
    assert "after" not in heard
    assert "(cut)" in heard


@pytest.mark.parametrize("scope", ["files:read", "files:write"])
async def test_a_streamed_call_without_its_scope_gets_a_challenge(guard: Guard, feeder: Feeder, scope: str) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/mcp"
    catalogue = '{"resource":"files","tools":[{"name":"follow","effect":"read"}]}'
    feeder.say(
        ResourceFact(
            resource_id=RESOURCE_ID,
            name="files",
            uri=url,
            mode="enforce",
            segment="default",
            catalogue=catalogue,
            exempt_classes=["document"],
        ),
    )
    token = feeder.token(aud=url, cnf=None, acr=BEARER, registration="document", scope=scope)
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-06-18",
        "authorization": f"Bearer {token}",
    }
    server = MCPServer("files")

    @server.tool()
    async def follow() -> str:
        return "the end"

    with serving(protect(server, guard, stateless_http=True), sock):
        async with httpx2.AsyncClient(headers=headers) as http:
            response = await http.post(url, json=CALL)
    assert response.headers["content-type"].startswith("text/event-stream")
    may_read = scope == "files:read"
    assert (response.status_code, "the end" in response.text) == ((200, True) if may_read else (403, False))
    challenge = response.headers.get("www-authenticate", "")
    assert ('error="insufficient_scope"' in challenge and 'scope="files:read"' in challenge) is not may_read


@pytest.mark.parametrize(
    "fact", [AgentFact(AGENT, "suspended", 1, UNTIL), TaskFact(TASK, UNTIL), TokenFact("tok_1", UNTIL)]
)
async def test_a_subscription_lasts_until_its_agent_task_or_token_ends(
    guard: Guard, feeder: Feeder, fact: Fact
) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/mcp"
    server = MCPServer("files")

    @server.resource("memo:today")
    def today() -> str:
        return "today"

    listing = {"resources": [{"uri": "memo:today", "name": "today"}]}
    catalogue = json.dumps(Catalogue.from_mcp("files", listing).render())
    feeder.say(
        ResourceFact(
            resource_id=RESOURCE_ID, name="files", uri=url, mode="enforce", segment="default", catalogue=catalogue
        ),
    )
    body = request("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["memo:today"]}, "_meta": META})
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": body["method"],
    }
    heard = ""
    with serving(protect(server, guard), sock):
        async with httpx2.AsyncClient(auth=Shows(feeder), headers=headers) as http:
            try:
                async with http.stream("POST", url, json=body) as response:
                    async for text in response.aiter_text():
                        heard += text
                        if "subscriptions/acknowledged" in text:
                            feeder.say(fact)
            except httpx2.RemoteProtocolError:
                heard += "(cut)"
    assert heard.endswith("(cut)")
    assert "subscriptions/acknowledged" in heard
    assert [record["tool"] for record in records(guard) if "tool" in record] == ["subscriptions/listen"]
