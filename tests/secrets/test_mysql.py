"""Accounts in a real MariaDB through the unchanged client `hvac`: leases, what ends them, rotation, and refusals."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, repeat
from operator import methodcaller
from typing import Any

import pymysql
import pytest
from hvac import Client, exceptions

from harness.live_server import ServerFixture, own_server
from harness.patience import PATIENCE_S, eventually
from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ground.outbound import mysql_driver
from ostiaryd.ground.outbound.database_client import DatabaseClient
from ostiaryd.ground.outbound.database_driver import DatabaseDown, DatabaseRefused, DatabaseTarget
from ostiaryd.secrets.model.database import ConnectionBody, DatabaseConfig, make_account, read_connection
from ostiaryd.secrets.model.lease import STUCK_ATTEMPTS
from tests.secrets.mysql_fixtures import CREATE, MARIADB, PASSWORD, ROOT, MysqlFixture, mysql_fixture
from tests.secrets.vault_fixtures import POLICIES, VaultStage

PASSWORD_FORM = r"A1-[0-9a-f]{4}"
"""the beginning of a password of `make_account`"""
EVERYTHING = '@id("databases") permit (principal is Agent, action, resource is Secret);'
needs_mariadb = pytest.mark.skipif(MARIADB is None, reason="MariaDB is not installed: apt-get install mariadb-server")


@pytest.fixture(scope="module")
def shop() -> Iterator[MysqlFixture]:
    """The database, with a user who may create accounts."""
    with mysql_fixture() as made:
        yield made


@pytest.fixture(scope="module")
def server(shop: MysqlFixture, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server that may connect to it."""
    folder = tmp_path_factory.mktemp("mysql")
    settings = folder / "ostiary.toml"
    settings.write_text(f'data_dir = "{folder}/server"\nsecret_databases = "{shop.socket} localhost:{shop.port}"\n')
    with own_server(folder, "--config", str(settings)) as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES + EVERYTHING}})
        yield live_server


@pytest.fixture(scope="module")
def operator(server: ServerFixture, shop: MysqlFixture) -> Client:
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


def get_credentials(client: Client, role: str = "reader") -> dict[str, Any]:
    answer: dict[str, Any] = client.secrets.database.generate_credentials(name=role)
    return answer


def read_orders(session: pymysql.Connection) -> list[tuple[int]]:
    with session.cursor() as cursor:
        cursor.execute("select id from shop.orders")
        return list(cursor.fetchall())


def find_error(vault: VaultStage, lease_id: str) -> str:
    rows = vault.live_server.server.ostiary("lease", "list")
    return "".join(row["error"] for row in rows if row["lease_id"] == lease_id)


@needs_mariadb
def test_an_account_is_created_used_renewed_and_removed_with_its_sessions(
    vault: VaultStage, shop: MysqlFixture
) -> None:
    made = vault.live_server.server.ostiary("agent", "create-secret", vault.name)
    client = Client(url=vault.url)  # its token lasts a day
    client.auth.approle.login(role_id=made["client_id"], secret_id=made["client_secret"])
    answer = get_credentials(client)
    name = answer["data"]["username"]
    with closing(shop.login(name, answer["data"]["password"])) as session:
        assert read_orders(session) == [(7,)]
        with pytest.raises(pymysql.err.OperationalError):
            shop.login(name, "another password")
        assert 890 <= client.sys.renew_lease(answer["lease_id"], increment=900)["lease_duration"] <= 900
        client.sys.revoke_lease(answer["lease_id"])
        eventually(lambda: name not in shop.accounts())
        eventually(lambda: not shop.run(f"select id from information_schema.processlist where user = '{name}'"))
        with pytest.raises(pymysql.err.OperationalError):
            read_orders(session)
    assert vault.entries("lease.issue")[0]["object"] == answer["lease_id"]
    assert answer["data"]["password"] not in repr(vault.live_server.entries(limit=300))


@needs_mariadb
@pytest.mark.parametrize("end", ["token", "agent"])
def test_mysql_accounts_are_removed_with_the_token_or_the_agent(
    vault: VaultStage, shop: MysqlFixture, end: str
) -> None:
    client = vault.login()
    names = {get_credentials(client)["data"]["username"] for _ in range(3)}
    kept = get_credentials(VaultStage(vault.live_server).login())["data"]["username"]
    assert names | {kept} <= shop.accounts()
    if end == "token":
        client.auth.token.revoke_self()
    else:
        vault.live_server.server.ostiary("agent", "suspend", vault.name)
    eventually(lambda: not names & shop.accounts())
    assert kept in shop.accounts()


