"""OpenAI Agents SDK: every tool of an agent is decided, and of every agent that it hands off to.

    guard(agent, tools)         # changes the agent in place, so that no unguarded copy remains
    Runner.run_sync(agent, "..")

Guardrails of this SDK belong to single tools, and MCP servers offer further tools at run time. Therefore decisions are
added in `get_all_tools`, from which the runner gets the tools before every turn. A tool that is not a function (a tool
at the model's provider, a shell, a computer) cannot be decided by an adapter; an agent may have such a tool only if it
is named in `unguarded`. A denial is the output of the tool, which the model reads; the run continues.

The decision is made on the model's arguments, with the defaults of the tool's schema. If a function has a validator
that changes arguments, the validator runs after the decision: decorate the function with `tools.tool` instead.

With `suspends=True`, a call that a person must approve ends the run with an interruption of the SDK, as the SDK's own
`needs_approval` does. Then the decision is made one step before the tool runs. Keep the state until a person has
answered, then continue:

    state = result.to_state()                                            # `to_json`, `RunState.from_json`
    await answered(state, asker)                                         # an `AsyncAgent`; waits for the people
    result = await Runner.run(agent, state)

The call is decided again by the approval at the server; an approval in the state allows nothing.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any, TypeVar, cast

from agents import Agent, FunctionTool, Handoff, RunContextWrapper, RunState, Tool
from agents.items import ToolApprovalItem
from agents.mcp import MCPServer
from agents.run_context import _ApprovalRecord
from agents.tool_context import ToolContext
from agents.util._approvals import evaluate_needs_approval_setting

from ostiary.agent import AsyncAgent
from ostiary.guard import Denied, Withheld, text_for_model
from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Malformed, Refused, check_list
from ostiary.tools import Running, Tools, fill_defaults

ASKED = "ostiary"
"""Key, in a run's state, of the approvals of this adapter, which are stored by the id of the call."""
A = TypeVar("A", bound=Agent[Any])
Invoke = Callable[[ToolContext[Any], str], Awaitable[Any]]


def guard(agent: A, tools: Tools, *, unguarded: Collection[str] = (), suspends: bool = False) -> A:
    """Decide from now on every tool call of this agent, and of the agents that it hands off to. Return the agent, which
    is changed in place. Raises Conflict for an agent that other tools guard.

    `unguarded`: names of tools that are not functions, and run without a decision. `suspends`: true if a run is
    interrupted when a person must be asked.
    """
    if not isinstance(agent, _Guarded):
        kind = type(agent)
        body = {"guarded_by": tools, "unguarded": frozenset(check_list("unguarded", unguarded)), "suspends": suspends}
        agent.__class__ = cast(Any, type(f"Guarded{kind.__name__}", (_Guarded, kind), body))
        again = partial(guard, tools=tools, unguarded=unguarded, suspends=suspends)
        for handoff in agent.handoffs:
            if isinstance(handoff, Handoff):
                handoff.on_invoke_handoff = _Handing(handoff.on_invoke_handoff, again)
            else:
                again(handoff)
    elif agent.guarded_by is not tools:
        raise Conflict(f"the agent `{agent.name}` is guarded already, by other tools", hint="guard each agent once")
    return agent


async def answered(state: RunState[Any, Any], by: AsyncAgent, *, within: float = 600) -> None:
    """Wait until people have decided the approvals of a state, at most `within` seconds, and change the state so that
    its run can continue. Other approvals of the state stay. The run repeats each call, approved or not; the model gets
    its result or its denial. Raises ServerRefused if the server refuses the question about an approval, Unavailable if
    the server does not answer.
    """
    ours = [(item, approval) for item in state.get_interruptions() if (approval := approval_of(state, item))]
    await asyncio.gather(*(by.ask(approval, within=within) for _, approval in ours))
    for item, _ in ours:
        state.approve(item)


def approval_of(state: RunState[Any, Any], item: ToolApprovalItem) -> str | None:
    """Return the id of the approval for which the call `item` waits, including calls in the run of an agent that is
    used as a tool. Return None if the call waits for an approval of the SDK only.
    """
    owner, _ = state._find_nested_approval_state(item) or (state, item)
    kept = owner._context._approvals.get(ASKED) if owner._context is not None else None
    return None if kept is None else kept.rejection_messages.get(item.call_id or "")


def listed(tools: Iterable[FunctionTool]) -> dict[str, Any]:
    """Return the definitions of the tools, in the form of MCP's `tools/list`."""
    return {"tools": [_definition(tool, ()) for tool in tools]}


