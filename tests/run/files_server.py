"""A stdio MCP server of somebody else, made with the official SDK: files in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("files", log_level="WARNING")
root = Path(sys.argv[1])


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def read_file(path: str) -> str:
    return (root / path).read_text("utf-8")


@server.tool(annotations=ToolAnnotations(destructive_hint=False))
def write_file(path: str, text: str) -> str:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    return f"{(root / path).write_text(text, 'utf-8')} characters"


@server.tool()
def delete_file(path: str) -> str:
    (root / path).unlink()
    return "gone"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def large(size: int) -> str:
    return "x" * size


if __name__ == "__main__":
    server.run("stdio")
