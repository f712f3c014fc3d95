"""Anonymous connections that mean harm: a process of its own, with as many threads as it is told to have.

`python -m harness.hostile URL CONNECTIONS SECONDS` prints how many requests each way of harm made, as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from ostiary.protocol import jose

PATIENCE_S = 20.0
FORM = "application/x-www-form-urlencoded"


def request(path: str, body: bytes, kind: str = "application/json", *fields: str) -> bytes:
    head = [
        f"POST {path} HTTP/1.1",
        "host: x",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


def forged_token() -> str:
    claims = {"iss": "ag_" + "0" * 32, "sub": "ag_" + "0" * 32, "aud": "x", "iat": 1, "exp": 2, "jti": "x"}
    return jose.sign_jwt(jose.generate("ES256"), typ="at+jwt", claims=claims)


TOKEN = forged_token()
ASSERTION = "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion=" + TOKEN
WAYS: dict[str, bytes] = {
    "forged assertions": request("/token", f"grant_type=client_credentials&{ASSERTION}".encode(), FORM),
    "forged tokens": request("/api/v1/revoke", b"{}", "application/json", f"authorization: DPoP {TOKEN}"),
    "deep JSON": request("/enrol", b"[" * 30_000 + b"]" * 30_000),
    "wide JSON": request("/enrol", b"[" + b"[]," * 21_000 + b"[]]"),
    "huge numbers": request("/enrol", b'{"a":' + b"9" * 60_000 + b"}"),
    "many parameters": request("/token", b"&".join(b"a%d=" % number for number in range(8_000)), FORM),
    "large bodies": request("/token", b"grant_type=" + b"%41" * 340_000, FORM),
    "large uploads": request("/api/v1/policies", b"x" * 1_000_000),
    "batches of decisions": request("/access/v1/evaluations", b'{"evaluations":[' + b"{}," * 20_000 + b"{}]}"),
    "trailers": request("/token", b"", FORM).replace(b"content-length: 0", b"transfer-encoding: chunked")
    + b"1\r\nx\r\n0\r\n"
    + b"a: b\r\n" * 100
    + b"\r\n",
    "pushed signals": request("/api/v1/signals/is_x", TOKEN.encode(), "application/secevent+jwt"),
}
SLOW = "slow heads"
"""The name of the attack that sends header fields slowly, for as long as the server reads them."""


class Hostile:
    """The requests of all threads of this process, until the time is over."""

    def __init__(self, url: str, until: float) -> None:
        parts = urlsplit(url)
        self._address, self._until = (parts.hostname or "", parts.port or 80), until
        self.made: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()

    def run(self, way: str) -> None:
        while time.monotonic() < self._until:
            try:
                with socket.create_connection(self._address, timeout=PATIENCE_S) as sock:
                    self._slow(sock) if way == SLOW else self._fast(sock, way)
            except OSError:
                time.sleep(0.01)

    def _fast(self, sock: socket.socket, way: str) -> None:
        while time.monotonic() < self._until:
            sock.sendall(WAYS[way])
            answer = sock.recv(65536)
            if not answer:
                return
            self.made[way] += 1
            if answer.startswith(b"HTTP/1.1 "):  # the bytes are of this answer, not of the previous one
                self.statuses[answer[9:12].decode("ascii")] += 1

    def _slow(self, sock: socket.socket) -> None:
        sock.sendall(b"POST /token HTTP/1.1\r\n")
        self.made[SLOW] += 1
        while time.monotonic() < self._until:
            sock.sendall(b"a: b\r\n")
            time.sleep(0.5)


def start(url: str, *, connections: int, seconds: float) -> subprocess.Popen[str]:
    """Start the attacks on the server at `url` in a separate process, and return the process."""
    command = [sys.executable, "-m", "harness.hostile", url, str(connections), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main(url: str, connections: int, seconds: float) -> None:
    hostile = Hostile(url, time.monotonic() + seconds)
    ways = [*WAYS, SLOW]
    run: Callable[[str], None] = hostile.run
    threads = [threading.Thread(target=run, args=(ways[number % len(ways)],)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"made": hostile.made, "statuses": hostile.statuses}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
