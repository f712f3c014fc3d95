"""A small server with OPA's Data API over real HTTP, which evaluates with OPA's library and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ostiaryd.policy.engines.opa import Opa as Library

MODULE = """
package payments
import rego.v1
default decision := {"permit": false}
decision := {"permit": true} if input.subject.id == "ann"
decision := {"permit": false, "forbid": ["not eve"]} if input.subject.id == "eve"
plain := input.subject.id == "ann"
empty := {}
strange := {"permit": "yes"}
number := 7
"""


class Opa:
    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, Any]] = []
        self.misbehave = ""


@contextmanager
def opa() -> Iterator[Opa]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.asked.append((self.path, body))
            match served.misbehave:
                case "slow":
                    time.sleep(0.6)
                case "redirect":
                    self._send(302, b"{}", location=f"{served.url}/v1/data/payments/plain")
                    return
                case "broken":
                    self._send(500, b"{}")
                    return
                case "text":
                    self._send(200, b'{"result": true}', kind="text/html")
                    return
                case "no JSON":
                    self._send(200, b'{"result": tru')
                    return
                case "huge":
                    self._send(200, b'{"result": true, "x": "' + b"x" * (1 << 17) + b'"}')
                    return
                case "deep":
                    self._send(200, b'{"result": ' + b"[" * 20_000 + b"]" * 20_000 + b"}")
                    return
            document = "data." + self.path.removeprefix("/v1/data/").replace("/", ".")
            with closing(Library()) as library:
                library.add_module("payments.rego", MODULE)
                results = library.query(document, json.dumps(body["input"]).encode())
            self._send(200, b'{"result":%b}' % results[0].expressions[0].value if results else b"{}")

        def _send(self, status: int, body: bytes, *, kind: str = "application/json", location: str = "") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            if location:
                self.send_header("location", location)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Opa(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
