"""An MCP server with file tools."""

from __future__ import annotations

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer


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
