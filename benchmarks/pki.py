"""Certificates by HTTP, beside OpenBao's `pki` in the same run (`python -m benchmarks.pki`).

Both servers are real, on one core, with ECDSA P-256 keys and storage in files, and get the same requests (PKCS #10,
a key for each) over as many kept connections, by turns. A request to Ostiary is decided by policies, proves the key of
its agent (DPoP), and leaves a durable holding and ledger entry; OpenBao has a bearer token, a role, and no audit
device. The processor time is that of the servers.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.load.agents import SCOPES, Party, config, encode, enter
from benchmarks.load.client import drive, render
from benchmarks.load.machine import CLIENT_CORE, SERVER_CORE, cpu_seconds, on_core, print_ceilings
from benchmarks.load.server_under_load import Wrong, server_under_load
from harness.live_server import free_port
from harness.patience import eventually
from ostiaryd.ground.world import open_world
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model import load

BAO = Path(__file__).parents[1] / ".openbao/bin/bao"
CONNECTIONS, AGENTS, COUNT, RUNS = 32, 100, 2000, 5
BATCH, BATCHES, BATCHES_AT_ONCE = 100, 20, 4
PATH = "/api/v1/certificates"
POLICIES = {
    "bench.cedar": """
        permit (principal is Agent, action == Action::"issue_token", resource is Resource);
        permit (principal is Agent, action == Action::"issue_certificate", resource is Agent);
    """
}


def make_request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@dataclass
class Line:
    """A measurement at a server: requests, made anew for each round; `mark` is in an answer once for each
    certificate.
    """

    name: str
    pid: int
    port: int
    make: Callable[[], list[bytes]]
    mark: bytes
    each: int = 1
    connections: int = CONNECTIONS
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run a round. Raises Wrong for an answer without its certificates."""
        requests = self.make()
        with on_core(CLIENT_CORE):
            before = cpu_seconds(self.pid)
            ran = drive(self.port, requests, connections=self.connections)
            spent = cpu_seconds(self.pid) - before
        if wrong := [body for status, body in zip(ran.statuses, ran.bodies, strict=True) if status not in (200, 201)]:
            raise Wrong(f"{self.name}: {wrong[0][:500]!r}")
        count = self.each * len(requests)
        if (got := sum(body.count(self.mark) for body in ran.bodies)) != count:
            raise Wrong(f"{self.name}: {got} certificates instead of {count}")
        self.cpu.append(count / spent)
        self.wall.append(count / ran.seconds)

    @property
    def rate(self) -> float:
        return statistics.median(self.cpu[1:])  # the first round warms up

    def __str__(self) -> str:
        rates = f"{self.rate:>8,.0f} /cpu-s of the server, best {max(self.cpu):>8,.0f}"
        return f"{self.name:34}{rates}{statistics.median(self.wall[1:]):>9,.0f} /s wall {self.connections:>4} in flight"


@contextmanager
def open_bao(folder: Path) -> Iterator[tuple[int, int, str]]:
    """Start OpenBao with a root and a role, and give its process, its port and the root token."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    (folder / "bao").mkdir()
    storage = {"raft": {"path": str(folder / "bao"), "node_id": "one"}}
    settings = {"storage": storage, "api_addr": f"http://{address}", "cluster_addr": "http://127.0.0.1:0"}
    listener = {"tcp": {"address": address, "tls_disable": True}}
    (folder / "bao.json").write_text(json.dumps({**settings, "listener": listener}))
    with (folder / "bao.log").open("wb") as log, on_core(SERVER_CORE):
        process = subprocess.Popen([BAO, "server", f"-config={folder / 'bao.json'}"], stdout=log, stderr=log)
    try:
        with httpx2.Client(base_url=f"http://{address}/v1/", timeout=60) as http:

            def call(path: str, body: dict[str, Any]) -> dict[str, Any]:
                answer = http.post(path, json=body)
                answer.raise_for_status()
                return dict(answer.json()) if answer.content else {}

            eventually(lambda: answers(http) or process.poll() is not None)
            assert process.poll() is None, (folder / "bao.log").read_text()
            opened = call("sys/init", {"secret_shares": 1, "secret_threshold": 1})
            call("sys/unseal", {"key": opened["keys"][0]})
            http.headers["x-vault-token"] = token = opened["root_token"]
            eventually(lambda: http.get("sys/leader").json().get("is_self"))
            call("sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
            call(
                "pki/root/generate/internal", {"common_name": "root", "key_type": "ec", "key_bits": 256, "ttl": "9000h"}
            )
            call("pki/roles/agents", {"allow_any_name": True, "key_type": "ec", "key_bits": 256, "ttl": "1h"})
            yield process.pid, port, token
    finally:
        process.terminate()
        process.wait()


def answers(http: httpx2.Client) -> bool:
    try:
        return http.get("sys/seal-status").status_code == 200
    except httpx2.HTTPError:
        return False


@contextmanager
def openbao(folder: Path, requests: list[str]) -> Iterator[Line]:
    with open_bao(folder) as (pid, port, token):
        bodies = [encode({"csr": csr, "common_name": "bot.example.com"}) for csr in requests]
        head, kind = {"x-vault-token": token}, "application/json"
        ready = [render("POST", "/v1/pki/sign/agents", headers=head, body=body, media_type=kind) for body in bodies]
        yield Line("OpenBao, pki/sign", pid, port, lambda: ready, b'"serial_number":')


async def _settle(folder: Path) -> Party:
    async with open_world(config(folder)) as world:
        party = await enter(world, agents=AGENTS)
        await act(world, "bench.policies", lambda act: policies.put(act, load(POLICIES), by=None))
        return party


@contextmanager
def ostiary(folder: Path, requests: list[str]) -> Iterator[tuple[Line, Line]]:
    party = asyncio.run(_settle(folder))
    with server_under_load(folder) as station:
        station.tokens(party.agents, scope=SCOPES[-1])
        nonce = station.nonce(party.turn(0).call("POST", PATH, body=encode({"csr": requests[0]})), status=401)

        def make(path: str, bodies: list[bytes]) -> list[bytes]:
            return [party.turn(n).call("POST", path, nonce=nonce, body=body) for n, body in enumerate(bodies)]

        single = [encode({"csr": csr}) for csr in requests]
        batches = [[{"csr": make_request()} for _ in range(BATCH)] for _ in range(BATCHES)]
        many = [encode({"requests": batch}) for batch in batches]
        server, mark, name = (station.pid, station.port), b'"thumbprint":', f"Ostiary, in batches of {BATCH}"
        yield (
            Line("Ostiary, one by one", *server, lambda: make(PATH, single), mark),
            Line(name, *server, lambda: make(f"{PATH}/batch", many), mark, BATCH, BATCHES_AT_ONCE),
        )


def main() -> int:
    requests = [make_request() for _ in range(COUNT)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        with ExitStack() as stack:
            lines = list(stack.enter_context(ostiary(folder / "data", requests)))
            if BAO.exists():
                lines.append(stack.enter_context(openbao(folder, requests)))
            else:
                print("OpenBao is not installed: `make .openbao/.setup` installs it")
            for _ in range(RUNS + 1):
                for line in lines:
                    line.run()
    print(*lines, sep="\n")
    for theirs in lines[2:]:
        part = lines[0].rate / theirs.rate
        print(f"Ostiary, one by one, issues {part:.2f} times as many for each second of the processor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
