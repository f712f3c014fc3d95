"""Agents that hand work on to each other, against a real server and a real guard."""

from __future__ import annotations

from pathlib import Path

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from ostiary.agent import Agent, AsyncAgent
from ostiary.asgi import GuardASGI
from ostiary.guard import Guard
from ostiary.protocol.errors import Unavailable
from tests.e2e.task_echo import who


def status(agent: Agent, url: str, *, task: str | None = None, subject: str | None = None) -> int:
    """The status of a request; 401 if the response is cut while the task ends."""
    try:
        return agent.get(url, task=task, subject=subject).status_code
    except Unavailable:
        return 401


def test_subtasks_of_a_delegated_task_end_with_the_delegated_task(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = live_server.resource(url)
    scopes = (f"{resource}:read", f"{resource}:write")
    (_, top_key), (mid, mid_key), (low, low_key) = (live_server.agent(*scopes) for _ in range(3))
    rules = {"GET /api/files/{path*}": "read_file", "PUT /api/files/{path*}": "write_file"}
    with (
        Guard(guard_key, spool_dir=tmp_path) as guard,
        serving(GuardASGI(who, guard, tool=rules), sock),
        Agent.from_credential(top_key) as one,
        Agent.from_credential(mid_key) as two,
        Agent.from_credential(low_key) as three,
    ):
        file = f"{url}/files/a"
        with one.task("the whole") as whole:
            part = whole.delegate(mid, "a part", scopes=[scopes[0]])
            assert repr(part) == f"Task({part.id!r})"
            with part:
                assert status(two, file, task=part.id) == 200
                assert two.request("PUT", file, task=part.id).status_code == 403
                lowest = two.delegate(low, "a part of that", parent=part.id)
                assert status(three, file, task=lowest.id) == 200
                handed = two.token(resource=f"{two.issuer}/agents/{low}", task=part.id)["access_token"]
                assert three.get(file, subject=handed).text == part.id
                tree = live_server.api("GET", f"/tasks/{whole.id}/tree")["tasks"]
                assert [task["task_id"] for task in tree] == [whole.id, part.id, lowest.id]
            eventually(lambda: status(three, file, task=lowest.id) == 401)
            eventually(lambda: status(two, file, task=part.id) == 401)
            assert status(one, file, task=whole.id) == 200
            assert status(three, file) == 200, "under its own standing task"


async def test_an_asynchronous_agent_delegates_a_task(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource("https://handed-on.example/api")
    (_, top_key), (mid, mid_key) = (live_server.agent(f"{resource}:read") for _ in range(2))
    async with AsyncAgent.from_credential(top_key) as one, AsyncAgent.from_credential(mid_key) as two:
        async with one.task("the whole") as whole, whole.delegate(mid, "a part") as part:
            assert (await two.token(scope=f"{resource}:read", task=part.id))["scope"] == f"{resource}:read"
            handed = await one.token(resource=f"{await one.issuer()}/agents/{mid}", task=whole.id)
            acting = await two.token(scope=f"{resource}:read", subject=handed["access_token"])
            assert acting["issued_token_type"].endswith(":access_token")
        assert live_server.api("GET", f"/tasks/{part.id}")["state"] == "done"
