"""An HTTPS API on this machine that requires a key and sends the key back in its answers, and an egress proxy in front
of the API.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from ostiary.authorization.catalogue import Catalogue
from ostiary.proxy.egress import RunAuthority
from ostiary.proxy.egress.tools import LISTING
from ostiary.run.egress import upstream_tls
from ostiary.run.local import LocalServers
from ostiary.run.plan import Plan

VALUE = "sk-c4n4ry/+Zz=4711"
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ApiAddress:
    """The origin of an API, and the file of its authority."""

    def __init__(self, port: int, ca_file: Path) -> None:
        self.port, self.ca_file, self.origin = port, ca_file, f"https://localhost:{port}"


class EgressApi(ApiAddress):
    """`asked` has method, path, headers and body of each request, `begun` the paths of requests whose body may still
    come; `go` lets a stream send its second part. `raw` has the bytes that the path `/raw` answers.
    """

    def __init__(self, folder: Path) -> None:
        authority = RunAuthority()
        ca_file = folder / "api-ca.pem"
        ca_file.write_bytes(authority.pem)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.begun: list[str] = []
        self.raw: list[bytes] = []
        self.go = threading.Event()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                api.begun.append(self.path)
                body = self.read_body()
                headers = {name.lower(): value for name, value in self.headers.items()}
                api.asked.append((self.command, self.path, headers, body))
                path = self.path.partition("?")[0]
                getattr(self, f"answer_{path[1:]}", self.answer_who)(headers, body)

            do_GET = do_POST = do_PUT = do_HEAD = answer

            def read_body(self) -> bytes:
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length", "0")))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def send(self, body: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)

            def answer_who(self, headers: dict[str, str], body: bytes) -> None:
                is_known = headers.get("authorization") == f"Bearer {VALUE}"
                self.send(b"welcome" if is_known else b"who?", 200 if is_known else 401)

            def answer_echo(self, headers: dict[str, str], body: bytes) -> None:
                seen = {"headers": headers, "path": self.path, "body": body.decode("latin-1")}
                encoded = base64.b64encode(f"x{VALUE}x".encode()).decode()
                self.send(json.dumps(seen).encode(), X_Seen=headers.get("authorization", ""), X_Base64=encoded)

            def answer_split(self, headers: dict[str, str], body: bytes) -> None:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for byte in f"<{headers['authorization']}>".encode():
                    self.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")

            def answer_events(self, headers: dict[str, str], body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(b"data: s\n\ndata: s")
                api.go.wait()
                self.wfile.write(b"k\n\n")
                self.close_connection = True

            def answer_gzip(self, headers: dict[str, str], body: bytes) -> None:
                self.send(gzip.compress(VALUE.encode()), Content_Encoding="gzip")

            def answer_lengths(self, headers: dict[str, str], body: bytes) -> None:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.send_header("content-length", "50")
                self.end_headers()
                self.wfile.write(b"2\r\nok\r\n0\r\n\r\n")

            def answer_raw(self, headers: dict[str, str], body: bytes) -> None:
                for part in api.raw:
                    self.wfile.write(part)
                self.close_connection = True

            def answer_deflate(self, headers: dict[str, str], body: bytes) -> None:
                self.send_response(101)
                self.send_header("upgrade", "websocket")
                self.send_header("connection", "Upgrade")
                self.send_header("sec-websocket-extensions", "permessage-deflate")
                self.end_headers()
                self.close_connection = True

            def answer_ws(self, headers: dict[str, str], body: bytes) -> None:
                accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + _MAGIC).encode()).digest())
                self.send_response(101)
                self.send_header("upgrade", "websocket")
                self.send_header("connection", "Upgrade")
                self.send_header("sec-websocket-accept", accept.decode())
                self.end_headers()
                first, second = self.rfile.read(2)
                mask, payload = self.rfile.read(4), self.rfile.read(second & 127)
                text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
                reply = text + headers["authorization"].encode()
                self.wfile.write(struct.pack("!BB", first, len(reply)) + reply)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = authority.context("localhost")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        super().__init__(self.server.server_port, ca_file)


@contextmanager
def egress_api(folder: Path) -> Iterator[EgressApi]:
    """An API until the block ends."""
    api = EgressApi(folder)
    thread = threading.Thread(target=api.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.go.set()
        api.server.shutdown()
        api.server.server_close()
        thread.join()


class EgressStage:
    """A program's view of a proxy: its URL and authority; and the API behind it."""

    def __init__(self, live_server: ServerFixture, api: ApiAddress, folder: Path) -> None:
        self.live_server, self.api = live_server, api
        self.agent, agent_key = live_server.agent()
        self.uri = f"http://localhost/egress/{self.agent}"
        self.resource, guard = live_server.resource(self.uri, [])
        catalogue = Catalogue.from_mcp(self.resource, LISTING).render()
        live_server.api("PUT", f"/resources/{self.resource}/catalogue", {"catalogue": catalogue})
        self.scopes = [f"{self.resource}:read", f"{self.resource}:write"]
        live_server.server.ostiary("agent", "allow", self.agent, *self.scopes)
        self.secret = f"secret/agents/{self.agent}/api"
        live_server.api("POST", "/secrets/put", {"path": self.secret, "data": {"key": VALUE}})
        self.add("api", api.origin, "header", "Authorization", "Bearer {secret}")
        self.alarms: list[str] = []
        self.plan = Plan(
            server="egress",
            agent=str(agent_key),
            guard=str(guard),
            uri=self.uri,
            spool=str(folder / "spool"),
            mode=str(folder / "mode"),
            url=live_server.server.url,
        )
        self.ca_file = folder / "run-ca.pem"

    def add(self, name: str, origin: str, place: str, field: str = "", template: str = "{secret}") -> None:
        new = {"name": name, "origin": origin, "place": place, "field": field, "template": template, "private": True}
        self.live_server.api("POST", "/secrets/destinations", {**new, "secret": self.secret})

    def start(self, servers: LocalServers, *, private: Sequence[str] = ()) -> None:
        address = servers.open_egress(
            self.plan, tls=upstream_tls(self.api.ca_file), private=private, alarm=self.alarms.append
        )
        self.ca_file.write_bytes(address.ca_pem)
        parts = urlsplit(address.url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        credentials = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        self.password = {"Proxy-Authorization": f"Basic {credentials}"}
        self.context = ssl.create_default_context(cafile=self.ca_file)

    def connect(self, host: str = "localhost", port: int = 0) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(self.host, self.port, context=self.context, timeout=PATIENCE_S)
        made.set_tunnel(host, port or self.api.port, headers=self.password)
        return made

    def ask(
        self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def open(self) -> ssl.SSLSocket:
        """Return a tunnel to the API."""
        sock = socket.create_connection((self.host, self.port), PATIENCE_S)
        password = "".join(f"{name}: {value}\r\n" for name, value in self.password.items())
        at = f"localhost:{self.api.port}"
        sock.sendall(f"CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n{password}\r\n".encode())
        assert b" 200 " in sock.recv(1000)
        return self.context.wrap_socket(sock, server_hostname="localhost")

    def raw(self, *data: bytes, tls: bool = True) -> bytes:
        """Send bytes in a tunnel, or to the proxy itself, and return everything that comes back."""
        with self.open() if tls else socket.create_connection((self.host, self.port), PATIENCE_S) as sock:
            for part in data:
                sock.sendall(part)
            answer = b""
            try:
                while part := sock.recv(10_000):
                    answer += part
            except OSError:  # the proxy may reset a connection that it refuses
                pass
            return answer


def masked_frame(payload: bytes, key: bytes = b"abcd") -> bytes:
    """Return a frame of a WebSocket with a text, as a program sends it."""
    size = len(payload)
    width = 0 if size < 126 else 2 if size < 1 << 16 else 8
    length = bytes([0x80 | {0: size, 2: 126, 8: 127}[width]]) + (size.to_bytes(width) if width else b"")
    return b"\x81" + length + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