@needs_mariadb
def test_a_mysql_outage_creates_no_account_and_delays_the_removal(vault: VaultStage, shop: MysqlFixture) -> None:
    client = vault.login()
    answer = get_credentials(client)
    shop.stop()
    try:
        with pytest.raises(exceptions.BadGateway):
            get_credentials(client)
        client.sys.revoke_lease(answer["lease_id"])

        def attempts() -> int:
            rows = vault.live_server.server.ostiary("lease", "list", "--stuck")
            return next((row["attempts"] for row in rows if row["lease_id"] == answer["lease_id"]), 0)

        eventually(lambda: attempts() >= STUCK_ATTEMPTS)
        assert "cannot connect" in find_error(vault, answer["lease_id"])
    finally:
        shop.start()
    assert answer["data"]["username"] in shop.accounts()
    vault.live_server.server.ostiary("lease", "revoke", answer["lease_id"])
    eventually(lambda: answer["data"]["username"] not in shop.accounts())


@needs_mariadb
def test_statements_that_fail_leave_no_account(vault: VaultStage, operator: Client, shop: MysqlFixture) -> None:
    """The account exists when the second statement fails, is removed, and no error shows its password."""
    operator.secrets.database.create_role(
        name="broken", db_name="shop", creation_statements=[*CREATE, "select 1 frim '{{password}}'"]
    )
    before = shop.accounts()
    with pytest.raises(exceptions.InvalidRequest, match="the database refused") as refused:
        get_credentials(vault.login(), "broken")
    assert not re.search(PASSWORD_FORM, str(refused.value))
    [abandoned] = vault.entries("lease.abandon")
    assert not re.search(PASSWORD_FORM, repr(abandoned))
    eventually(lambda: shop.accounts() <= before)


@needs_mariadb
def test_revocation_statements_of_a_role_must_remove_the_account(
    vault: VaultStage, operator: Client, shop: MysqlFixture
) -> None:
    make = operator.secrets.database.create_role
    make(name="own", db_name="shop", creation_statements=CREATE, revocation_statements=["do 1"])
    client = vault.login()
    wrong = get_credentials(client, "own")
    drop = ["REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{{name}}'@'%'; DROP USER '{{name}}'@'%'"]
    make(name="own", db_name="shop", creation_statements=CREATE, revocation_statements=drop)
    right = get_credentials(client, "own")
    client.sys.revoke_lease(right["lease_id"])
    client.sys.revoke_lease(wrong["lease_id"])
    eventually(lambda: right["data"]["username"] not in shop.accounts())
    eventually(lambda: "still exists after the revocation" in find_error(vault, wrong["lease_id"]))
    assert wrong["data"]["username"] in shop.accounts()
    shop.run(f"drop user '{wrong['data']['username']}'@'%'")
    eventually(lambda: not find_error(vault, wrong["lease_id"]))


@needs_mariadb
def test_passwords_of_a_static_role_and_of_the_connection_are_rotated(
    vault: VaultStage, operator: Client, shop: MysqlFixture
) -> None:
    database = operator.secrets.database
    operator.write("database/static-roles/reports", db_name="shop", username="reporting", rotation_period="1h")
    first = database.get_static_credentials(name="reports")["data"]["password"]
    with pytest.raises(pymysql.err.OperationalError):
        shop.login("reporting", "old")
    shop.login("reporting", first).close()
    database.rotate_static_role_credentials(name="reports")
    second = database.get_static_credentials(name="reports")["data"]["password"]
    with pytest.raises(pymysql.err.OperationalError):
        shop.login("reporting", first)
    shop.login("reporting", second).close()
    with pytest.raises(exceptions.InvalidRequest, match="no user"):
        operator.write("database/static-roles/nobody", db_name="shop", username="nobody", rotation_period="1h")
    for wrong in ("a'b", "a\\", "a" * 33):
        with pytest.raises(exceptions.InvalidRequest, match="username"):
            operator.write("database/static-roles/wrong", db_name="shop", username=wrong, rotation_period="1h")
    database.configure(name="idle", **shop.connection | {"root_rotation_statements": ["do 1"]})
    with pytest.raises(exceptions.BadGateway, match="cannot connect"):
        database.rotate_root_credentials(name="idle")
    database.delete_connection(name="idle")
    database.rotate_root_credentials(name="shop")
    with pytest.raises(pymysql.err.OperationalError):
        shop.login(ROOT, PASSWORD)
    get_credentials(vault.login())
    assert database.read_connection(name="shop")["data"]["plugin_name"] == "mysql-database-plugin"
    shop.run(f"alter user {ROOT}@'%' identified by '{PASSWORD}'")
    database.configure(name="shop", **shop.connection)


