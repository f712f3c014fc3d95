"""Agents that run in this process, with a real server: their tokens, their tasks, and what ends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import MAX_AGE_S, ServerFixture, own_server
from harness.patience import eventually
from ostiary import Agent, AsyncAgent, Guard, Tools
from ostiary.guard import Verified
from ostiary.protocol.errors import Refused
from tests.support.patient_guards import PATIENT_S


class Place:
    """A guard of local tools, and an agent that may read at it."""

    def __init__(self, live_server: ServerFixture, folder: Path, *, max_age: float = PATIENT_S) -> None:
        self.live_server = live_server
        self.uri = f"https://{live_server.name('tools')}.example.org/"
        self.resource, guard_key = live_server.resource(self.uri)
        self.name, self.agent_key = live_server.agent(f"{self.resource}:read")
        self.guard = Guard(guard_key, spool_dir=folder / "spool", max_age=max_age)

    def revoke(self, kind: str, id: str) -> None:
        revoked = self.live_server.api("POST", "/revoke", {"kind": kind, "id": id})
        self.live_server.api("GET", "/feeds", seq=revoked["seq"], wait_ms=5000)


@pytest.fixture
def place(live_server: ServerFixture, tmp_path: Path) -> Iterator[Place]:
    place = Place(live_server, tmp_path)
    with place.guard:
        yield place


def is_allowed(tools: Tools) -> bool:
    try:
        with tools.admit("read_file", {"path": "/a"}):
            return True
    except Refused:
        return False


def test_an_agent_calls_a_function_under_its_task_and_every_call_is_in_the_ledger(place: Place) -> None:
    bounds: list[dict[str, Any]] = [
        {
            "type": "tool",
            "locations": [place.uri],
            "actions": ["read_file"],
            "arguments": {"path": {"prefix": "/srv/"}},
        }
    ]
    with Agent.from_credential(place.agent_key) as agent, agent.task("read", bounds=bounds) as task:
        tools = Tools(place.guard, task)

        @tools.tool("read_file")
        def read_file(path: str) -> str:
            return f"text of {path}"

        assert read_file("/srv/a") == "text of /srv/a"
        with pytest.raises(Refused, match="path") as refused:
            read_file("/etc/passwd")
        assert refused.value.code == "outside_task"
        entries = eventually(lambda: len(found := calls(place, task.id)) == 2 and found)
    assert [entry["outcome"] for entry in entries] == ["deny", "allow"]


def calls(place: Place, task: str) -> list[dict[str, Any]]:
    found = place.live_server.entries(resource=place.uri, task=task)
    return [entry for entry in found if entry["action"] == "tool.call"]


def test_one_token_and_one_proof_serve_many_calls(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = list[str]()
    verify = place.guard.verify

    def counting(**shows: Any) -> Verified:
        shown.append(shows["proof"])
        return verify(**shows)

    monkeypatch.setattr(place.guard, "verify", counting)
    with Agent.from_credential(place.agent_key) as agent:
        tools = Tools(place.guard, agent)
        assert all(is_allowed(tools) for _ in range(10))
    assert len(shown) == 2, "one to hear the nonce, one with it"


def test_calls_under_an_ended_task_are_denied(place: Place) -> None:
    with Agent.from_credential(place.agent_key) as agent:
        with agent.task("read") as task:
            tools = Tools(place.guard, task)
            assert is_allowed(tools)
        eventually(lambda: not is_allowed(tools))
        assert is_allowed(Tools(place.guard, agent)), "the agent itself may go on"


def test_a_revoked_token_is_replaced_and_a_revoked_agent_is_denied(place: Place) -> None:
    with Agent.from_credential(place.agent_key) as agent:
        tools = Tools(place.guard, agent)
        assert is_allowed(tools)
        jti = tools._caller().cached().principal.claims.jti  # type: ignore[union-attr]
        place.revoke("token", jti)
        assert is_allowed(tools), "with another token"
        assert is_allowed(Tools(place.guard, agent)), "which is not the dead one that the agent remembers"
        place.revoke("agent", place.name)
        assert not is_allowed(tools)
        assert not is_allowed(Tools(place.guard, agent))


async def test_an_asynchronous_agent_calls_tools_under_its_task(place: Place) -> None:
    async with AsyncAgent.from_credential(place.agent_key) as agent:
        pending = agent.task("read", ttl=60)
        with pytest.raises(Refused, match="not declared"):
            await Tools(place.guard, pending).admit_async("read_file", {"path": "/a"})
        async with pending as task:
            with await Tools(place.guard, task).admit_async("read_file", {"path": "/a"}) as running:
                assert running.returned("text") == "text"
            with pytest.raises(Refused, match="files"):
                await Tools(place.guard, task).admit_async("write_file", {"path": "/a"})


def test_without_a_server_every_call_is_denied(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        place = Place(live_server, tmp_path, max_age=MAX_AGE_S)
        place.guard.start()
        agent = Agent.from_credential(place.agent_key)
        tools = Tools(place.guard, agent)
        assert is_allowed(tools)
    with agent:
        eventually(lambda: not is_allowed(tools))
        assert not is_allowed(tools)
        assert not is_allowed(Tools(place.guard, agent))
    place.guard.close()


def test_a_call_that_needs_a_token_is_denied_without_a_server(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        place = Place(live_server, tmp_path, max_age=PATIENT_S)
        place.guard.start()
        agent = Agent.from_credential(place.agent_key)
    with agent, pytest.raises(Refused, match=f"the server {live_server.server.url} does not answer"):
        Tools(place.guard, agent).admit("read_file", {"path": "/a"})
    place.guard.close()
