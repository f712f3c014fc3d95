"""A database that lost a part of its history: nothing that was stopped is allowed again, and an operator ends it.

Each test runs the real server as a process, restores an older copy of its database (or of the whole data folder), and
looks with real guards.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.live_server import ServerFixture, authenticate, is_allowed, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from harness.server import COMMAND
from ostiary.guard import Guard
from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.database.postgres import RESERVE_TABLE
from tests.faults.killed_steps import count_of, run_until
from tests.faults.tally import LONG_FORM, Tally
from tests.support.world import Kind, Postgres

URI = "https://files.example.org/mcp"


class Stand:
    """A server that can be stopped, restored and started again on its port; three agents; a guard."""

    def __init__(self, folder: Path, postgres: Postgres | None) -> None:
        self.folder, self.data = folder, folder / "data"
        self._postgres = postgres
        self._database = postgres.create() if postgres else ""
        self._stack = ExitStack()
        self._port = 0
        self.start()
        self.live_server = ServerFixture(self.server, folder)
        self.resource, self.guard_key = self.live_server.resource(URI)
        self.agents = [self.live_server.agent(f"{self.resource}:read", f"{self.resource}:write") for _ in range(3)]

    @property
    def options(self) -> list[str]:
        return ["--database", self._postgres.url(self._database)] if self._postgres else []

    def start(self) -> None:
        self.server = self._stack.enter_context(PreparedServer(self.data, *self.options, port=self._port))
        self._port = int(self.server.url.rpartition(":")[2])

    def stop(self) -> None:
        self._stack.close()

    def kill(self) -> None:
        """End the server with SIGKILL."""
        os.kill(pid_of(self.server), signal.SIGKILL)
        with pytest.raises(AssertionError, match="ended with -9"):
            self._stack.close()

    def close(self) -> None:
        self.stop()
        self.live_server.admin.close()

    def copy(self, name: str) -> None:
        """Take a copy of the database while the server runs."""
        if self._postgres:
            assert self._postgres
            self._dump(name)
            return
        source, copy = sqlite3.connect(self.data / "ostiary.db"), sqlite3.connect(self.folder / name)
        source.backup(copy)
        source.close()
        copy.close()

    def _dump(self, name: str) -> None:
        assert self._postgres is not None
        kept = f"{self._database}_{name}"
        with self._postgres.connect("postgres") as connection:
            connection.execute(f'create database "{kept}"')
        self._clone(self._database, kept)

    def _clone(self, source: str, target: str) -> None:
        """Copy all tables in one snapshot of the source, as a dump does."""
        assert self._postgres is not None
        with self._postgres.connect(source) as old, self._postgres.connect(target) as new:
            old.execute("begin isolation level repeatable read, read only")
            made = {row[0] for row in new.execute("select tablename from pg_tables where schemaname = 'public'")}
            tables = [
                name
                for (name,) in old.execute("select tablename from pg_tables where schemaname = 'public'")
                if not name.startswith(RESERVE_TABLE)  # a table without rows, which each server makes itself
            ]
            if not made:
                from ostiaryd.ground.database import Database
                from ostiaryd.ground.database.migrate import migrate

                db = Database(self._postgres.url(target))
                migrate(db, now=1)
                db.close()
            with new.transaction():
                new.execute("set local session_replication_role = replica")
                for table in tables:
                    new.execute(f'delete from "{table}"')
                    with (
                        old.cursor().copy(f'copy "{table}" to stdout') as reading,
                        new.cursor().copy(f'copy "{table}" from stdin') as writing,
                    ):
                        for chunk in reading:
                            writing.write(chunk)

    def restore(self, name: str) -> None:
        """Put the older copy in place of the database; the server must be stopped."""
        if self._postgres:
            self._clone(f"{self._database}_{name}", self._database)
            return
        for path in self.data.glob("ostiary.db*"):
            path.unlink()
        shutil.copy(self.folder / name, self.data / "ostiary.db")

    def copy_folder(self, name: str) -> None:
        """Take a copy of the whole data folder, pin included, and of the database; the pin is never the newer one."""
        shutil.copy(self.data / "ledger.pin", self.folder / f"{name}.pin")
        self.copy(name)

    def restore_folder(self, name: str) -> None:
        self.restore(name)
        shutil.copy(self.folder / f"{name}.pin", self.data / "ledger.pin")

    def act(self, count: int) -> None:
        for _ in range(count):
            self.live_server.owner()

    def revoke(self, number: int) -> None:
        revoked = self.live_server.api("POST", "/revoke", {"kind": "agent", "id": self.agents[number][0]})
        self.live_server.api("GET", "/feeds", seq=revoked["seq"], wait_ms=10_000)

    def is_recovering(self) -> bool:
        return bool(self.recover()["recovery"])

    def recover(self, *options: str) -> Any:
        """`ostiary recover` with these options; its JSON."""
        command: list[str | Path] = [COMMAND, "--data-dir", self.data, "--json", "recover", *self.options, *options]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    def provoke_recovery(self) -> bool:
        """Have the server act, and see whether it is in recovery."""
        response = self.live_server.admin.request(
            "POST",
            f"{self.server.url}/api/v1/persons",
            resource=f"{self.live_server.admin.issuer}/api/v1",
            json={"name": self.live_server.name("someone")},
        )
        return response.status_code == 503 and response.json()["error"] == "recovery"

    def refusal(self) -> Any:
        """The answer to an agent that asks for a token."""
        from ostiary.agent import Agent
        from ostiary.protocol.errors import Refused

        with Agent.from_credential(self.agents[2][1]) as agent:
            try:
                agent.token(resource=URI)
            except Refused as refusal:
                return refusal.message
        return ""


@pytest.fixture(params=["sqlite", "postgres"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    database: Kind = request.param
    postgres = request.getfixturevalue("postgres_server") if database == "postgres" else None
    made = Stand(tmp_path, postgres)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def guarding(stand: Stand, spool: str = "spool") -> Iterator[Guard]:
    guard = Guard(stand.guard_key, spool_dir=stand.folder / spool).start(wait=PATIENCE_S)
    try:
        yield guard
    finally:
        guard.close()


def entered(guard: Guard, key: Path) -> Any:
    """The agent as the guard knows it; None while the guard has no fresh feed: it connects anew after a delivery."""
    try:
        return authenticate(guard, key)
    except Unavailable:
        return None


def offline(guard: Guard) -> Callable[[], None]:
    """Take a guard off its server; what brings it back."""
    url = guard._link._url
    guard._link._url = "http://127.0.0.1:9"
    response = guard._link._response
    assert response is not None
    sock = response.extensions["network_stream"].get_extra_info("socket")
    sock.shutdown(2)

    def back() -> None:
        guard._link._url = url

    return back


LOSSES = [("sqlite", True, 0), ("postgres", False, 0), ("sqlite", False, 12), ("postgres", False, 60)]
"""Database, whether the pin was kept, and how far the server goes on: each value is here, and the long form has each
combination.
"""
EVERY_LOSS = [(kind, *loss) for kind in ("sqlite", "postgres") for loss in sorted({loss[1:] for loss in LOSSES})]


@pytest.mark.parametrize(
    ("stand", "with_pin", "more"), EVERY_LOSS if LONG_FORM in os.environ else LOSSES, indirect=["stand"]
)
def test_a_restored_copy_of_the_database_grants_nothing_until_an_operator_has_recovered_it(
    stand: Stand, tally: Tally, more: int, with_pin: bool, seed: int
) -> None:
    """The copy is older than a revocation; the server goes on for `more` acts before the guard comes back, unless its
    pin tells of the loss at the start. In later rounds, other numbers of acts come before and after.
    """
    dice = random.Random(seed)
    before, after = (dice.randrange(30), dice.randrange(30)) if seed else (6, 3)
    if seed and more:
        more = dice.randrange(1, 120)
    with guarding(stand) as guard:
        who = [authenticate(guard, key) for _, key in stand.agents]
        assert [is_allowed(guard, each) for each in who] == [True, True, True]
        stand.copy_folder("copy")
        stand.act(before)
        stand.revoke(0)
        assert [is_allowed(guard, each) for each in who] == [False, True, True]
        stand.act(after)
        back = offline(guard)
        stand.stop()
        (stand.restore if with_pin else stand.restore_folder)("copy")
        stand.start()
        if not with_pin:
            stand.act(more)
            stand.revoke(1)
        back()
        eventually(stand.is_recovering)
        eventually(lambda: "recovery" in guard.feed._why)
        broken = sum(is_allowed(guard, each) for each in who)
        assert "recovery" in stand.refusal()
        eventually(lambda: any(stop["subject"] for stop in stand.recover()["replayed"]))
        state = stand.recover()
        assert stand.agents[0][0] not in state["active"]
        stand.recover("--confirm-all", str(len(state["active"])))
        assert not stand.is_recovering()
        eventually(lambda: guard.feed.seq is not None)
        broken += sum(is_allowed(guard, each) for each in who)  # no token from before is good
        new = eventually(lambda: entered(guard, stand.agents[2][1]))
        eventually(lambda: is_allowed(guard, new))
    tally("a stop of a lost part of the history is never allowed again", broken=broken, of=2 * len(who))


@pytest.mark.parametrize("stand", ["sqlite"], indirect=True)
def test_a_recovery_can_be_repeated_after_a_kill_and_loses_no_stop(stand: Stand, tally: Tally, rounds: int) -> None:
    with guarding(stand) as guard:
        stand.copy_folder("copy")
        stand.act(3)
        stand.revoke(0)
        authenticate(guard, stand.agents[1][1])
    stand.stop()
    stand.restore("copy")
    stand.start()
    output, spool = stand.folder / "recover.out", str(stand.folder / "spool")
    words = ("--data-dir", str(stand.data), "--json", "recover", "--from", spool, "--evidence", spool)
    points = [random.Random(rounds).randrange(1, 60) for _ in range(3 * rounds)]
    killed = sum(run_until(output, step, *words) == -9 for step in points)
    assert killed > 0
    dice = random.Random(rounds)
    for _ in range(rounds):
        command = subprocess.Popen([COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            command.wait(dice.uniform(0.3, 2.5))  # any moment is a moment for the kill
        stand.kill()
        command.wait(PATIENCE_S)
        stand.start()
        killed += 1
    state = stand.recover("--from", spool)
    lost = stand.agents[0][0] in state["active"]
    tally("a stop of the lost part survives kills of `ostiary recover` and of its server", broken=lost, of=killed)
    stand.recover("--confirm-all", str(len(state["active"])))
    stand.stop()
    stand.start()
    assert not stand.is_recovering()
    assert not stand.refusal()


def test_a_killed_command_has_either_ended_the_recovery_or_can_be_repeated(
    stand: Stand, tally: Tally, rounds: int
) -> None:
    """Each command declares a loss and ends the recovery. A kill leaves either the recovery, in which nothing is
    granted, or its end with all effects.
    """
    output, count = stand.folder / "recover.out", stand.recover()["active_count"]
    ending = ("--lost", "--confirm-all", str(count))
    words = ("--data-dir", str(stand.data), "--json", "recover", *stand.options, *ending)
    assert run_until(output, sys.maxsize, *words) == 0
    steps, dice = count_of(output), random.Random(rounds)
    killed = broken = 0
    for _ in range(4 * rounds):
        before = stand.recover()["history"]
        killed += run_until(output, dice.randrange(1, steps + 1), *words) == -9
        state = stand.recover()
        if state["recovery"]:
            broken += state["history"] != before
            eventually(lambda: "recovery" in stand.refusal())
            stand.recover("--confirm-all", str(count))
        assert stand.recover()["active_count"] == count
        eventually(lambda: stand.refusal() == "")
    tally("an end of a recovery whose command is killed is whole, or can be repeated", broken=broken, of=killed)


def test_a_guard_that_was_down_delivers_its_stops_after_its_restart(stand: Stand, tally: Tally) -> None:
    """Only this guard knows of the stop, and is down while the server is restored, recovered and grants again."""
    with guarding(stand) as guard:
        who = [authenticate(guard, key) for _, key in stand.agents]
        stand.copy_folder("copy")
        stand.revoke(0)
        assert not is_allowed(guard, who[0])
    stand.stop()
    stand.restore("copy")  # the pin stays: the server is in recovery from the start
    stand.start()
    eventually(stand.is_recovering)
    state = stand.recover()
    assert state["replayed"] == []
    assert stand.agents[0][0] in state["active"], "nobody could know"
    stand.recover("--confirm-all", str(len(state["active"])))
    eventually(lambda: stand.refusal() == "")
    with guarding(stand) as guard:  # another life of the guard, from the same spool folder
        eventually(lambda: stand.recover()["replayed"] != [])
        eventually(lambda: guard.feed.seq is not None)
        assert stand.agents[0][0] not in stand.recover()["active"]
        new = eventually(lambda: entered(guard, stand.agents[2][1]))
        eventually(lambda: is_allowed(guard, new))
        broken = sum(is_allowed(guard, each) for each in who)
    tally("a guard that comes back late delivers its stops", broken=broken, of=len(who))


def test_a_recovery_accepts_a_checkpoint_as_evidence_and_replays_stops_from_a_spool_folder(
    stand: Stand, tally: Tally
) -> None:
    """The whole data folder is restored, and no guard can connect: files say what is lost."""
    with guarding(stand) as guard:
        who = [authenticate(guard, key) for _, key in stand.agents]
        stand.copy_folder("copy")
        stand.revoke(0)
        assert not is_allowed(guard, who[0])
        stand.live_server.api("POST", "/kill", {"what": "agent", "name": stand.agents[1][0], "why": "a test"})
        eventually(lambda: not is_allowed(guard, who[1]))
    checkpoint = stand.folder / "checkpoint"
    checkpoint.write_bytes(httpx2.get(f"{stand.server.url}/ledger/v1/checkpoint").content)
    stand.stop()
    stand.restore_folder("copy")
    stand.start()
    assert not stand.is_recovering()
    assert stand.recover("--evidence", str(checkpoint))["recovery"]
    state = stand.recover("--from", str(stand.folder / "spool"))
    assert len(state["replayed"]) >= 2
    eventually(lambda: "recovery" in stand.refusal())
    broken = sum(stand.agents[number][0] in state["active"] for number in (0, 1))
    tally("files outside the database show the lost stops", broken=broken, of=2)


def test_a_database_that_is_rolled_back_under_a_running_server_is_detected(stand: Stand, tally: Tally) -> None:
    """As a failover to a replica that lags does; doctor, health and stopping work, and a restart changes nothing."""
    stand.copy("copy")
    stand.act(5)
    if stand.options:
        stand.restore("copy")  # the rows go back while the server is connected
    else:
        stand.stop()
        stand.restore("copy")
        stand.start()
    eventually(stand.provoke_recovery)
    doctor = stand.live_server.api("GET", "/doctor")["lines"]
    [history] = [line for line in doctor if line["name"] == "history"]
    assert history["state"] == "fail"
    assert "missing" in history["saw"]
    ready = httpx2.get(f"{stand.server.url}/readyz")
    assert (ready.status_code, ready.json()["checks"]["history"]) == (503, "in recovery")
    stand.live_server.api("POST", "/revoke", {"kind": "agent", "id": stand.agents[0][0]})
    stand.stop()
    stand.start()
    assert stand.is_recovering()
    broken = "recovery" not in stand.refusal()
    tally("a database that goes back under the server is noticed", broken=broken, of=1)
