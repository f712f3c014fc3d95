"""Claude Agent SDK: every tool call of a session is decided, including built-in tools, MCP tools and sub-agents.

    options = guarded(ClaudeAgentOptions(..), tools, names={"mcp__files__read_file": "read_file"})
    async for message in query(prompt="..", options=options): ...

The tools run in the Claude Code program that the SDK starts. The program calls the hooks of this module before each
tool (`PreToolUse`) and with its outcome (`PostToolUse`). The SDK's callback `can_use_tool` is not sufficient, because
allow rules and modes skip it. By default the program continues if a hook fails; therefore the hooks of this module are
set to block (`on_failure`), and the SDK refuses a program version that does not support this. The decision is made on
the model's arguments, with the defaults in the catalogue.

Other hooks run beside the hooks of this module, and `can_use_tool` runs after them: if one of them changes arguments,
the call is decided again. Settings files and plugins can have hooks that the SDK does not see. Therefore settings
files are not loaded by default, and options with a settings file or a plugin are refused unless `unguarded` names it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

from claude_agent_sdk import (
    CanUseTool,
    ClaudeAgentOptions,
    HookCallback,
    HookMatcher,
    PermissionResultAllow,
    PermissionResultDeny,
    SdkMcpTool,
    _build_input_schema,
)

from ostiary.guard import text_for_model
from ostiary.guard.closed import fail_closed
from ostiary.protocol.errors import Conflict, Refused, check_list
from ostiary.tools import Running, Tools, fill_defaults

LIMIT_S = 30
"""Maximum time for a decision in seconds, without the wait for a person; after this time the call is denied."""
GIVE_UP_S = 24 * 3600
"""Time in seconds after which the program stops waiting for the hooks of this module. This time is much longer than any
wait in these hooks.
"""
MAX_RUNNING = 1000
"""Maximum number of calls whose outcome is awaited; if there are more, the outcome of the oldest is not recorded."""
log = logging.getLogger("ostiary.tools")


def listed(tools: Iterable[SdkMcpTool[Any]]) -> dict[str, Any]:
    """Return the definitions of the tools that the program made with the SDK, in the form of MCP's `tools/list`."""
    return {
        "tools": [
            {"name": tool.name, "description": tool.description, "inputSchema": _build_input_schema(tool)}
            for tool in tools
        ]
    }


def guarded(
    options: ClaudeAgentOptions,
    tools: Tools,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    unguarded: Collection[str] = (),
) -> ClaudeAgentOptions:
    """Return the options of a session whose tool calls are decided. Raises Conflict for options with hooks that could
    change arguments after the decision.

    `names`: the name of a tool in the catalogue, by its name in the session (`Bash`, `mcp__server__tool`), if the two
    differ. `unguarded`: tools that run without a decision, by the session's name; and settings files and plugins whose
    hooks are accepted without a check, such as `settings:project` and `plugin:PATH`.
    """
    passing = frozenset(check_list("unguarded", unguarded))
    sources = list(options.setting_sources or ())  # None means all sources of settings
    unseen = [f"settings:{source}" for source in sources] + [f"plugin:{plugin['path']}" for plugin in options.plugins]
    if undecided := [source for source in unseen if source not in passing]:
        which = ", ".join(undecided)
        raise Conflict(
            f"hooks of {which} could change arguments after the decision",
            hint="leave these sources out of the options, or name them in `unguarded`",
        )
    by = _Guard(tools, names, passing)
    hooks: dict[Any, list[HookMatcher]] = dict(options.hooks or {})
    for event in ("PreToolUse", "PermissionRequest"):
        hooks[event] = [replace(matcher, hooks=list(map(by.again, matcher.hooks))) for matcher in hooks.get(event, ())]
    for event, hook in (("PreToolUse", by.before), ("PostToolUse", by.after), ("PostToolUseFailure", by.failed)):
        ours = HookMatcher(hooks=[cast(HookCallback, hook)], timeout=GIVE_UP_S, on_failure="block")
        hooks[event] = [ours, *hooks.get(event, ())]
    ask = None if options.can_use_tool is None else by.asking(options.can_use_tool)
    # If the prompt is not verbatim, the program reads files that the prompt names, without a tool call.
    return replace(options, hooks=hooks, can_use_tool=ask, setting_sources=sources, verbatim_prompts=True)


