"""`kill -9` of a real server while it creates, renews and revokes accounts of a real PostgreSQL: none is forgotten."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from hvac import Client
from hvac.exceptions import BadGateway, VaultDown

from harness.live_server import ServerFixture, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.server import running
from ostiaryd.secrets.model.lease import TAKEOVER_S
from tests.faults.shifted import set_clock, shift
from tests.faults.tally import Tally
from tests.secrets.database_fixtures import CREATE, database_fixture
from tests.secrets.vault_fixtures import POLICIES, VaultStage

INTERRUPTED = 5
"""Creations, renewals and revocations each that one round interrupts; 20 rounds of `make faults` make 100."""
PERMIT_ALL = '@id("databases") permit (principal is Agent, action, resource is Secret);'


class Site:
    """A server under a wall clock that the test sets. It is killed, and starts again at the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.clock = folder / "server", options, folder / "clock"
        set_clock(self.clock, 0)
        self._start()
        self.live_server = ServerFixture(self.server, folder)

    def _start(self, port: int = 0) -> None:
        command = (sys.executable, "-m", "tests.faults.shifted", self.clock)
        self._running = running(self.folder, *self.options, command=command, port=port)
        self.server = self._running.__enter__()

    def kill(self) -> None:
        os.kill(pid_of(self.server), signal.SIGKILL)

    def restart(self) -> None:
        with pytest.raises(AssertionError, match="the server ended with -9"):
            self._running.__exit__(None, None, None)
        self._start(int(self.server.url.rpartition(":")[2]))

    def pass_time(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the clocks of the server and of this process forward."""
        until = time.time() + seconds
        set_clock(self.clock, seconds)
        health = f"{self.server.url}/v1/sys/health"
        eventually(lambda: requests.get(health, timeout=PATIENCE_S).json()["server_time_utc"] >= until)
        for name in ("time", "time_ns"):
            monkeypatch.setattr(time, name, getattr(time, name))  # restored at the end of the test
        shift(self.clock)

    def close(self) -> None:
        self.live_server.admin.close()
        self._running.__exit__(None, None, None)

    def leases(self) -> dict[str, dict[str, Any]]:
        """The leases that the server knows, by the names of their accounts."""
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = self.live_server.api("GET", "/leases", limit=1000, after=after)
            found, after = found + page["leases"], page["next"]
        return {lease["username"]: lease for lease in found}


class Work:
    """Creations, renewals and revocations of leases, each in a thread of its own until the server is killed.

    `ends` has the end of each lease that was acknowledged and is not revoked, `revoked` the acknowledged revocations;
    both by the names of accounts.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ids: dict[str, str] = {}
        self.ends: dict[str, float] = {}
        self.revoked: set[str] = set()
        self.in_flight: set[str] = set()
        self.interrupted = Counter[str]()

    @contextmanager
    def going_on(self, login: Callable[[], Client]) -> Iterator[None]:
        """Work until the server is killed in the block, and count the requests that this interrupts."""
        threads = [
            threading.Thread(target=self._repeat, args=(kind, work, login()))
            for kind, work in (("creation", self.create), ("renewal", self.renew), ("revocation", self.revoke))
        ]
        self.in_flight.clear()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join(PATIENCE_S)
        self.interrupted.update(self.in_flight)

    def _repeat(self, kind: str, work: Callable[[Client], None], client: Client) -> None:
        while True:
            try:
                work(client)
            except (VaultDown, BadGateway):  # refused, since the machine stalled
                self.in_flight.discard(kind)
            except requests.RequestException:
                return  # the server is killed; the request stays in flight

    @contextmanager
    def _sending(self, kind: str) -> Iterator[None]:
        self.in_flight.add(kind)
        yield
        self.in_flight.remove(kind)

    def create(self, client: Client) -> None:
        with self._sending("creation"):
            answer = client.secrets.database.generate_credentials(name="reader")
        name = str(answer["data"]["username"])
        self.ids[name], self.ends[name] = answer["lease_id"], time.time() + answer["lease_duration"]

    def renew(self, client: Client) -> None:
        name = self.dice.choice(list(self.ends))
        with self._sending("renewal"):
            answer = client.sys.renew_lease(self.ids[name], increment=900)
        self.ends[name] = time.time() + answer["lease_duration"]

    def revoke(self, client: Client) -> None:
        answer = client.secrets.database.generate_credentials(name="reader")
        with self._sending("revocation"):
            client.sys.revoke_lease(answer["lease_id"])
        self.revoked.add(answer["data"]["username"])


@pytest.mark.slow
def test_no_account_is_forgotten_though_the_server_is_killed(
    tmp_path: Path, seed: int, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(f"leases {seed}")
    work = Work(dice)
    kills = unknown = lost = kept = 0
    with database_fixture() as shop:
        settings = tmp_path / "ostiary.toml"
        settings.write_text(f'data_dir = "{tmp_path}/server"\nsecret_databases = "{shop.folder}"\n')
        own = ("--database", shop.cluster.create("ostiary")) if seed % 2 else ()
        with closing(Site(tmp_path, "--config", str(settings), *own)) as site:
            site.live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + PERMIT_ALL}})
            vault = VaultStage(site.live_server)
            secret = site.server.ostiary("agent", "create-secret", vault.name)

            def login() -> Client:
                client = Client(url=vault.url)

                def has_logged_in() -> bool:
                    with suppress(VaultDown):  # refused, since the machine stalled
                        client.auth.approle.login(role_id=secret["client_id"], secret_id=secret["client_secret"])
                        return True
                    return False

                eventually(has_logged_in)
                return client

            database = login().secrets.database
            database.configure(name="shop", **shop.connection)
            database.create_role(
                name="reader", db_name="shop", creation_statements=CREATE, default_ttl="10m", max_ttl="1h"
            )
            work.create(login())
            while len(work.interrupted) < 3 or min(work.interrupted.values()) < INTERRUPTED:
                revoked = len(work.revoked)
                with work.going_on(login):
                    eventually(lambda: len(work.revoked) > revoked and len(work.in_flight) == 3, pause_s=0.001)  # noqa: B023
                    time.sleep(dice.uniform(0, 0.01))  # the moment of the kill is what varies; no outcome rests on it
                    site.kill()
                kills += 1
                site.restart()
                accounts = shop.accounts()
                known = site.leases()
                unknown += len((accounts - known.keys()) & shop.accounts())
                for name, end in work.ends.items():
                    lease = known.get(name, {"state": "unknown", "expires_at": 0})
                    lost += lease["state"] != "live" or lease["expires_at"] < end - 60
                kept += sum(name in known and known[name]["state"] == "live" for name in work.revoked)

            site.pass_time(TAKEOVER_S + 1, monkeypatch)  # a creation without a confirmation is now given up

            def is_settled() -> bool:
                leases = site.leases()
                is_live = all(lease["state"] == "live" for lease in leases.values())
                return is_live and leases.keys() == shop.accounts() and work.ends.keys() <= leases.keys()

            eventually(is_settled, pause_s=0.1)
            site.live_server.api("POST", "/revoke", {"kind": "agent", "id": vault.name})
            eventually(lambda: not site.leases(), pause_s=0.1)
            left = shop.accounts()
    tally("an account that exists after kill -9 is known to the server", broken=unknown, of=kills)
    tally("a lease that was acknowledged is in force after kill -9", broken=lost, of=len(work.ends))
    tally("a revocation that was acknowledged is kept after kill -9", broken=kept, of=len(work.revoked))
    for kind, count in work.interrupted.items():
        tally(f"kill -9 in the middle of the {kind} of a lease leaves no account", broken=len(left), of=count)
