"""Google ADK: a plugin of the runner decides every tool call of all its agents.

    App(name="app", root_agent=agent, plugins=[Guarded(tools)])

Callbacks of other plugins and of agents may change the arguments of a call after the callback of this plugin, and ADK
may ask a person to confirm the call. Therefore the callback before a tool replaces the class of the tool by a guarded
class, and the decision is made where the tool runs, for the caller of the plugin in this runner. A denial is the
result of the tool, an `error`, which the model reads; the run continues.

Refused, unless named in `unguarded`: tools at the model's provider (`google_search`), a code executor
(`code_executor`), and agents that run outside of this process (by their names). An agent that is used as a tool must
pass the plugins on. A generator is refused as a tool, because it runs after its call has returned.

With `suspends=True`, a call that a person must approve requests ADK's own tool confirmation, and the run ends. Then
continue in the same session, in another process if the answer takes long:

    message = await answered(events, asker)                                             # an `AsyncAgent`
    async for event in runner.run_async(user_id=.., session_id=.., new_message=message): ..

The call is decided again by the approval at the server; the confirmation in the session alone allows nothing.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, cast

from google.adk.agents import BaseAgent, LlmAgent, LoopAgent, ParallelAgent, SequentialAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.events.event import Event
from google.adk.flows.llm_flows.functions import REQUEST_CONFIRMATION_FUNCTION_CALL_NAME
from google.adk.models.llm_request import LlmRequest
from google.adk.plugins import BasePlugin
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.function_tool import FunctionTool
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from ostiary.agent import AsyncAgent
from ostiary.guard import Denied, Withheld, text_for_model
from ostiary.guard.closed import fail_closed
from ostiary.protocol.errors import Conflict, Refused, Unauthenticated, check_list
from ostiary.tools import Tools, fill_defaults

APPROVAL = "approval"
"""Key under which the payload of a confirmation contains the id of the approval."""
OURS = (LlmAgent, LoopAgent, ParallelAgent, SequentialAgent)
"""Kinds of agents whose tools run in this process, through a runner's plugins."""


class Guarded(BasePlugin):
    """A plugin that decides every tool call. `unguarded`: tools and agents that may run without a decision, by the
    names in the error that refuses them. `suspends`: true if a run ends when a person must be asked.
    """

    def __init__(self, tools: Tools, *, unguarded: Collection[str] = (), suspends: bool = False) -> None:
        super().__init__("ostiary")
        self.tools, self.suspends, self._unguarded = tools, suspends, frozenset(check_list("unguarded", unguarded))

    async def before_tool_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext
    ) -> dict[str, Any] | None:
        """Replace the class of a tool by a class that decides each call where the tool runs. Refuse tools that
        cannot be guarded.
        """
        function = getattr(tool, "func", None)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            why = f"`{tool.name}` is a generator, which would run after its call has returned"
            return _denial(Conflict(why, hint="return the values from a function without `yield`"))
        if isinstance(tool, AgentTool) and not tool.include_plugins:
            return _denial(Conflict(f"the agent behind `{tool.name}` is not guarded", hint="include_plugins=True"))
        if not isinstance(tool, _Decided):
            tool.__class__ = _decided(cast(Any, type(tool)))
        return None

    async def before_agent_callback(self, *, agent: BaseAgent, callback_context: CallbackContext) -> None:
        """Check the agent: raises Conflict for an agent or a code executor whose calls cannot be decided."""
        if not isinstance(agent, OURS):
            self._check_named({agent.name})
        if getattr(agent, "code_executor", None) is not None:
            self._check_named({"code_executor"})

    async def before_model_callback(self, *, callback_context: CallbackContext, llm_request: LlmRequest) -> None:
        """Check the tools of a model call: raises Conflict for tools that the model's provider would run undecided."""
        for tool in llm_request.config.tools or []:
            kinds = tool.model_dump(exclude_none=True).keys() if isinstance(tool, types.Tool) else {type(tool).__name__}
            self._check_named(kinds - {"function_declarations"})

    def _check_named(self, names: Collection[str]) -> None:
        if undecided := set(names) - self._unguarded:
            raise Conflict(
                f"{', '.join(sorted(undecided))} would run without a decision",
                hint="name these tools in `unguarded`, or remove the tools",
            )


