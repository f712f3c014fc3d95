"""Requests on kept connections: to the listener that asks for certificates, with one, beside plain TLS (RFC 8705).

Both listeners are of one server, and take turns in short batches of one run, so that a load of the machine meets both.
Counted is the processor time of the server for each request. Target: at most 5 % more with a certificate.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from statistics import median

from harness.client_certificates import TestAuthority, context_of
from harness.live_server import pid_of
from harness.server import running

TURNS, REQUESTS = 40, 250
TARGET_PERCENT = 5
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
REQUEST = b"GET /jwks HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Connection:
    """A kept connection to one listener."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        self._tls = context.wrap_socket(plain, server_hostname="127.0.0.1")
        self._answer = 0

    def ask(self) -> None:
        """Send a request, and read its answer. Raises ConnectionError."""
        self._tls.sendall(REQUEST)
        read = b""
        while not self._answer or len(read) < self._answer:
            if not (part := self._tls.recv(65_536)):
                raise ConnectionError("the server closed the connection")
            read += part
            if not self._answer and b"\r\n\r\n" in read:
                head, _, _ = read.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                self._answer = len(head) + 4 + int(length.partition(b":")[2])


def processor_s(pid: int) -> float:
    """Return the processor time of a process and its threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = TestAuthority()
        files = authority.issue("CN=a client").save(folder, "client")
        root = authority.save(folder / "root.pem")
        with running(folder / "data", "--tls", "auto", "--mtls-listen", "127.0.0.1:0") as server:
            os.environ["SSL_CERT_FILE"] = str(server.folder / "ca.pem")
            server.ostiary("trust-anchor", "add", "company", str(root))
            described = json.loads((server.folder / "server.json").read_text())
            roots, pid = server.folder / "ca.pem", pid_of(server)
            connections = {
                "plain TLS": Connection(described["url"], context_of(roots)),
                "mutual TLS": Connection(described["mtls_url"], context_of(roots, files)),
            }
            spent: dict[str, list[float]] = {kind: [] for kind in connections}
            for turn in range(TURNS + 2):
                for kind, connection in connections.items():
                    before = processor_s(pid)
                    for _ in range(REQUESTS):
                        connection.ask()
                    if turn >= 2:  # the first turns warm up
                        spent[kind].append(processor_s(pid) - before)
    each = {kind: sum(values) / (TURNS * REQUESTS) * 1e6 for kind, values in spent.items()}
    for kind, microseconds in each.items():
        print(f"{kind:12} {microseconds:7.1f} us of the server's processor for each request")
    more = (each["mutual TLS"] / each["plain TLS"] - 1) * 100
    middle = {kind: median(values) for kind, values in spent.items()}
    print(f"mutual TLS   {more:+7.1f} % (target: at most {TARGET_PERCENT} %); medians of the turns: {middle}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
