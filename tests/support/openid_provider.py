"""An OpenID provider that can send wrong answers: a real server, whose tokens a library of another project signs. The
provider has no pages: a test acts as the browser, reads the parameters of the authentication request, and returns a
code.
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

from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey

CLIENT = "ostiary"
SECRET = "a secret: with signs & + / of all kinds %"
ACCESS_TOKEN = "opaque-access-token"
KEYS: list[Key] = [RSAKey.generate_key(2048, {"kid": f"key-{n}", "use": "sig", "alg": "RS256"}) for n in range(2)]
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig", "alg": "ES256"})


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class OpenIdProvider:
    """`changed`, `claims` and `token` replace members of the metadata, the ID token and the token response; None
    removes one. `at` is the time of its clock in seconds.
    """

    def __init__(self, port: int, *, at: int) -> None:
        self.issuer, self.at = f"http://127.0.0.1:{port}", at
        self.changed: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.token: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.key: Key = KEYS[0]
        self.published: Any = [KEYS[0]]
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        """path, headers and form of each request"""
        self._nonces: dict[str, str] = {}
        self._challenges: dict[str, str] = {}

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _, _ in self.asked)

    def grant(self, location: str, code: str = "code-1") -> dict[str, str]:
        """Act as the browser at the authorization endpoint, and return the parameters of a valid answer."""
        request = dict(parse_qsl(urlsplit(location).query))
        self._nonces[code], self._challenges[code] = request["nonce"], request["code_challenge"]
        return {"code": code, "state": request["state"], "iss": self.issuer}

    def id_token(self, nonce: str, **changed: Any) -> str:
        at_hash = b64u(sha256(ACCESS_TOKEN.encode()).digest()[:16])
        good = {
            "iss": self.issuer,
            "sub": "u-1",
            "aud": CLIENT,
            "nonce": nonce,
            "iat": self.at,
            "exp": self.at + 300,
            "at_hash": at_hash,
            "preferred_username": "Ann.Smith@corp.example",
            "email": "ann@corp.example",
        }
        said = {name: value for name, value in {**good, **self.claims, **changed}.items() if value is not None}
        header = {"alg": self.key.get("alg"), "kid": self.key.kid, "typ": "JWT"} | self.header
        algs = ["RS256", "ES256", "HS256", "none"]
        token: str = jwt.encode({n: v for n, v in header.items() if v is not None}, said, self.key, algorithms=algs)
        return token

    def reply(self, path: str, headers: dict[str, str], form: dict[str, str]) -> tuple[int, Any]:
        match path:
            case "/.well-known/openid-configuration":
                said = {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize?tenant=corp",
                    "token_endpoint": f"{self.issuer}/token",
                    "jwks_uri": f"{self.issuer}/keys",
                    "userinfo_endpoint": f"{self.issuer}/userinfo",
                    "response_types_supported": ["code"],
                    "authorization_response_iss_parameter_supported": True,
                }
                return 200, {name: value for name, value in (said | self.changed).items() if value is not None}
            case "/keys":
                keys = self.published
                return 200, KeySet(keys).as_dict(private=False) if isinstance(keys, list) else keys
            case "/token":
                return self._token(headers, form)
            case "/userinfo":
                return 200, {"sub": "u-1", **self.userinfo}
        return 404, {}

    def _token(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, Any]:
        pair = f"{CLIENT}:a+secret%3A+with+signs+%26+%2B+%2F+of+all+kinds+%25"
        basic = "Basic " + base64.b64encode(pair.encode()).decode()
        code = form.get("code", "")
        if headers.get("authorization", basic) != basic or code not in self._nonces:
            return 400, {"error": "invalid_grant"}
        if b64u(sha256(form["code_verifier"].encode()).digest()) != self._challenges.pop(code):
            return 400, {"error": "invalid_grant"}
        answer = {
            "access_token": ACCESS_TOKEN,
            "token_type": "Bearer",
            "id_token": self.id_token(self._nonces.pop(code)),
        }
        return 200, answer | self.token

    def use(self, key: Key, **header: Any) -> None:
        """Sign with a key, which stays unpublished, under these members of the header."""
        self.key, self.header = key, header


@contextmanager
def openid_provider(*, at: int) -> Iterator[OpenIdProvider]:
    """Run a provider whose clock shows `at` (seconds)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            path = self.path.partition("?")[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            form = {name: values[0] for name, values in parse_qs(sent).items()}
            provider.asked.append((path, headers, form))
            status, said = provider.reply(path, headers, form)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = OpenIdProvider(server.server_port, at=at)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def symmetric_key() -> Key:
    return OctKey.import_key(SECRET.encode() + b"." * 32, {"kid": "key-0", "alg": "HS256"})