class _Decided(BaseTool):
    """The first base class of the class of a guarded tool, whose calls are decided; the second base class is the tool's
    own class.
    """

    async def run_async(self, *, args: dict[str, Any], tool_context: ToolContext) -> Any:
        try:
            with fail_closed():
                by = _plugin(tool_context).tools
                running = await by.admit_async(
                    self.name, _with_defaults(self, args), functools.partial(_definition, self)
                )
        except Refused as refusal:
            if isinstance(refusal, Denied) and refusal.approval and _plugin(tool_context).suspends:
                _suspend(tool_context, refusal.approval, text_for_model(refusal))
            return _denial(refusal)
        try:
            with running:
                result = await super().run_async(args=args, tool_context=tool_context)
                is_ok = not (isinstance(result, Mapping) and result.get("error"))
                return await running.returned_async(result, ok=is_ok)
        except Withheld as refusal:
            return _denial(refusal)


@functools.cache
def _decided(kind: type[BaseTool]) -> type[_Decided]:
    return cast(type[_Decided], type(f"Guarded{kind.__name__}", (_Decided, kind), {}))


async def answered(events: Iterable[Event], by: AsyncAgent, *, within: float = 600) -> types.Content:
    """Wait until people have decided the approvals of these events, at most `within` seconds, and return the message
    with which the session continues. The message contains no other confirmations. The session repeats each call,
    approved or not; the model gets its result or its denial. Raises ServerRefused if the server refuses the question
    about an approval, Unavailable if the server does not answer.
    """
    waiting = dict(_waiting_approvals(events))
    await asyncio.gather(*(by.ask(approval, within=within) for approval in waiting.values()))
    parts = [
        types.Part(
            function_response=types.FunctionResponse(
                id=id, name=REQUEST_CONFIRMATION_FUNCTION_CALL_NAME, response={"confirmed": True}
            )
        )
        for id in waiting
    ]
    return types.Content(role="user", parts=parts)


def _waiting_approvals(events: Iterable[Event]) -> Iterator[tuple[str, str]]:
    """Yield the confirmations that wait for an approval: (id of the call, approval)."""
    for event in events:
        for call in event.get_function_calls():
            confirmation = (
                (call.args or {}).get("toolConfirmation")
                if call.name == REQUEST_CONFIRMATION_FUNCTION_CALL_NAME
                else None
            )
            payload = confirmation.get("payload") if isinstance(confirmation, Mapping) else None
            if call.id and isinstance(payload, Mapping) and APPROVAL in payload:
                yield call.id, str(payload[APPROVAL])


def _suspend(context: ToolContext, approval: str, reason: str) -> None:
    """Request a confirmation, with which ADK ends the run. A repeated call, which already has a confirmation, does not
    request another one.
    """
    if context.tool_confirmation is None:
        context.request_confirmation(hint=reason, payload={APPROVAL: approval})
        context.actions.skip_summarization = True


def _plugin(context: ToolContext) -> Guarded:
    """Return the plugin `Guarded` of the runner in which the tool runs now; several runners may use the tool. Raises
    Unauthenticated if the runner has no such plugin.
    """
    for plugin in context._invocation_context.plugin_manager.plugins:
        if isinstance(plugin, Guarded):
            return plugin
    raise Unauthenticated(
        "the caller is not known: the runner has no plugin `Guarded`", hint="plugins=[Guarded(tools)]"
    )


def _with_defaults(tool: BaseTool, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, with the defaults that the tool's function or declaration states for absent ones."""
    if isinstance(tool, FunctionTool):
        defaulted = [
            each for each in inspect.signature(tool.func).parameters.values() if each.default is not each.empty
        ]
        return {each.name: each.default for each in defaulted if each.name not in tool._ignore_params} | dict(args)
    declared = tool._get_declaration()
    schema = declared.parameters_json_schema if declared is not None else None
    return fill_defaults(args, schema if isinstance(schema, Mapping) else {})


def listed(tools: Iterable[BaseTool | Callable[..., Any]]) -> dict[str, Any]:
    """Return the definitions of the tools, or of functions as tools, in the form of MCP's `tools/list`."""
    return {"tools": [_definition(tool if isinstance(tool, BaseTool) else FunctionTool(tool)) for tool in tools]}


def _definition(tool: BaseTool) -> dict[str, Any]:
    declared = tool._get_declaration()
    if declared is None:
        return {"name": tool.name}
    declaration = declared.model_dump(mode="json", by_alias=True, exclude_none=True)
    schema = declaration.get("parametersJsonSchema", declaration.get("parameters"))
    listed = {"name": tool.name, "description": declared.description, "inputSchema": schema}
    return {member: value for member, value in listed.items() if value is not None}  # a function without parameters


def _denial(refusal: Refused) -> dict[str, Any]:
    return {"error": text_for_model(refusal)}
