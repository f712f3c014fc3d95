"""Pydantic AI: its own `FunctionModel` plays the model."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from ostiary import AsyncAgent, Guard, Tools
from ostiary.adapters import pydantic_ai
from ostiary.adapters.pydantic_ai import Guarded, answered
from ostiary.protocol.errors import Conflict, Invalid
from tests.frameworks.contract import *  # every test of the contract
from tests.frameworks.framework_fixture import Call, FrameworkFixture, Listed, program_of, quick_start
from tests.support.payment_fixtures import People


def scripted(tool: str, arguments: dict[str, Any], told: list[str]) -> FunctionModel:
    """A model that calls the tool, and ends with what it was told."""

    def play(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1]
        results = [part for part in last.parts if part.part_kind == "tool-return"]
        if not results:
            return ModelResponse(parts=[ToolCallPart(tool, arguments)])
        told.extend(str(part.content) for part in results)
        return ModelResponse(parts=[TextPart("done")])

    return FunctionModel(play)


def agent_of(
    stage: FrameworkFixture, model: FunctionModel, *more: AbstractCapability[Any], **options: Any
) -> Agent[None, Any]:
    agent = Agent(model, capabilities=[Guarded(stage.tools), *more], **options)

    @agent.tool
    def read_file(ctx: RunContext[None], path: str, limit: int = 10) -> str:
        return stage.read_file(path, limit)

    agent.tool_plain(stage.write_file)
    agent.tool_plain(stage.delete_file)
    agent.tool_plain(stage.fail)
    return agent


def play(stage: FrameworkFixture, tool: str, arguments: dict[str, Any]) -> str:
    told: list[str] = []
    agent_of(stage, scripted(tool, arguments, told)).run_sync("go")
    return told[0]


@pytest.fixture
def call() -> Call:
    return play


@pytest.fixture
def program(stage: FrameworkFixture) -> ModuleType:
    return program_of(tools=agent_of(stage, scripted("", {}, [])))


@pytest.fixture
def listed() -> Listed:
    return lambda stage: pydantic_ai.listed(
        tool.tool_def for tool in agent_of(stage, scripted("", {}, []))._function_toolset.tools.values()
    )["tools"]


class Meddler(AbstractCapability[Any]):
    """Another capability that changes the arguments of calls."""

    async def before_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any]) -> dict[str, Any]:
        return {**args, "path": "/etc/passwd"}


def test_arguments_that_another_capability_changes_are_decided_on_as_changed(stage: FrameworkFixture) -> None:
    told: list[str] = []
    agent_of(stage, scripted("read_file", {"path": "/srv/a"}, told), Meddler()).run_sync("go")
    assert "denied: the argument `path`" in told[0]
    assert stage.ran == []


async def test_toolsets_that_a_run_adds_are_decided_too(stage: FrameworkFixture) -> None:
    from pydantic_ai.toolsets import FunctionToolset

    told: list[str] = []
    agent = Agent(scripted("write_file", {"path": "/srv/a"}, told), capabilities=[Guarded(stage.tools)])
    await agent.run("go", toolsets=[FunctionToolset([stage.write_file])])
    assert "denied" in told[0]
    assert stage.ran == []


def test_an_output_function_is_refused_unless_listed_as_unguarded(stage: FrameworkFixture) -> None:
    def deliver(text: str) -> str:
        stage.ran.append(("deliver", text))
        return text

    model = FunctionModel(lambda messages, info: ModelResponse(parts=[ToolCallPart("final_result", {"text": "x"})]))
    with pytest.raises(Conflict, match="deliver"):
        Agent(model, output_type=deliver, capabilities=[Guarded(stage.tools)]).run_sync("go")
    assert stage.ran == []
    named = Guarded(stage.tools, unguarded=frozenset({"deliver"}))
    assert Agent(model, output_type=deliver, capabilities=[named]).run_sync("go").output == "x"


def test_a_provider_tool_is_refused_unless_listed_as_unguarded(stage: FrameworkFixture) -> None:
    from pydantic_ai.capabilities import NativeTool
    from pydantic_ai.native_tools import WebSearchTool

    model = FunctionModel(
        lambda messages, info: ModelResponse(parts=[TextPart("done")]),
        profile={"supported_native_tools": frozenset({WebSearchTool})},
    )
    with pytest.raises(Conflict, match="web_search"):
        Agent(model, capabilities=[NativeTool(WebSearchTool()), Guarded(stage.tools)]).run_sync("go")
    with pytest.raises(Invalid, match="`unguarded` is one value instead of a list"):
        Guarded(stage.tools, unguarded="web_search")
    named = Guarded(stage.tools, unguarded=["web_search"])
    assert Agent(model, capabilities=[NativeTool(WebSearchTool()), named]).run_sync("go").output == "done"


def test_the_quick_start_of_the_documentation_page_runs(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    names: dict[str, Any] = {"model": scripted("read_file", {"path": "/srv/a"}, told), "read_file": reader(stage)}
    quick_start(stage, monkeypatch, tmp_path)(names)
    assert told == ["text of /srv/a"]


def payer(told: list[str]) -> FunctionModel:
    return scripted("pay", {"amount": 500, "to": "ann"}, told)


@pytest.mark.parametrize(
    ("says", "ran", "heard"), [("approve", 1, "paid ann"), ("deny", 0, "a person denied the approval request")]
)
async def test_a_run_is_suspended_until_the_approval_request_is_answered(
    people: People, tmp_path: Path, says: str, ran: int, heard: str
) -> None:
    """The messages go through JSON, as they do where the program ends in between."""
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard:
            told, paid = await suspended(people, guard, asker, says=says)
    assert (heard in told[0], paid) == (True, ["ann"] * ran)


async def suspended(people: People, guard: Guard, asker: AsyncAgent, *, says: str) -> tuple[list[str], list[str]]:
    """The answer for the model, and the payments."""
    paid, told = list[str](), list[str]()

    def agent() -> Agent[None, Any]:
        guarded = Guarded(Tools(guard, asker), suspends=True)
        return Agent(payer(told), tools=[paying(paid)], output_type=[str, DeferredToolRequests], capabilities=[guarded])

    run = await agent().run("Pay the rent")
    assert isinstance(run.output, DeferredToolRequests)
    assert paid == []
    kept = ModelMessagesTypeAdapter.dump_json(run.all_messages())
    [id] = {more["approval"] for more in run.output.metadata.values()}
    people.answer(people.person(), id, says)
    results = await answered(run.output, asker, within=5)
    history = ModelMessagesTypeAdapter.validate_json(kept)
    again = await agent().run(message_history=history, deferred_tool_results=results)
    after = await agent().run(message_history=history, deferred_tool_results=results)  # it passes no second time
    assert (again.output, after.output) == ("done", "done")
    return told, paid


async def test_an_approval_in_the_deferred_results_alone_passes_no_call(people: People, tmp_path: Path) -> None:
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard:
            guarded, paid = Guarded(Tools(guard, asker), suspends=True), list[str]()
            agent = Agent(
                payer([]), tools=[paying(paid)], output_type=[str, DeferredToolRequests], capabilities=[guarded]
            )
            run = await agent.run("Pay the rent")
            yes = DeferredToolResults(approvals={call.tool_call_id: True for call in run.output.approvals})
            again = await agent.run(message_history=run.all_messages(), deferred_tool_results=yes)
            assert isinstance(again.output, DeferredToolRequests)
            assert paid == []


async def test_requests_of_the_program_itself_are_not_answered(people: People) -> None:
    own = DeferredToolRequests(approvals=[ToolCallPart("pay", {"amount": 1, "to": "ann"}, "call-1")])
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        results = await answered(own, asker)
    assert results.approvals == {}


def paying(paid: list[str]) -> Any:
    def pay(amount: int, to: str) -> str:
        paid.append(to)
        return f"paid {to}"

    return pay


def reader(stage: FrameworkFixture) -> Any:
    def read_file(path: str, limit: int = 10) -> str:
        return stage.read_file(path, limit)

    return read_file
