"""Tests for every framework. Each file of tests takes these and gives two fixtures: `call`, which runs the
framework, and `listed`, what its tools say of themselves.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from harness.cli import Commands
from harness.patience import eventually
from ostiary import Agent, Guard, Tools
from tests.frameworks.environment import INSIDE
from tests.frameworks.framework_fixture import Call, FrameworkFixture, Listed, judged

HEARS_TOO_LATE = INSIDE == "claude-agent-sdk"
"""Its hooks hear of a result when the model has it."""
SEES_NO_DEFINITIONS = INSIDE == "claude-agent-sdk"
"""Its command line lists tools by itself."""


def test_an_allowed_call_runs_and_is_recorded_in_the_ledger(stage: FrameworkFixture, call: Call) -> None:
    assert "text of /srv/a" in call(stage, "read_file", {"path": "/srv/a", "limit": 5})
    assert stage.ran == [("read_file", ("/srv/a", 5))]
    assert eventually(lambda: stage.recorded() == (["allow"], ["ok"]))


def test_an_argument_default_is_decided_on_and_passed_to_the_tool(
    stage: FrameworkFixture, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = judged(monkeypatch)
    call(stage, "read_file", {"path": "/srv/a"})
    assert seen == [{"path": "/srv/a", "limit": 10}]
    assert stage.ran == [("read_file", ("/srv/a", 10))]


def test_an_argument_outside_of_the_bounds_is_denied_and_the_model_gets_the_reason(
    stage: FrameworkFixture, call: Call
) -> None:
    told = call(stage, "read_file", {"path": "/etc/passwd", "limit": 5})
    assert "denied: the argument `path`" in told
    assert "ostiary task start" not in told, "a command is for an operator, not for a model"
    assert stage.ran == []


@pytest.mark.parametrize(("limit", "is_allowed"), [(99, True), (100, True), (101, False)])
def test_the_schema_of_the_catalogue_bounds_an_argument(
    stage: FrameworkFixture, call: Call, limit: int, is_allowed: bool
) -> None:
    told = call(stage, "read_file", {"path": "/srv/a", "limit": limit})
    assert ("denied" not in told) is is_allowed
    assert bool(stage.ran) is is_allowed


def test_a_scope_that_the_task_does_not_have_is_denied(stage: FrameworkFixture, call: Call) -> None:
    assert f"{stage.resource}:write" in call(stage, "write_file", {"path": "/srv/a"})
    assert stage.ran == []


def test_a_tool_that_the_catalogue_does_not_have_is_denied(stage: FrameworkFixture, call: Call) -> None:
    assert "denied: the catalogue" in call(stage, "delete_file", {"path": "/srv/a"})
    assert stage.ran == []


def test_a_tool_whose_definition_differs_from_the_approved_one_is_denied(
    stage: FrameworkFixture, call: Call, listed: Listed
) -> None:
    said = listed(stage)
    stage.approve([tool | {"description": "was approved"} for tool in said])
    answer = call(stage, "read_file", {"path": "/srv/a"})
    assert ("the definition of `read_file` differs" in answer) is not SEES_NO_DEFINITIONS
    assert ("text of /srv/a" in answer) is SEES_NO_DEFINITIONS
    assert bool(stage.ran) is SEES_NO_DEFINITIONS
    stage.approve(said)
    assert "text of /srv/a" in call(stage, "read_file", {"path": "/srv/a"})


def test_one_command_registers_the_tools_of_a_program_and_their_agent(
    stage: FrameworkFixture,
    call: Call,
    program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The call that is allowed afterwards shows that the registered definitions are those of the framework."""
    name, server = stage.live_server.name("made"), stage.live_server.server
    monkeypatch.setitem(sys.modules, program.__name__, program)
    monkeypatch.chdir(tmp_path)
    steps = Commands(server.folder).json(
        "protect",
        f"{program.__name__}:tools",
        "--name",
        name,
        "--uri",
        f"http://localhost/{name}",
        "--agent",
        f"{name}-agent",
        "--owner",
        f"{name}-owner",
        "--email",
        "o@example.org",
        "--purpose",
        "reads files",
    )
    assert [(step["kind"], step["verdict"]) for step in steps] == [
        ("owner", "create"),
        ("resource", "create"),
        ("agent", "create"),
    ]
    shown = stage.live_server.api("GET", f"/resources/{name}")["catalogue"]["tools"]
    assert {tool["name"] for tool in shown} == {"read_file", "write_file", "delete_file", "fail"}
    stage.guard.close()
    stage.guard = Guard(tmp_path / f"{name}.json", spool_dir=tmp_path / "made").start()
    stage.uri = f"http://localhost/{name}"
    with (
        Agent.from_credential(tmp_path / f"{name}-agent.json", url=server.url) as agent,
        agent.task("reads files", scopes=[f"{name}:read"]) as stage.task,
    ):
        stage.tools = Tools(stage.guard, stage.task)
        assert "text of /srv/a" in call(stage, "read_file", {"path": "/srv/a"})
        assert "denied" in call(stage, "write_file", {"path": "/srv/a"})


