"""Orders of the ACME server beside Pebble in the same run (`python -m benchmarks.acme`).

An order is: newOrder, the authorization, the response to http-01, the order until it is ready, finalize, and the
certificate. The same clients send it to both servers over kept TLS connections, one account each. Both servers look
each name up and visit it, at the test server that comes with Pebble. Pebble keeps everything in memory and its pauses
and refused nonces are switched off; Ostiary decides by policies, and each step is durable and in the ledger. The
processor time is that of the servers.
"""

from __future__ import annotations

import hmac
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.load.machine import cpu_seconds
from harness.client_certificates import LOCAL, TestAuthority, context_of
from harness.live_server import ServerFixture, free_port, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.server import running
from ostiary.protocol import jose
from ostiary.protocol.jose import b64u, unb64u

ACCOUNTS, ORDERS = 16, 25
POLL_S = 0.02
NAME = "{}.example.com"
PROGRAMS = ("pebble", "pebble-challtestsrv")
POLICIES = """@id("server-certificates")
permit (principal is Agent, action == Action::"issue_certificate", resource is Agent)
when { context.profile == "server" };
@id("api") permit (principal is Agent, action == Action::"issue_token", resource is Resource);
"""


@dataclass(frozen=True, slots=True)
class ChallengeServer:
    """The test server of Pebble: it answers each DNS name with this machine, and http-01 as `publish` says."""

    dns: str
    http_port: int
    management: httpx2.Client

    def publish(self, token: str, content: str) -> None:
        self.management.post("/add-http01", json={"token": token, "content": content}).raise_for_status()


@dataclass(frozen=True, slots=True)
class AcmeServer:
    """An ACME server in a process, the trust in its certificate, and a MAC key for each account; "" without."""

    name: str
    pid: int
    directory: str
    context: ssl.SSLContext
    keys: list[tuple[str, str]]


@dataclass
class AcmeAccount:
    """An account at a server, and its kept connection."""

    server: AcmeServer
    key: jose.PrivateKey = field(default_factory=lambda: jose.generate("ES256"))
    kid: str = ""
    nonce: str = ""

    def __post_init__(self) -> None:
        self.http = httpx2.Client(verify=self.server.context, timeout=PATIENCE_S)
        self.urls: dict[str, str] = self.http.get(self.server.directory).json()
        self.csr_key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, url: str, payload: object, **header: object) -> dict[str, str]:
        protected, body = _encode({"alg": "ES256", "url": url, **header}), "" if payload is None else _encode(payload)
        return {
            "protected": protected,
            "payload": body,
            "signature": b64u(self.key.sign(f"{protected}.{body}".encode())),
        }

    def post(self, url: str, payload: object = None) -> httpx2.Response:
        """Send a signed request; without a payload it reads (POST-as-GET)."""
        nonce = self.nonce or self.http.head(self.urls["newNonce"]).headers["replay-nonce"]
        identity = {"kid": self.kid} if self.kid else {"jwk": self.key.public.bare_jwk}
        content = json.dumps(self.sign(url, payload, nonce=nonce, **identity))
        answer = self.http.post(url, content=content, headers={"content-type": "application/jose+json"})
        self.nonce = answer.headers.get("replay-nonce", "")
        assert answer.status_code < 300, answer.text
        return answer

    def register(self, kid: str, mac_key: str) -> None:
        """Create the account, bound to a MAC key (RFC 8555 section 7.3.4)."""
        protected = _encode({"alg": "HS256", "kid": kid, "url": self.urls["newAccount"]})
        payload = _encode(self.key.public.bare_jwk)
        mac = hmac.digest(unb64u(mac_key), f"{protected}.{payload}".encode(), "sha256")
        binding = {"protected": protected, "payload": payload, "signature": b64u(mac)}
        body = {"termsOfServiceAgreed": True, "externalAccountBinding": binding}
        self.kid = self.post(self.urls["newAccount"], body).headers["location"]

    def order(self, name: str, challenges: ChallengeServer) -> None:
        """Get a certificate for a name."""
        made = self.post(self.urls["newOrder"], {"identifiers": [{"type": "dns", "value": name}]})
        url, order = made.headers["location"], made.json()
        authorization = self.post(order["authorizations"][0]).json()
        challenge = next(one for one in authorization["challenges"] if one["type"] == "http-01")
        challenges.publish(challenge["token"], f"{challenge['token']}.{self.key.public.thumbprint}")
        self.post(challenge["url"], {})
        order = self._wait(url, "pending", "ready")
        self.post(order["finalize"], {"csr": b64u(self._request(name))})
        order = self._wait(url, "processing", "valid")
        [leaf, *_] = x509.load_pem_x509_certificates(self.post(order["certificate"]).content)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [name]

    def _wait(self, url: str, status: str, due: str) -> dict[str, Any]:
        """Return an order once it has left a status."""
        until = time.monotonic() + PATIENCE_S
        while (order := dict(self.post(url).json()))["status"] == status and time.monotonic() < until:
            time.sleep(POLL_S)
        assert order["status"] == due, order
        return order

    def _request(self, name: str) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self.csr_key, SHA256()).public_bytes(Encoding.DER)


