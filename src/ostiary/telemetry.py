"""A local relay for OpenTelemetry: exporters in any language send to the relay, and the relay adds proofs of the
agent's key.

    with relay(Agent.from_credential("writer.json")) as url:        # http://127.0.0.1:4318
        ...                                                         # OTEL_EXPORTER_OTLP_ENDPOINT=url

The relay forwards `/v1/traces` and `/v1/logs` (OTLP/HTTP, protobuf or JSON), and returns the server's answer. Any
process that can connect to the loopback interface of this machine can report as the agent, and about this agent only.
A page in a browser cannot, because the relay refuses requests with `Origin`, or with a `Host` that is not this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

from ostiary.agent import Agent
from ostiary.protocol.errors import Refused

PORT = 4318
PATHS = frozenset({"/v1/traces", "/v1/logs"})
MAX_BODY = 4 << 20
WAIT_S = 10.0
_HANDED_ON = ("content-type", "content-encoding")
_HANDED_BACK = ("content-type", "retry-after")
_HERE = frozenset({"127.0.0.1", "localhost"})


@contextmanager
def relay(agent: Agent, *, port: int = 0) -> Iterator[str]:
    """Run a local HTTP server that forwards OpenTelemetry data to the Ostiary server as `agent`, and yield its URL; the
    relay ends with the block. `port`: 0 selects a free port.
    """
    with ThreadingHTTPServer(("127.0.0.1", port), _handler(agent)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _handler(agent: Agent) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = WAIT_S

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if self.headers.get("origin") is not None or self.headers.get("host", "").split(":")[0] not in _HERE:
                self._answer(403)
            elif self.path not in PATHS:
                self._answer(404)
            elif not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
                self._answer(413)
            else:
                self._hand_on(self.rfile.read(int(length)))

        def _hand_on(self, body: bytes) -> None:
            headers = {name: value for name in _HANDED_ON if (value := self.headers.get(name)) is not None}
            try:
                answer = agent.request(
                    "POST",
                    f"{agent.url}{self.path}",
                    resource=f"{agent.issuer}/api/v1",
                    content=body,
                    headers=headers,
                    timeout=WAIT_S,
                )
            except (Refused, httpx2.HTTPError):
                self._answer(503)  # a status after which exporters try again
            else:
                self._answer(answer.status_code, answer.content, dict(answer.headers))

        def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name in _HANDED_BACK:
                if headers and name in headers:
                    self.send_header(name, headers[name])
            self.send_header("content-length", str(len(body)))
            if status in (403, 404, 413):
                self.send_header("connection", "close")  # the rest of the request is not read
                self.close_connection = True
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log of requests: exporters send continuously."""

    return Handler
