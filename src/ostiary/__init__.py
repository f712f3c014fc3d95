"""Ostiary, the doorkeeper for AI agents: the SDK of agents and tools, and the command line.

Agent, AsyncAgent    the identity of an agent: tokens, tasks and requests (`ostiary.agent`)
Guard                enforcement in a tool server (`ostiary.guard`)
Tools                enforcement for tools in the agent's own process (`ostiary.tools`)
protect, GuardASGI   enforcement in front of MCP servers and ASGI applications (`ostiary.mcp`, `ostiary.asgi`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostiary.agent import Agent, AsyncAgent
    from ostiary.guard import Guard
    from ostiary.tools import Tools

__all__ = ["Agent", "AsyncAgent", "Guard", "Tools"]
_HOMES = {"Agent": "ostiary.agent", "AsyncAgent": "ostiary.agent", "Guard": "ostiary.guard", "Tools": "ostiary.tools"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used, so that `ostiary.protocol` alone imports
    quickly.
    """
    if name not in _HOMES:
        raise AttributeError(f"module `ostiary` has no attribute `{name}`")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)
