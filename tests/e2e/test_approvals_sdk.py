"""Approvals: agents that wait, denials that name the approval, keys of persons, and the command line."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from harness.live_server import ServerFixture, authenticate, free_socket, own_server, serving
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from harness.server import COMMAND
from ostiary.agent import Agent, AsyncAgent, ServerRefused
from ostiary.asgi import GuardASGI
from ostiary.client import Target, TokenRefused
from ostiary.guard import Denied, Guard, Verified
from ostiary.keys import Credential
from ostiary.mcp import protect
from ostiary.protocol import jose
from ostiary.tools import Tools
from tests.support.payment_fixtures import CALL, FILES, People, codes, live_server, people

__all__ = ["live_server", "people"]
PAY: dict[str, Any] = CALL[1]


@contextmanager
def later(people: People, says: str = "approve") -> Iterator[None]:
    """Answer the next approval request of the agent, in a thread."""
    alice = people.person()

    def answer() -> None:
        [id] = eventually(lambda: waiting(people))
        people.answer(alice, id, says)

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    thread.join()


def waiting(people: People) -> list[str]:
    found = people.live_server.api("GET", "/approvals", state="open")["approvals"]
    return [one["approval_id"] for one in found if one["agent"] == people.agent]


@contextmanager
def denied(people: People, folder: Path) -> Iterator[tuple[Guard, Verified, str]]:
    """A guard, a caller, and the open approval of a denied call."""
    with people.guard(folder) as (guard, who):
        yield guard, who, guard.decide(who, *CALL).decision.approval


def test_an_agent_waits_for_an_approval_and_retries_the_call(people: People, tmp_path: Path) -> None:
    with denied(people, tmp_path) as (guard, who, id), Agent.from_credential(people.agent_key) as agent:
        assert agent.ask(id, within=0).is_open
        with later(people):
            said = agent.ask(id, within=20)
        assert (said.is_granted, said.state, said.reason) == (True, "approved", "it is due")
        assert guard.decide(who, *CALL).decision.allowed


async def test_an_asynchronous_agent_waits_and_gets_the_denial(people: People, tmp_path: Path) -> None:
    with denied(people, tmp_path) as (guard, who, id):
        async with AsyncAgent.from_credential(people.agent_key) as agent:
            assert (await agent.ask(id, within=0)).is_open
            with later(people, "deny"):
                said = await agent.ask(id, within=20)
        assert (said.is_granted, said.state) == (False, "denied")
        assert codes(guard.decide(who, *CALL).decision) == ["approval_denied"]


def test_an_approval_is_hidden_from_other_agents_and_its_arguments_from_the_agent(
    people: People, tmp_path: Path
) -> None:
    _, other = people.live_server.agent(f"{people.resource}:write")
    with denied(people, tmp_path) as (_, _, id), Agent.from_credential(other) as agent:
        with pytest.raises(ServerRefused) as refused:
            agent.ask(id, within=0)
        assert refused.value.code == "unknown_approval"
        url, api = f"{agent.issuer}/api/v1/approvals", f"{agent.issuer}/api/v1"
        assert agent.get(url, resource=api).json()["approvals"] == []
    with Agent.from_credential(people.agent_key) as agent:
        [own] = agent.get(url, resource=api).json()["approvals"]
        assert (own["approval_id"], "arguments" in own) == (id, False)
        assert "arguments" not in agent.get(f"{url}/{id}", resource=api).json()


def test_a_decorated_function_waits_and_runs_once(people: People, tmp_path: Path) -> None:
    paid: list[str] = []
    with Guard(people.guard_key, spool_dir=tmp_path) as guard, Agent.from_credential(people.agent_key) as agent:
        tools = Tools(guard, agent, wait=20)

        @tools.tool("pay")
        def pay(amount: int, to: str) -> str:
            paid.append(to)
            return "paid"

        with later(people):
            assert pay(500, to="ann") == "paid"
        with pytest.raises(Denied) as spent:
            pay(500, to="ann")
        assert (spent.value.code, paid) == ("approval_spent", ["ann"])


async def test_a_decorated_coroutine_does_not_run_after_a_denial(people: People, tmp_path: Path) -> None:
    with Guard(people.guard_key, spool_dir=tmp_path) as guard:
        async with AsyncAgent.from_credential(people.agent_key) as agent:

            @Tools(guard, agent, wait=20).tool("pay")
            async def pay(amount: int, to: str) -> str:
                raise AssertionError("it must not run")

            with later(people, "deny"), pytest.raises(Denied) as refused:
                await pay(500, to="ann")
            assert refused.value.code == "approval_denied"


def test_a_denial_without_waiting_names_the_approval(people: People, tmp_path: Path) -> None:
    with Guard(people.guard_key, spool_dir=tmp_path) as guard, Agent.from_credential(people.agent_key) as agent:
        with pytest.raises(Denied) as refused:
            Tools(guard, agent).admit("pay", PAY)
        assert [refused.value.approval] == waiting(people)


async def test_a_denial_over_asgi_names_the_approval(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    people = People(live_server, f"http://127.0.0.1:{port}/mcp")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"paid"})

    other = [
        {"name": "get", "effect": "read", "arguments": {"type": "object", "properties": {"to": {"type": "string"}}}}
    ]
    catalogue = {"resource": people.resource, "tools": other}
    live_server.api("PUT", f"/resources/{people.resource}/catalogue", {"catalogue": catalogue})
    live_server.api("PATCH", f"/agents/{people.agent}", {"scopes": [f"{people.resource}:read"]})
    with (
        Guard(people.guard_key, spool_dir=tmp_path) as guard,
        serving(GuardASGI(app, guard, tool={"GET /mcp": "get"}), sock),
    ):
        async with AsyncAgent.from_credential(people.agent_key) as agent:
            answer = await agent.get(f"{people.uri}?to=mallory", resource=people.uri)
            assert answer.status_code == 403
            assert (answer.json()["error"], answer.json()["approval"]) == ("approval_needed", waiting(people)[0])
            people.answer(people.person(), answer.json()["approval"])
            assert (await agent.get(f"{people.uri}?to=mallory", resource=people.uri)).text == "paid"
            again = (await agent.get(f"{people.uri}?to=mallory", resource=people.uri)).json()
            assert (again["error"], again["approval"]) == ("approval_needed", waiting(people)[0])
    people.close()


async def test_an_mcp_error_names_the_approval(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    people = People(live_server, f"http://127.0.0.1:{port}/mcp")
    server = MCPServer("bank")

    @server.tool()
    def pay(amount: int, to: str) -> str:
        return f"paid {to}"

    with Guard(people.guard_key, spool_dir=tmp_path) as guard, serving(protect(server, guard), sock):
        async with (
            AsyncAgent.from_credential(people.agent_key) as agent,
            httpx2.AsyncClient(auth=agent.auth(people.uri)) as http,
            Client(streamable_http_client(people.uri, http_client=http)) as client,
        ):
            with pytest.raises(MCPError) as refused:
                await client.call_tool("pay", {"amount": 500, "to": "ann"})
            data: Any = refused.value.error.data
            assert (data["error"], [data["approval"]]) == ("approval_needed", waiting(people))
            people.answer(people.person(), data["approval"])
            result: Any = await client.call_tool("pay", {"amount": 500, "to": "ann"})
            assert result.structured_content == {"result": "paid ann"}
    people.close()


# Both sides are started anew


def test_an_approval_survives_a_restart_of_the_server_and_the_guard(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with PreparedServer(folder) as server, ServerFixture(server, tmp_path) as live_server:
        live_server.api("POST", "/policies", {"files": FILES})
        people = People(live_server)
        with denied(people, tmp_path / "one") as (_, _, id):
            people.answer(people.person(), id)
        people.close()
        port = int(server.url.rpartition(":")[2])
    with PreparedServer(folder, port=port), Guard(people.guard_key, spool_dir=tmp_path / "two") as guard:
        who = authenticate(guard, people.agent_key, people.uri)
        assert guard.decide(who, *CALL).decision.allowed
        assert codes(guard.decide(who, *CALL).decision) == ["approval_spent"]


def test_two_concurrent_guards_use_an_approval_once(people: People, tmp_path: Path) -> None:
    with denied(people, tmp_path / "a") as (one, who, id), people.guard(tmp_path / "b") as (other, her):
        people.answer(people.person(), id)
        said: list[bool] = []
        threads = [
            threading.Thread(target=lambda g=guard, w=w: said.append(g.decide(w, *CALL).decision.allowed))
            for guard, w in ((one, who), (other, her)) * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(said) == [False] * 7 + [True]


# People and their keys


def test_the_key_of_a_person_gives_access_only_to_approvals(people: People, tmp_path: Path) -> None:
    alice = people.person()
    api = f"{alice.issuer}/api/v1"
    for method, path in (
        ("GET", "/agents"),
        ("GET", "/audit"),
        ("POST", "/revoke"),
        ("GET", "/tasks"),
        ("POST", "/persons"),
    ):
        assert alice.request(method, api + path, resource=api, json={}).status_code == 403, path
    with pytest.raises(TokenRefused):
        alice.token(resource=people.uri)
    with pytest.raises(TokenRefused):
        alice.token(resource=api, scope="ostiary:admin")
    for name in (people.agent, "admin"):
        with pytest.raises(TokenRefused):
            alice.token(resource=f"{alice.issuer}/agents/{name}")
    with denied(people, tmp_path) as (_, _, id):
        assert alice.get(f"{api}/approvals/{id}", resource=api).json()["arguments"]["amount"] == 500


def test_an_administrator_and_an_agent_cannot_answer_an_approval_request(people: People, tmp_path: Path) -> None:
    """The agent is refused although it has the scope `ostiary:approve`."""
    people.live_server.api(
        "PATCH",
        f"/agents/{people.agent}",
        {"scopes": [f"{people.resource}:write", "ostiary:approve"], "undeclared": True},
    )
    with denied(people, tmp_path) as (_, _, id), Agent.from_credential(people.agent_key) as agent:
        assert people.answer(people.live_server.admin, id)[1]["error"] == "insufficient_scope"
        assert people.answer(agent, id)[1]["error"] == "own_chain"
        assert waiting(people) == [id]


def test_the_key_of_a_person_is_refused_for_an_agent_and_for_another_person(people: People) -> None:
    api = people.live_server.admin
    jwk = dict(jose.generate("ES256").public.jwk)
    where, resource = f"{people.live_server.server.url}/api/v1", f"{api.issuer}/api/v1"
    person = {"name": people.live_server.name("person"), "jwk": jwk}
    assert api.post(f"{where}/persons", resource=resource, json=person).status_code == 201
    taken = api.post(f"{where}/agents/{people.agent}/keys", resource=resource, json={"jwk": jwk})
    assert (taken.status_code, taken.json()["error"]) == (409, "key_taken")
    again = api.post(f"{where}/persons", resource=resource, json=person | {"name": people.live_server.name("person")})
    assert (again.status_code, again.json()["error"]) == (409, "key_taken")


def test_the_token_of_a_person_is_bound_to_the_own_key_of_the_person(people: People) -> None:
    _, path = people.person_and_key()
    found = json.loads(path.read_text())
    own = jose.parse_private_jwk({name: value for name, value in found.items() if name not in ("client_id", "issuer")})
    with Agent(Credential(own, found["client_id"], found["issuer"])) as alice:
        alice.token(resource=f"{alice.issuer}/api/v1")
    with Agent(Credential(own, found["client_id"], found["issuer"]), second_key=jose.generate("ES256")) as alice:
        target = Target(f"{alice.issuer}/api/v1", acr_values="urn:ostiary:acr:two-keys")
        with pytest.raises(TokenRefused, match="own key"):
            alice._run(alice._token(target))


def test_a_person_without_a_valid_key_or_who_left_cannot_answer(people: People, tmp_path: Path) -> None:
    alice, bob = people.person(), people.person()
    names = [one["name"] for one in people.live_server.api("GET", "/persons", limit=1000)["persons"]]
    api = f"{alice.issuer}/api/v1"
    for one in (alice, bob):
        assert one.get(f"{api}/approvals", resource=api).status_code == 200
    with denied(people, tmp_path) as (_, _, id):
        people.live_server.api("POST", "/revoke", {"kind": "owner", "id": names[-2]})
        alice._client._tokens.clear()
        with pytest.raises(TokenRefused):
            people.answer(alice, id)
        [key] = people.live_server.api("GET", f"/persons/{names[-1]}/keys")["keys"]
        revoked = people.live_server.admin.request(
            "DELETE", f"{people.live_server.server.url}/api/v1/persons/{names[-1]}/keys/{key['kid']}", resource=api
        )
        assert (revoked.status_code, revoked.json()) == (200, {"revoked": {"token": 1}})
        assert people.answer(bob, id)[0] == 401  # the token is dead, and there is no other
        assert waiting(people) == [id]
    people.live_server.api("POST", f"/persons/{names[-2]}/return", {})
    with pytest.raises(TokenRefused):  # a person who returns needs a new key
        alice.token(resource=api)


# The command line

BAD = "\x1b[2J\x1b]0;owned\x07line\nanswer: approved\u202etxt.exe\u200b\u3164\u0430nn"


def test_approvals_are_listed_shown_granted_and_denied_by_commands(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        live_server.api("POST", "/policies", {"files": FILES})
        people, key = People(live_server), tmp_path / "carol.json"
        made = live_server.server.ostiary("person", "create", "carol", "--generate-key", str(key))
        assert made["name"] == "carol"
        [listed] = live_server.server.ostiary("person", "keys", "carol")
        assert (key.stat().st_mode & 0o777, listed["revoked_at"]) == (0o600, None)
        with denied(people, tmp_path / "spool") as (guard, who, id):
            [waits] = live_server.server.ostiary("approvals", "list")
            assert (waits["approval_id"], waits["state"], waits["tool"]) == (id, "open", f"{people.resource}/pay")
            assert live_server.server.ostiary("approvals", "show", id)["arguments"]["to"] == "ann"
            assert "ostiary person create" in failing(live_server, "approvals", "approve", id, "--reason", "me")
            yes = ("approvals", "approve", id, "--reason", "it is due", "--as", str(key))
            assert "are accountable for" in failing(live_server, *yes), "she does not"
            live_server.api("PUT", f"/teams/{people.team}/members/carol")
            done = live_server.server.ostiary(*yes)
            assert (done["state"], done["reason"]) == ("approved", "it is due")
            assert guard.decide(who, *CALL).decision.allowed
            asked = guard.decide(
                who, "pay", PAY | {"to": BAD, "note": BAD, "x\nanswer: approved": "y"}
            ).decision.approval
            shown = text(live_server, "approvals", "show", asked, "--as", str(key))
            assert (
                live_server.server.ostiary("approvals", "deny", asked, "--reason", "no", "--as", str(key))["state"]
                == "denied"
            )
            ids = [str(guard.decide(who, "pay", PAY | {"to": name}).decision.approval) for name in ("bob", "eva")]
            task = live_server.api("GET", f"/approvals/{ids[0]}")["task"]
            told = live_server.server.ostiary("approvals", "show", task, "--as", str(key))
            assert [one["approval_id"] for one in told["approvals"]] == ids
            said = live_server.server.ostiary(
                "approvals", "approve", ids[0], "--deny", ids[1], "--reason", "bob alone", "--as", str(key)
            )
            assert [(one["approval_id"], one["state"]) for one in said] == [(ids[1], "denied"), (ids[0], "approved")]
        assert live_server.server.ostiary("approvals", "list") == []
        assert len(live_server.server.ostiary("approvals", "list", "--all")) == 4
        assert live_server.server.ostiary("approvals", "propose", people.agent)["proposals"] == []
        started = live_server.server.ostiary(
            "task", "start", "--agent", people.agent, "--purpose", "rent", "--words", "Pay the rent", "--ask-plan"
        )
        assert started["plan_question"] is None, "people have agreed to nothing yet"
        assert live_server.server.ostiary("person", "revoke-key", "carol", listed["kid"])["revoked"]["token"] > 0
        people.close()
    harmless(shown)


def harmless(shown: str) -> None:
    """Check that the text of an agent cannot forge a line, and that its control characters are escaped."""
    assert not any(char in shown for char in "\x1b\x07\u202e\u200b\u3164")
    assert not any(line.startswith("answer: approved") for line in shown.split("\n"))
    assert "\\x1b[2J" in shown or "\\u001b[2J" in shown
    assert "\\u202e" in shown
    assert "\\u0430nn" in shown, "a letter that looks like another is spelled out beside"


def failing(live_server: ServerFixture, *arguments: str) -> str:
    command: list[Any] = [COMMAND, "--data-dir", live_server.server.folder, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 1
    return str(run.stderr)


def text(live_server: ServerFixture, *arguments: str) -> str:
    command: list[Any] = [COMMAND, "--data-dir", live_server.server.folder, *arguments]
    return str(subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout)


def test_watching_approvals_prints_a_new_approval_request(people: People, tmp_path: Path) -> None:
    _, key = people.person_and_key()
    command: list[Any] = [
        COMMAND,
        "--data-dir",
        people.live_server.server.folder,
        "--json",
        "approvals",
        "list",
        "--watch",
        "--as",
        key,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            with denied(people, tmp_path) as (_, _, id):
                assert watching.stdout is not None
                while (seen := json.loads(watching.stdout.readline()))["approval_id"] != id:
                    pass
                assert seen["asks"]["agent"] == people.agent
        finally:
            watching.terminate()
