"""Crashes of the database with the accounts, and of that of the server: no account is forgotten, and none is missing
without an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hvac import Client
from hvac.exceptions import BadGateway, InvalidRequest, VaultDown

from harness.patience import eventually
from harness.postgres_cluster import Cluster, cluster
from ostiaryd.secrets.model.lease import TAKEOVER_S
from tests.faults.lease_site import PERMIT_ALL, Site, accounts_of
from tests.faults.lease_upstreams import LeaseUpstream, upstream_of
from tests.faults.tally import Tally
from tests.secrets.database_fixtures import DatabaseFixture, database_fixture
from tests.secrets.vault_fixtures import POLICIES, VaultStage

ACCOUNTS = 5
"""Accounts of each kind in one experiment."""
WITHDRAWN = (VaultDown, BadGateway, InvalidRequest)
"""Refusals of requests while a database is down."""


class Stage:
    """A server whose agent gets accounts in the database `shop`."""

    def __init__(self, site: Site, shop: DatabaseFixture, upstream: LeaseUpstream) -> None:
        self.site, self.shop, self.upstream = site, shop, upstream
        site.live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + PERMIT_ALL}})
        self.vault = VaultStage(site.live_server)
        secret = site.server.ostiary("agent", "create-secret", self.vault.name)
        self.client = Client(url=self.vault.url)
        self.client.auth.approle.login(role_id=secret["client_id"], secret_id=secret["client_secret"])
        upstream.configure(self.client)

    def create(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.read(self.upstream.path)
        return answer

    def another(self) -> Client:
        """A client for another thread."""
        return Client(url=self.vault.url, token=self.client.token)

    def eventually_creates(self) -> dict[str, Any]:
        """An account, as soon as both databases answer."""

        def create() -> dict[str, Any] | None:
            try:
                return self.create()
            except WITHDRAWN:
                return None

        answer: dict[str, Any] = eventually(create, pause_s=0.1)
        return answer

    def unknown(self) -> set[str]:
        """The accounts that the server does not know."""
        accounts = self.upstream.accounts()
        return (accounts - accounts_of(self.site.leases())) & self.upstream.accounts()

    def end(self) -> set[str]:
        """End the agent; the accounts that are left when no lease is."""
        self.site.live_server.api("POST", "/revoke", {"kind": "agent", "id": self.vault.name})
        eventually(lambda: not self.site.leases(), pause_s=0.1)
        return self.upstream.accounts()


@contextmanager
def running_stage(folder: Path, *options: str) -> Iterator[Stage]:
    with database_fixture() as shop:
        upstream = upstream_of(shop)
        settings = folder / "ostiary.toml"
        settings.write_text(f'data_dir = "{folder}/server"\n{upstream.setting}\n')
        with closing(Site(folder, "--config", str(settings), *options)) as site:
            yield Stage(site, shop, upstream)


def name_of(answer: dict[str, Any]) -> str:
    name: str = answer["data"]["username"]
    return name


def has_login(shop: DatabaseFixture, answer: dict[str, Any]) -> bool:
    try:
        shop.login(**answer["data"]).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.slow
def test_an_account_that_a_database_crash_lost_is_refused_and_every_other_account_is_known(
    tmp_path: Path, seed: int, tally: Tally
) -> None:
    """The last accounts are not yet on the disk of their database, since their commits do not wait for it."""
    with running_stage(tmp_path) as stage:
        shop = stage.shop
        shop.cluster.freeze_log_writer()
        renewed, revoked = ([stage.create() for _ in range(ACCOUNTS)] for _ in range(2))
        for answer in renewed:
            stage.client.sys.renew_lease(answer["lease_id"], increment=3600)
        for answer in revoked:
            stage.client.sys.revoke_lease(answer["lease_id"])
        eventually(lambda: stage.upstream.accounts() == set(map(name_of, renewed)))
        late = [stage.create() for _ in range(ACCOUNTS)]
        assert all(has_login(shop, answer) for answer in late)
        shop.cluster.kill()
        shop.cluster.start()
        accounts = stage.upstream.accounts()
        lost = [answer for answer in late if name_of(answer) not in accounts]
        assert lost, "the log was not written"
        unknown = stage.unknown()
        came_back = accounts & set(map(name_of, revoked))
        silent = [answer for answer in renewed if not has_login(shop, answer)]
        next_one = stage.eventually_creates()
        for answer in lost:
            assert not has_login(shop, answer)
            with pytest.raises(InvalidRequest, match="does not exist"):
                stage.client.sys.renew_lease(answer["lease_id"])
            stage.client.sys.revoke_lease(answer["lease_id"])
        leases = {answer["lease_id"] for answer in lost}
        eventually(lambda: leases.isdisjoint(stage.site.leases()), pause_s=0.1)
        assert has_login(shop, next_one)
        left = stage.end()
    tally("an account after a crash of its database is known to the server", broken=len(unknown), of=len(accounts))
    tally("an account that was renewed outlives a crash of its database", broken=len(silent), of=len(renewed))
    tally("an account that was removed does not come back", broken=len(came_back), of=len(revoked))
    tally("the lease of an account that a crash lost ends as usual", broken=len(left), of=len(lost))


@pytest.mark.slow
def test_every_account_is_known_after_a_crash_of_the_server_database(
    tmp_path: Path, seed: int, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database crashes while accounts are created: some are confirmed, and some are at their database alone."""
    with cluster() as own, running_stage(tmp_path, "--database", own.create("ostiary")) as stage:
        confirmed = [stage.create() for _ in range(ACCOUNTS)]
        with ThreadPoolExecutor(ACCOUNTS) as pool:
            requests = crash_while_created(stage, own, pool)
        given = [answer for answer in requests if answer is not None]
        own.start()
        stage.eventually_creates()
        accounts, leases = stage.upstream.accounts(), stage.site.leases()
        unknown = stage.unknown()
        live = {row["username"] for row in leases.values() if row["state"] == "live"}
        held = set(map(name_of, confirmed + given))
        lost = held - live
        stage.site.pass_time(TAKEOVER_S + 1, monkeypatch)
        eventually(lambda: all(row["state"] == "live" for row in stage.site.leases().values()), pause_s=0.1)
        eventually(lambda: accounts_of(stage.site.leases()) == stage.upstream.accounts(), pause_s=0.1)
        left = stage.end()
    tally("an account after a crash of the server's database is known", broken=len(unknown), of=len(accounts))
    tally("an account that was given is kept by a crash of the server's database", broken=len(lost), of=len(held))
    tally("no account is left after a crash of the server's database", broken=len(left), of=len(accounts))


def crash_while_created(stage: Stage, own: Cluster, pool: ThreadPoolExecutor) -> list[dict[str, Any] | None]:
    """Kill the database of the server while accounts wait for a lock of theirs, then let go of the lock. The answers;
    None for a refusal.
    """

    def create(client: Client) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = client.read(stage.upstream.path)
        except WITHDRAWN:
            return None
        return answer

    before = len(stage.upstream.accounts())
    with stage.upstream.hold() as is_waiting:
        owed: list[Future[dict[str, Any] | None]] = [pool.submit(create, stage.another()) for _ in range(ACCOUNTS)]
        eventually(is_waiting)
        own.kill()
    eventually(lambda: len(stage.upstream.accounts()) > before)
    return [request.result() for request in owed]
