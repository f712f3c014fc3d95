"""Data classes and volumes from the command of an owner to the tool: a real server, real guards, one of them killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from ostiary.guard import Denied, Guard, Verified
from tests.e2e.spender import show

TOOLS: list[dict[str, Any]] = [
    {"name": "read", "effect": "read", "data_classes": ["health"]},
    {"name": "news", "effect": "read", "data_classes": ["public"]},
    {"name": "unknown", "effect": "read"},
]
LIMIT, MOST = 100, 10
HEALTH = {"kind": "volume", "limit": LIMIT, "data_class": "health", "per_call": MOST}


class Clinic:
    def __init__(self, live_server: ServerFixture) -> None:
        self.live_server = live_server
        self.uri = f"https://{live_server.name('clinic')}.example/mcp"
        self.name, self.guard_key = live_server.resource(self.uri, TOOLS)
        self.agent, self.agent_key = live_server.agent(f"{self.name}:read")

    def task(self, **more: Any) -> str:
        return str(
            self.live_server.api("POST", "/tasks", {"agent": self.agent, "purpose": "to read", **more})["task_id"]
        )

    @contextmanager
    def guard(self, folder: Path, task: str) -> Iterator[tuple[Guard, Verified]]:
        with Guard(self.guard_key, spool_dir=folder) as guard:
            yield guard, show(guard, self.agent_key, self.uri, task)

    def left(self, task: str) -> tuple[int, int]:
        [one] = self.live_server.api("GET", f"/tasks/{task}")["budgets"]
        return int(one["left"]), int(one["spent"])


@pytest.fixture
def clinic(live_server: ServerFixture) -> Clinic:
    return Clinic(live_server)


def read(guard: Guard, who: Verified, records: int) -> None:
    with guard.call(who, "read", {}) as call:
        call.result(records=records, data_class="health")


def test_a_task_can_call_only_tools_of_its_data_classes(clinic: Clinic, tmp_path: Path) -> None:
    task = clinic.task(data_classes=["public", "internal"])
    with clinic.guard(tmp_path, task) as (guard, who):
        with guard.call(who, "news", {}) as call:
            call.result(records=1, data_class="public")
        with pytest.raises(Denied, match="`read` handles health, and the task is limited to public internal"):
            read(guard, who, 1)
        with pytest.raises(Denied, match="`unknown` has none in its catalogue"), guard.call(who, "unknown", {}):
            raise AssertionError("the tool ran")
        clinic.live_server.api("PUT", f"/resources/{clinic.name}/data-classes", {"data_classes": ["internal"]})
        eventually(lambda: guard.decide(who, "unknown", {}).decision.allowed)
        assert guard.decide(who, "news", {}).decision.allowed
        clinic.live_server.api("PUT", f"/resources/{clinic.name}/data-classes", {"data_classes": ["secret"]})
        eventually(lambda: not guard.decide(who, "news", {}).decision.allowed)
    found = clinic.live_server.entries(data_class="public", action="tool.call", resource=clinic.uri)
    assert {entry["tool"] for entry in found} == {f"{clinic.name}/news"}
    assert found[-1]["data_classes"] == ["public"]


def test_guards_share_a_volume_and_deny_a_call_beyond_it(clinic: Clinic, tmp_path: Path) -> None:
    task = clinic.task(budget=[HEALTH])
    returned = 0
    with clinic.guard(tmp_path / "a", task) as (one, who), clinic.guard(tmp_path / "b", task) as (other, whom):
        for number in range(20):
            read(*((one, who) if number % 2 else (other, whom)), records=3)
            returned += 3
        with one.call(who, "news", {}):
            pass
    assert clinic.left(task) == (LIMIT - returned, returned)
    with clinic.guard(tmp_path / "c", task) as (guard, who):
        for _ in range(3):
            read(guard, who, MOST)
        read(guard, who, 3)
        with pytest.raises(Denied, match="has 7 of 100 left, and a call may return 10"):
            read(guard, who, 1)
    assert clinic.left(task) == (7, 93)


def test_a_call_that_a_killed_guard_began_is_charged_its_maximum_volume(clinic: Clinic, tmp_path: Path) -> None:
    task = clinic.task(budget=[HEALTH])
    command = [str(clinic.guard_key), str(clinic.agent_key), str(tmp_path), clinic.uri, task]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.e2e.reader", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (killed.stdout, killed.returncode) == ("reading\n", -9)
    with clinic.guard(tmp_path, task) as (guard, who):
        read(guard, who, 4)
        eventually(lambda: clinic.left(task)[1] == MOST + 4)
    assert clinic.left(task) == (LIMIT - MOST - 4, MOST + 4)
