"""CrewAI: a subclass of its own `BaseLLM` plays the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from crewai import LLM, Agent, Crew, Task
from crewai.flow import Flow
from crewai.flow.flow_definition import FlowToolActionDefinition
from crewai.flow.runtime._actions import ToolAction
from crewai.hooks import clear_all_tool_call_hooks, register_before_tool_call_hook
from crewai.hooks.dispatch import InterceptionPoint, scoped_hooks
from crewai.llms.base_llm import BaseLLM
from crewai.tools import BaseTool, tool
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.tools.tool_failure import ToolExecutionFailedError

import ostiary
from harness.patience import eventually
from ostiary import Guard, Tools
from ostiary.adapters import crewai
from ostiary.adapters.crewai import guarded
from ostiary.protocol.errors import Conflict, Invalid
from tests.frameworks.contract import *  # every test of the contract
from tests.frameworks.framework_fixture import Call, FrameworkFixture, Listed, judged, program_of, quick_start
from tests.support.payment_fixtures import People


class Scripted(BaseLLM):
    """A model that calls tools, one a turn, and then is done; `heard` is what it was told, turn by turn."""

    calls: list[tuple[str, dict[str, Any]]]
    heard: list[str]
    is_native: bool = True

    def call(self, messages: Any, **_: Any) -> Any:
        last = [] if isinstance(messages, str) else messages[-2:]  # a request to go on may follow what a tool gave
        self.heard.append("\n".join(str(message.get("content")) for message in last))
        if len(self.heard) > len(self.calls):
            return "Thought: I now can give a great answer\nFinal Answer: done"
        name, arguments = self.calls[len(self.heard) - 1]
        if not self.is_native:
            return f"Thought: I must\nAction: {name}\nAction Input: {json.dumps(arguments)}\nObservation:"
        function = {"name": name, "arguments": json.dumps(arguments)}
        return [{"id": f"call-{len(self.heard)}", "type": "function", "function": function}]

    async def acall(self, messages: Any, **options: Any) -> Any:
        return self.call(messages, **options)

    def supports_function_calling(self) -> bool:
        return self.is_native


def scripted(*calls: tuple[str, dict[str, Any]], **options: Any) -> Scripted:
    return Scripted(model="scripted", calls=list(calls), heard=[], **options)


def tools_of(stage: FrameworkFixture) -> list[BaseTool]:
    @tool("read_file")
    def read_file(path: str, limit: int = 10) -> str:
        """Read."""
        return stage.read_file(path, limit)

    class WriteFile(BaseTool):
        name: str = "Write File"
        description: str = "Write."

        def _run(self, path: str) -> str:
            return stage.write_file(path)

        async def _arun(self, path: str) -> str:
            return stage.write_file(path)

    @tool("delete_file")
    def delete_file(path: str) -> str:
        """Delete."""
        return stage.delete_file(path)

    @tool("fail")
    def fail() -> str:
        """Fail."""
        return stage.fail()

    return [read_file, WriteFile(), delete_file, fail]


def agent_of(stage: FrameworkFixture, model: Scripted, **options: Any) -> Agent:
    options = {"tools": tools_of(stage), "max_iter": 5} | options
    return Agent(role="writer", goal="write", backstory="writes", llm=model, **options)


def crew_of(stage: FrameworkFixture, model: Scripted, **options: Any) -> Crew:
    agent = agent_of(stage, model, **options)
    return Crew(agents=[agent], tasks=[Task(description="go", expected_output="done", agent=agent)], cache=True)


def in_crew(stage: FrameworkFixture, model: Scripted) -> None:
    crew_of(stage, model).kickoff()


def in_crew_asynchronously(stage: FrameworkFixture, model: Scripted) -> None:
    asyncio.run(crew_of(stage, model).akickoff())


def alone(stage: FrameworkFixture, model: Scripted) -> None:
    agent_of(stage, model).kickoff("go")


@pytest.fixture(params=[(in_crew, True), (in_crew, False), (in_crew_asynchronously, False), (alone, True)])
def call(request: pytest.FixtureRequest) -> Call:
    run, is_native = request.param

    def play(stage: FrameworkFixture, name: str, arguments: dict[str, Any]) -> str:
        model = scripted((name, arguments), is_native=is_native)
        with guarded(stage.tools):
            run(stage, model)
        return model.heard[1]

    return play


@pytest.fixture
def program(stage: FrameworkFixture) -> ModuleType:
    return program_of(tools=tools_of(stage))


@pytest.fixture
def listed() -> Listed:
    return lambda stage: crewai.listed(tools_of(stage))["tools"]


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    yield
    clear_all_tool_call_hooks()


def meddles(context: Any) -> None:
    context.tool_input["path"] = "/etc/passwd"


@pytest.mark.parametrize("is_native", [True, False])
def test_arguments_that_hooks_change_are_decided_on_as_changed(stage: FrameworkFixture, is_native: bool) -> None:
    for hooks in ({}, {InterceptionPoint.PRE_TOOL_CALL: [meddles]}):
        if not hooks:
            register_before_tool_call_hook(meddles)
        model = scripted(("read_file", {"path": "/srv/a"}), is_native=is_native)
        with guarded(stage.tools), scoped_hooks(hooks):
            in_crew(stage, model)
        clear_all_tool_call_hooks()
        assert "denied: the argument `path`" in model.heard[1]
    assert stage.ran == []


@pytest.mark.parametrize("is_native", [True, False])
def test_a_repeated_call_is_decided_and_not_served_from_the_cache(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, is_native: bool
) -> None:
    seen = judged(monkeypatch)
    again, other = ({"path": "/srv/a", "limit": 5}, {"path": "/srv/b", "limit": 5})
    model = scripted(*(("read_file", arguments) for arguments in (again, other, again)), is_native=is_native)
    with guarded(stage.tools):
        in_crew(stage, model)
    assert seen == [again, other, again]
    assert [path for _, (path, _) in stage.ran] == ["/srv/a", "/srv/b", "/srv/a"]


def test_several_calls_at_once_are_decided(stage: FrameworkFixture) -> None:
    class Several(Scripted):
        def call(self, messages: Any, **options: Any) -> Any:
            answer = super().call(messages, **options)
            return [{**answer[0], "id": f"call-{i}"} for i in range(3)] if isinstance(answer, list) else answer

    model = Several(model="scripted", calls=[("write_file", {"path": "/srv/a"})], heard=[])
    with guarded(stage.tools):
        in_crew(stage, model)
    assert "denied" in model.heard[1]
    assert stage.ran == []
    assert eventually(lambda: stage.recorded()[0] == ["deny"] * 3)


def test_delegation_to_a_coworker_and_the_tool_calls_of_the_coworker_are_decided(stage: FrameworkFixture) -> None:
    task = {"task": "write", "context": "all", "coworker": "writer"}
    inner = scripted(("write_file", {"path": "/srv/a"}))
    outer = scripted(("delegate_work_to_coworker", task))

    def kickoff(unguarded: list[str]) -> None:
        boss = Agent(role="boss", goal="boss", backstory="bosses", llm=outer, allow_delegation=True)
        order = Task(description="go", expected_output="done", agent=boss)
        with guarded(stage.tools, unguarded=unguarded):
            Crew(agents=[boss, agent_of(stage, inner)], tasks=[order]).kickoff()

    kickoff([])
    assert "denied: the catalogue" in outer.heard[1]
    assert inner.heard == []
    outer.heard.clear()
    kickoff(["delegate_work_to_coworker"])
    assert "denied" in inner.heard[1]
    assert stage.ran == []


class Touch(BaseTool):
    """A tool that a flow makes by its name."""

    name: str = "write_file"
    description: str = "Write."

    def _run(self, path: str) -> str:
        Path(path).touch()
        return "written"


def test_a_tool_that_a_flow_runs_without_an_agent_is_decided(stage: FrameworkFixture, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    step = FlowToolActionDefinition(call="tool", ref=f"{__name__}:Touch", **{"with": {"path": str(marker)}})
    with guarded(stage.tools), pytest.raises(ToolExecutionFailedError, match="denied"):
        ToolAction(Flow(), step).run()
    assert not marker.exists()
    with guarded(stage.tools, unguarded=["write_file"]):
        assert ToolAction(Flow(), step).run() == "written"


def test_a_tool_that_is_called_by_hand_is_decided(stage: FrameworkFixture) -> None:
    read_file, write_file, *_ = tools_of(stage)
    with guarded(stage.tools):
        assert read_file.run("/srv/a") == "text of /srv/a"
        assert "denied" in write_file.run(path="/srv/a").message
        assert "denied" in write_file.run("/srv/a").message
        assert "denied" in asyncio.run(write_file.arun(path="/srv/a")).message
        assert "denied" in write_file._run(path="/srv/a").message, "an adapter for another framework calls this"
    assert stage.ran == [("read_file", ("/srv/a", 10))]


def test_an_asynchronous_tool_is_decided(stage: FrameworkFixture) -> None:
    @tool("read_file")
    async def read_file(path: str, limit: int = 10) -> str:
        """Read."""
        return stage.read_file(path, limit)

    @tool("fail")
    async def fail() -> str:
        """Fail."""
        await asyncio.sleep(0)
        return stage.fail()

    with guarded(stage.tools):
        assert asyncio.run(read_file.arun(path="/srv/a")) == "text of /srv/a"
        assert read_file.run(path="/srv/a") == "text of /srv/a"
        assert "denied" in asyncio.run(read_file.arun(path="/etc/passwd")).message
        with pytest.raises(RuntimeError):
            asyncio.run(fail.arun())
        with pytest.raises(RuntimeError):
            fail.run()
    ends = ["error", "error", "ok", "ok"]
    assert eventually(lambda: stage.recorded() == (["allow", "allow", "deny", "allow", "allow"], ends))


def test_a_tool_class_that_calls_its_base_class_is_decided_once(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = judged(monkeypatch)

    class Base(BaseTool):
        name: str = "read_file"
        description: str = "Read."

        def _run(self, path: str, limit: int = 10) -> str:
            return stage.read_file(path, limit)

    class Narrow(Base):
        def _run(self, path: str, limit: int = 1) -> str:
            return super()._run(path, limit)

    with guarded(stage.tools):
        assert Narrow().run(path="/srv/a") == "text of /srv/a"
    assert seen == [{"path": "/srv/a", "limit": 1}]


def test_tools_of_an_mcp_server_are_decided(stage: FrameworkFixture) -> None:
    from crewai.tools.mcp_tool_wrapper import MCPToolWrapper

    class Never(MCPToolWrapper):
        async def _run_async(self, **arguments: Any) -> str:
            return stage.write_file(arguments["path"])

    server = {"url": "https://files.example.org/mcp"}
    written = Never(mcp_server_params=server, tool_name="write_file", tool_schema={}, server_name="files")
    with guarded(stage.tools):
        assert "denied: the catalogue" in written.run(path="/srv/a").message
    assert stage.ran == []


def test_a_tool_without_a_class_is_refused_unless_listed_as_unguarded(stage: FrameworkFixture) -> None:
    bare = CrewStructuredTool.from_function(stage.write_file, description="Write.")
    with guarded(stage.tools), pytest.raises(Conflict, match="write_file"):
        bare.invoke({"path": "/srv/a"})
    assert stage.ran == []
    with guarded(stage.tools, unguarded=["write_file"]):
        assert bare.invoke({"path": "/srv/a"}) == "written"


class Lite(LLM):
    """The class of models that go through LiteLLM, without it."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)