class _Guarded(Agent[Any]):
    """The first base class of the class of a guarded agent; the second base class is the agent's own class."""

    guarded_by: Tools
    unguarded: frozenset[str]
    suspends: bool

    async def get_all_tools(self, run_context: RunContextWrapper[Any]) -> list[Tool]:
        """Return the agent's tools, each with a decision before every call. Raises Conflict, before the model is
        called, for a tool that would run undecided, and for a handoff to an agent that is not guarded.
        """
        for handoff in self.handoffs:
            by = handoff.on_invoke_handoff if isinstance(handoff, Handoff) else handoff
            if not isinstance(by, _Guarded | _Handing):
                raise Conflict(
                    f"`{self.name}` got a handoff after it was guarded, to an agent that is not guarded",
                    hint="guard(agent, tools) for that agent",
                )
        return [self._decided(tool) for tool in await super().get_all_tools(run_context)]

    def _decided(self, tool: Tool) -> Tool:
        if not isinstance(tool, FunctionTool):
            if tool.name not in self.unguarded:
                raise Conflict(
                    f"`{tool.name}` would run without a decision",
                    hint="name the tool in `unguarded`, or remove the tool",
                )
            return tool
        if tool._is_agent_tool and not isinstance(tool._agent_instance, _Guarded):
            raise Conflict(f"the agent behind the tool `{tool.name}` is not guarded", hint="guard(agent, tools)")
        tool = copy.copy(tool)
        invoker = tool.on_invoke_tool
        decides = _Decides(tool, self.guarded_by, self.mcp_servers)
        # Wrap the tool inside of the SDK's layer that turns errors into output, so that this module gets the errors.
        if hasattr(invoker, "_invoke_tool_impl"):
            invoker._invoke_tool_impl = decides.around(invoker._invoke_tool_impl)
        else:
            tool.on_invoke_tool = decides.around(invoker)
        # The SDK does not call `needs_approval` for a call without arguments. Guardrails would run after the decision.
        if self.suspends and tool.params_json_schema.get("properties") and not tool.tool_input_guardrails:
            decides.confirms, tool.needs_approval = tool.needs_approval, decides.asks
        return tool


class _Handing:
    """A handoff that guards the agent to which it leads."""

    def __init__(self, hand: Callable[..., Awaitable[Any]], guarded: Callable[[Agent[Any]], Agent[Any]]) -> None:
        self._hand, self._guarded = hand, guarded

    async def __call__(self, context: RunContextWrapper[Any], arguments: str) -> Any:
        return self._guarded(await self._hand(context, arguments))


class _Decides:
    """The decisions on the calls of one tool in one turn."""

    def __init__(self, tool: FunctionTool, tools: Tools, servers: Sequence[MCPServer]) -> None:
        self.confirms: Any = False
        """the condition `needs_approval` that the program itself has set for the tool"""
        self._tools, self._name, self._schema = tools, tool.qualified_name, tool.params_json_schema
        self._says = partial(_definition, tool, servers)
        self._ahead: dict[str, tuple[dict[str, Any], Running | Refused]] = {}

    def around(self, invoke: Invoke) -> Invoke:
        @wraps(invoke)
        async def decided(context: ToolContext[Any], unverified_input: str) -> Any:
            try:
                running = await self._running(context, unverified_input)
            except Refused as refusal:
                return text_for_model(refusal)
            try:
                with running:
                    return await running.returned_async(await invoke(context, unverified_input))
            except Withheld as refusal:
                return text_for_model(refusal)

        # With this value, the SDK calls `needs_approval` with unconverted arguments, and interrupts the run.
        vars(decided).pop("__agents_prepare_arguments__", None)
        return decided

    async def asks(self, context: RunContextWrapper[Any], arguments: dict[str, Any], call: str) -> bool:
        """Decide a call, and return whether the run is interrupted for an approval. If not, store the decision until
        the tool runs.
        """
        if await evaluate_needs_approval_setting(self.confirms, context, arguments, call):
            return True
        try:
            self._ahead[call] = arguments, await self._admit(arguments)
        except Refused as refusal:
            if isinstance(refusal, Denied) and refusal.approval:
                context._approvals.setdefault(ASKED, _ApprovalRecord()).rejection_messages[call] = refusal.approval
                return True
            self._ahead[call] = arguments, refusal
        return False

    async def _running(self, context: ToolContext[Any], unverified_input: str) -> Running:
        """Return the call that was decided before, or decide the call now. Raises Refused if the call is denied, or its
        arguments are not a JSON object or have changed since the decision.
        """
        decided_on, ahead = self._ahead.pop(context.tool_call_id, (None, None))
        if isinstance(ahead, Refused):
            raise ahead
        try:
            arguments = canonical.parse(unverified_input or "{}")
            if not isinstance(arguments, dict):
                raise Malformed("the arguments are not a JSON object")
            if ahead is None:
                return await self._admit(arguments)
            if arguments != decided_on:
                raise Malformed("the arguments of the call differ from the decided arguments")
            return ahead
        except Refused:
            with ahead or nullcontext():  # it has not run
                raise

    async def _admit(self, arguments: dict[str, Any]) -> Running:
        return await self._tools.admit_async(self._name, fill_defaults(arguments, self._schema), self._says)


def _definition(tool: FunctionTool, servers: Sequence[MCPServer]) -> dict[str, Any]:
    """Return the definition of a tool; for a tool of an MCP server, the definition that the server lists."""
    name = tool.qualified_name
    if tool._mcp_tool_binding is not None and servers:
        _, tool_name, index = tool._mcp_tool_binding
        for one in servers[index or 0].cached_tools or ():
            if one.name == tool_name:
                return {**one.model_dump(by_alias=True, mode="json", exclude_none=True), "name": name}
    return {"name": name, "description": tool.description, "inputSchema": tool.params_json_schema}
