"""The command line of the Claude Agent SDK, as a script: it speaks the control protocol to the real SDK.

What it does with the answers of hooks is what the SDK's `HookMatcher` and `ClaudeAgentOptions` say of them: hooks of an
event run at the same time, a denial outweighs all else, a hook that fails (an error, a decision that there is none, no
answer in time) blocks where its matcher says `onFailure: block` and else says nothing, and allow rules come before
`can_use_tool`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, Transport

CallTool = Callable[[dict[str, Any]], str]


class ScriptedCli(Transport):
    """Calls one tool, and is done; `told` is what the model hears of it. Whoever is old knows no `onFailure`."""

    def __init__(
        self,
        options: ClaudeAgentOptions,
        tool: str,
        arguments: dict[str, Any],
        *,
        own: dict[str, CallTool] | None = None,
        is_old: bool = False,
        agent_id: str | None = None,
    ) -> None:
        self.told, self.hooks = "", dict[str, Any]()
        self._options, self._tool, self._arguments = options, tool, arguments
        self._own, self._is_old, self._agent_id = own or {}, is_old, agent_id
        self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._numbers, self._played = count(), list[asyncio.Task[None]]()

    async def connect(self) -> None: ...

    async def write(self, data: str) -> None:
        for line in data.splitlines():
            message = json.loads(line)
            if message["type"] == "control_request":
                assert message["request"]["subtype"] == "initialize"
                self.hooks = message["request"]["hooks"] or {}
                answer = {} if self._is_old else {"hook_on_failure_supported": True}
                response = {"subtype": "success", "request_id": message["request_id"], "response": answer}
                self._out.put_nowait({"type": "control_response", "response": response})
            elif message["type"] == "control_response":
                self._waiting[message["response"]["request_id"]].set_result(message["response"])
            else:
                self._played.append(asyncio.create_task(self._play()))

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        while (message := await self._out.get()) is not None:
            yield message

    async def end_input(self) -> None: ...

    async def close(self) -> None:
        for task in self._played:
            task.cancel()

    def is_ready(self) -> bool:
        return True

    async def _play(self) -> None:
        try:
            self.told = await self._call()
        except Exception as error:  # noqa: BLE001 because a test asserts on what is told
            self.told = f"the script failed: {error!r}"
        self._out.put_nowait(
            {
                "type": "result",
                "subtype": "success",
                "duration_ms": 1,
                "duration_api_ms": 1,
                "is_error": False,
                "num_turns": 1,
                "session_id": "s",
                "result": self.told,
            }
        )
        self._out.put_nowait(None)

    async def _call(self) -> str:
        """A call of a tool, from the hooks before it to the hooks after it."""
        arguments = self._arguments
        answers = await self._ask("PreToolUse", arguments)
        for _, answer in answers:
            arguments = answer.get("updatedInput", arguments)
        if denied := [why for is_denied, why in map(_verdict, answers) if is_denied]:
            return f"blocked: {denied[0]}"
        if self._tool not in self._options.allowed_tools and self._options.permission_mode != "bypassPermissions":
            for _, answer in await self._ask("PermissionRequest", arguments):
                decision = answer.get("decision", {})
                arguments = decision.get("updatedInput", arguments)
                if decision.get("behavior") == "deny":
                    return f"blocked: {decision['message']}"
            if self._options.can_use_tool is not None:
                asked = {"tool_name": self._tool, "input": arguments, "tool_use_id": "call-1"}
                allowed = (await self._request({"subtype": "can_use_tool", **asked}))["response"]
                if allowed["behavior"] == "deny":
                    return f"blocked: {allowed['message']}"
                arguments = allowed["updatedInput"]
        result, is_error = await self._run(arguments)
        if is_error:
            await self._ask("PostToolUseFailure", arguments, error=result)
        else:
            await self._ask("PostToolUse", arguments, tool_response={"content": [{"type": "text", "text": result}]})
        return result

    async def _run(self, arguments: dict[str, Any]) -> tuple[str, bool]:
        """A tool of the command line, or of a server in the SDK's process."""
        if self._tool in self._own:
            try:
                return self._own[self._tool](arguments), False
            except Exception as error:  # noqa: BLE001 because the model hears how a tool failed
                return str(error), True
        _, server, tool = self._tool.split("__")
        start = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "script", "version": "1"}}
        await self._speak(server, "initialize", start)
        await self._speak(server, "notifications/initialized", {}, is_request=False)
        result = (await self._speak(server, "tools/call", {"name": tool, "arguments": arguments}))["result"]
        return result["content"][0]["text"], result.get("isError", False)

    async def _speak(self, server: str, method: str, params: dict[str, Any], *, is_request: bool = True) -> Any:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if is_request:
            message["id"] = next(self._numbers)
        said = await self._request({"subtype": "mcp_message", "server_name": server, "message": message})
        return said["response"]["mcp_response"]

    async def _ask(self, event: str, arguments: dict[str, Any], **more: Any) -> list[tuple[str | None, dict[str, Any]]]:
        """The answers of all hooks of an event: what went wrong, if that blocks; and what they say of this event."""
        heard = {
            "session_id": "s",
            "transcript_path": "",
            "cwd": "/",
            "hook_event_name": event,
            "tool_use_id": "call-1",
            "tool_name": self._tool,
            "tool_input": arguments,
            **more,
        }
        if self._agent_id is not None:
            heard |= {"agent_id": self._agent_id, "agent_type": "general-purpose"}
        asked: list[Awaitable[tuple[str | None, dict[str, Any]]]] = [
            self._ask_one(matcher, callback, heard)
            for matcher in self.hooks.get(event, ())
            if matcher["matcher"] in (None, self._tool)
            for callback in matcher["hookCallbackIds"]
        ]
        return list(await asyncio.gather(*asked))

    async def _ask_one(
        self, matcher: dict[str, Any], callback: str, heard: dict[str, Any]
    ) -> tuple[str | None, dict[str, Any]]:
        blocks = not self._is_old and matcher.get("onFailure", "continue") != "continue"
        asked = {"subtype": "hook_callback", "callback_id": callback, "input": heard, "tool_use_id": "call-1"}
        try:
            async with asyncio.timeout(matcher.get("timeout", 60)):
                said = await self._request(asked)
        except TimeoutError:
            return ("the hook gave no answer" if blocks else None), {}
        if said["subtype"] == "error":
            return (f"the hook failed: {said['error']}" if blocks else None), {}
        answer = said["response"].get("hookSpecificOutput", {})
        if answer.get("permissionDecision", "ask") not in ("allow", "deny", "ask", "defer"):
            return ("the hook said nonsense" if blocks else None), {}
        return None, answer

    async def _request(self, request: dict[str, Any]) -> Any:
        request_id = f"cli-{next(self._numbers)}"
        self._waiting[request_id] = asyncio.get_running_loop().create_future()
        self._out.put_nowait({"type": "control_request", "request_id": request_id, "request": request})
        return await self._waiting[request_id]


def _verdict(heard: tuple[str | None, dict[str, Any]]) -> tuple[bool, str]:
    failure, answer = heard
    if failure is not None:
        return True, failure
    return answer.get("permissionDecision") == "deny", answer.get("permissionDecisionReason", "")
