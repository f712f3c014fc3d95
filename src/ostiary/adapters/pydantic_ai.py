"""Pydantic AI 2: a capability that decides every call of every tool of an agent.

    agent = pydantic_ai.Agent(model, tools=[read_file], capabilities=[Guarded(tools)])

The decision is made in a toolset around all others, the innermost: hooks of other capabilities may still change the
arguments of a call after any hook of ours has seen them, and nothing comes between a toolset and its tool. A denial is
`ToolFailed`: the model is told, and is not asked to try again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.output import OutputContext
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from ostiary.core.errors import Conflict, Refused
from ostiary.guard import Withheld, words
from ostiary.tools import Tools


@dataclass
class Guarded(AbstractCapability[Any]):
    """`unguarded`: output functions, and tools at the model's provider, that may run without a decision."""

    tools: Tools
    unguarded: frozenset[str] = frozenset()

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return _Decided(toolset, self.tools)

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Raises Conflict for tools that the model's provider would run, where nobody decides."""
        native = {tool.kind for tool in request_context.model_request_parameters.native_tools}
        if at_provider := native - self.unguarded:
            names = ", ".join(sorted(at_provider))
            raise Conflict(f"the model's provider would run {names}, undecided", hint="name it in `unguarded`")
        return request_context

    async def wrap_output_process(
        self, ctx: RunContext[Any], *, output_context: OutputContext, output: Any, handler: Any
    ) -> Any:
        """Raises Conflict for an output function: it runs on the model's words and is no tool."""
        if output_context.has_function and output_context.function_name not in self.unguarded:
            name = output_context.function_name or "one of several"
            raise Conflict(
                f"the output function {name} runs undecided", hint="make it a tool, or name it in `unguarded`"
            )
        return await handler(output)


@dataclass
class _Decided(WrapperToolset[Any]):
    tools: Tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        try:
            running = await self.tools.admit_async(name, tool_args)
        except Refused as refusal:
            raise ToolFailed(words(refusal)) from None
        try:
            with running:
                return await running.returned_async(await self.wrapped.call_tool(name, tool_args, ctx, tool))
        except Withheld as refusal:
            raise ToolFailed(words(refusal)) from None
