"""Rego at guards of a real server: MCP, ASGI, both ways of deciding, budgets, and how often the server is asked."""

from __future__ import annotations

import os
import signal
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

from harness.live_server import ServerFixture, authenticate, free_socket, own_server, pid_of, serving
from harness.patience import eventually
from ostiary.agent import AsyncAgent
from ostiary.asgi import GuardASGI
from ostiary.guard import Guard, Verified
from ostiary.mcp import DENIED, protect

CEDAR = """
@id("issue") permit (principal is Agent, action == Action::"issue_token", resource);
@id("no-secrets") forbid (principal, action == Action::"call", resource)
when { context.arguments has path && context.arguments.path like "*secret*" };
"""
REGO = """package ostiary.reports

import rego.v1

default permit := false

permit if startswith(input.context.arguments.path, "/reports/")

forbid contains "nobody reads drafts" if contains(input.context.arguments.path, "draft")
"""
SCHEMA = "type Arguments = { path?: String };"
FILES = {"a.cedar": CEDAR, "a.cedarschema": SCHEMA, "reports.rego": REGO}


@pytest.fixture(scope="module", autouse=True)
def active(live_server: ServerFixture) -> str:
    made = live_server.api("POST", "/policies", {"files": FILES})
    return str(made["hash"])


class Files:
    """A resource, and an agent that may read there."""

    def __init__(self, live_server: ServerFixture, uri: str = "") -> None:
        self.live_server = live_server
        self.uri = uri or f"https://{live_server.name('files')}.example/mcp"
        self.resource, self.guard_key = live_server.resource(self.uri)
        self.agent, self.agent_key = live_server.agent(f"{self.resource}:read")

    @contextmanager
    def guard(self, folder: Path, task: str | None = None) -> Iterator[tuple[Guard, Verified]]:
        with Guard(self.guard_key, spool_dir=folder) as guard:
            yield guard, authenticate(guard, self.agent_key, self.uri, task=task)

    def asked(self) -> list[dict[str, Any]]:
        return [one for one in self.live_server.entries(resource=self.uri, limit=200) if one["action"] == "policy.ask"]

    def called(self, count: int) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            entries = self.live_server.entries(resource=self.uri, limit=200)
            return [one for one in entries if one["action"] == "tool.call"]

        return list(eventually(lambda: (calls := found()) if len(found()) >= count else None))


@pytest.fixture
def files(live_server: ServerFixture) -> Files:
    return Files(live_server)


def test_a_guard_applies_the_rego_verdict_and_both_entries_are_in_the_ledger(
    files: Files, active: str, tmp_path: Path
) -> None:
    with files.guard(tmp_path) as (guard, who):
        assert guard.decide(who, "read_file", {"path": "/reports/q3"}).decision.allowed
        assert not guard.decide(who, "read_file", {"path": "/private/q3"}).decision.allowed
        denied = guard.decide(who, "read_file", {"path": "/reports/draft"}).decision
        assert [(one.code, one.message) for one in denied.reasons] == [("forbidden_by_policy", "nobody reads drafts")]
        calls = files.called(3)
    asked = files.asked()
    assert [one["detail"]["said"]["reports"] for one in asked] == [
        {"forbid": ["nobody reads drafts"]},
        "neither",
        "permit",
    ]
    assert [(one["outcome"], one["detail"]["elsewhere"]["said"]) for one in calls] == [
        ("deny", {"reports": "forbid"}),
        ("deny", {"reports": "neither"}),
        ("allow", {"reports": "permit"}),
    ]
    assert [one["detail"]["elsewhere"]["question"] for one in calls] == [one["digest"] for one in asked]
    assert {one["policy"] for one in (*calls, *asked)} == {active}
    assert {one["reporter"] for one in asked} == {calls[0]["reporter"]}


def test_a_call_that_the_guard_denies_is_not_sent_to_rego(files: Files, tmp_path: Path) -> None:
    with files.guard(tmp_path) as (guard, who):
        assert guard.decide(who, "write_file", {}).decision.reasons[0].code == "outside_task"
        assert guard.decide(who, "read_file", {"path": 7}).decision.reasons[0].code == "bad_arguments"
        assert guard.decide(who, "no_such_tool", {}).decision.reasons[0].code == "unknown_tool"
        assert guard.decide(who, "read_file", {"path": "/reports/secret"}).decision.policies == ("no-secrets",)
        task = files.live_server.api(
            "POST",
            "/tasks",
            {
                "agent": files.agent,
                "purpose": "one report",
                "bounds": [
                    {
                        "type": "tool",
                        "locations": [files.uri],
                        "actions": ["read_file"],
                        "arguments": {"path": {"prefix": "/reports/a/"}},
                    }
                ],
            },
        )["task_id"]
        bounded = authenticate(guard, files.agent_key, files.uri, task=task)
        assert guard.decide(bounded, "read_file", {"path": "/reports/b"}).decision.reasons[0].code == "outside_task"
        assert files.asked() == []
        assert guard.decide(bounded, "read_file", {"path": "/reports/a/b"}).decision.allowed
        assert len(files.asked()) == 1


