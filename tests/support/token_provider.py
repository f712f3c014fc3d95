"""An authorization server that can send wrong answers: a real server with codes, PKCE, rotation of refresh tokens, and
revocation. The server has no pages: a test acts as the browser.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from harness.patience import PATIENCE_S

CLIENT = "ostiary"
SECRET = "a secret: with signs & + / of all kinds %"
BASIC = "Basic " + base64.b64encode(f"{CLIENT}:a+secret%3A+with+signs+%26+%2B+%2F+of+all+kinds+%25".encode()).decode()


class TokenProvider:
    """`metadata`, `token` and `refreshed` replace members of the metadata and of the token responses; None removes one.

    `failing` is the status of all token responses, `revoking` that of revocations. `held`: a token request waits for
    the event. `raw` is sent in place of a token response.
    """

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.metadata: dict[str, Any] = {}
        self.token: dict[str, Any] = {}
        self.refreshed: dict[str, Any] = {}
        self.failing, self.revoking = 200, 200
        self.headers: dict[str, str] = {}
        self.raw: bytes | None = None
        self.held: threading.Event | None = None
        self.asked: list[tuple[str, dict[str, str]]] = []
        """path and form of each request"""
        self.live: dict[str, str] = {}
        """the scopes of each refresh token that is in force"""
        self.revoked: list[str] = []
        self.reused = False
        """whether a refresh token was used twice; then all of them have ended"""
        self._spent: set[str] = set()
        self._codes: dict[str, dict[str, str]] = {}
        self._made = 0
        self._lock = threading.Lock()

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def grant(self, location: str, code: str = "") -> dict[str, str]:
        """Play the browser at the authorization endpoint; the parameters of a good answer."""
        request = dict(parse_qsl(urlsplit(location).query))
        code = code or f"code-{len(self._codes)}"
        self._codes[code] = request
        return {"code": code, "state": request["state"], "iss": self.issuer}

    def end_grants(self) -> None:
        """End all refresh tokens, as a person can at the provider."""
        self.live.clear()

    def reply(self, path: str, headers: dict[str, str], form: dict[str, str]) -> tuple[int, Any]:
        match path:
            case "/.well-known/openid-configuration":
                said = {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                    "revocation_endpoint": f"{self.issuer}/revoke",
                    "response_types_supported": ["code"],
                    "authorization_response_iss_parameter_supported": True,
                }
                return 200, {name: value for name, value in (said | self.metadata).items() if value is not None}
            case "/token":
                if headers.get("authorization") != BASIC:
                    return 401, {"error": "invalid_client"}
                if self.held is not None:
                    self.held.wait(PATIENCE_S)
                if self.failing != 200:
                    return self.failing, {"error": "server_error"}
                with self._lock:
                    status, answer = self._redeem(form) if "code" in form else self._refresh(form)
                return (status, answer) if self.raw is None else (200, self.raw)
            case "/revoke":
                if self.revoking == 200:
                    self.revoked.append(form["token"])
                    self.live.pop(form["token"], None)
                return self.revoking, {}
        return 404, {}

    def _redeem(self, form: dict[str, str]) -> tuple[int, Any]:
        request = self._codes.pop(form["code"], None)
        if request is None or request["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        digest = base64.urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if request["code_challenge"] != digest:
            return 400, {"error": "invalid_grant"}
        return 200, self._issue(request["scope"], request["scope"]) | self.token

    def _refresh(self, form: dict[str, str]) -> tuple[int, Any]:
        token = form["refresh_token"]
        if token in self._spent:
            self.reused = True
            self.live.clear()
        if (scope := self.live.pop(token, None)) is None:
            return 400, {"error": "invalid_grant"}
        self._spent.add(token)
        answer = self._issue(scope, form.get("scope", scope)) | self.refreshed
        return 200, {name: value for name, value in answer.items() if value is not None}

    def _issue(self, scope: str, narrowed: str) -> dict[str, Any]:
        self._made += 1
        self.live[f"refresh-{self._made}"] = scope
        return {
            "access_token": f"access-{self._made}",
            "token_type": "Bearer",
            "expires_in": 3600,
            "refresh_token": f"refresh-{self._made}",
            "scope": narrowed,
        }


@contextmanager
def token_provider() -> Iterator[TokenProvider]:
    """A provider on this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            path = self.path.partition("?")[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            form = {name: values[0] for name, values in parse_qs(sent).items()}
            provider.asked.append((path, form))
            status, said = provider.reply(path, headers, form)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **provider.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = TokenProvider(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        if provider.held is not None:
            provider.held.set()
        server.shutdown()
        server.server_close()
        thread.join()