def test_a_failed_tool_call_is_recorded_as_an_error(stage: FrameworkFixture, call: Call) -> None:
    with suppress(RuntimeError):  # some frameworks tell the model, some let it through
        call(stage, "fail", {})
    tries = len(stage.ran)  # some try again, and each try is decided
    assert stage.ran == [("fail", ())] * tries != []
    assert eventually(lambda: stage.recorded() == (["allow"] * tries, ["error"] * tries))


@pytest.mark.parametrize(("path", "is_more"), [("/srv/6789a", False), ("/srv/6789ab", False), ("/srv/6789abc", True)])
def test_a_result_over_the_volume_of_a_call_does_not_reach_the_model(
    stage: FrameworkFixture, call: Call, path: str, is_more: bool
) -> None:
    limit = {"kind": "volume", "unit": "bytes", "data_class": "internal", "limit": 1000, "per_call": 19}
    stage.task = stage.agent.task("read little", data_classes=["internal"], budget=[limit])
    stage.tools = Tools(stage.guard, stage.task)
    told = call(stage, "read_file", {"path": path, "limit": 5})
    assert stage.ran == [("read_file", (path, 5))]
    if is_more and not HEARS_TOO_LATE:
        assert "the call has run, but its result is withheld: the result has more than 19 bytes of internal" in told
        assert "text of" not in told
    else:
        assert f"text of {path}" in told
    status = "error" if is_more and not HEARS_TOO_LATE else "ok"
    assert eventually(lambda: stage.recorded() == (["allow"], [status]))


@pytest.mark.parametrize("where", ["ostiary.decision.access.decide", "ostiary.tools.json_argument"])
def test_a_call_is_denied_when_the_guard_fails(
    stage: FrameworkFixture, call: Call, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, lambda *_, **__: 1 / 0)
    assert "the guard failed because of an internal error" in call(stage, "read_file", {"path": "/srv/a"})
    assert stage.ran == []


def test_a_tool_does_not_run_when_the_adapter_fails(
    stage: FrameworkFixture, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("nobody expected this")

    async def fails_later(*_: object) -> None:
        raise KeyError("nobody expected this")

    monkeypatch.setattr(Tools, "admit", fails)
    monkeypatch.setattr(Tools, "admit_async", fails_later)
    with suppress(KeyError):
        call(stage, "read_file", {"path": "/srv/a"})
    assert stage.ran == []


def test_a_call_is_denied_when_the_server_is_unreachable(orphan: FrameworkFixture, call: Call) -> None:
    eventually(
        lambda: "denied: the Ostiary server has been unreachable" in call(orphan, "read_file", {"path": "/srv/a"})
    )
    orphan.ran.clear()
    assert "denied" in call(orphan, "read_file", {"path": "/srv/b"})
    assert orphan.ran == []


def test_a_call_without_an_acting_agent_is_denied(stage: FrameworkFixture, call: Call) -> None:
    stage.tools = Tools(stage.guard)
    assert "the caller is not known" in call(stage, "read_file", {"path": "/srv/a"})
    assert stage.ran == []
    with stage.tools.acting(stage.task):
        assert "text of /srv/a" in call(stage, "read_file", {"path": "/srv/a"})


__all__ = [name for name in globals() if name.startswith("test_")]
