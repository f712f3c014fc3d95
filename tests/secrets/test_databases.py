"""Accounts in a real PostgreSQL through the unchanged client `hvac`: leases, what ends them, rotation, and refusals."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from hvac import Client, exceptions
from msgspec.structs import replace

from harness.live_server import ServerFixture, own_server
from harness.patience import eventually, eventually_async
from ostiary.protocol.errors import Conflict, Forbidden, Invalid
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.outbound.database_client import DatabaseClient
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import incidents
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model.entry import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Root
from ostiaryd.secrets import wire_leases
from ostiaryd.secrets.flows import databases as flow_databases
from ostiaryd.secrets.flows import leases
from ostiaryd.secrets.flows.callers import token_digest
from ostiaryd.secrets.model.database import (
    MAX_ROLE_NAME,
    ConnectionBody,
    DatabaseConfig,
    DynamicRole,
    StaticRole,
    lock_number,
    parse_allowed_roles,
    parse_postgres_url,
)
from ostiaryd.secrets.model.lease import STUCK_ATTEMPTS, LeaseState
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.upstream import ConnectDatabase, CreateAccount
from ostiaryd.secrets.store import databases as database_store
from ostiaryd.secrets.store import leases as lease_store
from ostiaryd.secrets.store import tokens
from ostiaryd.tasks.model import standing_id
from tests.secrets.database_fixtures import CREATE, PASSWORD, ROOT, DatabaseFixture, database_fixture
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, VaultStage, permit_all, seal_all
from tests.support.incident_fixtures import entries_of
from tests.support.role_fixtures import administrator, ask

EVERYTHING = '@id("databases") permit (principal is Agent, action, resource is Secret);'


@pytest.fixture(scope="module")
def shop() -> Iterator[DatabaseFixture]:
    """The database, with a user who may create accounts."""
    with database_fixture() as made:
        yield made


@pytest.fixture(scope="module")
def server(shop: DatabaseFixture, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server that may connect to it."""
    folder = tmp_path_factory.mktemp("databases")
    settings = folder / "ostiary.toml"
    settings.write_text(f'data_dir = "{folder}/server"\nsecret_databases = "{shop.folder} db.example.org:5432"\n')
    with own_server(folder, "--config", str(settings)) as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + EVERYTHING}})
        yield live_server


@pytest.fixture(scope="module")
def operator(server: ServerFixture, shop: DatabaseFixture) -> Client:
    """An agent that has configured the connection `shop` and the role `reader`."""
    client = VaultStage(server).login()
    client.secrets.database.configure(name="shop", **shop.connection)
    client.secrets.database.create_role(
        name="reader", db_name="shop", creation_statements=CREATE, default_ttl="10m", max_ttl="30m"
    )
    return client


@pytest.fixture
def vault(server: ServerFixture, operator: Client) -> VaultStage:
    """A new agent."""
    return VaultStage(server)


