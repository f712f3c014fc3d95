"""CrewAI: every tool of every crew, agent and flow of this process is decided.

    with guarded(tools):
        crew.kickoff()

CrewAI's hooks before a tool call are not sufficient: their errors are ignored, later hooks may change the arguments,
`clear_all` removes them, flows do not call them, a failed call is retried without them, and cached results are returned
without a call. Therefore the decision is made in the methods by which each class of tools runs (`_run`, `_arun`): for
each call, on the final arguments, after validation and after all hooks.

The decision applies to the whole process: after the first `guarded`, no tool runs without a decision, and outside of a
`guarded` block no tool runs at all. A denial is a `ToolFailure`, which the model reads, and which is never cached.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial, wraps
from types import MethodType
from typing import Any

from crewai import LLM, Agent
from crewai.agents.cache.cache_handler import CacheHandler
from crewai.lite_agent import LiteAgent
from crewai.llms.base_llm import BaseLLM
from crewai.tools import BaseTool
from crewai.tools.base_tool import Tool
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.tools.tool_failure import ToolFailure
from crewai.utilities.string_utils import sanitize_tool_name

from ostiary.guard import Withheld, text_for_model
from ostiary.guard.closed import fail_closed
from ostiary.guard.listing import Says
from ostiary.protocol.errors import Conflict, Refused, Unauthenticated, check_list
from ostiary.tools import Running, Tools, make_binder

Function = Callable[..., Any]


@contextmanager
def guarded(tools: Tools, *, unguarded: Collection[str] = ()) -> Iterator[None]:
    """Decide every call of a CrewAI tool of this process in this block. Raises Conflict while another `guarded` block
    is open in the process, in any thread.

    `unguarded`: names of tools that run without a decision, as the model knows them (`delegate_work_to_coworker`). A
    crew with tools of the model's provider (`builtin_tools` of an LLM) is refused unless their names are listed here,
    and a crew with remote agents is refused unless `a2a` is.
    """
    _process.enter(tools, frozenset(check_list("unguarded", unguarded)))
    try:
        yield
    finally:
        _process.tools = None


def listed(tools: Iterable[BaseTool]) -> dict[str, Any]:
    """Return the definitions of the tools, in the form of MCP's `tools/list`."""
    return {"tools": [_definition(tool) for tool in tools]}


def _definition(tool: BaseTool) -> dict[str, Any]:
    schema = tool.args_schema.model_json_schema()
    return {"name": sanitize_tool_name(tool.name), "description": tool.description, "inputSchema": schema}


class _Process:
    """The guarded tools of this process, and the names of tools that run without a decision (`unguarded`)."""

    def __init__(self) -> None:
        self.tools: Tools | None = None
        self.unguarded: frozenset[str] = frozenset()
        self._mutex, self._is_armed = threading.Lock(), False

    def enter(self, tools: Tools, unguarded: frozenset[str]) -> None:
        with self._mutex:
            if self.tools is not None:
                raise Conflict(
                    "another `guarded` block is open in this process",
                    hint="leave the open block before another block begins",
                )
            if not self._is_armed:
                _arm()
                self._is_armed = True
            self.unguarded, self.tools = unguarded, tools

    def admit(
        self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], says: Says = None
    ) -> Any:
        """Decide the call of `function`, and return a context in which it may run with these arguments. Raises Refused
        if the call is denied or cannot be decided.
        """
        tools = self._tools_for(name)
        with fail_closed():
            return nullcontext() if tools is None else tools.admit(name, _bound(function, args, kwargs), says)

    async def admit_async(
        self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], says: Says = None
    ) -> Any:
        """Admit a call as `admit` does; the event loop keeps running while a person is asked."""
        tools = self._tools_for(name)
        with fail_closed():
            return (
                nullcontext() if tools is None else await tools.admit_async(name, _bound(function, args, kwargs), says)
            )

    def _tools_for(self, name: str) -> Tools | None:
        """Return the tools that decide; None if the tool may run without a decision. Raises Unauthenticated
        outside a `guarded` block.
        """
        if self.tools is None:
            raise Unauthenticated(
                "the caller is not known: no `guarded` block is open",
                hint="run the crew inside the block: with guarded(tools): ..",
                code="nobody_acts",
            )
        return None if name in self.unguarded else self.tools


def _bound(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return make_binder(function, frozenset())(args, kwargs)


_process = _Process()


def _arm() -> None:
    """Make every present and future class of tools ask for a decision before a tool runs. Disable the cache of tool
    results, and check the other ways in which CrewAI can run a tool or a function.
    """
    inherited = BaseTool.__init_subclass__.__func__  # type: ignore[attr-defined]

    def init_subclass(cls: type[BaseTool], /, **options: Any) -> None:
        inherited(cls, **options)
        _decide_in(cls)

    Tool.run, Tool.arun = BaseTool.run, BaseTool.arun  # type: ignore[assignment, method-assign]
    for kind in _below(BaseTool):
        _decide_in(kind)
    BaseTool.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment]
    CacheHandler.read = lambda *_, **__: None  # type: ignore[assignment, method-assign]
    _before(CrewStructuredTool, "_parse_args", _check_original)
    _before(Agent, "create_agent_executor", _check_elsewhere)
    _before(Agent, "_prepare_kickoff", _check_elsewhere)
    _before(LiteAgent, "kickoff", _check_elsewhere)
    for kind, method in ((BaseLLM, "_handle_tool_execution"), (LLM, "_handle_tool_call")):
        setattr(kind, method, _with_functions(getattr(kind, method)))


