"""Wall clocks that go forward and back, of a real server, of a real guard, and of both at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from harness.clock import START, MachineClock, SeededRandom
from harness.live_server import URI, ServerFixture, authenticate, is_allowed, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.registry_fixtures import call_admin_api
from harness.server import running
from ostiary import ambient
from ostiary.agent import Agent
from ostiary.guard import Guard
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.process.clock import SECOND, Boot
from ostiaryd.ground.world import open_world
from ostiaryd.ledger import store
from ostiaryd.ledger.model import decode_entry
from ostiaryd.trust.flows import watch_clock
from tests.faults.shifted import set_clock, steps_back
from tests.faults.tally import Tally

HOUR = 3600.0
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Site:
    """A server under a wall clock that the test sets, its administrator, and the commands that start it again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.offset = folder, folder / "offset"
        set_clock(self.offset, 0)
        self.command = (sys.executable, "-m", "tests.faults.shifted", self.offset)
        self._running = running(folder / "server", command=self.command)
        self.server = self._running.__enter__()
        self.live_server = ServerFixture(self.server, folder)

    def jump(self, seconds: float) -> None:
        """Set the wall clock of the server so far ahead, and wait until that is on record."""
        before = self.entries("clock.jump")
        set_clock(self.offset, seconds)
        eventually(lambda: self.entries("clock.jump") > before)
        assert self.live_server.api("GET", "/clock")["state"] == ("jumped" if seconds > 0 else "behind")

    def come_back(self) -> None:
        """Set the wall clock of the server right, and wait until that is on record."""
        before = self.entries("clock.return")
        set_clock(self.offset, 0)
        eventually(lambda: self.entries("clock.return") > before)
        assert self.live_server.api("GET", "/clock")["state"] == "ok"

    def entries(self, action: str) -> int:
        return len(self.live_server.api("GET", "/audit", action=action)["entries"])

    def restart(self) -> None:
        """Kill the server, and start it on the same port."""
        os.kill(pid_of(self.server), signal.SIGKILL)
        with pytest.raises(AssertionError, match="the server ended with -9"):
            self._running.__exit__(None, None, None)
        port = int(self.server.url.rpartition(":")[2])
        self._running = running(self.folder / "server", command=self.command, port=port)
        self.server = self._running.__enter__()

    def close(self) -> None:
        self.live_server.admin.close()
        self._running.__exit__(None, None, None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def guard_at(site: Site, credential: Path, offset: Path) -> Guard:
    """A guard in this process whose wall clock is ahead by what `offset` says."""
    return Guard(credential, spool_dir=site.folder / "spool", now=lambda: ambient.now() + read(offset))


def read(offset: Path) -> int:
    """Microseconds."""
    return round(float(offset.read_text()) * SECOND)


def entry_times(site: Site) -> list[int]:
    with closing(sqlite3.connect(site.server.folder / "ostiary.db")) as database:
        return [at for (at,) in database.execute("select at from entry order by idx")]


def grant(site: Site, client_id: str, assertion: str, key: jose.PrivateKey, nonce: str | None) -> httpx2.Response:
    url = f"{site.server.url}/token"
    proof = dpop.make_proof(key, method="POST", uri=url, now=ambient.now(), jti=os.urandom(16).hex(), nonce=nonce)
    form = {
        "grant_type": "client_credentials",
        "resource": URI,
        "client_id": client_id,
        "client_assertion_type": ASSERTION,
        "client_assertion": assertion,
    }
    return httpx2.post(url, headers={"dpop": proof}, data=form)


def refuses(site: Site, key: Path) -> bool:
    """Whether an agent gets no token for a resource, for the clock's sake. Any other refusal fails the test."""
    with Agent.from_credential(key, url=site.server.url) as agent:
        try:
            agent.token(resource=URI)
        except Refused as refusal:
            if "clock jumped" in refusal.message:
                return True
            raise
    return False


def test_an_ended_task_stays_ended_while_wall_clocks_go_forward_and_back(
    site: Site, tmp_path: Path, rounds: int, tally: Tally
) -> None:
    live_server, dice = site.live_server, random.Random(rounds)
    resource, guard_key = live_server.resource(URI)
    guard_offset = tmp_path / "guard-offset"
    set_clock(guard_offset, 0)
    broken = tried = lost = stopped = 0
    with guard_at(site, guard_key, guard_offset) as guard:
        for _ in range(rounds):
            size = dice.choice([HOUR * 1.2, HOUR * 30, 301.0])
            for at_server, at_guard in ((size, size), (size, 0), (0, size), (-size, -size), (-size, 0)):
                agent, key = live_server.agent(f"{resource}:read")
                ended = live_server.api("POST", "/tasks", {"agent": agent, "purpose": "x", "ttl": 3000})["task_id"]
                lasting = live_server.api("POST", "/tasks", {"agent": agent, "purpose": "x", "ttl": 3000})["task_id"]
                dead, alive = (authenticate(guard, key, task=task) for task in (ended, lasting))
                assert is_allowed(guard, dead)
                live_server.api("POST", f"/tasks/{ended}/end", {"outcome": "cancelled"})
                eventually(lambda dead=dead: not is_allowed(guard, dead))  # type: ignore[misc]
                set_clock(guard_offset, at_guard)
                if at_server:
                    site.jump(at_server)
                    stopped += refuses(site, key) is (at_server > 0)
                    _, other = live_server.agent(f"{resource}:read")  # administration goes on
                    assert other.exists()
                else:
                    stopped += 1
                if at_guard:
                    eventually(lambda alive=alive: not is_allowed(guard, alive))  # type: ignore[misc]
                broken += is_allowed(guard, dead)
                set_clock(guard_offset, 0)
                if at_server:
                    site.come_back()
                eventually(lambda alive=alive: is_allowed(guard, alive))  # type: ignore[misc]
                broken += is_allowed(guard, dead)
                lost += live_server.api("GET", f"/tasks/{lasting}")["state"] != "live"
                tried += 1
    tally("the token of a task that has ended stays denied, whichever clock jumps", broken=broken, of=2 * tried)
    tally("a wrong hour ends no task", broken=lost, of=tried)
    tally("a jump forward stops grants, a step back does not", broken=tried - stopped, of=tried)
    times = entry_times(site)
    tally(
        "the times of entries never decrease",
        broken=steps_back(times),
        of=len(times),
    )
    assert site.entries("clock.jump") >= 4 * rounds


def test_a_used_assertion_is_refused_after_a_clock_jump_and_a_restart(site: Site, rounds: int, tally: Tally) -> None:
    live_server = site.live_server
    resource, _ = live_server.resource(URI)
    broken = tried = 0
    for _ in range(rounds):
        _, path = live_server.agent(f"{resource}:read")
        credential = msgspec.json.decode(path.read_bytes())
        key, thief, now = jose.parse_private_jwk(credential), jose.generate("ES256"), int(time.time())
        claims = {
            "iss": credential["client_id"],
            "sub": credential["client_id"],
            "aud": site.server.url,
            "iat": now,
            "exp": now + 290,
            "jti": os.urandom(16).hex(),
        }
        assertion = jose.sign_jwt(key, typ="client-authentication+jwt", claims=claims)
        nonce = grant(site, credential["client_id"], assertion, key, None).headers.get("dpop-nonce")
        assert grant(site, credential["client_id"], assertion, key, nonce).status_code == 200
        site.jump(HOUR)
        for _ in range(8):  # what is written meanwhile reaches the memory of what was spent
            live_server.owner()
        set_clock(site.offset, 0)
        site.restart()
        first = grant(site, credential["client_id"], assertion, thief, None)
        again = grant(site, credential["client_id"], assertion, thief, first.headers.get("dpop-nonce"))
        broken += again.status_code == 200
        tried += 1
    tally("an assertion that was spent is refused after a jump and a kill", broken=broken, of=tried)


def test_an_operator_can_confirm_the_time_from_a_machine_with_another_clock(site: Site) -> None:
    resource, _ = site.live_server.resource(URI)
    _, key = site.live_server.agent(f"{resource}:read")
    site.jump(2 * HOUR)
    assert refuses(site, key)
    assert site.server.ostiary("clock", "show")["is_granting"] is False
    shown = site.server.ostiary("clock", "accept")
    assert (shown["state"], shown["is_granting"]) == ("ok", True)
    assert not refuses(site, key)  # though this process, and so the agent's clock, is two hours behind
    assert site.server.ostiary("clock", "show")["time"] - time.time() > 1.9 * HOUR
    assert site.entries("clock.accept") == 1
    site.restart()
    assert site.server.ostiary("clock", "show")["state"] == "ok"


def test_answers_state_the_confirmed_time_at_once(site: Site) -> None:
    for count in range(1, 6):
        site.jump(2 * HOUR * count)
        shown = site.live_server.api("GET", "/clock")
        site.live_server.api("POST", "/clock/accept", {"wall": shown["wall"]})
        answer = httpx2.get(f"{site.server.url}/livez", trust_env=False)
        stated = parsedate_to_datetime(answer.headers["date"]).timestamp()
        assert abs(stated - site.live_server.api("GET", "/clock")["time"]) < PATIENCE_S


@pytest.mark.parametrize("database", ["postgres"])
async def test_entry_times_never_decrease_with_two_servers_whose_clocks_differ(
    config: Config, tmp_path: Path, rounds: int, tally: Tally
) -> None:
    begin = START + 60 * SECOND
    machines = MachineClock(begin, boot="one"), MachineClock(begin + 250 * SECOND, boot="two")
    other: Any = tmp_path / "other"
    shutil.copytree(config.folder, other)
    boots = [Boot(partial(getattr, machine, "uptime"), machine.boot_id) for machine in machines]
    beside = msgspec.structs.replace(config, data_dir=str(other))
    async with (
        open_world(config, now=machines[0].wall, boot=boots[0], random=SeededRandom("one")) as one,
        open_world(
            beside,
            now=machines[1].wall,
            boot=boots[1],
            random=SeededRandom("two"),
        ) as two,
    ):
        for count in range(10 * rounds):
            for world in (one, two):
                status, _ = await call_admin_api(world, "POST", "/persons", {"name": f"p{count}-{int(world is one)}"})
                assert status == 201
            for machine in machines:
                machine.advance(1)
        await watch_clock(one)
        times = [decode_entry(body).at for body in store.list_entry_bodies(one.db.read(), 0, 10_000)]
        behind = two.now() - one.now()
    tally(
        "the times of entries never decrease",
        broken=steps_back(times),
        of=len(times),
    )
    assert behind <= 2 * SECOND
