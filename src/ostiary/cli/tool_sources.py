"""Sources of the tools of a resource: code, a file, a running MCP server.

| target | read |
| --- | --- |
| `module:name` | a FastAPI or Starlette application, an MCP server (official SDK, FastMCP), an agent or its tools |
| `FILE.json` | the results of MCP list methods, or an OpenAPI document |
| `http://...`, `https://...` | `tools/list` of an MCP server over streamable HTTP |
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
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
    "claude_agent_sdk": "claude_agent_sdk",
}
"""The adapter that lists the tools of a framework, by the framework's package."""


def read_listing(target: str) -> dict[str, Any]:
    """Return the tools of a target (see the table above) in the form of MCP's `tools/list`. Raises Usage for a target
    of another form, a file that cannot be read, and code whose tools cannot be read; Refused for an MCP server whose
    tools cannot be listed.
    """
    if target.startswith(("http://", "https://")):
        return probe_http(target)
    if target.endswith(".json"):
        value = read_json(Path(target))
        if isinstance(value, dict) and "openapi" in value:
            return openapi.listing(value)
        return value if isinstance(value, dict) else {"tools": value}
    module, _, name = target.partition(":")
    if not module or not name or name.startswith("//"):
        raise Usage(
            f"`{target}` is no module:application, no file that ends in .json and no URL",
            hint="name module:application, a file of JSON, or the URL of an MCP server",
        )
    program, source = _imported(module, name)
    return _listing_of(source, target, program)


def _imported(module: str, name: str) -> tuple[ModuleType, Any]:
    """Import a module, also from the present folder, and return the object of that name in it. Raises Usage if the
    import fails, or if the module has no such object.
    """
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        value: Any = (program := importlib.import_module(module))
        for part in name.split("."):
            value = getattr(value, part)
    except ImportError as error:
        hint = "run the command in the folder of the module, or install the module"
        if error.name is not None and not f"{module}.".startswith(f"{error.name}."):  # a module that the module imports
            hint = f"install `{error.name}` into the environment of this command"
        raise Usage(f"cannot import {module}: {error}", hint=hint) from None
    except AttributeError as error:
        if module not in sys.modules:
            raise _failed(module, error) from error
        raise Usage(f"the module {module} has no `{name}`", hint="name the application or the list of tools") from None
    except Exception as error:
        raise _failed(module, error) from error
    return program, value


def _failed(module: str, error: Exception) -> Usage:
    """Return the error for a module that raises `error` while it is imported."""
    return Usage(
        f"the import of {module} failed: {type(error).__name__}: {error}",
        hint='start guards and servers in a function or under `if __name__ == "__main__":`, not during the import',
    )


def _listing_of(source: Any, target: str, program: ModuleType) -> dict[str, Any]:
    """Return the tools of an object in a program. Raises Usage for an object whose tools cannot be read."""
    if callable(getattr(source, "list_tools", None)):
        return {"tools": [_listed_by_mcp(tool) for tool in asyncio.run(source.list_tools())]}
    if (guarded := getattr(source, "_app", None)) is not None and isinstance(getattr(guarded, "routes", None), list):
        source = guarded  # behind a guard
    if isinstance(getattr(source, "routes", None), list):
        from ostiary.routes import RouteTable

        return RouteTable(source).listing
    holder = getattr(source, "_function_toolset", source)  # the tools of a Pydantic AI agent
    tools = source if isinstance(source, list | tuple) else getattr(holder, "tools", None)
    members = list(tools.values() if isinstance(tools, Mapping) else tools) if isinstance(tools, Iterable) else []
    if members and (adapter := _adapter_of(source, members, program)) is not None:
        try:
            listing: dict[str, Any] = importlib.import_module(f"ostiary.adapters.{adapter}").listed(members)
        except (AttributeError, TypeError, ValueError) as error:
            raise Usage(f"the tools of `{target}` cannot be read: {error}", hint="correct the tool") from None
        return listing
    if members and all(inspect.isfunction(one) for one in members):
        raise Usage(
            f"`{target}` has plain functions, and {program.__name__} imports no framework that describes them",
            hint="import the framework in that module, or list the framework's tools",
        )
    raise Usage(
        f"the tools of `{target}` cannot be read: the type is {type(source).__qualname__}",
        hint="name a FastAPI or Starlette application, an MCP server, a list of a framework's tools, or for any other "
        "HTTP API the file of its OpenAPI document in JSON",
    )


def _adapter_of(source: Any, tools: Sequence[Any], program: ModuleType) -> str | None:
    """Return the name of the adapter for the framework from which the agent or its tools come.

    Plain functions can be tools of every framework; then the framework that the program imports decides. None if the
    program imports no framework or several.
    """
    for value in (source, *tools):
        if (adapter := ADAPTERS.get(type(value).__module__.partition(".")[0])) is not None:
            return adapter
    names = (getattr(value, "__module__", None) or getattr(value, "__name__", None) for value in vars(program).values())
    imported = {ADAPTERS.get(str(name).partition(".")[0]) for name in names} - {None}
    return imported.pop() if len(imported) == 1 else None


def _listed_by_mcp(tool: Any) -> dict[str, Any]:
    """Return a tool of the official SDK or of FastMCP in the form of MCP's `tools/list`."""
    if hasattr(tool, "to_mcp_tool"):
        tool = tool.to_mcp_tool(name=tool.name)
    listed: dict[str, Any] = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    return listed
