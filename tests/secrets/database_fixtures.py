"""A PostgreSQL in which the server creates accounts, with passwords that count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from harness.postgres_cluster import Cluster

ROOT = "ostiary_root"
PASSWORD = "first-root-password"
CREATE = [
    """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'""",
    """GRANT SELECT ON orders TO "{{name}}" """,
]


class DatabaseFixture:
    """A database with a table, a user who may create accounts, and the folder of its socket."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.admin_url = cluster.create("shop")
        with self.connect() as operator:
            operator.execute(f"create role {ROOT} login createrole password '{PASSWORD}'")
            operator.execute("create table orders (id int)")
            operator.execute("insert into orders values (7)")
            operator.execute(f"grant select on orders to {ROOT} with grant option")
            operator.execute("create role reporting login password 'old'")
            operator.execute(f"grant reporting to {ROOT} with admin option")
            row = operator.execute("show hba_file").fetchone()
            assert row is not None
            Path(row[0]).write_text("local all postgres trust\nlocal all all scram-sha-256\n")
            operator.execute("select pg_reload_conf()")

    @property
    def folder(self) -> str:
        """The folder of the Unix socket."""
        return self.admin_url.rpartition("host=")[2]

    @property
    def data(self) -> Path:
        """The folder of all files of this PostgreSQL: tables, the write-ahead log, and the log of the server."""
        return self.cluster.data

    @property
    def connection(self) -> dict[str, Any]:
        """The body of a connection, for `hvac`."""
        return {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": "postgresql://{{username}}:{{password}}@/shop?host=" + self.folder,
            "username": ROOT,
            "password": PASSWORD,
            "allowed_roles": ["*"],
        }

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of the operator."""
        return psycopg.connect(self.admin_url, autocommit=True)

    def login(self, username: str, password: str) -> psycopg.Connection[Any]:
        """A connection of an account."""
        return psycopg.connect(host=self.folder, dbname="shop", user=username, password=password, autocommit=True)

    def accounts(self) -> set[str]:
        """The names of the accounts that the server created."""
        with self.connect() as operator:
            return {name for (name,) in operator.execute("select rolname from pg_roles where rolname like 'v-%'")}


@contextmanager
def database_fixture() -> Iterator[DatabaseFixture]:
    """Start a PostgreSQL of its own."""
    from harness.postgres_cluster import cluster

    with cluster() as started:
        yield DatabaseFixture(started)
