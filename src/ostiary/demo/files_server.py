"""The demo's tool server: a real MCP server over streamable HTTP with five tools for files, a decoy, and a guard.

Only the three lines about the guard are specific to Ostiary.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

from ostiary.guard import Guard
from ostiary.mcp import protect


def build(sandbox: Path) -> MCPServer[Any]:
    """Return the MCP server without access control."""
    server: MCPServer[Any] = MCPServer("files", log_level="WARNING")

    def inside(path: str) -> Path:
        place = (sandbox / path).resolve()
        if not place.is_relative_to(sandbox.resolve()):
            raise ValueError("the path is outside of the sandbox")
        return place

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    def list_files() -> list[str]:
        """Names of all files."""
        return sorted(str(file.relative_to(sandbox)) for file in sandbox.rglob("*") if file.is_file())

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    def read_file(path: str) -> str:
        """The text of a file."""
        return inside(path).read_text("utf-8")

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False))
    def write_file(path: str, text: str) -> str:
        """Write a file."""
        place = inside(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return f"{place.write_text(text, 'utf-8')} characters"

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False))
    def delete_file(path: str) -> None:
        """Delete a file for good."""
        inside(path).unlink()

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True))
    def send_message(to: str, text: str) -> str:
        """Send a message to a mail address."""
        with inside("outbox.txt").open("a", encoding="utf-8") as outbox:
            outbox.write(f"{to}: {text}\n")
        return f"sent to {to}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    def export_keys() -> str:
        """The keys of all customers."""
        return "none: this tool is a decoy"

    return server


def main(sandbox: str, port: str, credential: str, url: str, spool: str) -> None:
    """Serve the tools of a folder behind a guard."""
    with Guard(credential, url=url, spool_dir=spool) as guard:  # 1. the credential, and the folder of records
        app = protect(build(Path(sandbox)), guard)  # 2. every tool call is decided, on its arguments
        with socket.create_server(("127.0.0.1", int(port))) as sock:
            print("listening", flush=True)
            uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on")).run([sock])


if __name__ == "__main__":
    main(*sys.argv[1:])
