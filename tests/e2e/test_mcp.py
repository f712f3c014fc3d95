"""An agent calls a real MCP server behind a guard of a real `ostiary serve`, with the official MCP client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from ostiary.agent import AsyncAgent
from ostiary.guard import Guard
from ostiary.mcp import DENIED, protect
from tests.e2e.mcp_files_server import files_server


async def test_a_call_within_the_scopes_is_made_and_others_are_denied_with_a_reason(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = live_server.resource(uri)
    agent, agent_key = live_server.agent(f"{resource}:read")
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
            with pytest.raises(MCPError, match=f"{resource}:write") as denied:
                await client.call_tool("write_file", {"path": "/a"})
            assert denied.value.code == DENIED
            assert denied.value.data["reasons"][0]["code"] == "outside_task"
            revoked = live_server.api("POST", "/revoke", {"kind": "agent", "id": agent})
            feeds = live_server.api("GET", "/feeds", seq=revoked["seq"], wait_ms=5000)
            assert [told["applied"] for told in feeds["guards"]] == [True]
            with pytest.raises(MCPError, match="suspended"):
                await client.call_tool("read_file", {"path": "/a"})
        entries = eventually(lambda: calls(live_server, uri))
    assert [(entry["tool"], entry.get("reasons", [{}])[0].get("code")) for entry in entries] == [
        (f"{resource}/write_file", "outside_task"),
        (f"{resource}/read_file", None),
    ]
    assert outcome_of(live_server, entries[1]) == ("ok", 2)


def outcome_of(live_server: ServerFixture, call: dict[str, Any]) -> tuple[str, int]:
    """Return status and number of records of a call, from its entry or from a later `tool.result` entry."""
    late = [entry for entry in live_server.entries(resource=call["resource"]) if entry["action"] == "tool.result"]
    [result] = [entry["result"] for entry in (call, *late) if "result" in entry]
    return result["status"], result["records"]


def calls(live_server: ServerFixture, uri: str) -> list[dict[str, Any]] | None:
    """The calls that were reported, the newest first, once there are two."""
    found = [entry for entry in live_server.entries(resource=uri) if entry["action"] == "tool.call"]
    return found if len(found) >= 2 else None
