"""A small agent framework, for which docs/extending/recipes.md writes an adapter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

TYPES = {str: "string", int: "integer"}


class ToolFailed(Exception):
    """The failure of a tool, whose text the model reads."""


class Tool:
    """A function with the definition that the model gets."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run, self.name, self.description = run, run.__name__, inspect.getdoc(run) or ""
        parameters = inspect.signature(run, eval_str=True).parameters
        properties = {name: {"type": TYPES[one.annotation]} for name, one in parameters.items()}
        required = [name for name, one in parameters.items() if one.default is one.empty]
        self.schema = {"type": "object", "properties": properties, "required": required}


Middleware = Callable[[Tool, dict[str, Any]], Any]


class Agent:
    """An agent without a model: `call` is what the model requests."""

    def __init__(self, tools: Iterable[Tool], middleware: Middleware) -> None:
        self._tools, self._middleware = {tool.name: tool for tool in tools}, middleware

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Run a tool with its arguments and defaults, and return the text that the model reads."""
        tool = self._tools[name]
        bound = inspect.signature(tool.run).bind(**arguments)
        bound.apply_defaults()
        try:
            return str(self._middleware(tool, dict(bound.arguments)))
        except ToolFailed as failure:
            return str(failure)
