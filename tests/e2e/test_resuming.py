"""Agents that restart: real processes, killed with `kill -9`, find their task again, or lose it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from ostiary.agent import Agent, AsyncAgent, ServerRefused
from ostiary.client import TokenRefused

HEARTBEAT_S = 4
"""Three heartbeats come in that time, so that a machine which stalls for two seconds ends no task."""


@contextmanager
def working(credential: Path, *task: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An agent in a process of its own, and its task; killed in the end."""
    command = [sys.executable, "-m", "tests.e2e.holder", str(credential), str(HEARTBEAT_S), *task]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def go_home(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=PATIENCE_S)
    assert process.returncode == 0


def show(live_server: ServerFixture, task: str) -> dict[str, Any]:
    found: dict[str, Any] = live_server.api("GET", f"/tasks/{task}")
    return found


def test_a_task_without_heartbeats_of_its_killed_agent_is_lost(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource("https://lost.example.org/mcp")
    _, credential = live_server.agent(f"{resource}:read")
    with working(credential) as (process, task), Agent.from_credential(credential) as agent:
        time.sleep(1.5 * HEARTBEAT_S)
        assert show(live_server, task)["state"] == "live", "heartbeats keep it"
        token = agent.token(resource="https://lost.example.org/mcp", task=task)
        assert token["access_token"]
        process.kill()
        eventually(lambda: show(live_server, task)["ended_at"] is not None)
        shown = show(live_server, task)
        assert (shown["state"], shown["holders"]) == ("lost", [])
        with pytest.raises(TokenRefused):
            agent.token(resource="https://lost.example.org/mcp", task=task, scope=f"{resource}:read")
        with pytest.raises(ServerRefused) as refused:
            agent.resume(task)
        assert refused.value.code == "task_ended"
    [entry] = [
        one for one in live_server.entries(limit=200) if one["action"] == "task.expire" and one["object"] == task
    ]
    assert entry["detail"]["outcome"] == "lost"


def test_a_task_of_a_killed_process_continues_in_another_process(live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    with working(credential) as (first, task), working(credential, task) as (second, same):
        assert same == task
        assert len(show(live_server, task)["holders"]) == 2
        first.kill()
        eventually(lambda: len(show(live_server, task)["holders"]) == 1)
        time.sleep(1.5 * HEARTBEAT_S)
        assert show(live_server, task)["state"] == "live", "the other one holds it"
        with working(credential, task) as (third, _):
            go_home(second)
            assert show(live_server, task)["state"] == "live", "not the last one out"
            go_home(third)
    assert show(live_server, task)["state"] == "done"


def test_an_agent_can_resume_only_its_own_tasks(live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    _, other = live_server.agent()
    with Agent.from_credential(credential) as agent, Agent.from_credential(other) as stranger:
        with agent.task("mine", heartbeat=60) as task:
            with pytest.raises(ServerRefused):
                stranger.resume(task.id)
            assert agent.resume(task.id).id == task.id
            task.renew(7200)
        assert show(live_server, task.id)["state"] == "done"


def test_a_task_without_a_heartbeat_is_resumed_too(live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        begun = agent.task("mine")
    with Agent.from_credential(credential) as again, again.resume(begun.id) as task:
        assert task.facts["purpose"] == "mine"
    assert show(live_server, begun.id)["state"] == "done"


async def test_an_asynchronous_agent_holds_and_resumes_a_task(live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    async with AsyncAgent.from_credential(credential) as agent:
        async with agent.task("mine", heartbeat=HEARTBEAT_S, end_with_last=True) as task:
            await asyncio.sleep(1.5 * HEARTBEAT_S)
            async with agent.resume(task.id) as same:
                assert same.id == task.id
                assert len(show(live_server, task.id)["holders"]) == 2
            assert show(live_server, task.id)["state"] == "live"
        assert show(live_server, task.id)["state"] == "done"
        with pytest.raises(ZeroDivisionError):
            async with agent.task("fails", heartbeat=HEARTBEAT_S, end_with_last=True) as task:
                raise ZeroDivisionError
        assert show(live_server, task.id)["state"] == "failed"
