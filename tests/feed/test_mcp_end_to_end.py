"""An agent calls a real MCP server behind a guard of a real `ostiary serve`, with the official MCP client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from ostiary.agent import AsyncAgent
from ostiary.guard import Guard
from ostiary.mcp import DENIED, protect
from tests.feed.house import House, eventually, listening, serving


def files_server() -> MCPServer:
    server = MCPServer("files")

    @server.tool()
    def read_file(path: str) -> list[str]:
        token = get_access_token()
        assert token is not None
        return [f"text of {path}", f"for {token.client_id}"]

    @server.tool()
    def write_file(path: str) -> str:
        raise AssertionError("nobody may get here")

    return server


async def test_a_call_within_the_task_happens_and_others_are_denied_with_a_reason(house: House, tmp_path: Path) -> None:
    sock, port = listening()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = house.resource(uri)
    agent, agent_key = house.agent(f"{resource}:read")
    with (
        Guard(guard_key, spool_dir=tmp_path / "spool") as guard,
        serving(protect(files_server(), guard), sock),
    ):
        async with (
            AsyncAgent.from_credential(agent_key) as identity,
            httpx2.AsyncClient(auth=identity.auth(uri)) as http,
            Client(streamable_http_client(uri, http_client=http)) as client,
        ):
            result: Any = await client.call_tool("read_file", {"path": "/a"})
            assert result.structured_content == {"result": ["text of /a", f"for {identity.client_id}"]}
            with pytest.raises(MCPError, match="files-1:write") as denied:
                await client.call_tool("write_file", {"path": "/a"})
            assert denied.value.code == DENIED
            assert denied.value.data["reasons"][0]["code"] == "outside_task"
            house.api("POST", "/revoke", {"kind": "agent", "id": agent})
            with pytest.raises(MCPError, match="suspended"):
                await client.call_tool("read_file", {"path": "/a"})
        entries = eventually(lambda: calls(house, uri, 2))
    denial, call = entries
    assert call["outcome"] == "allow"
    assert call["result"]["status"] == "ok"
    assert call["result"]["records"] == 2
    assert denial["outcome"] == "deny"
    assert denial["reasons"][0]["code"] == "outside_task"
    assert call["tool"] == f"{resource}/read_file"


def calls(house: House, uri: str, count: int) -> list[dict[str, Any]] | None:
    found = [entry for entry in house.entries(resource=uri) if entry["action"] == "tool.call"]
    return found if len(found) == count else None
