"""A web site of OAuth clients, with TLS at 127.0.0.1: metadata documents, key sets, and redirects that the server must
not follow.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.pem import certificate


class Page(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class ClientSite:
    """`origin` is its URL, `ca_file` the certificate to trust, `requested` the paths in the order of the requests."""

    def __init__(self, origin: str, ca_file: str) -> None:
        self.origin, self.ca_file = origin, ca_file
        self.pages: dict[str, Page] = {}
        self.requested: list[str] = []

    def put(self, path: str, body: object, *, status: int = 200, **headers: str) -> str:
        """Serve JSON, or bytes as they are, at a path; return its URL."""
        sent = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        self.pages[path] = Page(status, sent, body if isinstance(body, bytes) else json.dumps(body).encode())
        return self.origin + path

    def put_client(self, path: str = "/client.json", *, status: int = 200, headers: Any = None, **members: Any) -> str:
        """Serve the metadata document of a public client, with these members changed; return its client id."""
        return self.put(path, document(self.origin + path) | members, status=status, **(headers or {}))


def document(url: str) -> dict[str, Any]:
    """Return the metadata document of a public client at a URL."""
    origin = "/".join(url.split("/")[:3])
    return {
        "client_id": url,
        "client_name": "Example",
        "redirect_uris": [f"{origin}/callback", "http://localhost/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    }


@contextmanager
def serving_clients(folder: Path) -> Iterator[ClientSite]:
    """Serve a site until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requested.append(self.path)
            page = site.pages.get(self.path, Page(404, {}, b""))
            self.send_response(page.status)
            for name, value in {**page.headers, "content-length": str(len(page.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context, ca_file = certificate(folder, "localhost")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    site = ClientSite(f"https://127.0.0.1:{server.server_port}", str(ca_file))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
