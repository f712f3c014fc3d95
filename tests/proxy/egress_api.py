"""An HTTPS API on this machine that needs a key, and tells too much about its requests."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.pem import certificate

VALUE = "sk-c4n4ry/+Zz=4711"
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class EgressApi:
    """`asked` has method, path, headers and body of each request; `go` lets a stream send its second part."""

    def __init__(self, folder: Path) -> None:
        context, self.ca_file = certificate(folder, "localhost")
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.go = threading.Event()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
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
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.origin = f"https://localhost:{self.port}"


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
