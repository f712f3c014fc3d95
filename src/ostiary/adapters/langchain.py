"""LangChain and LangGraph: every tool call of an agent or a `ToolNode` is decided, blocking or not.

    create_agent(model, tools=[read_file], middleware=[Guarded(tools)])
    builder.add_node("tools", guarded_node([read_file], tools))

The middleware puts a copy of the tool in place of the tool, and the decision is made where that copy runs: on the
arguments as the tool's schema has validated and completed them, after whatever other middleware has changed. Middleware
that is listed after it could put another tool in the place of that copy, or offer tools at the provider that nobody has
looked at, so it must be the last one, and refuses otherwise. What the graph injects (state, store, runtime) is not the
model's choice and is not judged. A denial is a `ToolMessage` with the status `error`.

A `ToolNode` that is given only one of its two hooks runs calls of the other kind undecided, so `guarded_node` gives
both. What runs at the model's provider is refused, unless it is named in `unguarded`.

With `suspends=True` a call that a person must say yes to interrupts the graph, which needs a checkpointer. Then go on,
in another process if it takes long:

    run = await agent.ainvoke(.., config)
    run = await agent.ainvoke(await answered(run["__interrupt__"], asker), config)     # an `AsyncAgent`

The call is decided again, and the server has the last word: what the graph is resumed with lets nothing pass.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

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
from ostiary.guard import Denied, Withheld, words
from ostiary.protocol.errors import Conflict, NotFound, Refused
from ostiary.tools import Tools

APPROVAL = "approval"
"""Under which name the value of an interrupt has the id of its approval."""
NOT_LAST = "middleware that is listed after the guard could change what it has decided"
LAST = "middleware=[.., Guarded(tools)]"


class Guarded(AgentMiddleware[Any, Any, Any]):
    """List it last. `unguarded`: tools at the model's provider, by name. `suspends`: whether the graph is interrupted
    where a person must be asked.
    """

    def __init__(self, tools: Tools, *, unguarded: Collection[str] = (), suspends: bool = False) -> None:
        super().__init__()
        self.tools: Sequence[BaseTool] = []  # what LangChain means by that: tools that the middleware brings
        self._by, self._unguarded, self._suspends = tools, frozenset(unguarded), suspends

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        try:
            return handler(request.override(tool=_decided(request, self._by, handler)))
        except _Denied as denied:
            return self._told(request, denied)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        try:
            return await handler(request.override(tool=_decided(request, self._by, handler)))
        except _Denied as denied:
            return self._told(request, denied)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        self._check_provider(request, handler)
        return handler(request)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        self._check_provider(request, handler)
        return await handler(request)

    def _told(self, request: ToolCallRequest, denied: _Denied) -> ToolMessage:
        """What the model is told; first the graph waits for a person, unless it has: then it is resumed here."""
        if self._suspends and denied.approval:
            interrupt({APPROVAL: denied.approval, "reason": str(denied)})
        call = request.tool_call
        return ToolMessage(str(denied), name=call["name"], tool_call_id=call["id"] or "", status="error")

    def _check_provider(self, request: ModelRequest[Any], handler: Callable[..., Any]) -> None:
        """Raises Conflict for tools that the model's provider would run, where nobody decides."""
        if not handler.__name__.startswith("_execute_model"):
            raise Conflict(NOT_LAST, hint=LAST)
        named = {str(tool.get("name") or tool.get("type")) for tool in request.tools if isinstance(tool, dict)}
        if at_provider := named - self._unguarded:
            names = ", ".join(sorted(at_provider))
            raise Conflict(f"the model's provider would run {names}, undecided", hint="name it in `unguarded`")


def guarded_node(
    node_tools: Sequence[BaseTool | Callable[..., Any]], tools: Tools, *, suspends: bool = False, **options: Any
) -> ToolNode:
    """A `ToolNode` for a graph of one's own; `options` are for its constructor. Interrupted, it makes all its calls
    again, those too that had run: each is decided again.
    """
    guard = Guarded(tools, suspends=suspends)
    return ToolNode(node_tools, wrap_tool_call=guard.wrap_tool_call, awrap_tool_call=guard.awrap_tool_call, **options)


async def answered(interrupts: Sequence[Interrupt], by: AsyncAgent, *, within: float = 600) -> Command[Any]:
    """What a graph goes on with, once people have answered, or the time is over; interrupts of others stay. Each
    call is made again, whatever the answer was: then the model is told. Raises ServerRefused, Unavailable.
    """
    asked = {one.id: one.value[APPROVAL] for one in interrupts if isinstance(one.value, dict) and APPROVAL in one.value}
    await asyncio.gather(*(by.ask(approval, within=within) for approval in asked.values()))
    return Command(resume=dict.fromkeys(asked, True))


def listed(tools: Iterable[BaseTool]) -> dict[str, Any]:
    """What `ostiary resource read` takes: what these tools say of themselves."""
    return {"tools": [_said(tool) for tool in tools]}


def _said(tool: BaseTool) -> dict[str, Any]:
    shown = convert_to_openai_function(tool)
    return {"name": tool.name, "description": shown["description"], "inputSchema": shown["parameters"]}


class _Denied(ToolException):
    """Comes out of a tool that did not run, or whose result is withheld. `approval`: which one a person is asked."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(words(refusal))
        self.approval = refusal.approval if isinstance(refusal, Denied) else None


def _decided(request: ToolCallRequest, tools: Tools, handler: Callable[..., Any]) -> BaseTool:
    """A copy of the tool that decides before it runs. Raises _Denied if another one may come in its place."""
    if handler.__module__ != ToolNode.__module__:
        raise _Denied(Conflict(NOT_LAST, hint=LAST))
    tool = request.tool
    if tool is None:
        raise _Denied(NotFound(f"there is no tool {request.tool_call['name'][:128]!a} to be decided"))
    decided, says = copy.copy(tool), partial(_said, tool)

    @wraps(tool._run)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            running = tools.admit(tool.name, _judged(tool, tool._run, args, kwargs), says)
        except Refused as refusal:
            raise _Denied(refusal) from None
        with running:
            return _measured(running, tool._run(*args, **kwargs))

    @wraps(tool._arun)
    async def arun(*args: Any, **kwargs: Any) -> Any:
        try:
            running = await tools.admit_async(tool.name, _judged(tool, tool._arun, args, kwargs), says)
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


def _judged(tool: BaseTool, run: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the model has chosen: not what LangChain supplies or the graph injects."""
    supplied = {"run_manager"} & inspect.signature(run).parameters.keys() | {_get_runnable_config_param(run)}
    injected = kwargs.keys() - tool._filter_injected_args(dict(kwargs)).keys() - set(FILTERED_ARGS)
    chosen = {name: value for name, value in kwargs.items() if name not in supplied | injected}
    return dict(zip(tool.args, args, strict=False)) | chosen


def _measured(running: Any, result: Any) -> Any:
    """Raises _Denied for what must not reach the model."""
    try:
        return running.returned(result, ok=_is_ok(result))
    except Withheld as refusal:
        raise _Denied(refusal) from None


def _is_ok(result: object) -> bool:
    return getattr(result, "status", "") != "error"
