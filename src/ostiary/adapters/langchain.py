"""LangChain and LangGraph: every tool call of an agent or a `ToolNode` is decided, blocking or not.

    create_agent(model, tools=[read_file], middleware=[Guarded(tools)])
    builder.add_node("tools", guarded_node([read_file], tools))

The middleware replaces the tool by a copy, and the decision is made where the copy runs: on the arguments as the tool's
schema has validated and completed them, after all changes by other middleware. Middleware that is listed later could
replace the copy by another tool, or offer tools at the provider that are not checked. Therefore this middleware must be
the last middleware; otherwise it refuses calls. Values that the graph injects (state, store, runtime) are not chosen by
the model, and are not judged. A denial is a `ToolMessage` with the status `error`.

A `ToolNode` has two hooks, for blocking and for asynchronous calls. With only one of them, the other calls would run
without a decision, so `guarded_node` sets both. Tools that run at the model's provider are refused, unless they are
named in `unguarded`.

With `suspends=True`, a call that a person must approve interrupts the graph, which needs a checkpointer. Then continue,
in another process if the answer takes long:

    run = await agent.ainvoke(.., config)
    run = await agent.ainvoke(await answered(run["__interrupt__"], asker), config)     # an `AsyncAgent`

The call is decided again by the approval at the server; the value that resumes the graph allows nothing.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import langchain_core.tools
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ModelRequest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_core.tools.base import FILTERED_ARGS, _get_runnable_config_param
from langchain_core.utils.function_calling import convert_to_openai_function
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, Interrupt, interrupt

from ostiary.agent import AsyncAgent
from ostiary.guard import Denied, Withheld, text_for_model
from ostiary.protocol.errors import Conflict, NotFound, Refused, check_list
from ostiary.tools import Tools

APPROVAL = "approval"
"""Key under which the value of an interrupt contains the id of the approval."""
NOT_LAST = "middleware that is listed after the guard could change decided calls"
LAST = "middleware=[.., Guarded(tools)]"


class Guarded(AgentMiddleware[Any, Any, Any]):
    """Middleware that decides every tool call; it must be the last of the list. `unguarded`: names of tools at
    the model's provider that may run without a decision. `suspends`: true if the graph is interrupted when a
    person must be asked.
    """

    def __init__(self, tools: Tools, *, unguarded: Collection[str] = (), suspends: bool = False) -> None:
        super().__init__()
        self.tools: Sequence[BaseTool] = []  # for LangChain, these are tools that the middleware itself adds
        self._by, self._unguarded, self._suspends = tools, frozenset(check_list("unguarded", unguarded)), suspends

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Run a call with a copy of the tool that decides the call first; return the result, or a message with the
        denial.
        """
        try:
            return handler(request.override(tool=_decided(request, self._by, handler)))
        except _Denied as denied:
            return self._denial_message(request, denied)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """Run a call as `wrap_tool_call` does."""
        try:
            return await handler(request.override(tool=_decided(request, self._by, handler)))
        except _Denied as denied:
            return self._denial_message(request, denied)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Check the tools of a model call, then call the model."""
        self._check_provider(request, handler)
        return handler(request)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """Check the tools of a model call as `wrap_model_call` does, then call the model."""
        self._check_provider(request, handler)
        return await handler(request)

    def _denial_message(self, request: ToolCallRequest, denied: _Denied) -> ToolMessage:
        """Return the denial for the model. With `suspends`, interrupt the graph for a person first; a resumed graph
        continues at this point.
        """
        if self._suspends and denied.approval:
            interrupt({APPROVAL: denied.approval, "reason": str(denied)})
        call = request.tool_call
        return ToolMessage(str(denied), name=call["name"], tool_call_id=call["id"] or "", status="error")

    def _check_provider(self, request: ModelRequest[Any], handler: Callable[..., Any]) -> None:
        """Check that the model's provider runs no tool undecided. Raises Conflict otherwise."""
        if not handler.__name__.startswith("_execute_model"):
            raise Conflict(NOT_LAST, hint=LAST)
        named = {str(tool.get("name") or tool.get("type")) for tool in request.tools if isinstance(tool, dict)}
        if at_provider := named - self._unguarded:
            names = ", ".join(sorted(at_provider))
            raise Conflict(
                f"the model's provider would run {names} without a decision",
                hint="name these tools in `unguarded`, or remove the tools",
            )


