"""A real receiver of webhooks on loopback, which gives the answers of the test, and keeps the received requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        """answers to the next webhooks, with `x-body` as the body; after them 204"""
        self.page = b""
        """answer to GET"""
        self.silence = threading.Event()
        """if cleared, the receiver answers no request"""
        self.silence.set()

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.heard]


@contextmanager
def receiving(path: str = "/hook?to=us") -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
            receiver.silence.wait()
            status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
            said = headers.get("x-body", "").encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_GET(self) -> None:
            """Answer a GET request with the page, or with 204 if there is no page."""
            self.send_response(200 if receiver.page else 204)
            self.send_header("content-length", str(len(receiver.page)))
            self.end_headers()
            self.wfile.write(receiver.page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}{path}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.silence.set()
        server.shutdown()
        server.server_close()
        thread.join()
