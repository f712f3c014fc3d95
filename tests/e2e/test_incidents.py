"""An agent that calls a decoy is quarantined until a person releases it; and the kill switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cli import Commands
from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from ostiary.agent import Agent
from ostiary.asgi import GuardASGI
from ostiary.client.target import TokenRefused
from ostiary.guard import Guard
from ostiary.protocol.errors import Unavailable
from tests.e2e.task_echo import who

RULES = {"GET /api/files/{path*}": "read_file", "GET /api/keys/{path*}": "export_keys"}
TOOLS: list[dict[str, Any]] = [
    {"name": "read_file", "effect": "read", "arguments": {"type": "object"}},
    {"name": "export_keys", "effect": "read", "arguments": {"type": "object"}, "canary": True},
]
LONG_S = 60.0


@contextmanager
def guarded(live_server: ServerFixture, folder: Path) -> Iterator[tuple[str, str]]:
    """A resource behind a guard: its name and URL."""
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}/api"
    resource, key = live_server.resource(url, TOOLS)
    with Guard(key, spool_dir=folder) as guard, serving(GuardASGI(who, guard, tool=RULES), sock):
        yield resource, url


def status(agent: Agent, url: str) -> int:
    """The status of a request; 401 if the agent gets no token, or if the response is cut while the agent is stopped."""
    try:
        return agent.get(url).status_code
    except (TokenRefused, Unavailable):
        return 401


def test_an_agent_that_calls_a_decoy_is_quarantined_until_a_person_releases_it(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    ostiary = Commands(live_server.server.folder)
    judith = tmp_path / "judith.json"
    ostiary.json("person", "create", live_server.name("judith"), "--generate-key", judith)
    with guarded(live_server, tmp_path) as (resource, url):
        name, key = live_server.agent(f"{resource}:read")
        with Agent.from_credential(key) as agent:
            eventually(lambda: live_server.api("GET", "/watch")["phase"] == "working")
            assert status(agent, f"{url}/files/a") == 200
            status(agent, f"{url}/keys/root")
            eventually(lambda: status(agent, f"{url}/files/a") == 401)
            [found] = [one for one in ostiary.json("incident", "list") if one["agent"] == name]
            id = found["incident_id"]
            shown = ostiary.json("incident", "show", id)
            assert (shown["state"], shown["agent_state"]) == ("open", "quarantined")
            assert [one["detector"] for one in shown["findings"]] == ["canary"]
            assert [(one["response"], one["outcome"]) for one in shown["acts"]] == [("quarantine", "done")]
            assert {one["tool"].partition("/")[2] for one in shown["blast"]["touched"]} == {"read_file", "export_keys"}
            assert shown["blast"]["reachable"]["scopes"] == [f"{resource}:read"]
            text = ostiary("incident", "show", id)
            for words in (
                "findings, newest first",
                "which is a decoy",
                "responses",
                "trusted-no-more",
                "reach",
            ):
                assert words in text.out
            _nobody_else_lets_it_go(ostiary, live_server, name, id)
            done = ostiary.json("incident", "release", id, "--reason", "the test called it", "--as", judith)
            assert (done["state"], done["agent_state"], done["risk_now"]) == ("released", "active", 0)
            eventually(lambda: status(agent, f"{url}/files/a") == 200)
            assert ostiary.json("incident", "list", "--as", judith) == []
            [closed] = [one for one in ostiary.json("incident", "list", "--all") if one["incident_id"] == id]
            assert closed["why"] == "the test called it"
    done = [entry["action"] for entry in live_server.entries(limit=200) if entry.get("outcome", "ok") == "ok"]
    steps = ["agent.release", "incident.release", "incident.act", "agent.quarantine", "incident.open"]
    assert [one for one in done if one in steps] == steps, "the newest first, each once"
    assert "watch.find" in done


def _nobody_else_lets_it_go(ostiary: Commands, live_server: ServerFixture, name: str, id: str) -> None:
    admin = ostiary("incident", "release", id, "--reason", "because")
    assert (admin.code, "only a person" in admin.err) == (1, True)
    past = ostiary("agent", "release", name)
    assert (past.code, f"ostiary incident release {id}" in past.err) == (1, True)
    own = live_server.folder / f"{name}.owner.json"
    owner = live_server.api("GET", f"/agents/{name}")["owner"]
    ostiary.json("person", "add-key", owner, "--generate-key", own)
    refused = ostiary("incident", "release", id, "--reason", "it is mine", "--as", own)
    assert (refused.code, "another person must release the agent" in refused.err) == (1, True)


def test_the_kill_switch_applies_at_the_guard_until_it_is_lifted(live_server: ServerFixture, tmp_path: Path) -> None:
    ostiary = Commands(live_server.server.folder)
    with guarded(live_server, tmp_path) as (resource, url):
        (name, key), (_, other) = live_server.agent(f"{resource}:read"), live_server.agent(f"{resource}:read")
        with Agent.from_credential(key) as agent, Agent.from_credential(other) as beside:
            assert (status(agent, f"{url}/files/a"), status(beside, f"{url}/files/a")) == (200, 200)
            owner = live_server.api("GET", f"/agents/{name}")["owner"]
            for what, value in (("owner", owner), ("resource", resource), ("segment", "default"), ("everything", "")):
                words = [what, value] if value else [what]
                done = ostiary.json("kill", *words, "--reason", "a drill")
                assert {(guard["applied"], guard["ms"] >= 0) for guard in done["guards"]} == {(True, True)}
                assert status(agent, f"{url}/files/a") in (401, 403)
                assert (status(beside, f"{url}/files/a") == 200) is (what == "owner")
                [listed] = ostiary.json("kill", "list")
                assert (listed["what"], listed["why"]) == (what, "a drill")
                assert what != "owner" or f"owner\t{value}\t" in ostiary("kill", "list").out, "people read names"
                lifted = ostiary.json("kill", "lift", *words, "--reason", "over")
                assert {guard["applied"] for guard in lifted["guards"]} == {True}
                eventually(lambda: status(agent, f"{url}/files/a") == 200)
            stopped = ostiary("kill", "agent", name, "--reason", "a drill")
            assert f"agent {name} is quarantined" in stopped.out
            assert "ms after the commit" in stopped.out
            assert status(agent, f"{url}/files/a") == 401
            now = ostiary.json("activity", "--once")
            assert now["waiting"] >= 1
            assert "kill.start" in ostiary("activity", "--once").out
