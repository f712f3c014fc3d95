"""The fixture of every framework: a real server, a guard of local tools, and a task that may read under `/srv`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.live_server import MAX_AGE_S, ServerFixture, own_server
from harness.patience import eventually
from harness.server import COMMAND
from ostiary import Agent, Guard, Tools
from ostiary.authorization.catalogue import definition_of
from ostiary.decision import access
from tests.frameworks.environment import INSIDE, ROOT
from tests.support.patient_guards import PATIENT_S
from tests.support.payment_fixtures import FILES, People

CATALOGUE: list[dict[str, Any]] = [
    {
        "name": "read_file",
        "effect": "read",
        "data_classes": ["internal"],
        "arguments": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "limit": {"type": "integer", "maximum": 100, "default": 10}},
            "required": ["path", "limit"],
        },
    },
    {"name": "write_file", "effect": "write"},
    {"name": "fail", "effect": "read"},
]
"""`delete_file` is a tool of every agent here that the catalogue does not have."""

Call = Callable[["FrameworkFixture", str, dict[str, Any]], str]
"""Let the framework's agent call a tool once, as its model says; what the model is told."""
Listed = Callable[["FrameworkFixture"], list[dict[str, Any]]]
"""The definitions of the tools of the framework's agent."""


class FrameworkFixture:
    """A guard and its caller; `ran` names what tools were really run, with their arguments."""

    def __init__(self, live_server: ServerFixture, folder: Path, *, max_age: float = PATIENT_S) -> None:
        self.live_server, self.ran = live_server, list[tuple[str, Any]]()
        self.uri = f"https://{live_server.name('tools')}.example.org/"
        self.resource, self.guard_key = live_server.resource(self.uri, CATALOGUE)
        _, self.agent_key = live_server.agent(f"{self.resource}:read")
        self.guard = Guard(self.guard_key, spool_dir=folder / "spool", max_age=max_age).start()
        self.agent = Agent.from_credential(self.agent_key)
        self.task = self.agent.task(
            "read what is under /srv",
            bounds=[
                {"type": "tool", "locations": [self.uri], "arguments": {"path": {"prefix": "/srv/"}}},
                {"type": "tool", "locations": [self.uri], "actions": ["fail"]},
            ],
        )
        self.tools = Tools(self.guard, self.task)

    def close(self) -> None:
        self.guard.close()
        self.agent.close()

    def read_file(self, path: str, limit: int) -> str:
        self.ran.append(("read_file", (path, limit)))
        return f"text of {path}"

    def write_file(self, path: str) -> str:
        self.ran.append(("write_file", path))
        return "written"

    def delete_file(self, path: str) -> str:
        self.ran.append(("delete_file", path))
        return "deleted"

    def fail(self) -> str:
        self.ran.append(("fail", ()))
        raise RuntimeError("it went wrong")

    def approve(self, listed: list[dict[str, Any]]) -> None:
        """Let the catalogue have what these tools say of themselves; returns when the guard has heard of it."""
        said = {tool["name"]: definition_of(tool) for tool in listed}
        tools = [tool | {"definition": said[tool["name"]]} for tool in CATALOGUE]
        body = {"catalogue": {"resource": self.resource, "tools": tools}}
        self.live_server.api("PUT", f"/resources/{self.resource}/catalogue", body)
        wanted = said["read_file"]
        eventually(lambda: self.guard.feed.current().facts.resource.tools["read_file"].tool.definition == wanted)

    def recorded(self) -> tuple[list[str], list[str]]:
        """The calls of this guard in the ledger: decisions and outcomes."""
        entries = self.live_server.entries(resource=self.uri, limit=100)
        decided = [entry["outcome"] for entry in entries if entry["action"] == "tool.call"]
        return decided, [entry["result"]["status"] for entry in entries if entry.get("result")]


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server that all tests of a framework share; each makes its own agents and resources."""
    with own_server(tmp_path_factory.mktemp("live_server"), command=(COMMAND,)) as made:
        yield made


@pytest.fixture
def stage(live_server: ServerFixture, tmp_path: Path) -> Iterator[FrameworkFixture]:
    stage = FrameworkFixture(live_server, tmp_path)
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameworkFixture]:
    """A stage whose server has ended after it let a call pass."""
    folder = tmp_path_factory.mktemp("orphan")
    with own_server(folder, command=(COMMAND,)) as live_server:
        stage = FrameworkFixture(live_server, folder, max_age=MAX_AGE_S)
        with stage.tools.admit("read_file", {"path": "/srv/a", "limit": 5}):
            pass
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server whose policies ask a person about large payments."""
    with own_server(tmp_path_factory.mktemp("asking"), command=(COMMAND,)) as live_server:
        live_server.api("POST", "/policies", {"files": FILES})
        yield live_server


@pytest.fixture
def people(asking: ServerFixture) -> Iterator[People]:
    made = People(asking)
    yield made
    made.close()


def judged(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments that are decided on from now on."""
    seen, decide = list[Any](), access.decide

    def listening(call: access.ResolvedCall, *inputs: access.DecisionInputs) -> access.Decision:
        seen.append(call.arguments)
        return decide(call, *inputs)

    monkeypatch.setattr("ostiary.decision.access.decide", listening)
    return seen


def program_of(**names: Any) -> ModuleType:
    """Return the module of a program with these names."""
    program = ModuleType("program")
    program.__dict__.update(names)
    return program


def quick_start(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> Callable[[dict[str, Any]], None]:
    """The program of the framework's page, to be run with the names that it does not define itself."""
    page = (ROOT / f"docs/how-to/adapters/{INSIDE}.md").read_text("utf-8")
    [program] = re.findall(r"```python\n(# quick start.*?)```", page, re.S)
    shutil.copy(stage.guard_key, folder / "tools.json")
    shutil.copy(stage.agent_key, folder / "writer.json")
    monkeypatch.chdir(folder)
    return lambda names: exec(compile(program, f"{INSIDE}.md", "exec"), names)


__all__ = [
    "CATALOGUE",
    "Call",
    "FrameworkFixture",
    "Listed",
    "asking",
    "judged",
    "live_server",
    "orphan",
    "people",
    "program_of",
    "quick_start",
    "stage",
]
