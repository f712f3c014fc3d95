"""`kill -9` of a real server while it creates, renews and revokes accounts of real systems: none is forgotten."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from hvac import Client
from hvac.exceptions import BadGateway, VaultDown

from harness.patience import PATIENCE_S, eventually
from harness.postgres_cluster import cluster
from ostiaryd.secrets.model.lease import TAKEOVER_S
from tests.faults.lease_site import PERMIT_ALL, Site, accounts_of
from tests.faults.lease_upstreams import RENEWED_S, UPSTREAMS, LeaseUpstream, hold_store
from tests.faults.tally import Tally
from tests.secrets.mysql_fixtures import MARIADB
from tests.secrets.vault_fixtures import POLICIES, VaultStage

KINDS = ("creation", "renewal", "revocation")
KILLS = 10
"""Kills in the middle of a creation, of a renewal and of a revocation, each, in one round of the long form; the ten
rounds of `make faults` make 100.
"""
THREADS = 2
"""Number of threads that send requests of each kind."""


class Work:
    """Creations, renewals and revocations of leases, each in threads of its own until the server is killed.

    `ends` has the end of each lease that was acknowledged and is not revoked, `revoked` the acknowledged revocations;
    both by the ids of leases. `in_flight` counts the requests that wait for their answers, and `begun` all of them;
    `took` has the seconds of the last request; all by kind.
    """

    def __init__(self, path: str, dice: random.Random) -> None:
        self.path, self.dice = path, dice
        self.ends: dict[str, float] = {}
        self.revoked: set[str] = set()
        self.in_flight, self.begun, self.made = Counter[str](), Counter[str](), 0
        self.took = dict.fromkeys(KINDS, 0.0)
        self._mutex = threading.Lock()

    @contextmanager
    def going_on(self, client: Client) -> Iterator[None]:
        """Work until the server is killed in the block. Requests that this interrupts stay in flight."""
        works = dict(zip(KINDS, (self.create, self.renew, self.revoke), strict=True))
        self.in_flight.clear()
        threads = [
            threading.Thread(target=self._repeat, args=(work, Client(url=client.url, token=client.token)))
            for work in works.values()
            for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join(PATIENCE_S)

    def _repeat(self, work: Callable[[Client], None], client: Client) -> None:
        with suppress(requests.RequestException):  # the server is killed; the request stays in flight
            while True:
                work(client)

    def _send(self, kind: str, request: Callable[[], Any]) -> Any:
        """Send a request, again if it is refused since the machine stalled."""
        while True:
            with self._mutex:
                self.in_flight[kind] += 1
                self.begun[kind] += 1
            started = time.monotonic()
            with suppress(VaultDown, BadGateway):
                answer = request()
                with self._mutex:
                    self.in_flight[kind] -= 1
                self.took[kind] = time.monotonic() - started
                return answer
            with self._mutex:
                self.in_flight[kind] -= 1

    def _make(self, client: Client) -> tuple[str, float]:
        answer = self._send("creation", lambda: client.read(self.path))
        with self._mutex:
            self.made += 1
        return answer["lease_id"], time.time() + answer["lease_duration"]

    def create(self, client: Client) -> None:
        lease, end = self._make(client)
        self.ends[lease] = end

    def renew(self, client: Client) -> None:
        lease = self.dice.choice(list(self.ends))
        answer = self._send("renewal", lambda: client.sys.renew_lease(lease, increment=RENEWED_S))
        self.ends[lease] = time.time() + answer["lease_duration"]

    def revoke(self, client: Client) -> None:
        lease, _ = self._make(client)
        self._send("revocation", lambda: client.sys.revoke_lease(lease))
        self.revoked.add(lease)


class Round:
    """A server before a system with accounts, the work of its agent, and the counts of promises that were broken."""

    def __init__(self, site: Site, upstream: LeaseUpstream, database: str, dice: random.Random) -> None:
        self.site, self.upstream, self.database, self.dice = site, upstream, database, dice
        self.work = Work(upstream.path, dice)
        self.unknown = self.lost = self.kept = self.stopped = 0
        self.kills, self.interrupted = Counter[str](), Counter[str]()
        site.live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + PERMIT_ALL}})
        self.vault = VaultStage(site.live_server)
        self._secret = site.server.ostiary("agent", "create-secret", self.vault.name)
        upstream.configure(self.login())
        self.work.create(self.login())

    def login(self) -> Client:
        client = Client(url=self.vault.url)

        def has_logged_in() -> bool:
            with suppress(VaultDown):  # refused, since the machine stalled
                client.auth.approle.login(role_id=self._secret["client_id"], secret_id=self._secret["client_secret"])
                return True
            return False

        eventually(has_logged_in)
        return client

    def kill_in_the_middle(self, kind: str) -> None:
        """Kill the server at a random moment of an act of that kind, while acts of all kinds are in flight."""
        work = self.work
        with work.going_on(self.login()):
            before = Counter(work.begun)
            eventually(lambda: all(work.begun[one] > before[one] for one in KINDS), pause_s=0.001)
            now = work.begun[kind]
            eventually(lambda: work.begun[kind] > now, pause_s=0.0005)
            time.sleep(self.dice.uniform(0, work.took[kind]))  # the moment varies; no outcome rests on it
            self.site.server.kill()
        self.interrupted += work.in_flight
        self.kills[kind] += work.in_flight[kind] > 0
        self._recover()

    def kill_at_a_point(self, kind: str, *, is_after: bool) -> None:
        """Kill the server while the system keeps an act of that kind back; with `is_after`, when the system has done
        the act, and the server has not stored that.
        """
        site, client, work = self.site, self.login(), self.work
        work.create(client)
        lease, states = list(work.ends)[-1], self._states()

        def send() -> None:
            with suppress(requests.RequestException, VaultDown, BadGateway):  # killed, or refused after a long wait
                match kind:
                    case "creation":
                        work.create(client)
                    case "renewal":
                        client.sys.renew_lease(lease, increment=RENEWED_S)
                    case _:
                        del work.ends[lease]
                        client.sys.revoke_lease(lease)
                        work.revoked.add(lease)

        with ExitStack() as held:
            with self.upstream.hold() as is_waiting:
                before = self.upstream.state()
                thread = threading.Thread(target=send)
                thread.start()
                eventually(lambda: is_waiting() and (kind == "renewal" or self._states() != states))
                if is_after:
                    held.enter_context(hold_store(self.database, site.folder))
                else:
                    site.server.kill()
            if is_after:
                eventually(lambda: self.upstream.state() != before)
                site.server.kill()
            thread.join(PATIENCE_S)
        self.stopped += 1
        self._recover()

    def _states(self) -> dict[str, str]:
        return {lease: row["state"] for lease, row in self.site.leases().items()}

    def _recover(self) -> None:
        """Start the server again, and count the promises that were broken."""
        self.site.server.restart()
        accounts, work = self.upstream.accounts(), self.work
        known = self.site.leases()
        self.unknown += len((accounts - accounts_of(known)) & self.upstream.accounts())
        for lease, end in work.ends.items():
            row = known.get(lease, {"state": "unknown", "expires_at": 0})
            self.lost += row["state"] != "live" or row["expires_at"] < end - 60
        self.kept += sum(lease in known and known[lease]["state"] == "live" for lease in work.revoked)

    def settle(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """End every lease: first those without a confirmation, then the agent. Return the accounts that are left."""
        self.site.pass_time(TAKEOVER_S + 1, monkeypatch)

        def is_settled() -> bool:
            leases = self.site.leases()
            is_live = all(lease["state"] == "live" for lease in leases.values())
            return (
                is_live and accounts_of(leases) == self.upstream.accounts() and self.work.ends.keys() <= leases.keys()
            )

        eventually(is_settled, pause_s=0.1)
        self.site.live_server.api("POST", "/revoke", {"kind": "agent", "id": self.vault.name})
        eventually(lambda: not self.site.leases(), pause_s=0.1)
        return self.upstream.accounts()


@pytest.mark.slow
@pytest.mark.parametrize("system", UPSTREAMS)
def test_every_account_of_a_lease_is_known_and_removed_after_kills_of_the_server(
    tmp_path: Path, system: str, seed: int, rounds: int, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "mysql" and MARIADB is None:
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server")
    is_on_postgres = (seed + list(UPSTREAMS).index(system)) % 2 == 1
    with ExitStack() as stack:
        upstream = stack.enter_context(UPSTREAMS[system](tmp_path))
        database = stack.enter_context(cluster()).create("ostiary") if is_on_postgres else ""
        settings = tmp_path / "ostiary.toml"
        settings.write_text(f'data_dir = "{tmp_path}/server"\n{upstream.setting}\n')
        options = ("--config", str(settings), *(("--database", database) if database else ()))
        with closing(Site(tmp_path, *options)) as site:
            run = Round(site, upstream, database, random.Random(f"leases {system} {seed}"))
            random_kills = 0
            for kind in KINDS:
                while run.kills[kind] < (KILLS if rounds > 1 else 1):
                    run.kill_in_the_middle(kind)
                    random_kills += 1
            kinds = ("creation", "revocation", *(("renewal",) if upstream.renews else ()))
            points = [(kind, is_after) for is_after in (True, False) for kind in kinds]
            for kind, is_after in points if rounds > 1 or system == "postgresql" else points[:1]:
                run.kill_at_a_point(kind, is_after=is_after)
            left = run.settle(monkeypatch)
    kills, work = random_kills + run.stopped, run.work
    tally(f"{system}: an account that exists after kill -9 is known to the server", broken=run.unknown, of=kills)
    tally(f"{system}: a lease that was acknowledged is in force after kill -9", broken=run.lost, of=len(work.ends))
    tally(f"{system}: a revocation that was acknowledged is kept after kill -9", broken=run.kept, of=len(work.revoked))
    tally(f"{system}: a lease that was made leaves no account", broken=len(left), of=work.made)
    for kind in KINDS:
        promise = f"{system}: kill -9 in the middle of the {kind} of a lease leaves no account"
        tally(promise, broken=len(left), of=run.kills[kind])
        promise = f"{system}: a {kind} that kill -9 interrupts leaves no account"
        tally(promise, broken=len(left), of=run.interrupted[kind])
    tally(f"{system}: kill -9 at a known point of an act leaves no account", broken=len(left), of=run.stopped)
