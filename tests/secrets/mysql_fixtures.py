"""A MariaDB in which the server creates accounts."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql

from harness.live_server import free_socket
from harness.patience import PATIENCE_S, eventually
from tests.support.pem import certificate

MARIADB = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/bin")
SMALL = ("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M", "--innodb-flush-method=nosync")
"""Options for a small and quick server, which loses its data with the machine."""
ROOT, PASSWORD = "ostiary_root", "first-root-password"
CREATE = ["CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT SELECT ON shop.orders TO '{{name}}'@'%'"]


class MysqlFixture:
    """A MariaDB with a table, and a user who may create accounts; at a Unix socket, and at TCP with TLS."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.socket = folder, str(folder / "socket")
        sock, self.port = free_socket()
        sock.close()
        _, self.authority = certificate(folder, "localhost")
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--skip-test-db", "--user=root"]
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal", *SMALL],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.run(
            "create database shop",
            "create table shop.orders (id int)",
            "insert into shop.orders values (7)",
            f"create user {ROOT}@'%' identified by '{PASSWORD}'",
            f"grant create user, process, connection admin on *.* to {ROOT}@'%'",
            f"grant select on mysql.* to {ROOT}@'%'",
            f"grant select on shop.* to {ROOT}@'%' with grant option",
            "create user reporting@'%' identified by 'old'",
        )

    def start(self) -> None:
        command = [
            str(MARIADB),
            "--no-defaults",
            f"--datadir={self._folder}/data",
            f"--socket={self.socket}",
            "--user=root",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            *SMALL,
            f"--ssl-cert={self.authority}",
            f"--ssl-key={self.authority}",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self._is_up)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(self.socket)
            return True
        return False

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_S)

    @property
    def connection(self) -> dict[str, Any]:
        """The body of a connection, for `hvac`."""
        return {
            "plugin_name": "mysql-database-plugin",
            "connection_url": "{{username}}:{{password}}@unix(" + self.socket + ")/",
            "username": ROOT,
            "password": PASSWORD,
            "allowed_roles": ["*"],
        }

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Execute statements of the operator; the rows of the last one."""
        with contextlib.closing(self.login("root", "")) as operator, operator.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def login(self, username: str, password: str) -> pymysql.Connection:
        """A connection of an account."""
        return pymysql.connect(unix_socket=self.socket, user=username, password=password, autocommit=True)

    def accounts(self) -> set[str]:
        """The names of the accounts that the server created."""
        return {name for (name,) in self.run("select user from mysql.user where user like 'v-%'")}


@contextlib.contextmanager
def mysql_fixture() -> Iterator[MysqlFixture]:
    """Start a MariaDB in a folder of its own; kill it and delete its data at the end."""
    with tempfile.TemporaryDirectory(prefix="ostiary-mariadb-") as folder:
        started = MysqlFixture(Path(folder))
        try:
            yield started
        finally:
            started.stop()