class _Guard:
    def __init__(self, tools: Tools, names: Mapping[str, str], unguarded: frozenset[str]) -> None:
        self._tools, self._names, self._unguarded = tools, names, unguarded
        self._running: dict[str, Running] = {}

    async def before(self, event: dict[str, Any], call: str | None, _: object) -> dict[str, Any]:
        refusal = await self._refusal(event["tool_name"], event["tool_input"], call)
        return {} if refusal is None else _denied("PreToolUse", refusal)

    async def after(self, event: dict[str, Any], call: str | None, _: object) -> dict[str, Any]:
        response = event.get("tool_response")
        return await self._end(call, response, ok=not (isinstance(response, dict) and response.get("isError")))

    async def failed(self, event: dict[str, Any], call: str | None, _: object) -> dict[str, Any]:
        return await self._end(call, event.get("error"), ok=False)

    def again(self, hook: HookCallback) -> HookCallback:
        """Return a hook that runs another party's hook and checks its result: changed arguments are decided
        again, and a deferred call is denied, since it would run later without a decision.
        """

        async def decided(event: Any, call: str | None, context: Any) -> Any:
            answer = await hook(event, call, context)
            inner: Any = answer.get("hookSpecificOutput") or {}
            if inner.get("permissionDecision") == "defer":
                return _denied(event["hook_event_name"], "denied: a deferred call would run later without a decision")
            changed = inner.get("updatedInput", (inner.get("decision") or {}).get("updatedInput"))
            refusal = None if changed is None else await self._refusal(event["tool_name"], changed, call)
            return answer if refusal is None else _denied(event["hook_event_name"], refusal)

        return decided

    def asking(self, ask: CanUseTool) -> CanUseTool:
        async def decided(name: str, arguments: dict[str, Any], context: Any) -> Any:
            answer = await ask(name, arguments, context)
            if isinstance(answer, PermissionResultAllow) and answer.updated_input not in (None, arguments):
                refusal = await self._refusal(name, answer.updated_input, context.tool_use_id)
                return answer if refusal is None else PermissionResultDeny(message=refusal)
            return answer

        return decided

    async def _refusal(self, name: str, arguments: Any, call: str | None) -> str | None:
        """Decide a call. Return the reason of a denial; or None if the call may run, and wait for its outcome."""
        if name in self._unguarded:
            return None
        try:
            with fail_closed():
                tool = self._names.get(name, name)
                ready = self._tools.guard.feed.current().facts.resource.tools.get(tool)
                whole = fill_defaults(arguments, ready.tool.arguments if ready is not None else {})
                async with asyncio.timeout(LIMIT_S + self._tools.wait):
                    running = await self._tools.admit_async(tool, whole)
        except Refused as refusal:
            return text_for_model(refusal)
        self._running[call or ""] = running
        if len(self._running) > MAX_RUNNING:
            log.warning("the outcome of a call is not recorded: too many are awaited")
            del self._running[next(iter(self._running))]
        return None

    async def _end(self, call: str | None, result: object, *, ok: bool) -> dict[str, Any]:
        if (running := self._running.pop(call or "", None)) is not None:
            with running:
                await running.returned_async(result, ok=ok, is_out=True)
        return {}


def _denied(event: str, why: str) -> dict[str, Any]:
    """Return the output of a hook that denies a call, in the form of its event."""
    if event == "PermissionRequest":
        return {"hookSpecificOutput": {"hookEventName": event, "decision": {"behavior": "deny", "message": why}}}
    decision = {"permissionDecision": "deny", "permissionDecisionReason": why}
    return {"hookSpecificOutput": {"hookEventName": event, **decision}}
