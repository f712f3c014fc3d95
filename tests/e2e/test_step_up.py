"""A resource that wants two keys, a real guard, and an agent that has one, then two (RFC 9470)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from ostiary.agent import Agent, AsyncAgent
from ostiary.asgi import VERIFIED, GuardASGI, Receive, Scope, Send
from ostiary.authorization.assurance import TWO_KEYS
from ostiary.client import StepUpNeeded
from ostiary.guard import Guard
from ostiary.keys import save_key
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid
from ostiary.tools import Tools

RULES = {"GET /api/files/{path*}": "read_file", "PUT /api/files/{path*}": "write_file"}
POLICY = f"""
permit (principal, action, resource);

@id("writing-takes-two-keys")
@step_up("{TWO_KEYS}")
@max_age("120")
forbid (principal, action == Action::"call", resource)
when {{ resource.effect == "write" }}
unless {{
  context.acr == "{TWO_KEYS}" && context has auth_time
  && context.now.durationSince(context.auth_time) <= duration("120s")
}};
"""


async def acr(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the `acr` of the caller."""
    body = scope[VERIFIED].principal.claims.acr.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def second(live_server: ServerFixture, tmp_path: Path) -> Any:
    """Registers another key of an agent; its file."""

    def register(name: str, agent_id: str) -> Path:
        key, path = jose.generate("ES256"), tmp_path / "second.json"
        live_server.api("POST", f"/agents/{name}/keys", {"jwk": dict(key.public.jwk)})
        save_key(path, key, client_id=agent_id, issuer=live_server.server.url)
        return path

    return register


async def test_an_agent_steps_up_with_its_second_key_or_gets_an_error(
    live_server: ServerFixture, tmp_path: Path, second: Any
) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = live_server.resource(url)
    scopes = (f"{resource}:read", f"{resource}:write")
    name, path = live_server.agent(*scopes)
    live_server.api("POST", "/policies", {"files": {"two.cedar": POLICY}})
    with Guard(guard_key, spool_dir=tmp_path) as guard, serving(GuardASGI(acr, guard, tool=RULES), sock):
        with Agent.from_credential(path) as weak:
            assert weak.get(f"{url}/files/a").text == "urn:ostiary:acr:key"
            with pytest.raises(StepUpNeeded, match="two-keys") as refused:
                weak.request("PUT", f"{url}/files/a")
            assert refused.value.acr_values == TWO_KEYS
            assert "second registered key" in str(refused.value)
            key_file = second(name, weak.client_id)
        with Agent.from_credential(path, second_key=key_file) as agent:
            assert agent.get(f"{url}/files/a").text == "urn:ostiary:acr:key", "no more than is asked for"
            for _ in range(2):
                assert agent.request("PUT", f"{url}/files/a").text == TWO_KEYS
            stepped = [held for target, held in agent._client._tokens.items() if target.steps_up]
            assert len(stepped) == 1, "the token is kept while it is new enough"
            with agent.task("writes a file") as task:
                assert task.request("PUT", f"{url}/files/b").text == TWO_KEYS
        async with AsyncAgent.from_credential(path, second_key=key_file) as later:
            assert (await later.request("PUT", f"{url}/files/a")).text == TWO_KEYS
        thumbprint = [key["kid"] for key in live_server.api("GET", f"/agents/{name}/keys")["keys"]][-1]
        live_server.api("DELETE", f"/agents/{name}/keys/{thumbprint}")
        revoked_key = pytest.raises(StepUpNeeded, match="was revoked or has expired")
        with Agent.from_credential(path, second_key=key_file) as agent, revoked_key:
            agent.request("PUT", f"{url}/files/a")
    eventually(lambda: "insufficient_user_authentication" in str(live_server.entries(resource=url, limit=50)))


RECENT = """
permit (principal, action, resource);

@id("writing-takes-a-recent-login")
@max_age("2")
forbid (principal, action == Action::"call", resource)
when { resource.effect == "write" }
unless { context has auth_time && context.now.durationSince(context.auth_time) <= duration("2s") };
"""


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the task and the time of the login of the caller."""
    claims = scope[VERIFIED].principal.claims
    body = json.dumps({"task": claims.task, "auth_time": claims.auth_time}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_a_task_continues_with_a_newer_login_after_the_maximum_age(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, guard_key = live_server.resource(url)
    _, path = live_server.agent(f"{resource}:read", f"{resource}:write")
    live_server.api("POST", "/policies", {"files": {"recent.cedar": RECENT}})
    with (
        Guard(guard_key, spool_dir=tmp_path) as guard,
        serving(GuardASGI(tell, guard, tool=RULES), sock),
        Agent.from_credential(path) as agent,
        agent.task("writes for longer than a login lasts") as task,
    ):
        first = task.request("PUT", f"{url}/files/a").json()

        def write() -> Any:
            seen = task.request("PUT", f"{url}/files/a").json()
            return seen if seen["auth_time"] > first["auth_time"] + 2 else None

        assert eventually(write)["task"] == first["task"] == task.id, "the same task, with a newer login"


def test_tools_of_the_process_of_the_agent_step_up(live_server: ServerFixture, tmp_path: Path, second: Any) -> None:
    url = "https://own-tools.example/mcp"
    resource, guard_key = live_server.resource(url)
    name, path = live_server.agent(f"{resource}:read", f"{resource}:write")
    live_server.api("POST", "/policies", {"files": {"two.cedar": POLICY}})
    with Guard(guard_key, spool_dir=tmp_path / "spool", url=live_server.server.url) as guard:
        with Agent.from_credential(path) as weak:
            tools = Tools(guard, weak)
            with tools.admit("read_file", {"path": "/a"}):
                pass
            with pytest.raises(StepUpNeeded, match="two-keys"):
                tools.admit("write_file", {})
            key_file = second(name, weak.client_id)
        with Agent.from_credential(path, second_key=key_file) as agent, agent.task("writes") as task:
            tools, ran = Tools(guard, task), list[str]()

            @tools.tool("write_file")
            def write_file() -> None:
                ran.append("blocking")

            @tools.tool("write_file")
            async def write_file_async() -> None:
                ran.append("async")

            write_file()
            asyncio.run(write_file_async())
    assert ran == ["blocking", "async"]


def test_a_second_key_of_another_agent_or_equal_to_the_first_is_refused(
    live_server: ServerFixture, second: Any, tmp_path: Path
) -> None:
    (_, one), (_, other) = live_server.agent(), live_server.agent()
    with pytest.raises(Invalid, match="not of"):
        Agent.from_credential(one, second_key=other)
    with pytest.raises(Invalid, match="same key"):
        Agent.from_credential(one, second_key=one)
