"""Pydantic AI 2: a capability that decides every call of every tool of an agent.

    agent = pydantic_ai.Agent(model, tools=[read_file], capabilities=[Guarded(tools)])

The decision is made in a toolset around all others, the innermost: hooks of other capabilities may still change the
arguments of a call after any hook of ours has seen them, and nothing comes between a toolset and its tool. A denial is
`ToolFailed`: the model is told, and is not asked to try again.

With `suspends=True` a call that a person must say yes to ends the run with Pydantic AI's `DeferredToolRequests` (give
the agent `output_type=[str, DeferredToolRequests]`). Keep its messages for as long as it takes, then go on:

    results = await answered(requests, asker)          # an `AsyncAgent`; waits for the people
    await agent.run(message_history=.., deferred_tool_results=results)

The call is decided again, and the server has the last word: `approved` in there lets nothing pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import ApprovalRequired, DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.output import OutputContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from ostiary.agent import AsyncAgent
from ostiary.guard import Denied, Withheld, words
from ostiary.protocol.errors import Conflict, Refused
from ostiary.tools import Tools

APPROVAL = "approval"
"""Under which name the metadata of a deferred call have the id of its approval."""


@dataclass
class Guarded(AbstractCapability[Any]):
    """`unguarded`: output functions, and tools at the model's provider, that may run without a decision. `suspends`:
    whether a run ends where a person must be asked.
    """

    tools: Tools
    unguarded: frozenset[str] = frozenset()
    suspends: bool = False

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return _Decided(toolset, self.tools, self.suspends)

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


async def answered(requests: DeferredToolRequests, by: AsyncAgent, *, within: float = 600) -> DeferredToolResults:
    """What a run goes on with, once people have answered, or the time is over. Each call is made again, whatever the
    answer was: then the model is told. Raises ServerRefused, Unavailable.
    """
    asked = {
        call.tool_call_id: requests.metadata.get(call.tool_call_id, {}).get(APPROVAL) for call in requests.approvals
    }
    await asyncio.gather(*(by.ask(approval, within=within) for approval in asked.values() if approval))
    return DeferredToolResults(approvals=dict.fromkeys(asked, True))


def listed(definitions: Iterable[ToolDefinition]) -> dict[str, Any]:
    """What `ostiary resource read` takes: what these tools (`Tool(read_file).tool_def`) say of themselves."""
    return {"tools": [_said(definition) for definition in definitions]}


def _said(definition: ToolDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "description": definition.description,
        "inputSchema": definition.parameters_json_schema,
    }


@dataclass
class _Decided(WrapperToolset[Any]):
    tools: Tools
    suspends: bool

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        try:
            running = await self.tools.admit_async(name, tool_args, lambda: _said(tool.tool_def))
        except Refused as refusal:
            if self.suspends and isinstance(refusal, Denied) and refusal.approval:
                raise ApprovalRequired({APPROVAL: refusal.approval, "reason": words(refusal)}) from None
            raise ToolFailed(words(refusal)) from None
        try:
            with running:
                return await running.returned_async(await self.wrapped.call_tool(name, tool_args, ctx, tool))
        except Withheld as refusal:
            raise ToolFailed(words(refusal)) from None
