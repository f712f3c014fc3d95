"""A web server on this machine: its answers by path, and the hosts and paths of the requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebSite:
    """`answers` has status, `Location` and body by path. While `silence` is cleared, nothing is answered."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        self.asked: list[tuple[str, str]] = []
        self.silence = threading.Event()
        self.silence.set()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.headers["host"], self.path))
                site.silence.wait()
                status, location, body = site.answers.get(self.path, (404, "", b""))
                self.send_response(status)
                if location:
                    self.send_header("location", location)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port


@contextmanager
def web_site() -> Iterator[WebSite]:
    """A web server until the block ends."""
    site = WebSite()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.silence.set()
        site.server.shutdown()
        site.server.server_close()
        thread.join()
