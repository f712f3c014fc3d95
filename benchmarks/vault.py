"""Secrets beside OpenBao: `python -m benchmarks.vault`.

The same requests from the same client to both servers, one after the other, each on the same core: reads of a key-value
secret, encryptions with a transit key, accounts in PostgreSQL, and the removal of 1,000 accounts when their agent or
their token ends. Ostiary answers behind an fsync of its entry; OpenBao writes its file audit without one, and keeps its
data in memory. Enforced: each answer is 200, each request leaves its entries, and no account is left.
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from benchmarks.load.client import drive
from benchmarks.load.machine import CLIENT_CORE, SERVER_CORE, cpu_seconds, on_core, print_ceilings
from harness.live_server import ServerFixture, free_socket
from harness.patience import eventually
from harness.postgres_cluster import Cluster, cluster
from harness.server import running

READS, ACCOUNTS, RUNS = 4000, 250, 3
POLICY = """
@id("all") permit (principal is Agent, action, resource is Secret);
@id("issue-token") permit (principal is Agent, action == Action::"issue_token", resource is Resource);
"""
CREATE = [
    """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'""",
    'GRANT shop_readers TO "{{name}}"',
]


class VaultServer:
    """A server that speaks the Vault API: its port, its process and a token that may do everything here."""

    def __init__(self, name: str, port: int, pid: int, token: str) -> None:
        self.name, self.port, self.pid, self.token = name, port, pid, token

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} /v1/{path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nx-vault-token: {self.token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request. Raises AssertionError for a refusal."""
        answer = httpx2.request(
            method,
            f"http://127.0.0.1:{self.port}/v1/{path}",
            json=body,
            headers={"x-vault-token": self.token},
            timeout=60,
        )
        assert answer.status_code < 300, f"{self.name} {method} {path}: {answer.text}"
        return answer.json() if answer.content else None

    def prepare(self, database: str) -> None:
        """Store a secret, and make a key, a connection and a role."""
        self.ask("POST", "secret/data/agents/bench/db", {"data": {"user": "shop", "password": "x" * 32}})
        self.ask("POST", "transit/keys/bench", {})
        self.ask(
            "POST",
            "database/config/shop",
            {
                "plugin_name": "postgresql-database-plugin",
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@/shop?host={database}",
                "username": "bench_root",
                "password": "root",
                "allowed_roles": ["*"],
                "max_open_connections": 8,
            },
        )
        role = {"db_name": "shop", "creation_statements": CREATE, "default_ttl": "1h", "max_ttl": "2h"}
        self.ask("POST", "database/roles/reader", role)

    def measure(self, name: str, request: bytes, count: int, *, connections: int) -> float:
        """Print and return the median of requests a second of the server's processor."""
        wall, cpu, middle = [], [], []
        for number in range(RUNS + 1):
            with on_core(CLIENT_CORE):
                before = cpu_seconds(self.pid)
                ran = drive(self.port, [request] * count, connections=connections)
                spent = cpu_seconds(self.pid) - before
            wrong = next((body for status, body in zip(ran.statuses, ran.bodies, strict=True) if status != 200), None)
            assert wrong is None, f"{self.name} {name}: {wrong!r}"
            if number:  # the first one warms up
                wall.append(count / ran.seconds)
                cpu.append(count / spent)
                middle.append(ran.quantile(0.5) * 1000)
        m = statistics.median
        print(
            f"  {name:32}{self.name:10}{m(wall):9,.0f} /s wall{m(cpu):10,.0f} /cpu-s   p50 {m(middle):6.1f} ms"
            f"   {connections:3} in flight",
            flush=True,
        )
        return m(cpu)


@contextmanager
def ostiary(folder: Path, database: str) -> Iterator[tuple[VaultServer, ServerFixture, str]]:
    """Our server, with an agent that has logged in; and the name of the agent."""
    folder.mkdir()
    settings = folder / "ostiary.toml"
    settings.write_text(f'data_dir = "{folder}/data"\nsecret_databases = "{database}"\n')
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            server = stack.enter_context(running(folder / "data", "--config", str(settings)))
        live_server = stack.enter_context(ServerFixture(server, folder))
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICY}})
        name, _ = live_server.agent()
        server.ostiary("agent", "allow-bearer", name, "--resource", "ostiary")
        made = server.ostiary("agent", "create-secret", name)
        login = {"role_id": made["client_id"], "secret_id": made["client_secret"]}
        token = httpx2.post(f"{server.url}/v1/auth/approle/login", json=login).json()["auth"]["client_token"]
        pid = int(json.loads((folder / "data" / "server.json").read_text("utf-8"))["pid"])
        yield VaultServer("ostiary", int(server.url.rpartition(":")[2]), pid, token), live_server, name


