"""An agent that knows nothing of Ostiary: the official SDK's client, servers of an `mcpServers` file, calls in JSON.

Usage: agent_program.py CONFIG SERVER CALLS; prints a line of JSON for each call.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent


def transport(entry: dict[str, Any]) -> Any:
    """The transport that the configuration of a server names."""
    if entry.get("type") == "sse":
        return sse_client(entry["url"], headers=entry.get("headers"))
    if "url" in entry:
        return streamable_http_client(entry["url"], http_client=httpx2.AsyncClient(headers=entry.get("headers") or {}))
    given = {name: entry[name] for name in ("command", "args", "env", "cwd") if name in entry}
    return stdio_client(StdioServerParameters(**given))


async def main(found: dict[str, Any], server: str, calls: str) -> None:
    entry = (found.get("mcpServers") or found["servers"])[server]
    async with Client(transport(entry)) as client:
        for tool, arguments in json.loads(calls):
            try:
                result = await client.call_tool(tool, arguments)
                text = " ".join(part.text for part in result.content if isinstance(part, TextContent))
                said = {"ok": not result.is_error, "text": text if len(text) < 1000 else len(text)}
            except MCPError as error:
                said = {"ok": False, "code": error.code, "text": error.message, "data": error.data}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text("utf-8")), *sys.argv[2:4]))
