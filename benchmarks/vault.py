"""Secrets beside OpenBao: `python -m benchmarks.vault`. `--accounts` measures accounts in PostgreSQL alone, and
`--live N` our server beside N secrets and N leases.

The same requests from the same client to both servers, one after the other, each on the same core: reads of a key-value
secret, encryptions with a transit key, accounts in PostgreSQL, and the removal of 1,000 accounts when their agent or
their token ends. Ostiary answers behind an fsync of its entry; OpenBao writes its file audit without one, and keeps its
data in memory. Enforced: each answer is 200, each request leaves its entries, and no account is left.

With `--live`, the server holds first 1,000 and then N secrets and leases; values are encrypted, and leases have their
holdings. Enforced: reads of values that are spread over all secrets, lists of folders and lists of leases are at most a
third slower, values are those that were stored, and an agent with 1,000 leases ends as quickly.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
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
from ostiaryd.ground.config import load_config
from ostiaryd.ground.database import Tx
from ostiaryd.ground.world import open_world
from ostiaryd.registry.model import AgentId, Holding, HoldingId
from ostiaryd.registry.store import holdings
from ostiaryd.secrets.flows.seal import seal_value
from ostiaryd.secrets.model.database import MAX_CONNECTIONS, make_scram_verifier, render_statement
from ostiaryd.secrets.model.keyvalue import Secret, Version
from ostiaryd.secrets.model.lease import KIND, Lease, LeaseState, LeaseStatements
from ostiaryd.secrets.store import keyvalue, leases
from ostiaryd.tasks.model import standing_id

READS, ACCOUNTS, RUNS = 4000, 250, 3
CREATORS = 32
"""Clients, and connections of the statements alone, that create accounts at the same time."""
FEW, ENDED, ROWS = 1000, 1000, 2000
"""Secrets and leases of the first measurement, leases of the agent that ends, and rows of one transaction."""
SLOWER, LISTED = 1 / 3, 600
"""Part by which rates may fall beside many secrets, and number of lists that are measured."""
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
                "max_open_connections": MAX_CONNECTIONS,
            },
        )
        role = {"db_name": "shop", "creation_statements": CREATE, "default_ttl": "1h", "max_ttl": "2h"}
        self.ask("POST", "database/roles/reader", role)

    def measure(self, name: str, request: bytes, count: int, *, connections: int) -> float:
        """Print and return the median of requests a second of the server's processor."""
        return self.measure_all(name, [request] * count, connections=connections)

    def measure_all(self, name: str, requests: list[bytes], *, connections: int) -> float:
        """Do the same for requests that differ."""
        count = len(requests)
        wall, cpu, middle = [], [], []
        for number in range(RUNS + 1):
            with on_core(CLIENT_CORE):
                before = cpu_seconds(self.pid)
                ran = drive(self.port, requests, connections=connections)
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
    with started(folder, database) as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICY}})
        name, _ = live_server.agent()
        yield VaultServer("ostiary", *place_of(live_server), log_in(live_server, name)), live_server, name


@contextmanager
def started(folder: Path, database: str) -> Iterator[ServerFixture]:
    """Our server, on its core."""
    folder.mkdir(exist_ok=True)
    settings = folder / "ostiary.toml"
    settings.write_text(f'data_dir = "{folder}/data"\nsecret_databases = "{database}"\n')
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            server = stack.enter_context(running(folder / "data", "--config", str(settings)))
        yield stack.enter_context(ServerFixture(server, folder))


def place_of(live_server: ServerFixture) -> tuple[int, int]:
    """Return the port and the process of a server."""
    pid = int(json.loads((live_server.server.folder / "server.json").read_text("utf-8"))["pid"])
    return int(live_server.server.url.rpartition(":")[2]), pid


