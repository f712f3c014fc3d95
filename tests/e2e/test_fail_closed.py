"""Guards of a server that stalls, stops and restarts: guards deny without the server, and no record is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import MAX_AGE_S, URI, ServerFixture, authenticate, is_allowed, own_server, pid_of
from harness.patience import eventually
from ostiary.agent import Agent
from ostiary.guard import Guard
from ostiary.guard.knowledge import FeedStale


def test_a_revocation_is_in_force_at_the_guard_and_reported_as_applied(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    resource, guard_key = live_server.resource("https://a.example.org/mcp")
    agent, agent_key = live_server.agent(f"{resource}:read")
    with Guard(guard_key, spool_dir=tmp_path) as guard:
        who = authenticate(guard, agent_key, "https://a.example.org/mcp")
        assert is_allowed(guard, who)
        revoked = live_server.api("POST", "/revoke", {"kind": "agent", "id": agent})
        feeds = live_server.api("GET", "/feeds", seq=revoked["seq"], since=revoked["committed_at"], wait_ms=5000)
        assert not is_allowed(guard, who)
    [told] = [guard for guard in feeds["guards"] if guard["guard"] == resource]
    assert told["applied"]
    assert 0 <= told["ms"] < 5000


@pytest.mark.parametrize("kind", ["task", "token", "key", "owner"])
def test_a_call_with_a_revoked_task_token_key_or_owner_is_denied(
    live_server: ServerFixture, tmp_path: Path, kind: str
) -> None:
    uri = f"https://{kind}.example.org/mcp"
    resource, guard_key = live_server.resource(uri)
    agent, agent_key = live_server.agent(f"{resource}:read")
    facts = live_server.api("GET", f"/agents/{agent}")
    with Guard(guard_key, spool_dir=tmp_path) as guard, Agent.from_credential(agent_key) as identity:
        task = identity.task("to be revoked", scopes=[f"{resource}:read"]).id if kind == "task" else None
        who = authenticate(guard, agent_key, uri, task=task)
        assert is_allowed(guard, who)
        jti = who.principal.claims.jti
        id = {"task": task, "token": jti, "key": facts["keys"][0]["kid"], "owner": facts["owner"]}[kind]
        revoked = live_server.api("POST", "/revoke", {"kind": kind, "id": id})
        live_server.api("GET", "/feeds", seq=revoked["seq"], wait_ms=5000)
        assert not is_allowed(guard, who)


def test_a_guard_denies_while_the_server_stalls_and_allows_again_afterwards(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        resource, guard_key = live_server.resource(URI)
        _, agent_key = live_server.agent(f"{resource}:read")
        with Guard(guard_key, spool_dir=tmp_path / "spool", max_age=MAX_AGE_S) as guard:
            who = authenticate(guard, agent_key)
            assert is_allowed(guard, who)
            os.kill(pid_of(live_server.server), signal.SIGSTOP)
            try:
                eventually(lambda: not is_allowed(guard, who))
            finally:
                os.kill(pid_of(live_server.server), signal.SIGCONT)
            eventually(lambda: is_allowed(guard, who))


def test_a_guard_denies_after_the_server_stops_and_allows_after_its_restart(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        resource, guard_key = live_server.resource(URI)
        _, agent_key = live_server.agent(f"{resource}:read")
        guard = Guard(guard_key, spool_dir=tmp_path / "spool", max_age=MAX_AGE_S).start()
        who = authenticate(guard, agent_key)
        assert is_allowed(guard, who)
    with closing(guard):
        eventually(lambda: not is_allowed(guard, who))
        with own_server(tmp_path):  # the same folder, and so the same port and the same keys
            eventually(lambda: is_allowed(guard, who))


def test_a_guard_with_a_max_age_below_the_heartbeat_interval_reports_the_problem(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    """The server sends a heartbeat each second."""
    _, guard_key = live_server.resource("https://impatient.example.org/mcp")
    guard = Guard(guard_key, spool_dir=tmp_path, max_age=1.0).start(wait=0)
    with closing(guard):
        eventually(lambda: "`max_age` of this guard is 1 s" in guard._link.trouble)
        with pytest.raises(FeedStale, match="the server sends a heartbeat each 1 s"):
            guard.feed.current()


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from ostiary.guard import Guard
from harness.live_server import authenticate, is_allowed
guard = Guard(sys.argv[1], spool_dir=sys.argv[2])
guard._link.note = lambda: None  # it decides, and reports nothing
with guard:
    who = authenticate(guard, Path(sys.argv[3]))
    for _ in range(20):
        assert is_allowed(guard, who)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_decisions_of_a_killed_guard_are_reported_by_the_next_guard(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        resource, guard_key = live_server.resource(URI)
        _, agent_key = live_server.agent(f"{resource}:read")
        killed = subprocess.run(
            [sys.executable, "-c", PROGRAM, guard_key, tmp_path / "spool", agent_key], cwd=Path(__file__).parents[2]
        )
        assert killed.returncode == -signal.SIGKILL
        assert calls(live_server) == []
        with Guard(guard_key, spool_dir=tmp_path / "spool"):
            entries = eventually(lambda: calls(live_server))
        assert sorted(entry["detail"]["number"] for entry in entries) == list(range(1, 21))
        assert len({entry["detail"]["spool"] for entry in entries}) == 1
        assert not list((tmp_path / "spool").glob("*/*/*")), "all is told, nothing is left"


def calls(live_server: ServerFixture) -> list[dict[str, Any]]:
    return [entry for entry in live_server.entries(resource=URI, limit=100) if entry["action"] == "tool.call"]


def test_the_server_gets_each_record_of_a_guard_after_a_restart(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        resource, guard_key = live_server.resource(URI)
        _, agent_key = live_server.agent(f"{resource}:read")
        guard = Guard(guard_key, spool_dir=tmp_path / "spool").start()
        who = authenticate(guard, agent_key)
        assert is_allowed(guard, who)
        eventually(lambda: calls(live_server))
    with closing(guard):
        assert all(is_allowed(guard, who) for _ in range(10)), "the feed is young enough still"
        with own_server(tmp_path) as live_server:
            entries = eventually(lambda: len(found := calls(live_server)) == 11 and found)
    assert sorted(entry["detail"]["number"] for entry in entries) == list(range(1, 12))