def guarded_node(
    node_tools: Sequence[BaseTool | Callable[..., Any]], tools: Tools, *, suspends: bool = False, **options: Any
) -> ToolNode:
    """Return a `ToolNode` for a custom graph; `options` are for its constructor. After an interrupt, the node
    repeats all its calls, including calls that have already run: each is decided again.
    """
    guard = Guarded(tools, suspends=suspends)
    return ToolNode(node_tools, wrap_tool_call=guard.wrap_tool_call, awrap_tool_call=guard.awrap_tool_call, **options)


async def answered(interrupts: Sequence[Interrupt], by: AsyncAgent, *, within: float = 600) -> Command[Any]:
    """Wait until people have decided the approvals of these interrupts, at most `within` seconds, and return the
    command with which the graph continues. Other interrupts stay. The graph repeats each call, approved or not; the
    model gets its result or its denial. Raises ServerRefused if the server refuses the question about an approval,
    Unavailable if the server does not answer.
    """
    waiting = {
        one.id: one.value[APPROVAL] for one in interrupts if isinstance(one.value, dict) and APPROVAL in one.value
    }
    await asyncio.gather(*(by.ask(approval, within=within) for approval in waiting.values()))
    return Command(resume=dict.fromkeys(waiting, True))


def listed(tools: Iterable[BaseTool | Callable[..., Any]]) -> dict[str, Any]:
    """Return the definitions of the tools, or of functions as tools, in the form of MCP's `tools/list`."""
    return {
        "tools": [
            _definition(tool if isinstance(tool, BaseTool) else langchain_core.tools.tool(tool)) for tool in tools
        ]
    }


def _definition(tool: BaseTool) -> dict[str, Any]:
    shown = convert_to_openai_function(tool)
    return {"name": tool.name, "description": shown["description"], "inputSchema": shown["parameters"]}


class _Denied(ToolException):
    """The error of a tool that did not run, or whose result is withheld. `approval`: id of the open approval, or
    empty.
    """

    def __init__(self, refusal: Refused) -> None:
        super().__init__(text_for_model(refusal))
        self.approval = refusal.approval if isinstance(refusal, Denied) else None


def _decided(request: ToolCallRequest, tools: Tools, handler: Callable[..., Any]) -> BaseTool:
    """Return a copy of the tool that decides before it runs. Raises _Denied if another tool may replace it."""
    if handler.__module__ != ToolNode.__module__:
        raise _Denied(Conflict(NOT_LAST, hint=LAST))
    tool = request.tool
    if tool is None:
        raise _Denied(NotFound(f"the agent has no tool {request.tool_call['name'][:128]!a}"))
    decided, says = copy.copy(tool), partial(_definition, tool)

    @wraps(tool._run)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            running = tools.admit(tool.name, _chosen_arguments(tool, tool._run, args, kwargs), says)
        except Refused as refusal:
            raise _Denied(refusal) from None
        with running:
            return _measured(running, tool._run(*args, **kwargs))

    @wraps(tool._arun)
    async def arun(*args: Any, **kwargs: Any) -> Any:
        try:
            running = await tools.admit_async(tool.name, _chosen_arguments(tool, tool._arun, args, kwargs), says)
        except Refused as refusal:
            raise _Denied(refusal) from None
        with running:
            result = await tool._arun(*args, **kwargs)
            try:
                return await running.returned_async(result, ok=_is_ok(result))
            except Withheld as refusal:
                raise _Denied(refusal) from None

    object.__setattr__(decided, "_run", run)
    object.__setattr__(decided, "_arun", arun)
    return decided


def _chosen_arguments(
    tool: BaseTool, run: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments that the model has chosen, without values that LangChain supplies or the graph injects."""
    supplied = {"run_manager"} & inspect.signature(run).parameters.keys() | {_get_runnable_config_param(run)}
    injected = kwargs.keys() - tool._filter_injected_args(dict(kwargs)).keys() - set(FILTERED_ARGS)
    chosen = {name: value for name, value in kwargs.items() if name not in supplied | injected}
    return dict(zip(tool.args, args, strict=False)) | chosen


def _measured(running: Any, result: Any) -> Any:
    """Record a result and return it. Raises _Denied for a result that must not reach the model."""
    try:
        return running.returned(result, ok=_is_ok(result))
    except Withheld as refusal:
        raise _Denied(refusal) from None


def _is_ok(result: object) -> bool:
    return getattr(result, "status", "") != "error"