def test_each_rego_decision_takes_one_request_to_the_server(files: Files, tmp_path: Path) -> None:
    """Counted where the requests leave: beside the first call, which gets a token and a nonce, one for each."""
    with files.guard(tmp_path) as (guard, who):
        assert guard.decide(who, "read_file", {"path": "/reports/q3"}).decision.allowed
        talk = guard._link.rpc._connection
        assert talk is not None
        sent: list[str] = []
        http = talk[0]
        http.event_hooks = {"request": [lambda request: sent.append(request.url.path)]}
        for _ in range(10):
            assert guard.decide(who, "read_file", {"path": "/reports/q3"}).decision.allowed
        assert sent == ["/feed/v1/ask"] * 10
        guard.decide(who, "read_file", {"path": "/secret"})
        assert len(sent) == 10
    assert len(files.asked()) == 11


async def test_an_asynchronous_decision_evaluates_rego_once(files: Files, tmp_path: Path) -> None:
    with files.guard(tmp_path) as (guard, who):
        assert (await guard.decide_async(who, "read_file", {"path": "/reports/q3"})).decision.allowed
        assert not (await guard.decide_async(who, "read_file", {"path": "/private"})).decision.allowed
        assert len(files.asked()) == 2


def test_a_call_that_rego_denies_is_not_charged(files: Files, tmp_path: Path) -> None:
    budget = [{"kind": "calls", "limit": 2}]
    task = files.live_server.api("POST", "/tasks", {"agent": files.agent, "purpose": "two reports", "budget": budget})
    with files.guard(tmp_path, task["task_id"]) as (guard, who):
        for path, allowed in (("/private", False), ("/reports/1", True), ("/private", False), ("/reports/2", True)):
            assert guard.decide(who, "read_file", {"path": path}).decision.allowed is allowed
        last = guard.decide(who, "read_file", {"path": "/reports/3"}).decision
        assert last.reasons[0].code == "budget_exhausted"


async def test_an_mcp_server_evaluates_rego_for_each_call(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    files = Files(live_server, f"http://127.0.0.1:{port}/mcp")
    server = MCPServer("files")

    @server.tool()
    def read_file(path: str) -> str:
        return f"text of {path}"

    with Guard(files.guard_key, spool_dir=tmp_path) as guard, serving(protect(server, guard), sock):
        async with (
            AsyncAgent.from_credential(files.agent_key) as identity,
            httpx2.AsyncClient(auth=identity.auth(files.uri)) as http,
            Client(streamable_http_client(files.uri, http_client=http)) as client,
        ):
            result: Any = await client.call_tool("read_file", {"path": "/reports/q3"})
            assert result.structured_content == {"result": "text of /reports/q3"}
            with pytest.raises(MCPError, match="nobody reads drafts") as denied:
                await client.call_tool("read_file", {"path": "/reports/draft"})
            assert denied.value.code == DENIED
    assert len(files.asked()) == 2


async def test_an_asgi_application_evaluates_rego_for_each_request(live_server: ServerFixture, tmp_path: Path) -> None:
    sock, port = free_socket()
    files = Files(live_server, f"http://127.0.0.1:{port}/mcp")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"text"})

    with Guard(files.guard_key, spool_dir=tmp_path) as guard:
        behind = GuardASGI(app, guard, tool={"GET /mcp": "read_file"})
        with serving(behind, sock):
            async with (
                AsyncAgent.from_credential(files.agent_key) as identity,
                httpx2.AsyncClient(auth=identity.auth(files.uri)) as http,
            ):
                assert (await http.get(files.uri, params={"path": "/reports/q3"})).text == "text"
                denied = await http.get(files.uri, params={"path": "/reports/draft"})
                assert (denied.status_code, denied.json()["message"]) == (403, "nobody reads drafts")
    assert len(files.asked()) == 2


@pytest.mark.impatient
def test_a_call_that_needs_rego_is_denied_while_the_server_stalls(tmp_path: Path) -> None:
    with own_server(tmp_path / "own") as live_server:
        live_server.api("POST", "/policies", {"files": FILES})
        files = Files(live_server)
        pid = pid_of(live_server.server)
        with Guard(files.guard_key, spool_dir=tmp_path / "spool", max_age=30) as guard:
            who = authenticate(guard, files.agent_key, files.uri)
            assert guard.decide(who, "read_file", {"path": "/reports/q3"}).decision.allowed
            os.kill(pid, signal.SIGSTOP)
            try:
                stalled = guard.decide(who, "read_file", {"path": "/reports/q3"}).decision
                assert "took too long" in stalled.reasons[0].message
                forbidden = guard.decide(who, "read_file", {"path": "/secret"}).decision
                assert not forbidden.allowed
                assert "took too long" not in str(forbidden.reasons), "the server was asked about what Cedar forbids"
            finally:
                os.kill(pid, signal.SIGCONT)
            eventually(lambda: guard.decide(who, "read_file", {"path": "/reports/q3"}).decision.allowed)


def test_a_rego_policy_that_runs_longer_than_5_seconds_denies_the_call(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    pairs = "some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x * y == 0"
    loops = f'permit if {{ input.action.name == "call"; {pairs} }}'
    body = f"package ostiary.reports\nimport rego.v1\ndefault permit := false\n{loops}\n"
    live_server.api("POST", "/policies", {"files": FILES | {"reports.rego": body}})
    files = Files(live_server)
    with files.guard(tmp_path) as (guard, who):
        denied = guard.decide(who, "read_file", {"path": "/reports/q3"}).decision
        assert "longer than 5 s" in denied.reasons[0].message
    live_server.api("POST", "/policies", {"files": FILES})