@contextmanager
def openbao(folder: Path) -> Iterator[VaultServer]:
    """OpenBao with its file audit, in memory."""
    folder.mkdir()
    sock, port = free_socket()
    sock.close()
    config = folder / "bao.hcl"
    config.write_text(f'audit "file" "file" {{\n  options = {{ file_path = "{folder}/audit.log" }}\n}}\n')
    command = [
        str(Path(sys.executable).with_name("bao")),
        "server",
        "-dev",
        "-dev-no-store-token",
        "-dev-root-token-id=root",
        f"-dev-listen-address=127.0.0.1:{port}",
        f"-config={config}",
    ]
    with (folder / "log").open("wb") as log, on_core(SERVER_CORE):
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    try:
        server = VaultServer("openbao", port, process.pid, "root")
        eventually(lambda: _is_healthy(port))
        server.ask("POST", "sys/mounts/transit", {"type": "transit"})
        server.ask("POST", "sys/mounts/database", {"type": "database"})
        yield server
        assert (folder / "audit.log").stat().st_size > 0, "OpenBao writes no audit"
    finally:
        process.terminate()
        process.wait(30)


def _is_healthy(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/v1/sys/health").status_code == 200
    except httpx2.TransportError:
        return False


class Shop:
    """The database in which both servers create accounts."""

    def __init__(self, server: Cluster) -> None:
        self.url = server.create("shop")
        self.folder = self.url.rpartition("host=")[2]
        with psycopg.connect(self.url, autocommit=True) as operator:
            operator.execute("create role bench_root superuser login password 'root'")
            operator.execute("create role shop_readers nologin")

    def accounts(self) -> int:
        with psycopg.connect(self.url, autocommit=True) as operator:
            row = operator.execute("select count(*) from pg_roles where rolname like 'v-%'").fetchone()
        assert row is not None
        return int(row[0])

    def wait_for_removal(self, name: str, began: float) -> None:
        """Print how long the removal of all accounts took."""
        count = self.accounts()
        eventually(lambda: self.accounts() == 0)
        print(f"  {f'{count:,} accounts removed':32}{name:10}{time.perf_counter() - began:9.2f} s", flush=True)


def measure_all(server: VaultServer, shop: Shop) -> None:
    server.prepare(shop.folder)
    read = server.request("GET", "secret/data/agents/bench/db")
    server.measure("key-value reads", read, READS, connections=32)
    plain = base64.b64encode(b"p" * 64).decode()
    encrypt = server.request("POST", "transit/encrypt/bench", {"plaintext": plain})
    server.measure("transit encryptions", encrypt, READS, connections=32)
    create = server.request("GET", "database/creds/reader")
    server.measure("accounts in PostgreSQL", create, ACCOUNTS, connections=8)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, cluster() as server:
        folder, shop = Path(name), Shop(server)
        print_ceilings(folder / "ceilings")
        with ostiary(folder / "ostiary", shop.folder) as (ours, live_server, agent):
            measure_all(ours, shop)
            began = time.perf_counter()
            live_server.api("POST", f"/agents/{agent}/suspend", {})
            refused = drive(ours.port, [ours.request("GET", "database/creds/reader")], connections=1)
            assert refused.statuses == [403]
            print(f"  {'refused after the stop':32}{'ostiary':10}{time.perf_counter() - began:9.2f} s")
            shop.wait_for_removal("ostiary", began)
        with openbao(folder / "openbao") as theirs:
            measure_all(theirs, shop)
            began = time.perf_counter()
            theirs.ask("POST", "sys/leases/revoke-prefix/database/creds", {})
            shop.wait_for_removal("openbao", began)


if __name__ == "__main__":
    main()
