"""Certificates by HTTP, beside OpenBao's `pki` in the same run (`python -m benchmarks.pki`).

Both servers are real, on this machine, with ECDSA P-256 keys and storage in files. Both get the same request (PKCS #10)
over kept connections, from as many clients. A request to Ostiary is decided by policies, proves its key (DPoP), and
leaves a durable holding and ledger entry; OpenBao has a bearer token, a role, and no audit device. The processor time
is that of the servers.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.load.machine import cpu_seconds
from harness.live_server import ServerFixture, pid_of
from harness.patience import eventually
from harness.server import running
from ostiary.agent import Agent

BAO = Path(__file__).parents[1] / ".openbao/bin/bao"
CLIENTS, COUNT, BATCH = 8, 1600, 100


def make_request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def measure(name: str, pid: int, clients: list[Callable[[int], int]], share: int) -> float:
    """Let every client get `share` certificates, and return how many there were for each second of the processor."""
    for client in clients:
        client(1)
    cpu, wall = cpu_seconds(pid), time.perf_counter()
    with ThreadPoolExecutor(len(clients)) as pool:
        count = sum(pool.map(lambda client: client(share), clients))
    took = time.perf_counter() - wall
    rate: float = count / (cpu_seconds(pid) - cpu)
    print(f"{name:34} {rate:>8,.0f} /cpu-s of the server {count / took:>8,.0f} /s wall", flush=True)
    return rate


@contextmanager
def open_bao(folder: Path) -> Iterator[tuple[int, httpx2.Client]]:
    """Start OpenBao with a root and a role, and give its process and a client with the root token."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "bao").mkdir()
    storage = {"raft": {"path": str(folder / "bao"), "node_id": "one"}}
    settings = {"storage": storage, "api_addr": f"http://{address}", "cluster_addr": "http://127.0.0.1:0"}
    listener = {"tcp": {"address": address, "tls_disable": True}}
    (folder / "bao.json").write_text(json.dumps({**settings, "listener": listener}))
    with (folder / "bao.log").open("wb") as log:
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
            http.headers["x-vault-token"] = opened["root_token"]
            eventually(lambda: http.get("sys/leader").json().get("is_self"))
            call("sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
            call(
                "pki/root/generate/internal", {"common_name": "root", "key_type": "ec", "key_bits": 256, "ttl": "9000h"}
            )
            call("pki/roles/agents", {"allow_any_name": True, "key_type": "ec", "key_bits": 256, "ttl": "1h"})
            yield process.pid, http
    finally:
        process.terminate()
        process.wait()


def answers(http: httpx2.Client) -> bool:
    try:
        return http.get("sys/seal-status").status_code == 200
    except httpx2.HTTPError:
        return False


def measure_bao(folder: Path, csr: str) -> float:
    with open_bao(folder) as (pid, http):

        def client(count: int) -> int:
            with httpx2.Client(base_url=http.base_url, headers=http.headers, timeout=60) as own:
                for _ in range(count):
                    answer = own.post("pki/sign/agents", json={"csr": csr, "common_name": "bot.example.com"})
                    answer.raise_for_status()
            return count

        return measure("OpenBao, pki/sign", pid, [client] * CLIENTS, COUNT // CLIENTS)


def measure_ostiary(folder: Path, csr: str) -> float:
    with running(folder / "data") as server, ServerFixture(server, folder) as live:
        _, credential = live.agent()
        agents = [Agent.from_credential(credential) for _ in range(CLIENTS)]

        def post(agent: Agent, path: str, body: dict[str, Any]) -> dict[str, Any]:
            url = f"{server.url}/api/v1/certificates{path}"
            answer = agent.request("POST", url, resource=f"{agent.issuer}/api/v1", json=body)
            assert answer.status_code < 300, answer.text
            return dict(answer.json())

        def one_by_one(agent: Agent, count: int) -> int:
            for _ in range(count):
                post(agent, "", {"csr": csr})
            return count

        def in_batches(agent: Agent, batches: int) -> int:
            for _ in range(batches):
                done = post(agent, "/batch", {"requests": [{"csr": csr}] * BATCH})["answers"]
                assert all("certificate" in answer for answer in done), done[0]
            return batches * BATCH

        pid = pid_of(server)
        rate = measure("Ostiary, one by one", pid, [partial(one_by_one, agent) for agent in agents], COUNT // CLIENTS)
        # An agent that had two batches waiting would be refused as busy.
        measure(f"Ostiary, in batches of {BATCH}", pid, [partial(in_batches, agents[0])], 12)
        for agent in agents:
            agent.close()
        return rate


def main() -> int:
    if not BAO.exists():
        print("OpenBao is not installed: `make .openbao/.setup` installs it")
        return 0
    csr = make_request()
    with tempfile.TemporaryDirectory() as name:
        theirs, own = measure_bao(Path(name), csr), measure_ostiary(Path(name), csr)
    print(f"Ostiary, one by one, issues {own / theirs:.2f} times as many for each second of the processor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