def test_functions_passed_to_a_model_call_are_decided(stage: FrameworkFixture) -> None:
    model = scripted()
    functions = {"write_file": stage.write_file, "read_file": stage.read_file}
    asked = {"path": "/srv/a", "limit": 5}
    called = [SimpleNamespace(function=SimpleNamespace(name="write_file", arguments='{"path": "/srv/a"}'))]
    with guarded(stage.tools):
        assert model._handle_tool_execution("read_file", asked, functions) == "text of /srv/a"
        assert "denied" in str(model._handle_tool_execution("write_file", {"path": "/srv/a"}, functions))
        assert "denied" in Lite(model="scripted")._handle_tool_call(called, functions)
        assert Lite(model="scripted")._handle_tool_call(called, None) is None
    assert stage.ran == [("read_file", ("/srv/a", 5))]


@pytest.mark.parametrize(("where", "what"), [("llm", "builtin_tools"), ("agent", "a2a")])
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_remote_agent_or_provider_tool_is_refused_unless_listed_as_unguarded(
    stage: FrameworkFixture, where: str, what: str, is_alone: bool
) -> None:
    agent = agent_of(stage, scripted())
    object.__setattr__(agent.llm if where == "llm" else agent, what, ["web_search"] if where == "llm" else object())
    name = "web_search" if where == "llm" else "a2a"
    task = Task(description="go", expected_output="done", agent=agent)

    def kickoff() -> None:
        agent.kickoff("go") if is_alone else Crew(agents=[agent], tasks=[task]).kickoff()

    with guarded(stage.tools), pytest.raises(Conflict, match=name):
        kickoff()
    with (
        pytest.raises(Invalid, match="`unguarded` is one value instead of a list"),
        guarded(stage.tools, unguarded=name),
    ):
        pass
    with guarded(stage.tools, unguarded=[name]):
        agent.create_agent_executor()


