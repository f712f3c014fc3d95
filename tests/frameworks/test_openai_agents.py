"""OpenAI Agents SDK: its own `ScriptedModel` plays the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, FunctionTool, Runner, WebSearchTool, function_tool, handoff
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, assistant_message, function_call

from ostiary import Tools
from ostiary.adapters.openai_agents import guard
from ostiary.core.errors import Conflict
from tests.frameworks.contract import (
    test_a_dead_control_plane_denies,
    test_a_default_is_decided_on_and_is_what_the_tool_gets,
    test_a_scope_that_the_task_does_not_have_is_denied,
    test_a_tool_that_fails_is_on_record_as_failed,
    test_a_tool_that_the_catalogue_does_not_have_is_denied,
    test_an_allowed_call_runs_and_is_in_the_ledger,
    test_an_argument_outside_of_the_bounds_is_denied_and_the_model_is_told_why,
    test_an_error_of_the_adapter_runs_nothing,
    test_an_error_of_the_guard_denies,
    test_nobody_acts_where_nobody_said_who,
    test_the_schema_of_the_catalogue_bounds_an_argument,
    test_what_is_more_than_a_call_may_return_does_not_reach_the_model,
)
from tests.frameworks.stage import Call, Stage, quick_start


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")


def scripted(tool: str, arguments: dict[str, Any] | str) -> ScriptedModel:
    """A model that calls the tool, and then is done."""
    return ScriptedModel([[function_call(tool, arguments, call_id="call-1")], [assistant_message("done")]])


def told(model: ScriptedModel) -> str:
    """What the model heard of its call."""
    assert model.last_call is not None
    return str([item["output"] for item in model.last_call.input if item.get("type") == "function_call_output"][-1])


def tools_of(stage: Stage) -> list[FunctionTool]:
    @function_tool
    def read_file(path: str, limit: int = 10) -> str:
        return stage.read_file(path, limit)

    @function_tool(strict_mode=False)
    async def write_file(path: str) -> str:
        return stage.write_file(path)

    return [read_file, write_file, function_tool(stage.delete_file), function_tool(stage.fail)]  # type: ignore[list-item]


def play(stage: Stage, tool: str, arguments: dict[str, Any] | str) -> str:
    model = scripted(tool, arguments)
    Runner.run_sync(guard(Agent("writer", model=model, tools=[*tools_of(stage)]), stage.tools), "go")
    return told(model)


@pytest.fixture
def call() -> Call:
    return play


def test_a_member_that_is_sent_twice_is_refused_since_the_tool_could_get_the_other(stage: Stage) -> None:
    assert "twice" in play(stage, "read_file", '{"path": "/etc/passwd", "path": "/srv/a"}')
    assert "twice" in play(stage, "read_file", '{"path": "/srv/a", "path": "/etc/passwd"}')
    assert "no JSON object" in play(stage, "read_file", '["/srv/a"]')
    assert stage.ran == []


@pytest.mark.parametrize("hand", [lambda agent: agent, handoff])
def test_the_agent_that_it_hands_off_to_is_decided_too(stage: Stage, hand: Any) -> None:
    model = scripted("write_file", {"path": "/srv/a"})
    billing = Agent("billing", model=model, tools=[*tools_of(stage)])
    turn = [function_call("transfer_to_billing", {}, call_id="call-0")]
    triage = guard(Agent("triage", model=ScriptedModel([turn]), handoffs=[hand(billing)]), stage.tools)
    Runner.run_sync(triage, "go")
    assert "denied" in told(model)
    assert stage.ran == []


@pytest.mark.parametrize("hand", [lambda agent: agent, handoff])
def test_an_agent_that_is_added_later_must_be_guarded(stage: Stage, hand: Any) -> None:
    triage = guard(Agent("triage", model=ScriptedModel([[assistant_message("done")]] * 2)), stage.tools)
    later = Agent[None]("later")
    triage.handoffs.append(hand(later))
    with pytest.raises(Conflict, match="not guarded"):
        Runner.run_sync(triage, "go")
    triage.handoffs[:] = [guard(later, stage.tools)]
    assert Runner.run_sync(triage, "go").final_output == "done"


def test_an_agent_as_a_tool_must_be_guarded(stage: Stage) -> None:
    inner = Agent("inner", model=scripted("write_file", {"path": "/srv/a"}), tools=[*tools_of(stage)])
    tool = inner.as_tool("ask_inner", "asks")
    outer = guard(Agent("outer", model=scripted("ask_inner", {"input": "go"}), tools=[tool]), stage.tools)
    with pytest.raises(Conflict, match="ask_inner"):
        Runner.run_sync(outer, "go")
    assert stage.ran == []


def test_a_clone_is_guarded(stage: Stage) -> None:
    model = scripted("write_file", {"path": "/srv/a"})
    agent = guard(Agent("writer", model=model, tools=[*tools_of(stage)]), stage.tools).clone(name="twin")
    Runner.run_sync(agent, "go")
    assert "denied" in told(model)
    assert stage.ran == []


def test_a_tool_that_runs_elsewhere_is_refused_unless_it_is_named(stage: Stage) -> None:
    def agent() -> Agent[Any]:
        return Agent("writer", model=ScriptedModel([[assistant_message("done")]]), tools=[WebSearchTool()])

    with pytest.raises(Conflict, match="web_search"):
        Runner.run_sync(guard(agent(), stage.tools), "go")
    named = guard(agent(), stage.tools, unguarded=["web_search"])
    assert Runner.run_sync(named, "go").final_output == "done"


SERVER = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("files")
@server.tool()
def write_file(path: str) -> str:
    open(path, "w").close()
    return "written"
@server.tool()
def read_file(path: str, limit: int = 10) -> str:
    return f"text of {path}, {limit}"
server.run("stdio")
"""


