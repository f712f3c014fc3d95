"""An agent requests an elevation, a person approves, and a real guard and the command line show the effect."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import pytest

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from ostiary.agent import Agent, ApprovalNeeded, AsyncAgent, ServerRefused
from ostiary.asgi import GuardASGI
from ostiary.guard import Guard
from ostiary.protocol.errors import Unavailable
from tests.e2e.approver import approve, create_deputy
from tests.e2e.command_line import ostiary
from tests.e2e.task_echo import who

RULES = {"GET /api/files/{path*}": "read_file", "PUT /api/files/{path*}": "write_file"}


async def test_an_elevation_is_requested_approved_used_and_ended(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = live_server.resource(url)
    read, write = f"{resource}:read", f"{resource}:write"
    name, path = live_server.agent(read)
    with (
        Guard(guard_key, spool_dir=tmp_path) as guard,
        serving(GuardASGI(who, guard, tool=RULES), sock),
        Agent.from_credential(path) as agent,
        create_deputy(live_server, tmp_path, agent=name) as person,
    ):
        with pytest.raises(ServerRefused, match="not eligible"):
            agent.elevate([write], reason="to repair the report")
        with pytest.raises(AssertionError, match="undeclared_scope"):
            live_server.api("PUT", f"/agents/{name}/eligible", {"scopes": [f"{resource}:wirte"]})
        assert ostiary(live_server, "elevation", "allow", name, write)["scopes"] == [write]
        with pytest.raises(ApprovalNeeded) as waits:
            agent.elevate([write], reason="to repair the report")
        answering = threading.Timer(1.0, approve, (live_server, person, waits.value.approval))
        answering.start()
        with agent.elevate([write], reason="to repair the report", wait=20) as more:
            answering.join()
            assert more.request("PUT", f"{url}/files/a").text == more.id
            assert agent.request("PUT", f"{url}/files/a").status_code == 403, "by its standing task it may not"
            listed = ostiary(live_server, "elevation", "list")
            assert (listed[0]["task_id"], listed[0]["state"], listed[0]["scopes"]) == (more.id, "live", [write])

        def is_refused() -> bool:
            with suppress(Unavailable):  # an answer that was under way breaks off
                return agent.request("PUT", f"{url}/files/a", task=more.id).status_code == 401
            return False

        eventually(is_refused)
        assert ostiary(live_server, "elevation", "list")[0]["state"] == "done"
        refused = [
            one for one in live_server.entries(limit=50) if one["action"] == "token.issue" and one.get("reasons")
        ]
        assert refused[0]["reasons"][0]["code"] == "elevation_ended"

    async with AsyncAgent.from_credential(path) as later:
        with pytest.raises(ApprovalNeeded):
            await later.elevate([write], reason="once more", for_=5, wait=0.1)
        with pytest.raises(ServerRefused):
            await later.elevate([read, write], reason="once more", for_=481)