def test_a_tool_is_denied_outside_the_guarded_block_and_blocks_do_not_nest(stage: FrameworkFixture) -> None:
    read_file, *_ = tools_of(stage)
    with guarded(stage.tools):
        with pytest.raises(Conflict, match="another `guarded` block"), guarded(Tools(stage.guard)):
            pass
        assert read_file.run(path="/srv/a") == "text of /srv/a"
    assert "the caller is not known" in read_file.run(path="/srv/a").message
    assert len(stage.ran) == 1


def test_a_tool_class_whose_method_cannot_be_guarded_is_refused(stage: FrameworkFixture) -> None:
    with guarded(stage.tools), pytest.raises(Conflict, match="Odd"):

        class Odd(BaseTool):
            name: str = "write_file"
            description: str = "Write."

            @staticmethod
            def _run(path: str) -> str:  # type: ignore[override]
                return stage.write_file(path)


def test_the_quick_start_of_the_documentation_page_runs(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = scripted(("read_file", {"path": "/srv/a"}))
    quick_start(stage, monkeypatch, tmp_path)({"model": model, "read_file": tools_of(stage)[0]})
    assert stage.ran == [("read_file", ("/srv/a", 10))]


async def test_an_asynchronous_call_waits_for_an_approval_without_blocking_the_event_loop(
    people: People, tmp_path: Path
) -> None:
    class Pay(BaseTool):
        name: str = "pay"
        description: str = "Pays."

        def _run(self, amount: int, to: str) -> str:
            raise AssertionError("it has another colour")

        async def _arun(self, amount: int, to: str) -> str:
            return f"paid {to}"

    person = people.person()
    with (
        Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard,
        ostiary.Agent.from_credential(people.agent_key) as own,
        guarded(Tools(guard, own, wait=90)),
    ):
        call = asyncio.create_task(Pay().arun(amount=500, to="ann"))
        asked = await asyncio.to_thread(eventually, lambda: question(people))
        await asyncio.to_thread(people.answer, person, asked)  # the call has requests of its own on this loop
        assert await call == "paid ann"


def question(people: People) -> str | None:
    """The approval that waits, once there is one."""
    return next(
        (one["approval_id"] for one in people.live_server.api("GET", "/approvals", state="open")["approvals"]), None
    )
