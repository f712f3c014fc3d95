"""From the suspension of an agent until its 100 certificates are refused (`python -m benchmarks.revoked_certificates`)

One real server, and one guard with 100 tokens, each bound to another certificate of the agent (RFC 8705). Clocks start
before the order is sent. OCSP is asked about each certificate, the revocation list is fetched, the guard decides a call
with each token, and the token endpoint is asked with a certificate. Exits with 1 if one of them took over a second.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from harness.client_certificates import context_of
from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.server import running
from ostiary.agent import Agent
from ostiary.guard import Guard
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Refused

COUNT, TARGET_S = 100, 1.0
URI = "https://files.example.org/mcp"


class HeldCertificate:
    """A certificate of the agent in files, and a token that is bound to it."""

    def __init__(self, agent: Agent, folder: Path, *, client_id: str, url: str) -> None:
        made = agent.certificate()
        made.save(folder)
        self.leaf, self.issuer = x509.load_pem_x509_certificates((made.certificate + made.chain).encode())[:2]
        self.shown = ClientCertificate(self.leaf.public_bytes(Encoding.DER), ())
        self._folder, self._client_id, self._url = folder, client_id, url
        self.token = self.get_token()
        builder = ocsp.OCSPRequestBuilder().add_certificate(self.leaf, self.issuer, SHA256())
        self.question = builder.build().public_bytes(Encoding.DER)

    def get_token(self) -> str:
        """Return a new token that is bound to the certificate. Raises Refused."""
        files = self._folder / "cert.pem", self._folder / "key.pem"
        with Agent.from_certificate(*files, client_id=self._client_id, url=self._url) as client:
            return str(client.token(resource=URI)["access_token"])

    def is_admitted(self, guard: Guard) -> bool:
        try:
            who = guard.verify(
                authorization=f"Bearer {self.token}", proof=None, method="POST", uri=URI, certificate=self.shown
            )
            return guard.decide(who, "read_file", {"path": "/a"}).decision.allowed
        except Refused:
            return False


def measure(live_server: ServerFixture, folder: Path) -> int:
    resource, key = live_server.resource(URI)
    name, credential = live_server.agent(f"{resource}:read")
    client_id, url = live_server.api("GET", f"/agents/{name}")["agent_id"], live_server.server.url
    http = httpx2.Client(verify=context_of(live_server.server.folder / "ca.pem"))
    with Guard(key, spool_dir=folder / "spool") as guard, Agent.from_credential(credential) as agent:
        held = [HeldCertificate(agent, folder / str(one), client_id=client_id, url=url) for one in range(COUNT)]
        [authority] = [one["authority_id"] for one in _authorities(live_server) if one["kind"] == "intermediate"]

        def count_revoked() -> int:
            crl = x509.load_der_x509_crl(http.get(f"{url}/ca/{authority}/crl").content)
            return sum(crl.get_revoked_certificate_by_serial_number(one.leaf.serial_number) is not None for one in held)

        def is_good(one: HeldCertificate) -> bool:
            headers = {"content-type": "application/ocsp-request"}
            answer = http.post(f"{url}/ocsp", content=one.question, headers=headers).content
            return ocsp.load_der_ocsp_response(answer).certificate_status is ocsp.OCSPCertStatus.GOOD

        def gets_tokens() -> bool:
            try:
                held[0].get_token()
            except Refused:
                return False
            return True

        eventually(lambda: all(one.is_admitted(guard) for one in held))
        assert count_revoked() == 0
        assert all(map(is_good, held))
        order: dict[str, Callable[[], bool]] = {
            "the guard denies": lambda: not any(one.is_admitted(guard) for one in held),
            "OCSP says revoked": lambda: not any(map(is_good, held)),
            "the list has all": lambda: count_revoked() == COUNT,
            "no new token": lambda: not gets_tokens(),
        }
        began = time.monotonic()

        def wait(is_refused: Callable[[], bool]) -> float:
            while not is_refused():
                pass
            return time.monotonic() - began

        with ThreadPoolExecutor(len(order)) as pool:
            waiting = {what: pool.submit(wait, is_refused) for what, is_refused in order.items()}
            live_server.api("POST", f"/agents/{name}/suspend", {"why": "a measurement"})
            done = time.monotonic() - began
            took = {what: future.result() for what, future in waiting.items()}
    print(f"{COUNT} certificates of an agent; the order to suspend it was acknowledged after {done * 1000:.0f} ms")
    for what, seconds in took.items():
        print(f"  {what:20} for all after {seconds * 1000:6.0f} ms (target {TARGET_S * 1000:.0f} ms)")
    return int(max(took.values()) > TARGET_S)


def _authorities(live_server: ServerFixture) -> list[dict[str, str]]:
    authorities: list[dict[str, str]] = live_server.api("GET", "/authorities")["authorities"]
    return authorities


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder / "data", "--tls", "auto", "--mtls-listen", "127.0.0.1:0") as server:
            os.environ["SSL_CERT_FILE"] = str(server.folder / "ca.pem")
            with ServerFixture(server, folder) as live_server:
                return measure(live_server, folder)


if __name__ == "__main__":
    sys.exit(main())
