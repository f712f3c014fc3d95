"""An answer of an MCP server that goes on for long ends with the token that it was opened with."""

from __future__ import annotations

import httpx2
from mcp.server.mcpserver import Context, MCPServer

from ostiary.core.feed import ResourceFact, TokenFact
from ostiary.guard import Guard
from ostiary.mcp import protect
from tests.feed.house import listening, serving
from tests.guard.feeder import RESOURCE_ID, Feeder
from tests.guard.test_mcp import Shows

CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "follow", "arguments": {}, "_meta": {"progressToken": 1}},
}


def follower(feeder: Feeder, *, revoke: bool) -> MCPServer:
    """A server with a tool that tells of its progress; while it runs the token is revoked."""
    server = MCPServer("files")

    @server.tool()
    async def follow(context: Context) -> str:
        await context.report_progress(1, message="before")
        if revoke:
            feeder.say(TokenFact("tok_1", 1 << 52))
        await context.report_progress(2, message="after")
        return "the end"

    return server


async def ask(guard: Guard, feeder: Feeder, *, revoke: bool) -> str:
    """What is heard of a call, until it ends or is ended."""
    sock, port = listening()
    url = f"http://127.0.0.1:{port}/mcp"
    catalogue = '{"resource":"files","tools":[{"name":"follow","effect":"read"}]}'
    feeder.say(
        ResourceFact(
            resource_id=RESOURCE_ID, name="files", uri=url, mode="enforce", segment="default", catalogue=catalogue
        )
    )
    heard = ""
    with serving(protect(follower(feeder, revoke=revoke), guard, stateless_http=True), sock):
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
        async with httpx2.AsyncClient(auth=Shows(feeder), headers=headers) as http:
            try:
                async with http.stream("POST", url, json=CALL) as response:
                    async for text in response.aiter_text():
                        heard += text
            except httpx2.RemoteProtocolError:
                heard += "(cut)"
    return heard


async def test_a_stream_goes_on_while_its_token_is_alive(guard: Guard, feeder: Feeder) -> None:
    heard = await ask(guard, feeder, revoke=False)
    assert "before" in heard
    assert "after" in heard
    assert "the end" in heard


async def test_a_stream_ends_with_its_token(guard: Guard, feeder: Feeder) -> None:
    heard = await ask(guard, feeder, revoke=True)
    assert "before" in heard
    assert "after" not in heard
    assert "the end" not in heard