def _encode(value: object) -> str:
    return b64u(json.dumps(value).encode())


def measure(server: AcmeServer, challenges: ChallengeServer) -> float:
    """Let every account get its certificates, and return how many there were for each second of the processor."""
    accounts = [AcmeAccount(server) for _ in server.keys]
    for account, key in zip(accounts, server.keys, strict=True):
        account.register(*key)

    def run(number: int) -> None:
        for turn in range(ORDERS):
            accounts[number].order(NAME.format(f"{number}-{turn}"), challenges)

    accounts[0].order(NAME.format("first"), challenges)  # warms up
    cpu, wall = cpu_seconds(server.pid), time.perf_counter()
    with ThreadPoolExecutor(len(accounts)) as pool:
        list(pool.map(run, range(len(accounts))))
    took, count = time.perf_counter() - wall, len(accounts) * ORDERS
    rate: float = count / (cpu_seconds(server.pid) - cpu)
    print(f"{server.name:10} {rate:>8,.1f} orders /cpu-s of the server {count / took:>8,.1f} /s wall", flush=True)
    return rate


@contextmanager
def started(folder: Path, program: str, *options: str, **environment: str) -> Iterator[int]:
    """Run a program until the block ends; its process."""
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log, env=os.environ | environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def answers(http: httpx2.Client, url: str) -> bool:
    try:
        http.get(url)
    except httpx2.HTTPError:
        return False
    return True


@contextmanager
def challenge_server(folder: Path) -> Iterator[ChallengeServer]:
    dns, http_port, management = free_port(), free_port(), free_port()
    options = [
        *("-dns01", f"127.0.0.1:{dns}", "-http01", f"127.0.0.1:{http_port}", "-defaultIPv6", ""),
        *("-management", f"127.0.0.1:{management}", "-https01", "", "-tlsalpn01", "", "-doh", ""),
    ]
    with (
        started(folder, "pebble-challtestsrv", *options),
        httpx2.Client(
            base_url=f"http://127.0.0.1:{management}", limits=httpx2.Limits(max_connections=ACCOUNTS)
        ) as http,
    ):
        eventually(lambda: answers(http, "/"))
        yield ChallengeServer(f"127.0.0.1:{dns}", http_port, http)


@contextmanager
def pebble(folder: Path, challenges: ChallengeServer) -> Iterator[AcmeServer]:
    authority, (port, management) = TestAuthority(), (free_port(), free_port())
    certificate, key = authority.issue("CN=localhost", names=LOCAL).save(folder, "pebble")
    context = context_of(authority.save(folder / "pebble-root.pem"))
    keys = [(f"kid-{number}", b64u(os.urandom(32))) for number in range(ACCOUNTS)]
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": challenges.http_port,
        "tlsPort": 1,
        "externalAccountBindingRequired": True,
        "externalAccountMACKeys": dict(keys),
        "certificateValidityPeriod": 86_400,
    }
    file = folder / "pebble.json"
    file.write_text(json.dumps({"pebble": settings}))
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    directory = f"https://127.0.0.1:{port}/dir"
    with started(folder, "pebble", "-config", str(file), "-dnsserver", challenges.dns, **quick) as pid:
        with httpx2.Client(verify=context) as http:
            eventually(lambda: answers(http, directory))
        yield AcmeServer("Pebble", pid, directory, context, keys)


@contextmanager
def ostiary(folder: Path, challenges: ChallengeServer) -> Iterator[AcmeServer]:
    config, policies = folder / "ostiary.toml", folder / "policies"
    config.write_text(
        f'acme_networks = "127.0.0.0/8"\nacme_resolvers = "{challenges.dns}"\nacme_http_port = {challenges.http_port}\n'
    )
    policies.mkdir()
    (policies / "server.cedar").write_text(POLICIES)
    with running(folder / "data", "--config", str(config), "--tls", "auto") as server:
        os.environ["SSL_CERT_FILE"] = str(server.folder / "ca.pem")
        server.ostiary("policy", "put", str(policies))
        with ServerFixture(server, folder) as live:
            agent, _ = live.agent()
        made = [server.ostiary("acme", "key", "create", "--agent", agent) for _ in range(ACCOUNTS)]
        keys = [(str(one["kid"]), str(one["hmac_key"])) for one in made]
        context = context_of(server.folder / "ca.pem")
        yield AcmeServer("Ostiary", pid_of(server), f"{server.url}/acme/directory", context, keys)


def main() -> int:
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        print(f"{' and '.join(missing)}: not installed; `make .pebble/.setup` installs the package of Debian")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with challenge_server(folder) as challenges:
            with pebble(folder, challenges) as server:
                theirs = measure(server, challenges)
            with ostiary(folder, challenges) as server:
                own = measure(server, challenges)
    print(f"Ostiary finishes {own / theirs:.2f} times as many orders for each second of the processor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
