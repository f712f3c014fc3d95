"""Sources of the tools of a resource: code, a file, a running MCP server.

| target | read |
| --- | --- |
| `module:name` | a FastAPI or Starlette application, an MCP server (official SDK, FastMCP), a list of tools |
| `FILE.json` | the results of MCP list methods, or an OpenAPI document |
| `http://...`, `https://...` | `tools/list` of an MCP server over streamable HTTP |
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ostiary import openapi
from ostiary.cli.files import read_json
from ostiary.cli.usage import Usage
from ostiary.run.http_probe import probe_http

ADAPTERS = {
    "langchain_core": "langchain",
    "langchain": "langchain",
    "crewai": "crewai",
    "google": "google_adk",
    "agents": "openai_agents",
    "pydantic_ai": "pydantic_ai",
}
"""The adapter that lists the tools of a framework, by the first package of the tool's class."""


def read_listing(target: str) -> dict[str, Any]:
    """Return the tools of a target as MCP's `tools/list` lists them. Raises Usage, Refused."""
    if target.startswith(("http://", "https://")):
        return probe_http(target)
    if target.endswith(".json"):
        value = read_json(Path(target))
        if isinstance(value, dict) and "openapi" in value:
            return openapi.listing(value)
        return value if isinstance(value, dict) else {"tools": value}
    module, colon, name = target.partition(":")
    if not colon or not name:
        raise Usage(
            f"`{target}` names no tools",
            hint="name module:application, a file of JSON, or the URL of an MCP server",
        )
    return _listing_of(_imported(module, name), target)


def _imported(module: str, name: str) -> Any:
    """Return a name of a module, which may be in the present folder. Raises Usage."""
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except ImportError as error:
        raise Usage(f"cannot import {module}: {error}", hint="is it in this folder, or installed?") from None
    except AttributeError:
        raise Usage(f"the module {module} has no `{name}`") from None
    return value


def _listing_of(source: Any, target: str) -> dict[str, Any]:
    """Raises Usage for an object whose tools cannot be read."""
    if callable(getattr(source, "list_tools", None)):
        return {"tools": [_listed_by_mcp(tool) for tool in asyncio.run(source.list_tools())]}
    if (guarded := getattr(source, "_app", None)) is not None and isinstance(getattr(guarded, "routes", None), list):
        source = guarded  # behind a guard
    if isinstance(getattr(source, "routes", None), list):
        from ostiary.routes import RouteTable

        return RouteTable(source).listing
    tools = source if isinstance(source, list | tuple) else getattr(source, "tools", None)
    if isinstance(tools, Iterable) and (members := list(tools)):
        package = type(members[0]).__module__.partition(".")[0]
        if (adapter := ADAPTERS.get(package)) is not None:
            listable = [tool.tool_def for tool in members] if adapter == "pydantic_ai" else members
            listing: dict[str, Any] = importlib.import_module(f"ostiary.adapters.{adapter}").listed(listable)
            return listing
    raise Usage(
        f"the tools of `{target}` cannot be read: it is of the type {type(source).__qualname__}",
        hint="name an application, an MCP server, or a list of a framework's tools",
    )


def _listed_by_mcp(tool: Any) -> dict[str, Any]:
    """A tool of the official SDK or of FastMCP, as it goes out."""
    if hasattr(tool, "to_mcp_tool"):
        tool = tool.to_mcp_tool(name=tool.name)
    listed: dict[str, Any] = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    return listed
