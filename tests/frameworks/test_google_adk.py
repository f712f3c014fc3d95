"""Google ADK: a model of this file plays the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.adk.agents import BaseAgent, LlmAgent
from google.adk.apps import App
from google.adk.code_executors import UnsafeLocalCodeExecutor
from google.adk.flows.llm_flows.functions import REQUEST_CONFIRMATION_FUNCTION_CALL_NAME as CONFIRM
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.plugins import BasePlugin
from google.adk.runners import InMemoryRunner, Runner
from google.adk.sessions import InMemorySessionService
from google.adk.tools import AgentTool, FunctionTool, ToolContext, google_search
from google.adk.workflow import START, Workflow
from google.genai import types

from ostiary import AsyncAgent, Guard, Tools
from ostiary.adapters import google_adk
from ostiary.adapters.google_adk import Guarded, answered
from ostiary.protocol.errors import Invalid
from tests.frameworks.contract import *  # every test of the contract
from tests.frameworks.framework_fixture import Call, FrameworkFixture, Listed, judged, program_of, quick_start
from tests.support.payment_fixtures import People


class Scripted(BaseLlm):
    """A model that calls a tool, and then is done; `told` is what it heard of the call."""

    model: str = "gemini-scripted"
    tool: str
    arguments: dict[str, Any]
    told: list[str]

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        heard = [part.function_response for part in llm_request.contents[-1].parts or [] if part.function_response]
        self.told.extend(str((each.response or {}).get("error") or each.response) for each in heard)
        part = types.Part(text="done")
        if not heard:
            part = types.Part(function_call=types.FunctionCall(name=self.tool, args=dict(self.arguments)))
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def scripted(tool: str, arguments: dict[str, Any]) -> Scripted:
    return Scripted(tool=tool, arguments=arguments, told=[])


def tools_of(stage: FrameworkFixture) -> list[Any]:
    def read_file(path: str, limit: int = 10) -> str:
        return stage.read_file(path, limit)

    return [read_file, stage.write_file, stage.delete_file, stage.fail]


def agent_of(stage: FrameworkFixture, model: BaseLlm, **options: Any) -> LlmAgent:
    return LlmAgent(name="writer", model=model, **{"tools": tools_of(stage)} | options)


async def run(agent: BaseAgent, *plugins: BasePlugin) -> None:
    runner = InMemoryRunner(app=App(name="app", root_agent=agent, plugins=list(plugins)))
    await runner.run_debug("go", quiet=True)


def play(stage: FrameworkFixture, tool: str, arguments: dict[str, Any]) -> str:
    model = scripted(tool, arguments)
    asyncio.run(run(agent_of(stage, model), Guarded(stage.tools)))
    return model.told[0]


@pytest.fixture
def call() -> Call:
    return play


@pytest.fixture
def program(stage: FrameworkFixture) -> ModuleType:
    return program_of(tools=tools_of(stage), LlmAgent=LlmAgent)


@pytest.fixture
def listed() -> Listed:
    return lambda stage: google_adk.listed(map(FunctionTool, tools_of(stage)))["tools"]


class Meddler(BasePlugin):
    """Another plugin that changes the arguments of calls."""

    async def before_tool_callback(self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any) -> None:
        tool_args["path"] = "/etc/passwd"


def meddle(tool: Any, args: dict[str, Any], tool_context: Any) -> None:
    args["path"] = "/etc/passwd"


async def test_arguments_that_other_callbacks_change_are_decided_on_as_changed(stage: FrameworkFixture) -> None:
    for plugins, options in (
        ([Meddler("meddler"), Guarded(stage.tools)], {}),
        ([Guarded(stage.tools), Meddler("meddler")], {}),
        ([Guarded(stage.tools)], {"before_tool_callback": meddle}),
    ):
        model = scripted("read_file", {"path": "/srv/a"})
        await run(agent_of(stage, model, **options), *plugins)
        assert "denied: the argument `path`" in model.told[0]
    assert stage.ran == []


async def test_the_calls_of_every_agent_of_the_runner_are_decided(stage: FrameworkFixture) -> None:
    inner = scripted("write_file", {"path": "/srv/a"})
    below = LlmAgent(name="below", model=inner, tools=tools_of(stage), description="writes")
    tool = AgentTool(below)
    tool.name = "fail"  # one that the catalogue has
    outer = scripted("fail", {"request": "go"})
    await run(agent_of(stage, outer, tools=[tool]), Guarded(stage.tools))
    assert "denied" in inner.told[0]
    handing = scripted("transfer_to_agent", {"agent_name": "below"})
    await run(agent_of(stage, handing, tools=[], sub_agents=[below]), Guarded(stage.tools))
    assert "the catalogue" in handing.told[0], "transferring is a tool like others"
    assert stage.ran == []


async def test_an_agent_used_as_a_tool_without_the_plugins_is_refused(stage: FrameworkFixture) -> None:
    inner = LlmAgent(name="fail", model=scripted("write_file", {"path": "/srv/a"}), tools=tools_of(stage))
    outer = scripted("fail", {"request": "go"})
    await run(agent_of(stage, outer, tools=[AgentTool(inner, include_plugins=False)]), Guarded(stage.tools))
    assert "is not guarded" in outer.told[0]
    assert stage.ran == []


async def test_a_tool_is_decided_for_the_agent_of_its_runner(stage: FrameworkFixture) -> None:
    shared = FunctionTool(stage.write_file)
    nobodys = Tools(stage.guard)
    for plugins, said in (
        ([Guarded(stage.tools)], f"{stage.resource}:write"),
        ([Guarded(nobodys)], "the caller is not known"),
        ([], "the runner has no plugin"),
    ):
        model = scripted("write_file", {"path": "/srv/a"})
        await run(agent_of(stage, model, tools=[shared]), *plugins)
        assert said in model.told[0]
    assert stage.ran == []


async def test_a_generator_function_is_refused_as_a_tool(stage: FrameworkFixture) -> None:
    async def read_file(path: str, limit: int = 1) -> AsyncGenerator[str, None]:
        yield stage.read_file(path, limit)

    model = scripted("read_file", {"path": "/srv/a"})
    await run(agent_of(stage, model, tools=[read_file]), Guarded(stage.tools))
    assert "is a generator" in model.told[0]
    assert stage.ran == []


async def test_a_call_that_a_person_confirmed_in_the_framework_is_still_decided(stage: FrameworkFixture) -> None:
    tool = FunctionTool(stage.write_file, require_confirmation=True)
    runner = InMemoryRunner(
        app=App(
            name="app",
            root_agent=agent_of(stage, scripted("write_file", {"path": "/srv/a"}), tools=[tool]),
            plugins=[Guarded(stage.tools)],
        )
    )
    events = await runner.run_debug("go", quiet=True)
    [asked] = [
        call for event in events for call in event.get_function_calls() if call.name == "adk_request_confirmation"
    ]
    yes = types.FunctionResponse(id=asked.id, name=asked.name, response={"confirmed": True})
    answered = [
        event
        async for event in runner.run_async(
            user_id="debug_user_id",
            session_id="debug_session_id",
            new_message=types.Content(role="user", parts=[types.Part(function_response=yes)]),
        )
    ]
    told = [response.response for event in answered for response in event.get_function_responses()]
    assert f"{stage.resource}:write" in str(told[0])
    assert stage.ran == []


async def test_argument_defaults_of_a_tool_class_are_decided_on(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.adk.tools import BaseTool

    class Reads(BaseTool):
        def _get_declaration(self) -> types.FunctionDeclaration:
            schema = {"type": "object", "properties": {"path": {"type": "string"}, "limit": {"default": 7}}}
            return types.FunctionDeclaration(name=self.name, parameters_json_schema=schema)

        async def run_async(self, *, args: dict[str, Any], tool_context: ToolContext) -> Any:
            return {"text": stage.read_file(args["path"], args.get("limit", 7))}

    seen, model = judged(monkeypatch), scripted("read_file", {"path": "/srv/a"})
    await run(agent_of(stage, model, tools=[Reads(name="read_file", description="")]), Guarded(stage.tools))
    assert seen == [{"path": "/srv/a", "limit": 7}]
    assert stage.ran == [("read_file", ("/srv/a", 7))]


async def test_a_tool_in_a_workflow_is_decided(stage: FrameworkFixture) -> None:
    def asks() -> dict[str, str]:
        return {"path": "/srv/a"}

    async def run_node(tool: Any) -> list[Any]:
        flow = Workflow(name="flow", edges=[(START, asks, FunctionTool(tool))])
        runner = InMemoryRunner(app=App(name="app", root_agent=flow, plugins=[Guarded(stage.tools)]))
        return [event.output for event in await runner.run_debug("go", quiet=True)]

    assert "denied" in str(await run_node(stage.write_file))
    assert stage.ran == []
    assert "text of /srv/a" in str(await run_node(tools_of(stage)[0]))


class Elsewhere(BaseAgent):
    """An agent that runs somewhere else."""

    async def _run_async_impl(self, ctx: Any) -> AsyncGenerator[Any, None]:
        raise AssertionError("it may not run")
        yield


async def test_a_tool_or_agent_outside_the_framework_is_refused_unless_listed_as_unguarded(
    stage: FrameworkFixture,
) -> None:
    for options, name in (
        ({"tools": [google_search]}, "google_search"),
        ({"code_executor": UnsafeLocalCodeExecutor()}, "code_executor"),
    ):
        model = scripted("write_file", {"path": "/srv/a"})
        with pytest.raises(RuntimeError, match=f"{name} would run without a decision"):
            await run(agent_of(stage, model, **options), Guarded(stage.tools))
        assert model.told == []
    with pytest.raises(Invalid, match="`unguarded` is one value instead of a list"):
        Guarded(stage.tools, unguarded="code_executor")
    named = Guarded(stage.tools, unguarded=["code_executor"])
    model = scripted("write_file", {"path": "/srv/a"})
    await run(agent_of(stage, model, code_executor=UnsafeLocalCodeExecutor()), named)
    assert "denied" in model.told[0]
    with pytest.raises(RuntimeError, match="far would run without a decision"):
        await run(Elsewhere(name="far"), Guarded(stage.tools))
    with pytest.raises(AssertionError, match="may not run"):
        await run(Elsewhere(name="far"), Guarded(stage.tools, unguarded=["far"]))


def test_the_quick_start_of_the_documentation_page_runs(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = scripted("read_file", {"path": "/srv/a"})
    quick_start(stage, monkeypatch, tmp_path)({"model": model, "read_file": tools_of(stage)[0]})
    assert "text of /srv/a" in model.told[0]


class Program:
    """A program that has just begun, with the session of one that has ended; `paid` is what the tool did."""

    def __init__(self, by: Tools, sessions: InMemorySessionService, model: Scripted, paid: list[str]) -> None:
        def pay(amount: int, to: str) -> str:
            paid.append(to)
            return f"paid {to}"

        agent = LlmAgent(name="payer", model=model, tools=[pay])
        app = App(name="app", root_agent=agent, plugins=[Guarded(by, suspends=True)])
        self._runner = Runner(app=app, session_service=sessions, auto_create_session=True)

    async def say(self, message: types.Content) -> list[Any]:
        told = self._runner.run_async(user_id="ada", session_id="1", new_message=message)
        return [event async for event in told]


GO = types.Content(role="user", parts=[types.Part(text="go")])
PAY = ("pay", {"amount": 500, "to": "ann"})


@pytest.mark.parametrize(
    ("says", "ran", "heard"), [("approve", 1, "paid ann"), ("deny", 0, "a person denied the approval request")]
)
async def test_a_run_ends_and_resumes_once_the_approval_request_is_answered(
    people: People, tmp_path: Path, says: str, ran: int, heard: str
) -> None:
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard:
            model, paid = scripted(*PAY), list[str]()
            parts = Tools(guard, asker), InMemorySessionService(), model, paid
            events = await Program(*parts).say(GO)
            [call] = [one for event in events for one in event.get_function_calls() if one.name == CONFIRM]
            assert (paid, "a person is asked" in call.args["toolConfirmation"]["hint"]) == ([], True)
            people.answer(people.person(), call.args["toolConfirmation"]["payload"]["approval"], says)
            message = await answered(events, asker, within=5)
            await Program(*parts).say(message)
            assert (heard in model.told[-1], paid) == (True, ["ann"] * ran)
            await Program(*parts).say(GO)  # the model makes the same call: it passes no second time
            assert paid == ["ann"] * ran


async def test_a_framework_confirmation_without_an_approval_passes_no_call(people: People, tmp_path: Path) -> None:
    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard:
            model, paid = scripted(*PAY), list[str]()
            parts = Tools(guard, asker), InMemorySessionService(), model, paid
            events = await Program(*parts).say(GO)
            message = await answered(events, asker, within=0)  # nobody has answered yet
            await Program(*parts).say(message)
            assert ("a person is asked" in model.told[-1], paid) == (True, [])
