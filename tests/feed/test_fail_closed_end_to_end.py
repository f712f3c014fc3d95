"""Guards, and a server that stalls, dies and comes back: nothing is allowed in doubt, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ostiary import ambient
from ostiary.agent import Agent
from ostiary.core import dpop
from ostiary.core.errors import Refused
from ostiary.guard import Guard, NonceNeeded, Verified
from tests.feed.house import House
from tests.patience import eventually
from tests.server import Server, running

URI = "https://files.example.org/mcp"
MAX_AGE_S = 2.0


@contextmanager
def own_house(folder: Path, *options: str) -> Iterator[House]:
    """A server that the test may kill."""
    with running(folder / "server", *options) as server:
        house = House(server, folder)
        yield house
        house.admin.close()


def enter(guard: Guard, agent_key: Path, uri: str = URI, *, task: str | None = None) -> Verified:
    """What an agent shows to the guard: a token, and proofs until one has the right nonce."""
    with Agent.from_credential(agent_key) as agent:
        token = str(agent.token(resource=uri, task=task)["access_token"])
        nonce: str | None = None
        while True:
            proof = dpop.make_proof(
                agent._client.credential.key, method="POST", uri=uri, now=ambient.now(), jti=os.urandom(16).hex(),
                nonce=nonce, access_token=token,
            )  # fmt: skip
            try:
                return guard.verify(authorization=f"DPoP {token}", proof=proof, method="POST", uri=uri)
            except NonceNeeded as needed:
                nonce = needed.nonce


def is_allowed(guard: Guard, who: Verified) -> bool:
    try:
        return guard.decide(who, "read_file", {"path": "/a"}).decision.allowed
    except Refused:
        return False


def pid_of(server: Server) -> int:
    return int(json.loads((server.folder / "server.json").read_text())["pid"])


def test_a_revocation_is_in_force_at_the_guard_and_who_revoked_is_told(house: House, tmp_path: Path) -> None:
    resource, guard_key = house.resource("https://a.example.org/mcp")
    agent, agent_key = house.agent(f"{resource}:read")
    with Guard(guard_key, spool_dir=tmp_path) as guard:
        who = enter(guard, agent_key, "https://a.example.org/mcp")
        assert is_allowed(guard, who)
        revoked = house.api("POST", "/revoke", {"kind": "agent", "id": agent})
        feeds = house.api("GET", "/feeds", seq=revoked["seq"], since=revoked["committed_at"], wait_ms=5000)
        assert not is_allowed(guard, who)
    [told] = [guard for guard in feeds["guards"] if guard["guard"] == resource]
    assert told["applied"]
    assert 0 <= told["ms"] < 5000


@pytest.mark.parametrize("kind", ["task", "token", "key", "owner"])
def test_whatever_is_revoked_is_denied(house: House, tmp_path: Path, kind: str) -> None:
    uri = f"https://{kind}.example.org/mcp"
    resource, guard_key = house.resource(uri)
    agent, agent_key = house.agent(f"{resource}:read")
    facts = house.api("GET", f"/agents/{agent}")
    with Guard(guard_key, spool_dir=tmp_path) as guard, Agent.from_credential(agent_key) as identity:
        task = identity.task("to be revoked", scopes=[f"{resource}:read"]).id if kind == "task" else None
        who = enter(guard, agent_key, uri, task=task)
        assert is_allowed(guard, who)
        jti = who.principal.claims.jti
        id = {"task": task, "token": jti, "key": facts["keys"][0]["kid"], "owner": facts["owner"]}[kind]
        revoked = house.api("POST", "/revoke", {"kind": kind, "id": id})
        house.api("GET", "/feeds", seq=revoked["seq"], wait_ms=5000)
        assert not is_allowed(guard, who)


def test_a_server_that_stalls_closes_the_guard_and_one_that_goes_on_opens_it(tmp_path: Path) -> None:
    with own_house(tmp_path) as house:
        resource, guard_key = house.resource(URI)
        _, agent_key = house.agent(f"{resource}:read")
        with Guard(guard_key, spool_dir=tmp_path / "spool", max_age=MAX_AGE_S) as guard:
            who = enter(guard, agent_key)
            assert is_allowed(guard, who)
            os.kill(pid_of(house.server), signal.SIGSTOP)
            try:
                eventually(lambda: not is_allowed(guard, who))
            finally:
                os.kill(pid_of(house.server), signal.SIGCONT)
            eventually(lambda: is_allowed(guard, who))


def test_a_server_that_dies_closes_the_guard_and_its_return_opens_it(tmp_path: Path) -> None:
    with own_house(tmp_path) as house:
        resource, guard_key = house.resource(URI)
        _, agent_key = house.agent(f"{resource}:read")
        guard = Guard(guard_key, spool_dir=tmp_path / "spool", max_age=MAX_AGE_S).start()
        who = enter(guard, agent_key)
        assert is_allowed(guard, who)
    with closing(guard):
        eventually(lambda: not is_allowed(guard, who))
        with own_house(tmp_path):  # the same folder, and so the same port and the same keys
            eventually(lambda: is_allowed(guard, who))


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from ostiary.guard import Guard
from tests.feed.test_fail_closed_end_to_end import enter, is_allowed
guard = Guard(sys.argv[1], spool_dir=sys.argv[2])
guard._link.note = lambda: None  # it decides, and reports nothing
with guard:
    who = enter(guard, Path(sys.argv[3]))
    for _ in range(20):
        assert is_allowed(guard, who)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_guard_had_decided_is_reported_by_the_next(tmp_path: Path) -> None:
    with own_house(tmp_path) as house:
        resource, guard_key = house.resource(URI)
        _, agent_key = house.agent(f"{resource}:read")
        killed = subprocess.run(
            [sys.executable, "-c", PROGRAM, guard_key, tmp_path / "spool", agent_key], cwd=Path(__file__).parents[2]
        )
        assert killed.returncode == -signal.SIGKILL
        assert calls(house) == []
        with Guard(guard_key, spool_dir=tmp_path / "spool"):
            entries = eventually(lambda: calls(house))
        assert sorted(entry["detail"]["number"] for entry in entries) == list(range(1, 21))
        assert len({entry["detail"]["spool"] for entry in entries}) == 1
        assert not list((tmp_path / "spool").glob("*/*/*")), "all is told, nothing is left"


def calls(house: House) -> list[dict[str, Any]]:
    return [entry for entry in house.entries(resource=URI, limit=100) if entry["action"] == "tool.call"]


def test_a_server_that_was_away_gets_every_record_once_it_is_back(tmp_path: Path) -> None:
    with own_house(tmp_path) as house:
        resource, guard_key = house.resource(URI)
        _, agent_key = house.agent(f"{resource}:read")
        guard = Guard(guard_key, spool_dir=tmp_path / "spool").start()
        who = enter(guard, agent_key)
        assert is_allowed(guard, who)
        eventually(lambda: calls(house))
    with closing(guard):
        assert all(is_allowed(guard, who) for _ in range(10)), "the feed is young enough still"
        with own_house(tmp_path) as house:
            entries = eventually(lambda: len(found := calls(house)) == 11 and found)
    assert sorted(entry["detail"]["number"] for entry in entries) == list(range(1, 12))
