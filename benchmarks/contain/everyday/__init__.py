"""Everyday requests over the tools of real MCP servers, as their packages list them."""