def log_in(live_server: ServerFixture, name: str) -> str:
    """Return a Vault token of an agent."""
    live_server.server.ostiary("agent", "allow-bearer", name, "--resource", "ostiary")
    made = live_server.server.ostiary("agent", "create-secret", name)
    login = {"role_id": made["client_id"], "secret_id": made["client_secret"]}
    return str(
        httpx2.post(f"{live_server.server.url}/v1/auth/approle/login", json=login).json()["auth"]["client_token"]
    )


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

    def measure_statements(self, *, is_durable: bool) -> float:
        """Print and return the accounts a second that the statements alone create, on a connection for each thread."""
        names = [f"v-bare-{is_durable:d}-{number}" for number in range(ACCOUNTS)]
        end, password = 86_400_000_000 + time.time_ns() // 1000, "A1-" + "0" * 64
        verifiers = [make_scram_verifier(name, password) for name in names]
        statements = [
            [render_statement(one, name=name, password=verifier, expires_at=end) for one in CREATE]
            for name, verifier in zip(names, verifiers, strict=True)
        ]

        def create(raw: psycopg.Connection[Any], share: list[list[str]]) -> None:
            for one in share:
                if not is_durable:
                    raw.execute("set local synchronous_commit = off")
                for statement in one:
                    raw.execute(statement.encode())
                raw.commit()

        with ExitStack() as stack:
            connections = [stack.enter_context(psycopg.connect(self.url)) for _ in range(CREATORS)]
            pool = stack.enter_context(ThreadPoolExecutor(CREATORS))
            began = time.perf_counter()
            work = [pool.submit(create, raw, statements[at::CREATORS]) for at, raw in enumerate(connections)]
            for one in work:
                one.result()
            rate = ACCOUNTS / (time.perf_counter() - began)
            connections[0].execute("; ".join(f'drop role "{name}"' for name in names).encode())
        name = "behind the disk" if is_durable else "before the disk"
        print(f"  {f'statements alone, {name}':42}{rate:9,.0f} /s wall   {CREATORS:16} in flight", flush=True)
        return rate


def measure_accounts(server: VaultServer, shop: Shop) -> None:
    """Print the rates of new accounts, and of their statements alone in the same run."""
    rates = [shop.measure_statements(is_durable=is_durable) for is_durable in (True, False)]
    create = server.request("GET", "database/creds/reader")
    for connections in (8, CREATORS):
        server.measure("accounts in PostgreSQL", create, ACCOUNTS, connections=connections)
    rates += [shop.measure_statements(is_durable=is_durable) for is_durable in (True, False)]
    behind, before = statistics.mean(rates[::2]), statistics.mean(rates[1::2])
    print(f"  {'statements alone, both times':42}{behind:9,.0f} and {before:,.0f} /s wall")


def measure_all(server: VaultServer, shop: Shop) -> None:
    server.prepare(shop.folder)
    read = server.request("GET", "secret/data/agents/bench/db")
    server.measure("key-value reads", read, READS, connections=32)
    plain = base64.b64encode(b"p" * 64).decode()
    encrypt = server.request("POST", "transit/encrypt/bench", {"plaintext": plain})
    server.measure("transit encryptions", encrypt, READS, connections=32)
    measure_accounts(server, shop)


# --- beside many secrets and leases


def path_of(number: int) -> str:
    """Return the path of a secret: a hundred in each folder."""
    return f"agents/bench/{number // 100:05d}/{number:07d}"


def value_of(number: int) -> dict[str, str]:
    return {"user": "shop", "password": f"{number:032d}"}


def store_rows(tx: Tx, numbers: range, agent: str) -> None:
    """Store secrets and leases, with which the server has nothing to do before their end.

    Leases of `agent` have a role of their own; without it, each thousand leases are of another agent.
    """
    role = agent or "reader"
    end = tx.now + 86_400_000_000
    for number in numbers:
        path = path_of(number)
        envelope = seal_value(tx, json.dumps(value_of(number)).encode(), ("secret", path, 1))
        keyvalue.insert_version(
            tx, "secret", path, Version(version=1, created_at=tx.now, deleted_at=None, **envelope._asdict())
        )
        keyvalue.put(
            tx, "secret", path, Secret(current_version=1, oldest_version=1, created_at=tx.now, updated_at=tx.now)
        )
        holder = AgentId(agent or f"ag_bench{number // 1000:06d}")
        lease = Lease(
            lease_id=f"database/creds/{role}/{number:032x}",
            holding=f"le_{number:026d}",
            agent=holder,
            task=standing_id(holder),
            database="none",
            role=role,
            username=f"v-{number}",
            statements=LeaseStatements(),
            state=LeaseState.LIVE,
            issued_at=tx.now,
            renewed_at=None,
            expires_at=end,
            max_at=end,
            due_at=tx.now,
        )
        leases.insert(tx, lease)
        holdings.insert_holding(
            tx, Holding(id=HoldingId(lease.holding), kind=KIND, agent=holder, task=lease.task, expires_at=end)
        )


