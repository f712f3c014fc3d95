"""Systems in which the server creates accounts, and stores of the server, that make their clients wait on request."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from hvac import Client

from harness.patience import PATIENCE_S
from harness.tcp_proxy import Proxy
from tests.secrets.backend_fixtures import KEY, KEY_ID, REGION, aws_client, moto
from tests.secrets.database_fixtures import CREATE, DatabaseFixture, database_fixture
from tests.secrets.mysql_fixtures import CREATE as CREATE_IN_MYSQL
from tests.secrets.mysql_fixtures import mysql_fixture

Hold = Callable[[], AbstractContextManager[Callable[[], bool]]]
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}'
TTL, RENEWED_S, MAX_TTL = "30m", 3600, "2h"
"""The validity of a lease, of a renewed one, and the longest one. No lease ends while a test with it goes on."""


class LeaseUpstream(NamedTuple):
    """A system with accounts. In the block of `hold`, acts on accounts wait there; its value tells whether one waits.

    `setting`: the line of the configuration that permits the system. `state`: what acts on accounts change there.
    `renews`: whether a renewal is an act there.
    """

    mount: str
    setting: str
    configure: Callable[[Client], None]
    accounts: Callable[[], set[str]]
    state: Callable[[], Any]
    hold: Hold
    renews: bool = False

    @property
    def path(self) -> str:
        """The path of new credentials."""
        return f"{self.mount}/creds/reader"


def _configure_database(client: Client, connection: dict[str, Any], creation: list[str]) -> None:
    database = client.secrets.database
    database.configure(name="shop", **connection)
    database.create_role(name="reader", db_name="shop", creation_statements=creation, default_ttl=TTL, max_ttl=MAX_TTL)


def upstream_of(shop: DatabaseFixture) -> LeaseUpstream:
    """A PostgreSQL whose table of accounts can be locked."""

    def state() -> list[Any]:
        with shop.connect() as operator:
            return operator.execute("select rolname, rolvaliduntil from pg_roles order by 1").fetchall()

    def has_waiting() -> bool:
        with shop.connect() as operator:
            waiting = "select from pg_locks where relation = 'pg_authid'::regclass and not granted"
            return operator.execute(waiting).fetchone() is not None

    @contextmanager
    def hold() -> Iterator[Callable[[], bool]]:
        with shop.connect() as operator, operator.transaction():
            operator.execute("lock table pg_authid in share mode")
            yield has_waiting

    return LeaseUpstream(
        "database",
        f'secret_databases = "{shop.folder}"',
        lambda client: _configure_database(client, shop.connection, CREATE),
        shop.accounts,
        state,
        hold,
        renews=True,
    )


@contextmanager
def postgres_upstream(_: Path) -> Iterator[LeaseUpstream]:
    with database_fixture() as shop:
        yield upstream_of(shop)


@contextmanager
def mysql_upstream(_: Path) -> Iterator[LeaseUpstream]:
    """A MariaDB whose tables can be locked."""
    with mysql_fixture() as shop:

        def has_waiting() -> bool:
            query = "select 1 from information_schema.processlist where user = 'ostiary_root' and state like 'Waiting%'"
            return bool(shop.run(query))

        @contextmanager
        def hold() -> Iterator[Callable[[], bool]]:
            with closing(shop.login("root", "")) as operator, operator.cursor() as cursor:
                cursor.execute("flush tables with read lock")
                yield has_waiting

        yield LeaseUpstream(
            "database",
            f'secret_databases = "{shop.socket}"',
            lambda client: _configure_database(client, shop.connection, CREATE_IN_MYSQL),
            shop.accounts,
            shop.accounts,
            hold,
        )


@contextmanager
def aws_upstream(folder: Path) -> Iterator[LeaseUpstream]:
    """moto's AWS behind a proxy that can keep requests back."""
    with moto(folder) as url, closing(Proxy(url)) as proxy:
        address, iam = f"http://127.0.0.1:{proxy.port}", aws_client("iam", url)

        def configure(client: Client) -> None:
            client.secrets.aws.configure_root_iam_credentials(
                access_key=KEY_ID, secret_key=KEY, region=REGION, iam_endpoint=address, sts_endpoint=address
            )
            client.write("aws/config/lease", lease=TTL, lease_max=MAX_TTL)
            client.secrets.aws.create_or_update_role(name="reader", credential_type="iam_user", policy_document=POLICY)

        def accounts() -> set[str]:
            pages = iam.get_paginator("list_users").paginate()
            return {user["UserName"] for page in pages for user in page["Users"]}

        @contextmanager
        def hold() -> Iterator[Callable[[], bool]]:
            seen: list[bytes] = []

            def note(is_request: bool, piece: bytes) -> bool:
                if is_request:
                    seen.append(piece)
                return True

            proxy.stalls, proxy.on_piece = True, note
            try:
                yield lambda: bool(seen)
            finally:
                proxy.stalls = False

        yield LeaseUpstream("aws", f'secret_backends = "{address}"', configure, accounts, accounts, hold)


UPSTREAMS = {"postgresql": postgres_upstream, "mysql": mysql_upstream, "aws": aws_upstream}


@contextmanager
def hold_store(database: str, folder: Path) -> Iterator[None]:
    """Let the writer of a server wait in the block. `database`: the URL of PostgreSQL, empty for SQLite."""
    if database:
        with psycopg.connect(database) as operator:
            operator.execute("lock table lease in share mode")
            yield
        return
    with closing(sqlite3.connect(folder / "ostiary.db", timeout=PATIENCE_S, isolation_level=None)) as operator:
        operator.execute("begin immediate")
        yield
