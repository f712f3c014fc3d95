"""OpenAI Agents SDK: every tool of an agent is decided, and of every agent that it hands off to.

    guard(agent, tools)         # in place, so that no twin of it stays undecided
    Runner.run_sync(agent, "..")

Guardrails of that SDK belong to one tool each, and MCP servers offer tools of their own at run time, so the tools are
taken where the runner takes them: from `get_all_tools`, before every turn. What is no function (a tool that runs at
the model's provider, a shell, a computer) runs where no adapter sees it; an agent may only have it if it is named in
`unguarded`. A denial is the output of the tool: the model reads it, the run goes on.

The arguments are those that the model sent, with the defaults of the tool's schema. A validator of yours that rewrites
them runs later: decorate such a function with `tools.tool` instead.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Collection
from functools import wraps
from typing import Any, TypeVar, cast

from agents import Agent, FunctionTool, Handoff, RunContextWrapper, Tool
from agents.tool_context import ToolContext

from ostiary.core import canonical
from ostiary.core.errors import Conflict, Malformed, Refused
from ostiary.guard import Withheld, words
from ostiary.tools import Tools, filled

A = TypeVar("A", bound=Agent[Any])
Invoke = Callable[[ToolContext[Any], str], Awaitable[Any]]


def guard(agent: A, tools: Tools, *, unguarded: Collection[str] = ()) -> A:
    """Let every tool call of this agent, and of those that it hands off to, be decided. Raises Conflict.

    `unguarded`: names of tools that are no functions, and run without a decision.
    """
    if not isinstance(agent, _Guarded):
        kind = type(agent)
        body = {"guarded_by": tools, "unguarded": frozenset(unguarded)}
        agent.__class__ = cast(Any, type(f"Guarded{kind.__name__}", (_Guarded, kind), body))
        for handoff in agent.handoffs:
            if isinstance(handoff, Handoff):
                handoff.on_invoke_handoff = _Handing(handoff.on_invoke_handoff, tools, unguarded)
            else:
                guard(handoff, tools, unguarded=unguarded)
    elif agent.guarded_by is not tools:
        raise Conflict(f"the agent `{agent.name}` is guarded already, by other tools")
    return agent


class _Guarded(Agent[Any]):
    """What a guarded agent's class has before its own."""

    guarded_by: Tools
    unguarded: frozenset[str]

    async def get_all_tools(self, run_context: RunContextWrapper[Any]) -> list[Tool]:
        """Raises Conflict for what nobody would decide: the run ends before the model is asked."""
        for handoff in self.handoffs:
            by = handoff.on_invoke_handoff if isinstance(handoff, Handoff) else handoff
            if not isinstance(by, _Guarded | _Handing):
                raise Conflict("an agent to hand off to came later and is not guarded", hint="guard(agent, tools)")
        return [self._decided(tool) for tool in await super().get_all_tools(run_context)]

    def _decided(self, tool: Tool) -> Tool:
        if not isinstance(tool, FunctionTool):
            if tool.name not in self.unguarded:
                raise Conflict(f"`{tool.name}` would run undecided", hint="name it in `unguarded`")
            return tool
        if tool._is_agent_tool and not isinstance(tool._agent_instance, _Guarded):
            raise Conflict(f"the agent behind the tool `{tool.name}` is not guarded", hint="guard(agent, tools)")
        tool = copy.copy(tool)
        invoker = tool.on_invoke_tool
        if hasattr(invoker, "_invoke_tool_impl"):  # what turns errors into output stays outside: we hear of them
            invoker._invoke_tool_impl = _around(invoker._invoke_tool_impl, tool, self.guarded_by)
        else:
            tool.on_invoke_tool = _around(invoker, tool, self.guarded_by)
        return tool


class _Handing:
    """Hands off to an agent that is guarded, whichever it is."""

    def __init__(self, hand: Callable[..., Awaitable[Any]], tools: Tools, unguarded: Collection[str]) -> None:
        self._hand, self._tools, self._unguarded = hand, tools, unguarded

    async def __call__(self, context: RunContextWrapper[Any], arguments: str) -> Any:
        return guard(await self._hand(context, arguments), self._tools, unguarded=self._unguarded)


def _around(invoke: Invoke, tool: FunctionTool, tools: Tools) -> Invoke:
    @wraps(invoke)
    async def decided(context: ToolContext[Any], unverified_input: str) -> Any:
        try:
            arguments = canonical.parse(unverified_input or "{}")
            if not isinstance(arguments, dict):
                raise Malformed("the arguments are no JSON object")
            running = await tools.admit_async(tool.qualified_name, filled(arguments, tool.params_json_schema))
        except Refused as refusal:
            return words(refusal)
        try:
            with running:
                return await running.returned_async(await invoke(context, unverified_input))
        except Withheld as refusal:
            return words(refusal)

    return decided
