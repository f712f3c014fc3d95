"""A web server of another origin than the Ostiary server: the page of an application, and its redirect URI."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving_pages(pages: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Serve pages by path as (media type, text), and an empty page for any other path; the origin, by name."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            media_type, text = pages.get(
                self.path.partition("?")[0], ("text/html", "<!doctype html><title>App</title>")
            )
            body = text.encode()
            self.send_response(200)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
