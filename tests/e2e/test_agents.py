"""Agents of the SDK against a real server: identity in three lines, tasks that end as their blocks do."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from ostiary.agent import Agent, AsyncAgent, ServerRefused
from ostiary.asgi import GuardASGI
from ostiary.client import TokenRefused
from ostiary.guard import Guard
from ostiary.protocol.errors import Invalid
from tests.e2e.task_echo import who

CLINIC = "https://clinic.example.org/mcp"


def state_of(live_server: ServerFixture, task: str) -> str:
    return str(live_server.api("GET", f"/tasks/{task}")["state"])


def test_an_agent_calls_a_guarded_api_under_its_tasks_and_each_call_is_in_the_ledger(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = live_server.resource(url)
    _, agent_key = live_server.agent(f"{resource}:read")
    with Guard(guard_key, spool_dir=tmp_path) as guard:
        rules = {"GET /api/files/{path*}": "read_file", "PUT /api/files/{path*}": "write_file"}
        with serving(GuardASGI(who, guard, tool=rules), sock), Agent.from_credential(agent_key) as agent:
            response = agent.get(f"{url}/files/a")
            assert response.status_code == 200
            assert response.text == "tk_" + agent.client_id.removeprefix("ag_"), "the standing task"
            with agent.task("read a file", scopes=[f"{resource}:read"]) as task:
                assert task.get(f"{url}/files/a").text == task.id
                denied = task.request("PUT", f"{url}/files/a")
                assert denied.status_code == 403
                assert denied.json()["error"] == "outside_task"
                held = agent._client._tokens
            assert state_of(live_server, task.id) == "done"
            assert any(target.task == task.id for target in held), "it still has the token, which is dead"
            assert agent.get(f"{url}/files/a", task=task.id).status_code == 401
        entries = eventually(lambda: calls(live_server, resource=url, task=task.id))
    assert [entry["outcome"] for entry in entries] == ["deny", "allow"]


def calls(live_server: ServerFixture, **query: str) -> list[dict[str, Any]] | None:
    """Both calls, the newest first, once they were reported."""
    found = [entry for entry in live_server.entries(**query) if entry["action"] == "tool.call"]
    return found if len(found) == 2 else None


async def test_concurrent_requests_of_an_agent_share_one_token(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = live_server.resource(url)
    _, agent_key = live_server.agent(f"{resource}:read")
    rules = {"GET /api/files/{path*}": "read_file"}
    with Guard(guard_key, spool_dir=tmp_path) as guard, serving(GuardASGI(who, guard, tool=rules), sock):
        async with AsyncAgent.from_credential(agent_key) as tasks:
            answers = await asyncio.gather(*(tasks.get(f"{url}/files/{number}") for number in range(6)))
        assert [answer.status_code for answer in answers] == [200] * 6
        with Agent.from_credential(agent_key) as agent, ThreadPoolExecutor(16) as pool:
            asked = [asyncio.wrap_future(pool.submit(agent.get, f"{url}/files/{number}")) for number in range(32)]
            assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 32
    issued = [entry for entry in live_server.entries(resource=url) if entry["action"] == "token.issue"]
    assert len(issued) == 2, "one token for each agent"


def test_a_task_whose_block_raises_has_failed(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource("https://failing.example.org/mcp")
    _, agent_key = live_server.agent(f"{resource}:read")
    with Agent.from_credential(agent_key) as agent:
        task = agent.task("fail")
        with pytest.raises(ZeroDivisionError), task:
            raise ZeroDivisionError
        assert state_of(live_server, task.id) == "failed"


def test_a_task_is_renewed_and_narrows_the_token(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource("https://renewed.example.org/mcp")
    _, agent_key = live_server.agent(f"{resource}:read", f"{resource}:write")
    with Agent.from_credential(agent_key) as agent:
        bounds: list[dict[str, Any]] = [
            {"type": "tool", "locations": ["https://renewed.example.org/mcp"], "actions": ["read_file"]}
        ]
        with agent.task("read", scopes=[f"{resource}:read"], bounds=bounds, ttl=60) as task:
            before = live_server.api("GET", f"/tasks/{task.id}")
            task.renew(600)
            after = live_server.api("GET", f"/tasks/{task.id}")
            assert after["expires_at"] > before["expires_at"]
            answer = agent.token(resource="https://renewed.example.org/mcp", task=task.id)
            assert answer["scope"] == f"{resource}:read"
            assert answer["authorization_details"][0]["actions"] == ["read_file"]
            with pytest.raises(TokenRefused):
                agent.token(resource="https://renewed.example.org/mcp", task=task.id, scope=f"{resource}:write")


def limited(data_classes: list[str]) -> dict[str, Any]:
    return {"type": "tool", "locations": [CLINIC], "datatypes": data_classes}


def test_tasks_subtasks_and_delegated_tasks_are_limited_to_their_data_classes(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource(CLINIC)
    (_, agent_key), (helper, helper_key) = (live_server.agent(f"{resource}:read") for _ in range(2))
    with Agent.from_credential(agent_key) as agent, Agent.from_credential(helper_key) as other:
        with agent.task("read", data_classes=["health", "personal"]) as task:
            assert agent.token(resource=CLINIC, task=task.id)["authorization_details"] == [
                limited(["health", "personal"])
            ]
            with pytest.raises(ServerRefused, match="no resource of this task has these data classes"):
                task.task("more", data_classes=["payment"])
            with task.task("a part", data_classes=["health"]) as part:
                assert part.facts["data_classes"] == ["health"]
                for handed in (
                    part.delegate(helper, "its figures", data_classes=["health"]),
                    agent.delegate(helper, "others", data_classes=["health"]),
                ):
                    assert other.token(resource=CLINIC, task=handed.id)["authorization_details"] == [
                        limited(["health"])
                    ]
                assert part.task("nothing said").facts["data_classes"] == ["health"]
        with pytest.raises(ServerRefused, match="helth"):
            agent.task("read", data_classes=["helth"])
        with pytest.raises(ServerRefused, match="1 to 32 members"):
            agent.task("read", data_classes=[])


async def test_an_asynchronous_agent_limits_data_classes_too(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource("https://clinic-async.example.org/mcp")
    (_, agent_key), (helper, _) = (live_server.agent(f"{resource}:read") for _ in range(2))
    async with (
        AsyncAgent.from_credential(agent_key) as agent,
        agent.task("read", data_classes=["health", "personal"]) as task,
        task.task("a part", data_classes=["personal"]) as part,
        task.delegate(helper, "its figures", data_classes=["health"]) as handed,
    ):
        assert task.facts["data_classes"] == ["health", "personal"]
        assert (part.facts["data_classes"], handed.facts["data_classes"]) == (["personal"], ["health"])


def test_a_refusal_by_the_server_is_raised_with_a_message(live_server: ServerFixture) -> None:
    _, agent_key = live_server.agent()
    with Agent.from_credential(agent_key) as agent:
        with pytest.raises(ServerRefused) as refused:
            agent.task("x", ttl=0)
        assert refused.value.message
        with pytest.raises(ServerRefused):
            agent.task("x", on_behalf_of="nobody-of-that-name")


async def test_an_asynchronous_agent_calls_a_guarded_api_under_its_tasks(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = live_server.resource(url)
    _, agent_key = live_server.agent(f"{resource}:read")
    with (
        Guard(guard_key, spool_dir=tmp_path) as guard,
        serving(GuardASGI(who, guard, tool={"GET /api/files/{path*}": "read_file"}), sock),
    ):
        async with AsyncAgent.from_credential(agent_key) as agent:
            assert await agent.issuer() == live_server.server.url
            async with agent.task("read a file") as task:
                assert (await task.get(f"{url}/files/a")).text == task.id
                await task.renew(7200)
            assert state_of(live_server, task.id) == "done"
            with pytest.raises(ZeroDivisionError):
                async with agent.task("fail") as failing:
                    raise ZeroDivisionError
            assert state_of(live_server, failing.id) == "failed"
            assert (await agent.token(resource=url))["token_type"] == "DPoP"


async def test_an_agent_states_the_words_of_a_person_only_if_its_operator_allows_it(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource("https://asked.example.org/mcp")
    agent_id, agent_key = live_server.agent(f"{resource}:read")
    document = {"tool": f"{resource}/read_file", "value": "bill.txt", "kinds": ["amount"]}
    asked: dict[str, Any] = {"words": "Pay bill.txt", "own": {"mail": "a@b.example"}, "endorse": [document]}
    with Agent.from_credential(agent_key) as agent:
        with pytest.raises(ServerRefused) as refusal:
            agent.task("pay", **asked)
        assert refusal.value.code == "may_not_speak"
        with pytest.raises(Invalid, match="words"):
            agent.task("pay", own={"mail": "a@b.example"})
        live_server.api("PATCH", f"/agents/{agent_id}", {"speaks": True})
        with agent.task("pay", **asked) as task, task.task("read", words="bill.txt") as part:
            assert (task.facts["intent"]["words"], task.facts["intent"]["said_by"]) == ("Pay bill.txt", "agent")
            assert part.facts["intent"]["words"] == "bill.txt"
            with pytest.raises(ServerRefused) as refusal:
                task.task("more", words="Pay everything")
            assert refusal.value.code == "widens"
    async with (
        AsyncAgent.from_credential(agent_key) as other,
        other.task("pay", **asked) as whole,
        whole.task("read", words="Pay") as less,
    ):
        assert (whole.facts["intent"]["endorsed"], less.facts["intent"]["words"]) == ([document], "Pay")


async def test_an_agent_states_the_plan_of_its_task_at_the_start(live_server: ServerFixture) -> None:
    resource, _ = live_server.resource("https://planned.example.org/mcp")
    agent_id, agent_key = live_server.agent(f"{resource}:read")
    live_server.api("PATCH", f"/agents/{agent_id}", {"speaks": True})
    plan = [{"tool": f"{resource}/pay", "most": "50"}]
    asked: dict[str, Any] = {"words": "Pay bill.txt", "plan": plan, "ask_plan": True}
    with Agent.from_credential(agent_key) as agent:
        with pytest.raises(Invalid, match="need the words"):
            agent.task("pay", plan=plan)
        with agent.task("pay", **asked) as task, task.task("less", words="Pay", plan=[]) as part:
            assert (task.facts["intent"]["plan"], part.facts["intent"]["plan"]) == (plan, [])
            assert task.facts["plan_question"] is None, "people have agreed to nothing yet"
            assert "plan_question" not in part.facts
    async with AsyncAgent.from_credential(agent_key) as other, other.task("pay", **asked) as whole:
        assert (whole.facts["intent"]["plan"], whole.facts["plan_question"]) == (plan, None)


def test_a_credential_without_a_client_id_or_issuer_needs_them_as_arguments(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    from ostiary.keys import save_key
    from ostiary.protocol import jose

    save_key(tmp_path / "bare.json", jose.generate("ES256"), client_id="", issuer="")
    with pytest.raises(Invalid, match="names no client id"):
        Agent.from_credential(tmp_path / "bare.json", url=live_server.server.url)
    with pytest.raises(Invalid, match="names no issuer"):
        Agent.from_credential(tmp_path / "bare.json", client_id="ag_1")
    Agent.from_credential(tmp_path / "bare.json", url=live_server.server.url, client_id="ag_1").close()
