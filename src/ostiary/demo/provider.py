"""The demo's identity provider: it publishes its keys, and reports that the credential of an agent is compromised.

The provider is a minimal Shared Signals transmitter (SSF 1.0 sections 7 and 8.1.1, RFC 8935, RISC 1.0). It signs its
signals, and pushes them to the Ostiary server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

from ostiary import ambient
from ostiary.protocol import jose

COMPROMISED = "https://schemas.openid.net/secevent/risc/event-type/credential-compromise"


class Provider:
    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self._key = jose.generate("RS256", kid="provider-1")
        self.documents = {
            "/.well-known/ssf-configuration": {
                "spec_version": "1_0",
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/keys",
            },
            "/keys": {"keys": [{**self._key.public.jwk, "use": "sig"}]},
        }

    def push_signal(self, endpoint: str, authorization: str, *, audience: str, agent: str) -> int:
        """Push the signal that the credential of an agent of `audience` is compromised; return the HTTP status
        of the response.
        """
        claims = {
            "iss": self.issuer,
            "aud": audience,
            "iat": ambient.now() // 1_000_000,
            "jti": "event-1",
            "sub_id": {"format": "iss_sub", "iss": audience, "sub": agent},
            "events": {COMPROMISED: {"credential_type": "api-key"}},
        }
        token = jose.sign_jwt(self._key, typ="secevent+jwt", claims=claims)
        headers = {"content-type": "application/secevent+jwt", "authorization": authorization}
        return httpx2.post(endpoint, content=token, headers=headers).status_code


@contextmanager
def providing() -> Iterator[Provider]:
    """Run the provider on a free port in a thread, for the duration of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(provider.documents.get(self.path, {})).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
