"""Tasks in the console: purpose, bounds in words, budgets, parts, and each call with its verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.live_server import ServerFixture, authenticate
from harness.patience import eventually
from ostiary.guard import Guard
from ostiary.guard.call import Denied
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["live_server"]
pytestmark = needs_console


def test_an_auditor_sees_the_bounds_of_a_task_and_the_verdicts_of_its_calls(
    live_server: ServerFixture, chromium: Chromium, tmp_path: Path
) -> None:
    site = enter_console(live_server, chromium, "tara", "auditor")
    chromium.goto(f"{site}/console/tasks?agent=nosuch")
    chromium.wait_for(".problem")
    uri = f"https://{live_server.name('files')}.example/mcp"
    resource, guard_key = live_server.resource(uri)
    agent, agent_key = live_server.agent(f"{resource}:read", owner="tara")
    purpose = "<b>Read</b> the invoices <img src=x onerror=alert(1)>"
    body = {
        "agent": agent,
        "purpose": purpose,
        "bounds": [
            {
                "type": "tool",
                "locations": [uri],
                "actions": ["read_file"],
                "arguments": {"path": {"prefix": "/invoices/", "max_length": 40}},
            }
        ],
        "budget": [{"kind": "calls", "limit": 5}],
    }
    task = live_server.api("POST", "/tasks", body)["task_id"]
    part = live_server.api("POST", "/tasks", {"agent": agent, "purpose": "A part", "parent": task})["task_id"]
    with Guard(guard_key, spool_dir=tmp_path) as guard:
        who = authenticate(guard, agent_key, uri, task=task)
        with guard.call(who, "read_file", {"path": "/invoices/7"}):
            pass
        with pytest.raises(Denied), guard.call(who, "read_file", {"path": "/secrets"}):
            pass
        eventually(lambda: len(live_server.entries(task=task, action="tool.call")) == 2, pause_s=0.2)

    chromium.goto(f"{site}/console/tasks?agent={agent}")
    chromium.wait_for(".rows li")
    examine_page(chromium, "console-tasks")
    chromium.click("text=the invoices")
    chromium.wait_for_url(f"**/tasks/{task}")
    chromium.wait_for(f"text=tool.call {resource}/read_file")
    text = chromium.text("main")
    assert purpose in text, "markup is shown as text"
    assert f"read_file at {uri}, where path begins with /invoices/ and has at most 40 characters." in text
    assert "of 5 calls left" in text
    verdicts = [row for row in text.splitlines() if row in ("allow", "deny")]
    assert sorted(verdicts) == ["allow", "deny"]
    examine_page(chromium, "console-task")
    chromium.click("text=A part")
    chromium.wait_for_url(f"**/tasks/{part}")
    chromium.wait_for("text=task.start")