@needs_mariadb
def test_tls_is_verified_against_the_named_authority(
    operator: Client, shop: MysqlFixture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.support.pem import certificate

    _, other = certificate(tmp_path_factory.mktemp("other"), "localhost")
    url = "{{username}}:{{password}}@tcp(localhost:" + f"{shop.port})/shop?tls=true"
    body = shop.connection | {"connection_url": url}
    operator.secrets.database.configure(name="tls", tls_ca=shop.authority.read_text(), **body)
    for wrong in (other.read_text(), "", "no certificate"):
        with pytest.raises(exceptions.BadGateway, match="cannot connect"):
            operator.secrets.database.configure(name="tls", tls_ca=wrong, **body)
    operator.secrets.database.delete_connection(name="tls")


@needs_mariadb
@pytest.mark.parametrize("right", ["process on *.*", "select on mysql.*"])
def test_a_connection_user_without_the_rights_to_remove_accounts_is_refused(
    operator: Client, shop: MysqlFixture, right: str
) -> None:
    """Without the right `process`, the list of sessions is incomplete and no error tells of it."""
    shop.run(f"revoke {right} from {ROOT}@'%'")
    try:
        with pytest.raises(exceptions.InvalidRequest, match="the database refused"):
            operator.secrets.database.configure(name="new", **shop.connection | {"max_open_connections": 1})
    finally:
        shop.run(f"grant {right} to {ROOT}@'%'")
    operator.secrets.database.configure(name="new", **shop.connection | {"max_open_connections": 2})
    operator.secrets.database.delete_connection(name="new")


def read(url: str, **body: Any) -> DatabaseConfig:
    body = {"plugin_name": "mysql-database-plugin", "username": ROOT, "password": "x", **body}
    permitted = ("db.example.org:3306", "[2001:db8::1]:3307", "127.0.0.1:3306", "/run/mysqld/mysqld.sock")
    return read_connection(ConnectionBody(connection_url=url, **body), permitted=permitted)


USER = "{{username}}:{{password}}@"


def test_a_connection_to_an_unpermitted_address_is_refused() -> None:
    assert read(f"{USER}tcp(db.example.org:3306)/").is_verified
    assert read(f"{USER}tcp(db.example.org)/shop").database == "shop"
    assert read(f"{USER}tcp([2001:db8::1]:3307)/?tls=true").address == "[2001:db8::1]:3307"
    assert not read("tcp(127.0.0.1:3306)/?tls=false").is_verified
    assert not read(f"{USER}unix(/run/mysqld/mysqld.sock)/shop").is_verified
    for url in (
        f"{USER}tcp(db.example.com:3306)/",
        f"{USER}tcp(db.example.org:3307)/",
        f"{USER}unix(/run/mysqld/other.sock)/",
    ):
        with pytest.raises(Forbidden, match="does not permit the address"):
            read(url)
    for url in (
        f"{USER}tcp(db.example.org:3306)/?tls=false",
        f"{USER}tcp(db.example.org:3306)/?tls=skip-verify",
        f"{USER}tcp(db.example.org:3306)/?allowCleartextPasswords=true",
        f"{USER}tcp(db.example.org:3306)/?tls=true&tls=false",
        f"{USER}tcp(db.example.org:3306,127.0.0.1:3306)/",
        f"{USER}tcp(eve@db.example.org:3306)/",
        f"{USER}tcp(db.example.org:port)/",
        f"{USER}unix(run/mysqld.sock)/",
        "eve:secret@tcp(db.example.org:3306)/",
        "mysql://db.example.org/",
        "postgresql://db.example.org/shop",
    ):
        with pytest.raises(Invalid, match="`connection_url`|`tls`"):
            read(url)
    with pytest.raises(Invalid, match="password_authentication"):
        read(f"{USER}tcp(db.example.org:3306)/", password_authentication="scram-sha-256")
    name = make_account("a long name", "a long role", longest=32, now=0, random=lambda count: b"\xff" * count)
    assert (name, len(name)) == ("v-a-lo-a-lo-ffffffffffffffffffff", 32)


GREETING = b"\x0a10.0\0\1\0\0\0saltsalt\0" + struct.pack("<HBHHB", 0xF7FF, 33, 2, 0x000F, 21) + b"\0" * 10
GREETING += b"moresaltsalt\0mysql_native_password\0"
OK = b"\0\0\0\2\0\0\0"
COLUMN = b"\3def" + b"\0" * 5 + b"\x0c" + struct.pack("<HIBHBH", 33, 255, 0xFD, 0, 0, 0)
HOSTILE = {
    "clear text": [GREETING, b"\xfemysql_clear_password\0"],
    "a dialog": [GREETING, b"\xfedialog\0\x04Password: "],
    "a file": [GREETING, OK, b"\xfb/etc/passwd"],
    "no protocol": [b"\x0a\xff"],
    "silence": [],
}


def framed(number: int, packet: bytes) -> bytes:
    return struct.pack("<I", len(packet) | number % 256 << 24) + packet


def target_at(port: int, *, is_verified: bool = False) -> DatabaseTarget:
    password = "a-secret-password"
    return DatabaseTarget("mysql", f"127.0.0.1:{port}", "", ROOT, (password,), is_verified, "", 1)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_server_gets_no_password_and_blocks_no_thread(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that asks for the password in clear text, whose packets are wrong, or that never ends its answer."""
    monkeypatch.setattr(mysql_driver, "SILENCE_S", 1.0)
    heard, outlasted = bytearray(), threading.Event()

    def lie(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            for number, packet in enumerate(HOSTILE[kind]):
                connection.sendall(framed((0, 2, 1)[number], packet))
                heard.extend(connection.recv(1000))
            try:
                if not HOSTILE[kind]:
                    connection.sendall(b"\xff\xff\0\0")
                for _ in range(int(PATIENCE_S * 10)):  # a letter now and then: no read alone takes long
                    connection.sendall(b"\x0a")
                    time.sleep(0.1)
                outlasted.set()
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lie, args=(listener,))
        thread.start()
        with pytest.raises(DatabaseDown, match="cannot connect"):
            mysql_driver.connect(target_at(listener.getsockname()[1]))
        thread.join()
    assert b"a-secret-password" not in heard
    assert not outlasted.is_set()


def test_an_endless_query_result_is_cut_off_at_the_maximum_size() -> None:
    sent = list[int]()

    def flood(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            for number, packet in zip((0, 2, 1, 1), (GREETING, OK, OK, OK), strict=True):
                connection.sendall(framed(number, packet))
                connection.recv(1000)
            packets = chain((b"\1", COLUMN, b"\xfe\0\0\2\0"), repeat(b"\xf0" + b"x" * 240))
            try:
                for number, packet in enumerate(packets, start=1):
                    connection.sendall(framed(number, packet))
                    sent.append(len(packet))
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=flood, args=(listener,))
        thread.start()
        with pytest.raises(DatabaseDown, match=f"more than {mysql_driver.MAX_ANSWER} bytes"):
            mysql_driver.connect(target_at(listener.getsockname()[1]))
        thread.join()
    assert sum(sent) > mysql_driver.MAX_ANSWER // 2


@needs_mariadb
async def test_an_error_message_shows_no_part_of_a_hidden_text(shop: MysqlFixture) -> None:
    target = DatabaseTarget("mysql", shop.socket, "", ROOT, (PASSWORD,), False, "", 1)
    hidden = "A1-" + "5" * 64
    client = DatabaseClient(None)
    for statement in (
        f"select 1 '{'x' * 40}{hidden}'' from",
        f"select 1 from mysql.user {hidden}",  # `A1` is read as a name: the server quotes the statement from `-555` on
        f"signal sqlstate '45000' set message_text = '{hidden}'",
    ):
        with pytest.raises(DatabaseRefused) as refused:
            await client.run(target, methodcaller("execute", statement), hidden=hidden)
        assert "555" not in refused.value.message
    await client.close()
