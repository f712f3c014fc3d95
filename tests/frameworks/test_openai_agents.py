"""OpenAI Agents SDK: its own `ScriptedModel` plays the model."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agents import (
    Agent,
    FunctionTool,
    RunContextWrapper,
    Runner,
    RunState,
    ToolGuardrailFunctionOutput,
    WebSearchTool,
    function_tool,
    handoff,
    tool_input_guardrail,
)
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext

from harness.patience import eventually
from ostiary import AsyncAgent, Guard, Tools
from ostiary.adapters import openai_agents
from ostiary.adapters.openai_agents import answered, approval_of, guard
from ostiary.protocol.errors import Conflict, Invalid
from tests.frameworks.contract import *  # every test of the contract
from tests.frameworks.framework_fixture import Call, FrameworkFixture, Listed, program_of, quick_start
from tests.support.payment_fixtures import TOOLS, People


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")


def scripted(tool: str, arguments: dict[str, Any] | str) -> ScriptedModel:
    """A model that calls the tool, and then is done."""
    return ScriptedModel([[function_call(tool, arguments, call_id="call-1")], [assistant_message("done")]])


def told(model: ScriptedModel) -> str:
    """The output of its call for the model."""
    assert model.last_call is not None
    return str([item["output"] for item in model.last_call.input if item.get("type") == "function_call_output"][-1])


def tools_of(stage: FrameworkFixture) -> list[FunctionTool]:
    @function_tool
    def read_file(path: str, limit: int = 10) -> str:
        return stage.read_file(path, limit)

    @function_tool(strict_mode=False)
    async def write_file(path: str) -> str:
        return stage.write_file(path)

    return [read_file, write_file, function_tool(stage.delete_file), function_tool(stage.fail)]  # type: ignore[list-item]


def play(stage: FrameworkFixture, tool: str, arguments: dict[str, Any] | str) -> str:
    model = scripted(tool, arguments)
    Runner.run_sync(guard(Agent("writer", model=model, tools=[*tools_of(stage)]), stage.tools), "go")
    return told(model)


@pytest.fixture
def call() -> Call:
    return play


@pytest.fixture
def program(stage: FrameworkFixture) -> ModuleType:
    return program_of(tools=tools_of(stage))


@pytest.fixture
def listed() -> Listed:
    return lambda stage: openai_agents.listed(tools_of(stage))["tools"]


def test_arguments_with_a_duplicate_member_are_refused(stage: FrameworkFixture) -> None:
    assert "twice" in play(stage, "read_file", '{"path": "/etc/passwd", "path": "/srv/a"}')
    assert "twice" in play(stage, "read_file", '{"path": "/srv/a", "path": "/etc/passwd"}')
    assert "not a JSON object" in play(stage, "read_file", '["/srv/a"]')
    assert stage.ran == []


@pytest.mark.parametrize("hand", [lambda agent: agent, handoff])
def test_the_calls_of_an_agent_after_a_handoff_are_decided(stage: FrameworkFixture, hand: Any) -> None:
    model = scripted("write_file", {"path": "/srv/a"})
    billing = Agent("billing", model=model, tools=[*tools_of(stage)])
    turn = [function_call("transfer_to_billing", {}, call_id="call-0")]
    triage = guard(Agent("triage", model=ScriptedModel([turn]), handoffs=[hand(billing)]), stage.tools)
    Runner.run_sync(triage, "go")
    assert "denied" in told(model)
    assert stage.ran == []


@pytest.mark.parametrize("hand", [lambda agent: agent, handoff])
def test_an_agent_that_is_added_later_must_be_guarded(stage: FrameworkFixture, hand: Any) -> None:
    triage = guard(Agent("triage", model=ScriptedModel([[assistant_message("done")]] * 2)), stage.tools)
    later = Agent[None]("later")
    triage.handoffs.append(hand(later))
    with pytest.raises(Conflict, match="not guarded"):
        Runner.run_sync(triage, "go")
    triage.handoffs[:] = [guard(later, stage.tools)]
    assert Runner.run_sync(triage, "go").final_output == "done"


def test_an_agent_as_a_tool_must_be_guarded(stage: FrameworkFixture) -> None:
    inner = Agent("inner", model=scripted("write_file", {"path": "/srv/a"}), tools=[*tools_of(stage)])
    tool = inner.as_tool("ask_inner", "asks")
    outer = guard(Agent("outer", model=scripted("ask_inner", {"input": "go"}), tools=[tool]), stage.tools)
    with pytest.raises(Conflict, match="ask_inner"):
        Runner.run_sync(outer, "go")
    assert stage.ran == []


def test_a_clone_is_guarded(stage: FrameworkFixture) -> None:
    model = scripted("write_file", {"path": "/srv/a"})
    agent = guard(Agent("writer", model=model, tools=[*tools_of(stage)]), stage.tools).clone(name="twin")
    Runner.run_sync(agent, "go")
    assert "denied" in told(model)
    assert stage.ran == []


def test_a_provider_tool_is_refused_unless_listed_as_unguarded(stage: FrameworkFixture) -> None:
    def agent() -> Agent[Any]:
        return Agent("writer", model=ScriptedModel([[assistant_message("done")]]), tools=[WebSearchTool()])

    with pytest.raises(Conflict, match="web_search"):
        Runner.run_sync(guard(agent(), stage.tools), "go")
    with pytest.raises(Invalid, match="`unguarded` is one value instead of a list"):
        guard(agent(), stage.tools, unguarded="web_search")
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


async def test_tools_of_an_mcp_server_are_decided(stage: FrameworkFixture, tmp_path: Path) -> None:
    async with MCPServerStdio({"command": sys.executable, "args": ["-c", SERVER]}) as server:
        writing = scripted("write_file", {"path": str(tmp_path / "marker")})
        await Runner.run(guard(Agent("writer", model=writing, mcp_servers=[server]), stage.tools), "go")
        assert "denied" in told(writing)
        assert not (tmp_path / "marker").exists()
        reading = scripted("read_file", {"path": "/srv/a"})
        await Runner.run(guard(Agent("reader", model=reading, mcp_servers=[server]), stage.tools), "go")
        assert "text of /srv/a, 10" in told(reading)


async def test_the_whole_definition_of_an_mcp_tool_is_compared_with_the_approved_one(stage: FrameworkFixture) -> None:
    async with MCPServerStdio({"command": sys.executable, "args": ["-c", SERVER]}) as server:

        async def play() -> str:
            model = scripted("read_file", {"path": "/srv/a"})
            await Runner.run(guard(Agent("reader", model=model, mcp_servers=[server]), stage.tools), "go")
            return told(model)

        said = [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in await server.list_tools()]
        assert "outputSchema" in said[0], "the function that the SDK makes of it has none"
        others = [{"name": name} for name in ("fail",)]
        await asyncio.to_thread(stage.approve, said + others)
        assert "text of /srv/a, 10" in await play()
        await asyncio.to_thread(stage.approve, [tool | {"outputSchema": {"type": "object"}} for tool in said] + others)
        assert "the definition of `read_file` differs" in await play()


async def test_a_function_tool_built_by_hand_is_decided(stage: FrameworkFixture) -> None:
    async def invoke(context: Any, arguments: str) -> str:
        return stage.write_file(json.loads(arguments)["path"])

    model = scripted("write_file", {"path": "/srv/a"})
    tool = FunctionTool("write_file", "writes", {"type": "object", "properties": {}}, invoke, strict_json_schema=False)
    await Runner.run(guard(Agent("writer", model=model, tools=[tool]), stage.tools), "go")
    assert "denied" in told(model)
    assert stage.ran == []


async def test_the_calls_of_a_streamed_run_are_decided(stage: FrameworkFixture) -> None:
    model = scripted("write_file", {"path": "/srv/a"})
    agent = guard(Agent("writer", model=model, tools=[*tools_of(stage)]), stage.tools)
    async for _ in Runner.run_streamed(agent, "go").stream_events():
        pass
    assert "denied" in told(model)
    assert stage.ran == []


def test_an_agent_cannot_be_guarded_a_second_time_with_other_tools(stage: FrameworkFixture) -> None:
    agent = guard(Agent[None]("writer"), stage.tools)
    assert guard(agent, stage.tools) is agent
    with pytest.raises(Conflict, match="already"):
        guard(agent, Tools(stage.guard))


def test_the_quick_start_of_the_documentation_page_runs(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = scripted("read_file", {"path": "/srv/a"})
    quick_start(stage, monkeypatch, tmp_path)({"model": model, "read_file": tools_of(stage)[0]})
    assert told(model) == "text of /srv/a"


PAY = function_call("pay", {"amount": 500, "to": "ann"}, call_id="call-1")
SMALL = function_call("pay", {"amount": 5, "to": "bob"}, call_id="call-2")
DONE = [assistant_message("done")]


def payer(by: Tools, turns: list[Any], paid: list[str], **options: Any) -> Agent[Any]:
    """An agent of a program that has just begun; `paid` is what its tool did."""

    def pay(amount: int, to: str) -> str:
        paid.append(to)
        return f"paid {to}"

    tool = function_tool(pay, **options)
    return guard(Agent("payer", model=ScriptedModel(turns), tools=[tool]), by, suspends=True)


async def kept(state: RunState[Any, Any], agent: Agent[Any]) -> RunState[Any, Any]:
    """As another program has it, later."""
    return await RunState.from_json(agent, json.loads(json.dumps(state.to_json())))


@pytest.mark.parametrize(
    ("says", "ran", "heard"), [("approve", ["ann"], "paid ann"), ("deny", [], "a person denied the approval request")]
)
async def test_a_run_is_interrupted_until_the_approval_request_is_answered(
    people: People, tmp_path: Path, says: str, ran: list[str], heard: str
) -> None:
    """A call that needs no approval runs in the same turn, once."""
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as doorkeeper:
            by, paid = Tools(doorkeeper, asker), list[str]()
            result = await Runner.run(payer(by, [[PAY, SMALL]], paid), "go")
            [item] = result.interruptions
            assert (item.call_id, paid) == ("call-1", ["bob"])
            agent = payer(by, [DONE], paid)
            state = await kept(result.to_state(), agent)
            people.answer(people.person(), approval_of(state, state.get_interruptions()[0]) or "", says)
            await answered(state, asker, within=5)
            assert (await Runner.run(agent, state)).final_output == "done"
            assert (heard in told(agent.model), paid) == (True, ["bob", *ran])
        people.called(3)


async def test_an_approval_in_the_run_state_alone_passes_no_call(people: People, tmp_path: Path) -> None:
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as doorkeeper:
            paid = list[str]()
            agent = payer(Tools(doorkeeper, asker), [[PAY], DONE], paid)
            state = (await Runner.run(agent, "go")).to_state()
            await answered(state, asker, within=0)  # nobody has answered yet
            assert (await Runner.run(agent, state)).interruptions == []
            assert ("a person is asked" in told(agent.model), paid) == (True, [])


async def test_interruptions_for_approval_by_the_program_are_left_to_the_program(
    people: People, tmp_path: Path
) -> None:
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as doorkeeper:
            paid = list[str]()
            agent = payer(Tools(doorkeeper, asker), [[SMALL], DONE], paid, needs_approval=True)
            state = (await Runner.run(agent, "go")).to_state()
            await answered(state, asker, within=0)
            result = await Runner.run(agent, state)
            assert ([item.call_id for item in result.interruptions], paid) == (["call-2"], [])
            state = result.to_state()
            state.approve(result.interruptions[0])
            await Runner.run(agent, state)
            assert paid == ["bob"]


async def test_an_approval_request_of_an_agent_tool_interrupts_the_run_of_its_caller(
    people: People, tmp_path: Path
) -> None:
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        tools = [*TOOLS, {"name": "pay_out", "effect": "write"}]
        body = {"catalogue": {"resource": people.resource, "tools": tools}}
        people.live_server.api("PUT", f"/resources/{people.resource}/catalogue", body)
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as doorkeeper:
            paid, by = list[str](), Tools(doorkeeper, asker)

            def program() -> Agent[Any]:
                inner = payer(by, [[PAY], DONE] if not started else [DONE], paid).as_tool("pay_out", "pays")
                turns = [[function_call("pay_out", {"input": "go"}, call_id="call-0")], DONE]
                return guard(Agent("outer", model=ScriptedModel(turns[started:]), tools=[inner]), by, suspends=True)

            started = 0
            result = await Runner.run(program(), "go")
            started = 1
            agent = program()
            state = await kept(result.to_state(), agent)
            people.answer(people.person(), approval_of(state, state.get_interruptions()[0]) or "")
            await answered(state, asker, within=5)
            await Runner.run(agent, state)
            assert paid == ["ann"]


def interrupting(stage: FrameworkFixture, *turns: Any) -> tuple[Agent[Any], ScriptedModel]:
    model = ScriptedModel([*turns, DONE])
    return guard(Agent("writer", model=model, tools=[*tools_of(stage)]), stage.tools, suspends=True), model


def test_arguments_with_a_duplicate_member_are_refused_in_an_interruptible_run(stage: FrameworkFixture) -> None:
    twice = '{"path": "/etc/passwd", "path": "/srv/a"}'
    agent, model = interrupting(stage, [function_call("read_file", twice, call_id="call-1")])
    Runner.run_sync(agent, "go")
    assert ("twice" in told(model), stage.ran) == (True, [])
    assert eventually(lambda: stage.recorded() == (["allow"], ["error"])), "it was decided on what the SDK read"


async def test_a_second_call_with_the_same_id_and_other_arguments_is_refused(stage: FrameworkFixture) -> None:
    """The SDK lets no model do that; here its two steps are taken by hand."""
    agent, _ = interrupting(stage)
    run, other = RunContextWrapper(None), '{"path": "/etc/passwd"}'
    tool: Any = next(tool for tool in await agent.get_all_tools(run) if tool.name == "read_file")
    assert not await tool.needs_approval(run, {"path": "/srv/a"}, "call-1")
    context = ToolContext(None, tool_name="read_file", tool_call_id="call-1", tool_arguments=other)
    assert "the arguments of the call differ from the decided arguments" in await tool.on_invoke_tool(context, other)
    assert stage.ran == []


def test_a_call_with_converted_arguments_is_not_interrupted(
    stage: FrameworkFixture,
) -> None:
    agent, model = interrupting(stage, [function_call("read_file", {"path": "/srv/a", "limit": 5.0}, call_id="call-1")])
    assert Runner.run_sync(agent, "go").interruptions == []
    assert (told(model), stage.ran) == ("text of /srv/a", [("read_file", ("/srv/a", 5))])


def test_a_tool_without_arguments_is_never_interrupted(stage: FrameworkFixture) -> None:
    agent, _ = interrupting(stage, [function_call("fail", "", call_id="call-1")])
    assert Runner.run_sync(agent, "go").interruptions == []
    assert stage.ran == [("fail", ())]


def test_a_call_that_an_input_guardrail_rejects_is_not_decided(stage: FrameworkFixture) -> None:
    @tool_input_guardrail
    def turns_down(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("not today")

    agent, model = interrupting(stage, [function_call("read_file", {"path": "/srv/a"}, call_id="call-1")])
    agent.tools[0].tool_input_guardrails = [turns_down]  # type: ignore[union-attr]
    Runner.run_sync(agent, "go")
    assert (told(model), stage.ran) == ("not today", [])
    stage.guard.close()
    assert stage.recorded() == ([], [])