async def test_tools_of_an_mcp_server_are_decided(stage: Stage, tmp_path: Path) -> None:
    async with MCPServerStdio({"command": sys.executable, "args": ["-c", SERVER]}) as server:
        writing = scripted("write_file", {"path": str(tmp_path / "marker")})
        await Runner.run(guard(Agent("writer", model=writing, mcp_servers=[server]), stage.tools), "go")
        assert "denied" in told(writing)
        assert not (tmp_path / "marker").exists()
        reading = scripted("read_file", {"path": "/srv/a"})
        await Runner.run(guard(Agent("reader", model=reading, mcp_servers=[server]), stage.tools), "go")
        assert "text of /srv/a, 10" in told(reading)


async def test_a_tool_made_by_hand_is_decided(stage: Stage) -> None:
    async def invoke(context: Any, arguments: str) -> str:
        return stage.write_file(json.loads(arguments)["path"])

    model = scripted("write_file", {"path": "/srv/a"})
    tool = FunctionTool("write_file", "writes", {"type": "object", "properties": {}}, invoke, strict_json_schema=False)
    await Runner.run(guard(Agent("writer", model=model, tools=[tool]), stage.tools), "go")
    assert "denied" in told(model)
    assert stage.ran == []


async def test_a_stream_is_decided_too(stage: Stage) -> None:
    model = scripted("write_file", {"path": "/srv/a"})
    agent = guard(Agent("writer", model=model, tools=[*tools_of(stage)]), stage.tools)
    async for _ in Runner.run_streamed(agent, "go").stream_events():
        pass
    assert "denied" in told(model)
    assert stage.ran == []


def test_an_agent_is_guarded_once(stage: Stage) -> None:
    agent = guard(Agent[None]("writer"), stage.tools)
    assert guard(agent, stage.tools) is agent
    with pytest.raises(Conflict, match="already"):
        guard(agent, Tools(stage.guard))


def test_the_quick_start_of_the_page(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = scripted("read_file", {"path": "/srv/a"})
    quick_start(stage, monkeypatch, tmp_path)({"model": model, "read_file": tools_of(stage)[0]})
    assert told(model) == "text of /srv/a"
