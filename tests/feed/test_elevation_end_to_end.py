"""An agent that asks for more, a person who says yes, a real guard before and after, and the command line beside it."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostiary.agent import Agent, ApprovalNeeded, AsyncAgent, ServerRefused
from ostiary.asgi import GuardASGI
from ostiary.core import jose
from ostiary.guard import Guard
from ostiary.keys import save_key
from tests.feed.house import House, listening, serving
from tests.feed.test_agents_end_to_end import who
from tests.feed.test_webhooks_end_to_end import ostiary
from tests.patience import eventually

RULES = {"GET /api/files/{path*}": "read_file", "PUT /api/files/{path*}": "write_file"}


def a_person(house: House, folder: Path, *, agent: str) -> Agent:
    """Somebody with a key who answers for that agent: its owner's deputy."""
    name, key = house.name("person"), jose.generate("ES256")
    body = {"name": name, "email": f"{name}@example.org", "jwk": dict(key.public.jwk)}
    made = house.api("POST", "/persons", body)
    owner = house.api("GET", f"/agents/{agent}")["owner"]
    house.api("PUT", f"/persons/{owner}/deputy", {"deputy": name})
    save_key(folder / f"{name}.json", key, client_id=made["person_id"], issuer=house.server.url)
    return Agent.from_credential(folder / f"{name}.json", url=house.server.url)


def says_yes(house: House, person: Agent, approval: str) -> Any:
    api = f"{person.issuer}/api/v1"
    response = person.post(f"{api}/approvals/{approval}/approve", resource=api, json={"reason": "it is due"})
    assert response.status_code == 200, response.text
    return response.json()


async def test_more_for_a_while_asked_for_answered_used_and_gone(house: House, tmp_path: Path) -> None:
    sock, port = listening()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = house.resource(url)
    read, write = f"{resource}:read", f"{resource}:write"
    name, path = house.agent(read)
    with (
        Guard(guard_key, spool_dir=tmp_path) as guard,
        serving(GuardASGI(who, guard, tool=RULES), sock),
        Agent.from_credential(path) as agent,
        a_person(house, tmp_path, agent=name) as person,
    ):
        with pytest.raises(ServerRefused, match="not eligible"):
            agent.elevate([write], reason="to repair the report")
        with pytest.raises(AssertionError, match="undeclared_scope"):
            house.api("PUT", f"/agents/{name}/eligible", {"scopes": [f"{resource}:wirte"]})
        assert ostiary(house, "elevation", "allow", name, write)["scopes"] == [write]
        with pytest.raises(ApprovalNeeded) as waits:
            agent.elevate([write], reason="to repair the report")
        answering = threading.Timer(1.0, says_yes, (house, person, waits.value.approval))
        answering.start()
        with agent.elevate([write], reason="to repair the report", wait=20) as more:
            answering.join()
            assert more.request("PUT", f"{url}/files/a").text == more.id
            assert agent.request("PUT", f"{url}/files/a").status_code == 403, "by its standing task it may not"
            listed = ostiary(house, "elevation", "list")
            assert (listed[0]["task_id"], listed[0]["state"], listed[0]["scopes"]) == (more.id, "live", [write])

        def is_refused() -> bool:
            with suppress(httpx2.RemoteProtocolError):  # an answer that was under way breaks off
                return agent.request("PUT", f"{url}/files/a", task=more.id).status_code == 401
            return False

        eventually(is_refused)
        assert ostiary(house, "elevation", "list")[0]["state"] == "done"
        refused = [one for one in house.entries(limit=50) if one["action"] == "token.issue" and one.get("reasons")]
        assert refused[0]["reasons"][0]["code"] == "elevation_ended"

    async with AsyncAgent.from_credential(path) as later:
        with pytest.raises(ApprovalNeeded):
            await later.elevate([write], reason="once more", for_=5, wait=0.1)
        with pytest.raises(ServerRefused):
            await later.elevate([read, write], reason="once more", for_=481)
