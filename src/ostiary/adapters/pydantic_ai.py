"""Pydantic AI 2: a capability that decides every call of every tool of an agent.

    agent = pydantic_ai.Agent(model, tools=[read_file], capabilities=[Guarded(tools)])

The decision is made in the innermost toolset, which wraps the tools directly: hooks of other capabilities may change
the arguments of a call after each hook, but nothing runs between a toolset and its tool. A denial is `ToolFailed`: the
model gets the reason, and is not asked to try again.

With `suspends=True`, a call that a person must approve ends the run with Pydantic AI's `DeferredToolRequests` (give
the agent `output_type=[str, DeferredToolRequests]`). Keep the messages until a person has answered, then continue:

    results = await answered(requests, asker)          # an `AsyncAgent`; waits for the people
    await agent.run(message_history=.., deferred_tool_results=results)

The call is decided again by the approval at the server; `approved` in the results allows nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import ApprovalRequired, DeferredToolRequests, DeferredToolResults, RunContext, Tool
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.output import OutputContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from ostiary.agent import AsyncAgent
from ostiary.guard import Denied, Withheld, text_for_model
from ostiary.protocol.errors import Conflict, Refused, check_list
from ostiary.tools import Tools

APPROVAL = "approval"
"""Key under which the metadata of a deferred call contain the id of the approval."""


@dataclass
class Guarded(AbstractCapability[Any]):
    """A capability that decides every tool call. `unguarded`: output functions, and tools at the model's
    provider, that may run without a decision. `suspends`: true if a run ends when a person must be asked.
    """

    tools: Tools
    unguarded: Collection[str] = ()
    suspends: bool = False

    def __post_init__(self) -> None:
        """Check `unguarded`. Raises Invalid for a text instead of a list."""
        self.unguarded = frozenset(check_list("unguarded", self.unguarded))

    def get_ordering(self) -> CapabilityOrdering:
        """Return the innermost position, so that no other capability runs between the decision and the tool."""
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Return the toolset with decisions."""
        return _Decided(toolset, self.tools, self.suspends)

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Check the tools of a model call: raises Conflict for tools that the model's provider would run undecided."""
        native = {tool.kind for tool in request_context.model_request_parameters.native_tools}
        if at_provider := native.difference(self.unguarded):
            names = ", ".join(sorted(at_provider))
            raise Conflict(
                f"the model's provider would run {names} without a decision",
                hint="name these tools in `unguarded`, or remove the tools",
            )
        return request_context

    async def wrap_output_process(
        self, ctx: RunContext[Any], *, output_context: OutputContext, output: Any, handler: Any
    ) -> Any:
        """Refuse an output function, which is not a tool and runs on the model's output without a decision. Raises
        Conflict for such a function, unless `unguarded` names it.
        """
        if output_context.has_function and output_context.function_name not in self.unguarded:
            name = output_context.function_name or "one of several"
            raise Conflict(
                f"the output function {name} would run without a decision",
                hint="make the function a tool, or name the function in `unguarded`",
            )
        return await handler(output)


async def answered(requests: DeferredToolRequests, by: AsyncAgent, *, within: float = 600) -> DeferredToolResults:
    """Wait until people have decided the approvals of these requests, at most `within` seconds, and return the results
    with which the run continues. Add the results of other requests. The run repeats each call, approved or not; the
    model gets its result or its denial. Raises ServerRefused if the server refuses the question about an approval,
    Unavailable if the server does not answer.
    """
    waiting = {
        call.tool_call_id: approval
        for call in requests.approvals
        if (approval := requests.metadata.get(call.tool_call_id, {}).get(APPROVAL))
    }
    await asyncio.gather(*(by.ask(approval, within=within) for approval in waiting.values()))
    return DeferredToolResults(approvals=dict.fromkeys(waiting, True))


def listed(tools: Iterable[ToolDefinition | Tool[Any] | Callable[..., Any]]) -> dict[str, Any]:
    """Return the definitions of the tools, or of functions as tools, in the form of MCP's `tools/list`."""
    return {"tools": [_definition(_as_definition(tool)) for tool in tools]}


def _as_definition(tool: ToolDefinition | Tool[Any] | Callable[..., Any]) -> ToolDefinition:
    if isinstance(tool, ToolDefinition):
        return tool
    return (tool if isinstance(tool, Tool) else Tool(tool)).tool_def


def _definition(definition: ToolDefinition) -> dict[str, Any]:
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
            running = await self.tools.admit_async(name, tool_args, lambda: _definition(tool.tool_def))
        except Refused as refusal:
            if self.suspends and isinstance(refusal, Denied) and refusal.approval:
                raise ApprovalRequired({APPROVAL: refusal.approval, "reason": text_for_model(refusal)}) from None
            raise ToolFailed(text_for_model(refusal)) from None
        try:
            with running:
                return await running.returned_async(await self.wrapped.call_tool(name, tool_args, ctx, tool))
        except Withheld as refusal:
            raise ToolFailed(text_for_model(refusal)) from None