def get_credentials(client: Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.secrets.database.generate_credentials(name="reader")
    return answer


def read_orders(shop: DatabaseFixture, answer: dict[str, Any]) -> list[tuple[int]]:
    with shop.login(**answer["data"]) as session:
        return session.execute("select id from orders").fetchall()


def test_an_account_is_created_used_renewed_and_removed(vault: VaultStage, shop: DatabaseFixture) -> None:
    made = vault.live_server.server.ostiary("agent", "create-secret", vault.name)
    client = Client(url=vault.url)  # its token lasts a day
    client.auth.approle.login(role_id=made["client_id"], secret_id=made["client_secret"])
    answer = get_credentials(client)
    assert read_orders(shop, answer) == [(7,)]
    with pytest.raises(psycopg.OperationalError):
        shop.login(answer["data"]["username"], "another password")
    assert answer["lease_id"].startswith("database/creds/reader/")
    assert answer["renewable"] is True
    assert answer["lease_duration"] == 600
    leases = client.sys
    before = leases.read_lease(answer["lease_id"])["data"]
    assert (before["id"], before["last_renewal"]) == (answer["lease_id"], None)
    renewed = leases.renew_lease(answer["lease_id"], increment=900)
    assert renewed["lease_duration"] in (899, 900)
    assert 1700 < leases.renew_lease(answer["lease_id"], increment=86_400)["lease_duration"] < 1800, "its longest life"
    with closing(shop.login(**answer["data"])) as session:
        leases.revoke_lease(answer["lease_id"])
        with pytest.raises(exceptions.InvalidRequest, match="invalid lease"):
            leases.read_lease(answer["lease_id"])
        eventually(lambda: answer["data"]["username"] not in shop.accounts())
        with pytest.raises(psycopg.OperationalError):
            session.execute("select 1")
    [issued] = vault.entries("lease.issue")
    assert issued["object"] == answer["lease_id"]
    assert answer["data"]["password"] not in repr(vault.live_server.entries(limit=300))


def test_concurrent_renewals_of_a_lease_give_account_and_lease_the_same_expiry(
    vault: VaultStage, shop: DatabaseFixture
) -> None:
    client = vault.login()
    answer = get_credentials(client)
    with shop.connect() as operator, ThreadPoolExecutor() as pool:
        with operator.transaction():
            operator.execute("lock table pg_authid in share mode")

            def renew(increment: int) -> int:
                renewed = Client(url=vault.url, token=client.token).sys.renew_lease(answer["lease_id"], increment)
                return int(renewed["lease_duration"])

            renewals = [pool.submit(renew, increment) for increment in (120, 300)]
            waiting = "select count(*) from pg_locks where not granted"
            eventually(lambda: operator.execute(waiting).fetchone() == (2,))
        assert [round(one.result(), -1) for one in renewals] == [120, 300]
        row = operator.execute(
            "select extract(epoch from rolvaliduntil) from pg_roles where rolname = %s", (answer["data"]["username"],)
        ).fetchone()
    assert row is not None
    shown = client.sys.read_lease(answer["lease_id"])["data"]["expire_time"]
    assert int(row[0]) == int(datetime.fromisoformat(shown).timestamp())
    assert [one.get("outcome", "ok") for one in vault.entries("lease.renew")] == ["ok", "refused", "ok"]


def test_a_renewal_follows_the_current_settings_of_the_role(vault: VaultStage, operator: Client) -> None:
    make, client = operator.secrets.database.create_role, vault.login()
    shorter: dict[str, Any] = {"name": "changed", "db_name": "shop", "creation_statements": CREATE}
    make(**shorter, default_ttl="30s", max_ttl="4m")
    lease = client.secrets.database.generate_credentials(name="changed")["lease_id"]
    assert client.sys.renew_lease(lease, increment=200)["lease_duration"] in range(100, 201)
    make(**shorter, default_ttl="30s", max_ttl="100s")
    assert client.sys.renew_lease(lease, increment=200)["lease_duration"] <= 100
    assert client.sys.read_lease(lease)["data"]["renewable"] is True
    operator.secrets.database.delete_role(name="changed")
    with pytest.raises(exceptions.InvalidRequest, match="role of the lease has been deleted"):
        client.sys.renew_lease(lease, increment=10)
    assert client.sys.read_lease(lease)["data"]["renewable"] is False
    client.sys.revoke_lease(lease)


def test_a_lease_whose_account_owns_objects_elsewhere_ends_after_their_removal(
    vault: VaultStage, shop: DatabaseFixture
) -> None:
    client = vault.login()
    answer = get_credentials(client)
    name, elsewhere = answer["data"]["username"], shop.admin_url.replace("/shop?", "/elsewhere?")
    with shop.connect() as operator:
        operator.execute("create database elsewhere")
    with psycopg.connect(elsewhere, autocommit=True) as operator:
        operator.execute(f'create table mine (id int); alter table mine owner to "{name}"')
    client.sys.revoke_lease(answer["lease_id"])

    def error() -> str:
        rows = vault.live_server.server.ostiary("lease", "list")
        return "".join(row["error"] for row in rows if row["lease_id"] == answer["lease_id"])

    eventually(lambda: "some objects depend on it: 1 object in database elsewhere" in error())
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        shop.login(**answer["data"])
    with psycopg.connect(elsewhere, autocommit=True) as operator:
        operator.execute("drop table mine")
    eventually(lambda: name not in shop.accounts())


def test_a_table_of_a_removed_account_passes_to_the_connection_user(vault: VaultStage, shop: DatabaseFixture) -> None:
    client = vault.login()
    answer = get_credentials(client)
    name = answer["data"]["username"]
    with shop.connect() as database:
        database.execute(f'create table made (id int); alter table made owner to "{name}"')
    client.sys.revoke_lease(answer["lease_id"])
    eventually(lambda: name not in shop.accounts())
    with shop.connect() as database:
        row = database.execute("select tableowner from pg_tables where tablename = 'made'").fetchone()
        database.execute("drop table made")
    assert row == (ROOT,)


def test_code_created_by_an_account_is_removed_with_the_account(vault: VaultStage, shop: DatabaseFixture) -> None:
    """Functions, views and rules run with the rights of their owner: they end with the account, its table stays."""
    client = vault.login()
    answer = get_credentials(client)
    name = answer["data"]["username"]
    with shop.connect() as database:
        database.execute(f"create schema lair authorization {ROOT}; set role {ROOT}")
        database.execute(f'grant all on schema lair to "{name}"')
    with shop.login(**answer["data"]) as session:
        session.execute("create table lair.kept (id int)")
        session.execute(
            "create function lair.who() returns text language sql security definer return current_user::text"
        )
        session.execute("create function lair.fire() returns trigger language plpgsql as 'begin return new; end'")
        session.execute("create trigger fire before insert on lair.kept for each row execute function lair.fire()")
        session.execute("create view lair.seen as select id, lair.who() from orders")
        session.execute("create materialized view lair.copied as select id from lair.kept")
        session.execute("create rule go as on insert to lair.kept do also delete from orders")
        session.execute("create statistics lair.counted on (id % 2), (id % 3) from lair.kept")
    client.sys.revoke_lease(answer["lease_id"])
    eventually(lambda: name not in shop.accounts())
    with shop.connect() as database:
        left = database.execute(
            f"""select 'table', relname::text from pg_class where relowner = '{ROOT}'::regrole and relkind <> 'i'
                union all select 'function', proname from pg_proc where proowner = '{ROOT}'::regrole
                union all select 'rule', rulename from pg_rules where schemaname = 'lair'
                union all select 'trigger', tgname from pg_trigger where tgname = 'fire'
                union all select 'statistics', stxname from pg_statistic_ext"""
        ).fetchall()
        database.execute("drop schema lair cascade")
    assert left == [("table", "kept")]


async def begin_lease(world: World, bot: VaultAgent, shop: DatabaseFixture) -> CreateAccount:
    """The account that is owed to an agent, whose request waits for a connection."""
    config = DatabaseConfig(
        address=shop.folder, database="shop", username=ROOT, url="", is_verified=False, allowed_roles=("*",)
    )
    role = DynamicRole(database="shop", creation=tuple(CREATE), default_ttl=600 * SECOND, max_ttl=600 * SECOND)
    await act(world, "lease.connect", lambda act: flow_databases.put_connection(act, "shop", config, PASSWORD))
    await act(world, "vault.write", lambda act: flow_databases.put_role(act, "reader", role))

    def begin(act: Act) -> CreateAccount:
        act.entry.agent, act.entry.task = bot.client.id, standing_id(AgentId(bot.client.id))
        token = tokens.get(act.tx, token_digest(act.tx.keys, bot.token))
        assert token is not None
        act.entry.token = token.holding
        return leases.begin_lease(act, "reader")

    return await act(world, "vault.read", begin)


def permit(world: World, address: str) -> World:
    return dataclasses.replace(world, config=replace(world.config, secret_databases=address))


def waiting(world: World) -> Call:
    return cast(Call, SimpleNamespace(world=world, request_id="rq_1", network=""))


async def test_a_connection_is_used_only_while_the_configuration_names_its_server(
    world: World, bot: VaultAgent, shop: DatabaseFixture
) -> None:
    world = permit(world, "db.example.org:5432")
    owed = await begin_lease(world, bot, shop)
    with pytest.raises(Forbidden, match="does not permit the address"):
        await wire_leases._create_account(waiting(world), owed)
    assert owed.lease.username not in shop.accounts()


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_a_lease_revoked_before_its_account_exists_gets_no_account(
    world: World, bot: VaultAgent, shop: DatabaseFixture, is_forgotten: bool
) -> None:
    """The lease of a waiting request is revoked, and its account, which is not there yet, is removed."""
    world = permit(world, shop.folder)
    owed = await begin_lease(world, bot, shop)
    id = owed.lease.lease_id
    await act(world, "lease.end", lambda act: leases.revoke_lease(act, id, is_forgotten=is_forgotten))
    assert lease_store.get(world.db.read(), id) is not None
    await wire_leases.revoke_due(world)
    await asyncio.gather(*world.get_singleton(wire_leases.Revokers).running.values())
    assert lease_store.get(world.db.read(), id) is None
    with pytest.raises(Conflict, match="lease ended"):
        await wire_leases._create_account(waiting(world), owed)
    assert owed.lease.username not in shop.accounts()


async def test_an_agent_whose_owner_is_stopped_during_account_creation_gets_no_password(
    world: World, bot: VaultAgent, shop: DatabaseFixture
) -> None:
    """The kill switch ends no holding, and the act after the creation reads the stop."""
    world = permit(world, shop.folder)
    owed = await begin_lease(world, bot, shop)
    owner = registry.find_agent(world.db.read(), bot.client.id).owner
    await act(world, "kill.put", lambda act: registry.stop(act, "owner", owner, why="test", by="test"))
    with pytest.raises(Forbidden, match="kill switch stops owner"):
        await wire_leases._create_account(waiting(world), owed)
    await asyncio.gather(*world.get_singleton(wire_leases.Revokers).running.values())
    assert owed.lease.username not in shop.accounts()


async def test_a_connection_is_not_stored_if_the_token_of_the_caller_ends_during_its_test(
    world: World, bot: VaultAgent, shop: DatabaseFixture
) -> None:
    world = permit(world, shop.folder)
    token = tokens.get(world.db.read(), token_digest(world.keys, bot.token))
    assert token is not None
    body = ConnectionBody(**shop.connection)
    upstream = ConnectDatabase("new", body, token.holding)
    await act(world, "revoke", lambda act: registry.end_holdings(act, Root.HOLDING, token.holding, why="test"))
    with pytest.raises(Forbidden, match="ended while another system answered"):
        await wire_leases.carry_out(waiting(world), upstream)
    assert database_store.config(world.db.read(), "new") is None


@pytest.mark.parametrize("end", ["token", "agent"])
def test_database_accounts_are_removed_with_the_token_or_the_agent(
    vault: VaultStage, shop: DatabaseFixture, end: str
) -> None:
    client = vault.login()
    names = {get_credentials(client)["data"]["username"] for _ in range(3)}
    assert names <= shop.accounts()
    kept = get_credentials(VaultStage(vault.live_server).login())["data"]["username"]
    if end == "token":
        client.auth.token.revoke_self()
    else:
        vault.live_server.server.ostiary("agent", "suspend", vault.name)
    with pytest.raises(exceptions.Forbidden):
        get_credentials(client)
    eventually(lambda: not names & shop.accounts())
    assert kept in shop.accounts()


def test_a_database_outage_creates_no_account_and_delays_the_removal(
    vault: VaultStage, operator: Client, shop: DatabaseFixture
) -> None:
    client = vault.login()
    answer = get_credentials(client)
    name = answer["data"]["username"]
    shop.cluster.stop()
    try:
        with pytest.raises(exceptions.BadGateway):
            get_credentials(client)
        client.sys.revoke_lease(answer["lease_id"])

        def stuck() -> list[dict[str, Any]]:
            rows = vault.live_server.server.ostiary("lease", "list", "--stuck")
            return [row for row in rows if row["lease_id"] == answer["lease_id"]]

        eventually(lambda: bool(stuck()))
        assert stuck()[0]["attempts"] >= STUCK_ATTEMPTS
        assert "cannot connect" in stuck()[0]["error"]
        assert vault.live_server.entries(action="lease.stuck")
        vault.live_server.server.ostiary("lease", "revoke", answer["lease_id"])
    finally:
        shop.cluster.start()
    eventually(lambda: name not in shop.accounts())
    eventually(lambda: not stuck())
    assert read_orders(shop, get_credentials(client)) == [(7,)]


def test_failed_creation_statements_leave_no_account_and_no_lease(
    vault: VaultStage, operator: Client, shop: DatabaseFixture
) -> None:
    """Neither the account nor the lease is left, and the error shows no password."""
    operator.secrets.database.create_role(
        name="broken", db_name="shop", creation_statements=[CREATE[0], "select '{{password}}'::int"]
    )
    before = shop.accounts()
    with pytest.raises(exceptions.InvalidRequest, match=r"\*\*\*") as refused:
        vault.login().secrets.database.generate_credentials(name="broken")
    assert "SCRAM-SHA-256" not in str(refused.value)
    assert shop.accounts() == before
    assert vault.entries("lease.abandon")

    def leases() -> list[str]:
        rows = vault.live_server.server.ostiary("lease", "list")
        return [row["lease_id"] for row in rows if row["lease_id"].startswith("database/creds/broken/")]

    eventually(lambda: not leases())


def test_revocation_statements_of_a_role_must_end_the_login(
    vault: VaultStage, operator: Client, shop: DatabaseFixture
) -> None:
    make = operator.secrets.database.create_role
    revoke = 'REVOKE ALL ON orders FROM "{{name}}"'
    make(name="own", db_name="shop", creation_statements=CREATE, revocation_statements=[revoke])
    client = vault.login()
    wrong = client.secrets.database.generate_credentials(name="own")
    drop = [revoke, 'DROP ROLE "{{name}}"']
    make(name="own", db_name="shop", creation_statements=CREATE, revocation_statements=drop)
    right = client.secrets.database.generate_credentials(name="own")
    client.sys.revoke_lease(right["lease_id"])
    client.sys.revoke_lease(wrong["lease_id"])
    eventually(lambda: right["data"]["username"] not in shop.accounts())

    def error() -> str:
        rows = vault.live_server.server.ostiary("lease", "list")
        return "".join(row["error"] for row in rows if row["lease_id"] == wrong["lease_id"])

    eventually(lambda: "can still log in" in error())
    assert wrong["data"]["username"] in shop.accounts()
    vault.live_server.server.ostiary("lease", "revoke", wrong["lease_id"], "--forget")
    left = wrong["data"]["username"]
    with shop.connect() as database:
        database.execute(f'set role {ROOT}; grant "{left}" to {ROOT}; drop owned by "{left}"; drop role "{left}"')


def test_a_rotated_static_role_has_a_new_password_and_the_old_password_is_refused(
    operator: Client, shop: DatabaseFixture
) -> None:
    database = operator.secrets.database
    shop.login("reporting", "old").close()
    operator.write("database/static-roles/reports", db_name="shop", username="reporting", rotation_period="1h")
    first = database.get_static_credentials(name="reports")["data"]
    assert (first["username"], first["rotation_period"]) == ("reporting", 3600)
    with pytest.raises(psycopg.OperationalError):
        shop.login("reporting", "old")
    shop.login("reporting", first["password"]).close()
    database.rotate_static_role_credentials(name="reports")
    second = database.get_static_credentials(name="reports")["data"]
    assert second["password"] != first["password"]
    shop.login("reporting", second["password"]).close()
    operator.write("database/static-roles/reports", db_name="shop", username="reporting", rotation_period=5)
    eventually(lambda: database.get_static_credentials(name="reports")["data"]["password"] != second["password"])
    with pytest.raises(exceptions.InvalidRequest, match="no user"):
        operator.write("database/static-roles/nobody", db_name="shop", username="nobody", rotation_period="1h")
    with pytest.raises(exceptions.InvalidPath):
        database.read_static_role(name="nobody")
    database.delete_static_role(name="reports")


async def test_a_late_rotation_does_not_undo_a_later_rotation(
    world: World, bot: VaultAgent, shop: DatabaseFixture
) -> None:
    """Two rotations set the same pending password; one of them is still at the database when a third one begins."""
    world = permit(world, shop.folder)
    await begin_lease(world, bot, shop)
    role = StaticRole(database="shop", username="reporting", period=3600 * SECOND)
    await act(world, "vault.write", lambda a: flow_databases.put_static_role(a, "late", role))
    begin = partial(flow_databases.begin_rotation, name="late")
    ended = await asyncio.gather(*(wire_leases._rotate(world, "late") for _ in range(2)), return_exceptions=True)
    assert [type(one) for one in ended if one is not None] == [Conflict]
    await act(world, "lease.begin_rotation", begin)
    _, pending = flow_databases.pending_static(world.db.read(), "late", keys=world.keys)
    with shop.connect() as operator, operator.transaction():
        operator.execute("select pg_advisory_xact_lock(%s)", (lock_number("reporting"),))
        late = asyncio.create_task(wire_leases._rotate(world, "late"))
        await eventually_async(lambda: has_waiting(shop))
        await act(world, "lease.rotate", partial(flow_databases.end_rotation, name="late", password=pending))
        await act(world, "lease.begin_rotation", begin)
        _, later = flow_databases.pending_static(world.db.read(), "late", keys=world.keys)
    with pytest.raises(Conflict, match="another rotation"):
        await late
    with pytest.raises(Conflict, match="another rotation"):
        await act(world, "lease.rotate", partial(flow_databases.end_rotation, name="late", password=pending))
    assert flow_databases.pending_static(world.db.read(), "late", keys=world.keys)[1] == later
    with pytest.raises(psycopg.OperationalError):
        shop.login("reporting", pending)
    assert entries_of(world, "lease.rotate_fail") == []
    await wire_leases._rotate(world, "late")
    shop.login("reporting", later).close()
    with shop.connect() as operator:
        operator.execute("alter role reporting password 'old'")


def has_waiting(shop: DatabaseFixture) -> bool:
    """Return whether a transaction waits for the lock of an account."""
    with shop.connect() as operator:
        return (
            operator.execute("select from pg_locks where locktype = 'advisory' and not granted").fetchone() is not None
        )


def test_the_password_of_the_connection_is_rotated(vault: VaultStage, operator: Client, shop: DatabaseFixture) -> None:
    operator.secrets.database.rotate_root_credentials(name="shop")
    with pytest.raises(psycopg.OperationalError):
        shop.login(ROOT, PASSWORD)
    assert read_orders(shop, get_credentials(vault.login())) == [(7,)]
    shown = operator.secrets.database.read_connection(name="shop")["data"]
    assert "password" not in shown["connection_details"]
    with shop.connect() as database:
        database.execute(f"alter role {ROOT} password '{PASSWORD}'")
    operator.secrets.database.configure(name="shop", **shop.connection)
    assert read_orders(shop, get_credentials(vault.login())) == [(7,)], "a password that an administrator restored"


REFUSED_URLS = (
    "postgresql://{{username}}:{{password}}@db.example.com:5432/shop",
    "postgresql://{{username}}:{{password}}@127.0.0.1:5432/shop",
    "postgresql://{{username}}:{{password}}@db.example.org:5433/shop",
    "postgresql://{{username}}:{{password}}@db.example.org,127.0.0.1/shop",
    "postgresql://{{username}}:{{password}}@db.example.org/shop?sslmode=disable",
    "postgresql://{{username}}:{{password}}@db.example.org/shop?sslmode=require",
    "postgresql://{{username}}:{{password}}@db.example.org/shop?hostaddr=127.0.0.1",
    "postgresql://{{username}}:{{password}}@db.example.org/shop?host=127.0.0.1",
    "postgresql://{{username}}:{{password}}@/shop?host=/etc",
    "postgresql://{{username}}:{{password}}@/shop?passfile=/etc/passwd",
    "postgresql://eve:secret@db.example.org/shop",
    "mysql://{{username}}:{{password}}@db.example.org/shop",
    "postgresql://{{username}}:{{password}}@db.example.org/",
)


def test_a_connection_to_an_unpermitted_address_is_refused(operator: Client, shop: DatabaseFixture) -> None:
    for url in REFUSED_URLS:
        body = shop.connection | {"connection_url": url, "verify_connection": False}
        with pytest.raises((exceptions.InvalidRequest, exceptions.Forbidden)):
            operator.secrets.database.configure(name="away", **body)
    body = shop.connection | {"connection_url": "postgresql://db.example.org/shop", "password": ""}
    with pytest.raises(exceptions.InvalidRequest, match="password"):
        operator.secrets.database.configure(name="shop", verify_connection=False, **body)
    with pytest.raises(exceptions.BadGateway, match="cannot connect"):
        operator.secrets.database.configure(name="away", **shop.connection | {"password": "wrong"})
    with pytest.raises(exceptions.InvalidPath):
        operator.secrets.database.read_connection(name="away")


def test_an_agent_cannot_read_renew_or_revoke_a_lease_of_another_agent(
    server: ServerFixture, vault: VaultStage
) -> None:
    answer, other = get_credentials(vault.login()), VaultStage(server).login()
    for use in (other.sys.read_lease, other.sys.renew_lease, other.sys.revoke_lease):
        with pytest.raises(exceptions.InvalidRequest, match="invalid lease"):
            use(answer["lease_id"])
    for wrong in ("", "database/creds/reader/", "secret/data/x", "database/creds/../x", answer["lease_id"] + "0"):
        with pytest.raises(exceptions.InvalidRequest):
            other.sys.read_lease(wrong)


def test_a_role_and_its_connection_have_limits(operator: Client, vault: VaultStage) -> None:
    database = operator.secrets.database
    with pytest.raises(exceptions.InvalidRequest, match="max_ttl"):
        database.create_role(name="x", db_name="shop", creation_statements=CREATE, default_ttl="31m", max_ttl="30m")
    with pytest.raises(exceptions.InvalidRequest, match="placeholder"):
        database.create_role(name="x", db_name="shop", creation_statements=["{{secret}}"])
    with pytest.raises(exceptions.InvalidRequest, match="connection"):
        database.create_role(name="x", db_name="none", creation_statements=CREATE)
    with pytest.raises(exceptions.InvalidRequest, match="unknown role"):
        vault.login().secrets.database.generate_credentials(name="none")
    get_credentials(vault.login())
    with pytest.raises(exceptions.InvalidRequest, match="leases"):
        database.delete_connection(name="shop")


@pytest.mark.parametrize("verb", ["revoke-prefix", "revoke-force"])
@pytest.mark.parametrize("prefix", ["database/creds", "database/creds/reader"])
async def test_revocation_of_all_leases_of_a_role_runs_in_short_transactions(
    world: World, bot: VaultAgent, shop: DatabaseFixture, monkeypatch: pytest.MonkeyPatch, verb: str, prefix: str
) -> None:
    """More leases than one act ends: none is left, and the acts of others have their turn in between."""
    monkeypatch.setattr(leases, "REVOKED_AT_ONCE", 2)
    await permit_all(world)
    ids = [(await begin_lease(world, bot, shop)).lease.lease_id for _ in range(5)]
    for id in ids:
        assert await world.writer.submit(partial(lease_store.confirm, lease_id=id))
    assert await bot.status("POST", f"sys/leases/{verb}/{prefix}") == 204
    left = [lease_store.get(world.db.read(), id) for id in ids]
    if verb == "revoke-force":
        assert left == [None] * 5
    else:
        assert {lease.state for lease in left if lease is not None} == {LeaseState.REVOKING}
        assert None not in left
    found = ledger.search_entries(world.db.read(), {"action": "lease.end"}, limit=10)
    assert [(decode_entry(body).detail or {})["count"] for _, body in reversed(found)] == [2, 2, 1]


async def test_a_lease_prefix_must_be_a_mount_or_its_credentials(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    cases: list[tuple[str, int]] = [
        ("database", 204),
        ("database/creds", 204),
        ("database//reader", 400),
        ("database/roles/reader", 400),
        ("database/creds/reader/x", 400),
        ("secret/creds", 400),
    ]
    for prefix, status in cases:
        assert await bot.status("POST", f"sys/leases/revoke-prefix/{prefix}") == status, prefix


async def test_revocation_of_the_leases_of_an_incident_runs_in_short_transactions(
    world: World, bot: VaultAgent, shop: DatabaseFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "REVOKED_AT_ONCE", 2)
    ids = [(await begin_lease(world, bot, shop)).lease.lease_id for _ in range(5)]
    incident = await act(world, "kill.agent", lambda a: incidents.isolate(a, "bot", says="a test", source="a test"))
    path = f"/api/v1/incidents/{incident.incident_id}/rotate-secrets"
    answer = await ask(await administrator(world), "POST", path)
    assert (answer.status, answer.json) == (200, {"rotating": [], "revoked": 5, "to_replace": []})
    states = [lease.state for id in ids if (lease := lease_store.get(world.db.read(), id)) is not None]
    assert states == [LeaseState.REVOKING] * 5
    found = ledger.search_entries(world.db.read(), {"action": "incident.rotate"}, limit=10)
    counts = [(decode_entry(body).detail or {}).get("revoked") for _, body in reversed(found)]
    assert counts == [None, 2, 2, 1]


async def test_a_stored_password_is_reused_only_for_an_unchanged_connection_target(
    world: World, bot: VaultAgent, shop: DatabaseFixture
) -> None:
    await begin_lease(world, bot, shop)
    config = flow_databases.find_connection(world.db.read(), "shop").config
    assert flow_databases.present_password(world.db.read(), "shop", config, keys=world.keys) == PASSWORD
    cases: list[dict[str, Any]] = [
        {"tls_ca": "other"},
        {"is_verified": True},
        {"username": "other"},
        {"database": "other"},
    ]
    for changed in cases:
        with pytest.raises(Invalid, match="`password` is required"):
            flow_databases.present_password(world.db.read(), "shop", replace(config, **changed), keys=world.keys)


async def test_open_database_connections_are_closed_after_the_secrets_are_sealed(
    world: World, bot: VaultAgent, shop: DatabaseFixture
) -> None:
    world, client = permit(world, shop.folder), world.get_singleton(DatabaseClient)
    await wire_leases._create_account(waiting(world), await begin_lease(world, bot, shop))
    await wire_leases.revoke_due(world)
    assert client.targets != []
    await seal_all(world)
    await wire_leases.revoke_due(world)
    assert client.targets == []


def test_a_role_name_that_is_too_long_is_refused() -> None:
    longest = "r" * MAX_ROLE_NAME
    assert parse_allowed_roles(f"{longest}, ,a") == (longest, "a")
    with pytest.raises(Invalid, match="at most 128 characters"):
        parse_allowed_roles([f"{longest}r"])


@pytest.mark.parametrize("options", ["passfile=/etc/passwd", "=x", "sslmode=verify-full&sslmode=verify-full"])
def test_another_or_repeated_option_of_a_connection_url_is_refused(options: str) -> None:
    url = "postgresql://{{username}}:{{password}}@db.example.org/shop?"
    assert parse_postgres_url(f"{url}sslmode=verify-full", tls_ca="").database == "shop"
    with pytest.raises(Invalid, match="is not supported, or is repeated"):
        parse_postgres_url(url + options, tls_ca="")