def _below(kind: type) -> set[type]:
    children: list[type] = kind.__subclasses__()
    return set(children).union(*map(_below, children))


def _decide_in(kind: type) -> None:
    """Add the decision to the methods by which a class of tools runs. Raises Conflict if the class runs its tools in
    another way.
    """
    for name in {"_run", "_arun"} & vars(kind).keys():
        if not inspect.isfunction(method := vars(kind)[name]):
            raise Conflict(
                f"`{name}` of {kind.__name__} is not a method, and would run without a decision",
                hint=f"define `{name}` by `def` or `async def` in the class of the tool",
            )
        setattr(kind, name, _decided(name, method))


def _decided(name: str, run: Function) -> Function:
    def call_of(tool: BaseTool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        function = tool.func if isinstance(tool, Tool) else MethodType(run, tool)
        return sanitize_tool_name(tool.name), function, args, kwargs, partial(_definition, tool)

    @wraps(run)
    def blocking(tool: BaseTool, *args: Any, **kwargs: Any) -> Any:
        if getattr(type(tool), name) is not decided:  # a call by `super()`: the outer method has decided it
            return run(tool, *args, **kwargs)
        try:
            running = _process.admit(*call_of(tool, args, kwargs))
        except Refused as refusal:
            return ToolFailure(message=text_for_model(refusal))
        return _watched(running, partial(run, tool, *args, **kwargs))

    @wraps(run)
    async def asynchronous(tool: BaseTool, *args: Any, **kwargs: Any) -> Any:
        if getattr(type(tool), name) is not decided:
            return await run(tool, *args, **kwargs)
        try:
            running = await _process.admit_async(*call_of(tool, args, kwargs))
        except Refused as refusal:
            return ToolFailure(message=text_for_model(refusal))
        return await _later(running, run(tool, *args, **kwargs))

    decided = asynchronous if inspect.iscoroutinefunction(run) else blocking
    return decided


def _watched(running: Any, run: Callable[[], Any]) -> Any:
    """Run the tool and return its result. The outcome is recorded when the tool ends; if the tool is a coroutine, when
    the coroutine ends.
    """
    with ExitStack() as stack:
        stack.enter_context(running)
        if inspect.isawaitable(result := run()):
            stack.pop_all()
            return _later(running, result)
        return _measured(running, result)


async def _later(running: Any, result: Awaitable[Any]) -> Any:
    with running:
        value = await result
        if not isinstance(running, Running):
            return value
        try:
            return await running.returned_async(value, ok=not isinstance(value, ToolFailure))
        except Withheld as refusal:
            return ToolFailure(message=text_for_model(refusal))


def _measured(running: Any, result: Any) -> Any:
    if not isinstance(running, Running):
        return result
    try:
        return running.returned(result, ok=not isinstance(result, ToolFailure))
    except Withheld as refusal:
        return ToolFailure(message=text_for_model(refusal))


def _before(kind: type, name: str, check: Callable[[Any], None]) -> None:
    method = getattr(kind, name)

    @wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        check(self)
        return method(self, *args, **kwargs)

    setattr(kind, name, checked)


def _check_original(tool: CrewStructuredTool) -> None:
    if tool._original_tool is None and sanitize_tool_name(tool.name) not in _process.unguarded:
        raise Conflict(
            f"`{tool.name}` would run without a decision",
            hint="make the tool a BaseTool, or name the tool in `unguarded`",
        )


def _check_elsewhere(agent: Any) -> None:
    """Check that no tool runs without a decision at the model's provider or at a remote agent. Raises Conflict
    otherwise.
    """
    named = set(getattr(agent.llm, "builtin_tools", None) or ()) | ({"a2a"} if getattr(agent, "a2a", None) else set())
    if elsewhere := named - _process.unguarded:
        which = ", ".join(sorted(elsewhere))
        raise Conflict(
            f"{which} would run outside this process, without a decision",
            hint="remove these tools, or name these tools in `unguarded`: then no decision is made",
        )


def _with_functions(method: Function) -> Function:
    """Return `method`, a method that calls an LLM, wrapped so that the plain functions it passes to the LLM are decided
    before they run. Functions of CrewAI itself are not decided, because they have no effect.
    """

    def decided(name: str, function: Function) -> Function:
        if (getattr(function, "__module__", None) or "").partition(".")[0] == "crewai":
            return function

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                running = _process.admit(name, function, args, kwargs)
            except Refused as refusal:
                return text_for_model(refusal)
            return _watched(running, partial(function, *args, **kwargs))

        return run

    @wraps(method)
    def handle(self: BaseLLM, called: Any, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(method).bind(self, called, *args, **kwargs)
        functions = bound.arguments.get("available_functions") or {}
        bound.arguments["available_functions"] = {name: decided(name, function) for name, function in functions.items()}
        return method(*bound.args, **bound.kwargs)

    return handle