async def fill(folder: Path, numbers: range, agent: str) -> None:
    """Store secrets and leases in the database of a server that is stopped; the first leases are of the agent."""
    async with open_world(load_config(environ={}, data_dir=str(folder))) as world:
        for start in range(numbers.start, numbers.stop, ROWS):
            ours = range(start, min(start + ENDED, numbers.stop)) if start == numbers.start else range(0)
            rest = range(ours.stop if ours else start, min(start + ROWS, numbers.stop))
            await world.writer.submit(partial(store_rows, numbers=ours, agent=agent))
            await world.writer.submit(partial(store_rows, numbers=rest, agent=""))


def measure_beside(live_server: ServerFixture, token: str, count: int, agent: str) -> dict[str, float]:
    """Print and return the rates of reads and lists beside that many secrets."""
    server = VaultServer(f"{count:,}", *place_of(live_server), token)
    dice = random.Random(count)
    numbers = [dice.randrange(count) for _ in range(READS)]
    for number in numbers[:50]:
        assert server.ask("GET", f"secret/data/{path_of(number)}")["data"]["data"] == value_of(number)
    reads = [server.request("GET", f"secret/data/{path_of(number)}") for number in numbers]
    folders = [f"secret/metadata/{path_of(number).rpartition('/')[0]}?list=true" for number in numbers[:LISTED]]
    listed = [server.request("GET", folder) for folder in folders]
    found = [server.request("LIST", f"sys/leases/lookup/database/creds/{agent}")] * 20
    return {
        "key-value reads": server.measure_all("key-value reads", reads, connections=32),
        "lists of a folder of 100": server.measure_all("lists of a folder of 100", listed, connections=8),
        "lists of 1,000 leases of a role": server.measure_all("lists of 1,000 leases", found, connections=1),
    }


def end_agent(live_server: ServerFixture, name: str, agent: str) -> float:
    """Print and return the seconds until the server owes the removal of all accounts of an agent that is suspended."""
    began = time.perf_counter()
    live_server.api("POST", f"/agents/{name}/suspend", {})
    refused = time.perf_counter() - began

    def are_owed() -> bool:
        rows = live_server.api("GET", "/leases", limit=1000, after=f"database/creds/{agent}/")["leases"]
        ours = [row for row in rows if row["agent"] == agent]
        return len(ours) == ENDED and all(row["state"] == "revoking" for row in ours)

    eventually(are_owed)
    took = time.perf_counter() - began
    print(f"  agent with {ENDED:,} leases: ended {refused:.2f} s, every removal owed {took:.2f} s", flush=True)
    return took


def measure_live(folder: Path, count: int) -> int:
    """Measure beside few secrets and leases, then beside `count`. Return 1 if a rate fell by more than a third."""
    with started(folder, "127.0.0.1:1") as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICY}})
        token = log_in(live_server, live_server.agent()[0])
        names = [live_server.agent()[0] for _ in range(2)]
        agents = [str(live_server.api("GET", f"/agents/{name}")["agent_id"]) for name in names]
    found: list[dict[str, float]] = []
    ends: list[float] = []
    stored = 0
    for name, agent, until in zip(names, agents, (FEW, count), strict=True):
        began = time.perf_counter()
        asyncio.run(fill(folder / "data", range(stored, until), agent))
        print(f"  {until - stored:,} secrets and leases stored in {time.perf_counter() - began:.0f} s", flush=True)
        stored = until
        with started(folder, "127.0.0.1:1") as live_server:
            found.append(measure_beside(live_server, token, until, agent))
            ends.append(end_agent(live_server, name, agent))
    slower = {what: 1 - found[1][what] / rate for what, rate in found[0].items()}
    for what, part in slower.items():
        print(f"  {what:40}{part:>+8.0%} slower beside {count:,} (at most {SLOWER:.0%})")
    return int(any(part > SLOWER for part in slower.values()) or ends[1] > max(2 * ends[0], 5))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--live", type=int, default=0)
    parser.add_argument("--accounts", action="store_true", help="Measure accounts in PostgreSQL alone.")
    options = parser.parse_args()
    if options.live:
        with tempfile.TemporaryDirectory() as name:
            return measure_live(Path(name), options.live)
    if options.accounts:
        with tempfile.TemporaryDirectory() as name, cluster() as server:
            shop = Shop(server)
            with ostiary(Path(name) / "ostiary", shop.folder) as (ours, _, _):
                ours.prepare(shop.folder)
                measure_accounts(ours, shop)
        return 0
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
