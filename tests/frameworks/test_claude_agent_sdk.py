"""Claude Agent SDK: the real SDK, and a script that plays the command line which it would start."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    CLIConnectionError,
    HookMatcher,
    PermissionResultAllow,
    SdkMcpTool,
    create_sdk_mcp_server,
    query,
    tool,
)

from harness.patience import PATIENCE_S, eventually
from ostiary import Tools
from ostiary.adapters import claude_agent_sdk as adapter
from ostiary.adapters.claude_agent_sdk import guarded
from ostiary.protocol.errors import Conflict, Invalid
from tests.frameworks.claude_cli import ScriptedCli
from tests.frameworks.contract import *  # every test of the contract
from tests.frameworks.framework_fixture import Call, FrameworkFixture, Listed, program_of, quick_start

NAMES = {f"mcp__files__{name}": name for name in ("read_file", "write_file", "delete_file", "fail")}
BUILT_IN = {"Read": "read_file", "Write": "write_file"}


def tools_of(stage: FrameworkFixture) -> list[SdkMcpTool[Any]]:
    path = {"path": {"type": "string"}}
    limit = {"limit": {"type": "integer", "default": 10}}

    def said(text: str) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": text}]}

    @tool("read_file", "Read.", {"type": "object", "properties": path | limit})
    async def read_file(arguments: Any) -> Any:
        return said(stage.read_file(arguments["path"], arguments.get("limit", 10)))

    @tool("write_file", "Write.", {"path": str})
    async def write_file(arguments: Any) -> Any:
        return said(stage.write_file(arguments["path"]))

    @tool("delete_file", "Delete.", {"path": str})
    async def delete_file(arguments: Any) -> Any:
        return said(stage.delete_file(arguments["path"]))

    @tool("fail", "Fail.", {})
    async def fail(arguments: Any) -> Any:
        return said(stage.fail())

    return [read_file, write_file, delete_file, fail]


def server_of(stage: FrameworkFixture) -> Any:
    """An MCP server in the process of the SDK."""
    return create_sdk_mcp_server("files", tools=tools_of(stage))


def built_in(stage: FrameworkFixture) -> dict[str, Any]:
    """Tools of the command line itself."""
    return {
        "Read": lambda arguments: stage.read_file(arguments["path"], arguments.get("limit", 10)),
        "Write": lambda arguments: stage.write_file(arguments["path"]),
    }


async def session(options: ClaudeAgentOptions, cli: ScriptedCli) -> str:
    """With the client, which is the other way into the SDK than `query`."""
    async with ClaudeSDKClient(options, transport=cli) as client:
        await client.query("go")
        async for _ in client.receive_response():
            pass
    return cli.told


async def one_query(options: ClaudeAgentOptions, cli: ScriptedCli) -> str:
    async for _ in query(prompt="go", options=options, transport=cli):
        pass
    return cli.told


@pytest.fixture(params=[one_query, session])
def call(request: pytest.FixtureRequest) -> Call:
    def play(stage: FrameworkFixture, name: str, arguments: dict[str, Any]) -> str:
        options = guarded(ClaudeAgentOptions(mcp_servers={"files": server_of(stage)}), stage.tools, names=NAMES)
        cli = ScriptedCli(options, f"mcp__files__{name}", arguments)
        asyncio.run(request.param(options, cli))
        return cli.told

    return play


@pytest.fixture
def program(stage: FrameworkFixture) -> ModuleType:
    return program_of(tools=tools_of(stage))


@pytest.fixture
def listed() -> Listed:
    return lambda stage: [{"name": name} for name in NAMES.values()]


def use(stage: FrameworkFixture, name: str, arguments: dict[str, Any], **how: Any) -> str:
    """Let the command line use a tool of its own. `how`: options, and what is said to `guarded` and to the script."""
    taken = {name: how.pop(name) for name in ("names", "unguarded") if name in how}
    fields = inspect.signature(ClaudeAgentOptions).parameters.keys() & how.keys()
    options = ClaudeAgentOptions(**{name: how.pop(name) for name in fields})
    options = guarded(options, stage.tools, **({"names": BUILT_IN} | taken))
    return asyncio.run(one_query(options, ScriptedCli(options, name, arguments, own=built_in(stage), **how)))


READ, OUTSIDE = {"path": "/srv/a", "limit": 5}, {"path": "/etc/passwd", "limit": 5}


@pytest.mark.parametrize(
    "rules", [{}, {"allowed_tools": ["Read", "Write"]}, {"permission_mode": "bypassPermissions"}, {"agent_id": "ag-1"}]
)
def test_a_built_in_tool_is_decided_under_every_permission_rule_and_in_sub_agents(
    stage: FrameworkFixture, rules: dict[str, Any]
) -> None:
    assert use(stage, "Read", READ, **rules) == "text of /srv/a"
    assert "denied: the argument `path`" in use(stage, "Read", OUTSIDE, **rules)
    assert "denied" in use(stage, "Write", {"path": "/srv/a"}, **rules)
    assert stage.ran == [("read_file", ("/srv/a", 5))]
    assert eventually(lambda: stage.recorded() == (["deny", "deny", "allow"], ["ok"]))


def test_a_tool_of_another_server_with_the_same_name_is_denied(stage: FrameworkFixture) -> None:
    own = {"mcp__other__read_file": built_in(stage)["Read"]}
    options = guarded(ClaudeAgentOptions(), stage.tools, names=NAMES)
    told = asyncio.run(one_query(options, ScriptedCli(options, "mcp__other__read_file", READ, own=own)))
    assert "denied: the catalogue" in told, "another server's tool of the same name is another tool"
    assert stage.ran == []


def test_a_tool_listed_as_unguarded_runs_without_a_decision(stage: FrameworkFixture) -> None:
    assert use(stage, "Write", {"path": "/srv/a"}, unguarded=["Write"]) == "written"
    assert "denied" in use(stage, "Read", OUTSIDE, unguarded=["Write"])


def test_an_allowed_call_may_still_be_denied_by_the_session(stage: FrameworkFixture) -> None:
    from claude_agent_sdk import PermissionResultDeny

    async def never(*_: Any) -> Any:
        return PermissionResultDeny(message="the person said no")

    assert use(stage, "Read", READ, can_use_tool=never) == "blocked: the person said no"
    assert stage.ran == []


def test_a_session_acts_for_the_agent_that_was_acting_when_it_connected(stage: FrameworkFixture) -> None:
    tools = Tools(stage.guard)
    options = guarded(ClaudeAgentOptions(), tools, names=BUILT_IN)

    async def used_elsewhere(connects: AbstractContextManager[None], uses: AbstractContextManager[None]) -> str:
        cli = ScriptedCli(options, "Read", READ, own=built_in(stage))
        client = ClaudeSDKClient(options, transport=cli)
        with connects:
            await client.connect()
        with uses:
            await client.query("go")
            async for _ in client.receive_response():
                pass
        await client.disconnect()
        return cli.told

    assert asyncio.run(used_elsewhere(tools.acting(stage.task), nullcontext())) == "text of /srv/a"
    assert "the caller is not known" in asyncio.run(used_elsewhere(nullcontext(), tools.acting(stage.task)))


# ------------------------------------------------------------------------------------------------ a hook that fails


def raises(*_: Any) -> Any:
    raise KeyError("nobody expected this")


@pytest.mark.parametrize(
    ("fault", "why"),
    [(raises, "the hook failed"), (lambda _: object(), "the hook failed"), (lambda _: {1, 2}, "the hook failed")],
)
def test_a_guard_hook_that_raises_or_returns_an_invalid_value_blocks_the_call(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any], why: str
) -> None:
    monkeypatch.setattr(adapter, "text_for_model", fault)
    assert why in use(stage, "Read", OUTSIDE)
    assert stage.ran == []


@pytest.mark.parametrize("nonsense", [None, [], "no", {"permissionDecision": "Deny"}])
def test_a_guard_hook_that_returns_an_answer_of_another_form_blocks_the_call(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, nonsense: Any
) -> None:
    answer = {"hookSpecificOutput": nonsense} if isinstance(nonsense, dict) else nonsense
    monkeypatch.setattr(adapter, "_denied", lambda *_: answer)
    assert "blocked: the hook" in use(stage, "Read", OUTSIDE)
    assert stage.ran == []


def test_a_decision_that_hangs_is_a_denial_after_the_time_limit(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    async def hangs(*_: Any) -> None:
        await asyncio.sleep(PATIENCE_S / 2)
        ended.append("admit_async")

    monkeypatch.setattr(Tools, "admit_async", hangs)
    monkeypatch.setattr(adapter, "LIMIT_S", 0.1)
    assert "denied: the guard failed" in use(stage, "Read", READ)
    assert (stage.ran, ended) == ([], [])


def test_a_call_waits_for_an_approval_beyond_the_time_limit_of_a_decision(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "LIMIT_S", 0)
    assert "denied: the guard failed" in use(stage, "Read", READ), "it takes as long as it takes to get a token"
    stage.tools = Tools(stage.guard, stage.task, wait=30)
    assert "text of" in use(stage, "Read", READ)


def test_a_hook_that_hangs_blocks_the_call_when_the_command_line_times_out(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(adapter._Guard, "_refusal", hangs)
    monkeypatch.setattr(adapter, "GIVE_UP_S", 0.1)
    assert "the hook gave no answer" in use(stage, "Read", READ)
    assert stage.ran == []


def test_the_hook_timeout_exceeds_the_decision_limit_and_fits_the_timer() -> None:
    assert adapter.LIMIT_S < adapter.GIVE_UP_S < (1 << 31) / 1000


@pytest.mark.parametrize("way", [one_query, session])
def test_a_command_line_that_continues_after_a_failed_hook_is_refused(stage: FrameworkFixture, way: Any) -> None:
    options = guarded(ClaudeAgentOptions(), stage.tools, names=BUILT_IN)
    cli = ScriptedCli(options, "Write", {"path": "/srv/a"}, own=built_in(stage), is_old=True)
    with pytest.raises(CLIConnectionError, match="on_failure"):
        asyncio.run(way(options, cli))
    assert stage.ran == []


# --------------------------------------------------------------------------------- what comes after the decision


async def changes(event: Any, *_: Any) -> Any:
    if event["hook_event_name"] == "PreToolUse":
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": OUTSIDE}}
    decision = {"behavior": "allow", "updatedInput": OUTSIDE}
    return {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}


@pytest.mark.parametrize("event", ["PreToolUse", "PermissionRequest"])
def test_arguments_that_another_hook_changes_are_decided_on_as_changed(stage: FrameworkFixture, event: Any) -> None:
    assert "denied: the argument `path`" in use(stage, "Read", READ, hooks={event: [HookMatcher(hooks=[changes])]})
    assert stage.ran == []


def test_arguments_that_another_hook_narrows_are_passed_to_the_tool(stage: FrameworkFixture) -> None:
    async def narrows(*_: Any) -> Any:
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": {"path": "/srv/a", "limit": 1}}}

    assert use(stage, "Read", READ, hooks={"PreToolUse": [HookMatcher(hooks=[narrows])]}) == "text of /srv/a"
    assert stage.ran == [("read_file", ("/srv/a", 1))]


@pytest.mark.parametrize(("changed", "is_allowed"), [(None, True), (READ, True), (OUTSIDE, False)])
def test_arguments_that_the_permission_callback_changes_are_decided_on_as_changed(
    stage: FrameworkFixture, changed: Any, is_allowed: bool
) -> None:
    async def allow(*_: Any) -> Any:
        return PermissionResultAllow(updated_input=changed)

    assert ("denied" not in use(stage, "Read", READ, can_use_tool=allow)) is is_allowed
    assert bool(stage.ran) is is_allowed


def test_a_call_that_another_hook_defers_is_refused(stage: FrameworkFixture) -> None:
    async def defers(*_: Any) -> Any:
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "defer"}}

    assert "deferred" in use(stage, "Read", READ, hooks={"PreToolUse": [HookMatcher(hooks=[defers])]})
    assert stage.ran == []


def test_settings_and_plugins_that_can_bring_hooks_are_refused_unless_named(stage: FrameworkFixture) -> None:
    options = guarded(ClaudeAgentOptions(), stage.tools)
    assert options.setting_sources == [], "None would load all of them"
    assert options.verbatim_prompts, "a path in a prompt is not read without a call"
    for unseen, name in (
        ({"setting_sources": ["project"]}, "settings:project"),
        ({"plugins": [{"type": "local", "path": "/p"}]}, "plugin:/p"),
    ):
        with pytest.raises(Conflict, match=name):
            guarded(ClaudeAgentOptions(**unseen), stage.tools)  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="`unguarded` is one value instead of a list"):
            guarded(ClaudeAgentOptions(**unseen), stage.tools, unguarded=name)  # type: ignore[arg-type]
        named = guarded(ClaudeAgentOptions(**unseen), stage.tools, unguarded=[name])  # type: ignore[arg-type]
        assert list(named.setting_sources or []) == list(unseen.get("setting_sources", []))


def test_at_most_the_maximum_number_of_running_calls_is_remembered(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "MAX_RUNNING", 2)
    by = adapter._Guard(stage.tools, BUILT_IN, frozenset())

    async def three() -> None:
        for name in ("one", "two", "three"):
            await by.before({"tool_name": "Read", "tool_input": READ}, name, None)

    asyncio.run(three())
    assert list(by._running) == ["two", "three"]


def test_the_quick_start_of_the_documentation_page_runs(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = query

    def scripted(*, prompt: str, options: ClaudeAgentOptions) -> Any:
        script = ScriptedCli(options, "mcp__files__read_file", {"path": "/srv/a"})
        return plain(prompt=prompt, options=options, transport=script)

    monkeypatch.setattr("claude_agent_sdk.query", scripted)
    quick_start(stage, monkeypatch, tmp_path)({"server": server_of(stage)})
    assert stage.ran == [("read_file", ("/srv/a", 10))]
