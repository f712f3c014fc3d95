"""An identity provider that sends security events about its persons: a real server, whose tokens a library of another
project signs.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import Key, KeySet, RSAKey

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
AUDIENCE = "https://ostiary.example.org"
_KEYS = [RSAKey.generate_key(2048, {"kid": f"key-{number}", "use": "sig", "alg": "RS256"}) for number in range(2)]


class Idp:
    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.published: list[Key] = [_KEYS[0]]
        self.changed: dict[str, Any] = {}
        """replaced members of its metadata; None leaves the member out"""
        self.status = 200
        self.made: dict[str, Any] = {}
        """replaced members of the streams that it creates"""
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.waiting: dict[str, str] = {}
        """tokens that the answer to a poll contains"""
        self.answer: Any = None
        """the answer to a poll in place of the tokens; None for the tokens"""
        self.talks = False
        """whether each poll gets a new token"""
        self.at = 1_800_000_000
        """the time of issue of its tokens in seconds: the time of the clock of the tests, unless `now` was called"""
        self._sent = 0

    def now(self) -> None:
        """Use the real time as the time of issue."""
        self.at = int(time.time())

    def paths(self, path: str) -> int:
        return sum(asked == path for _, asked, _, _ in self.asked)

    def token(self, event: str, subject: dict[str, Any], claims: dict[str, Any] | None = None, **changed: Any) -> str:
        """Return a valid token with the given claims, `key` or `header` replaced; a claim of None is left out."""
        self._sent += 1
        key, header = changed.pop("key", _KEYS[0]), {"alg": "RS256", "typ": "secevent+jwt"} | changed.pop("header", {})
        good = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "jti": f"event-{self._sent}",
            "iat": self.at,
            "txn": "8675309",
            "sub_id": subject,
            "events": {event: claims or {}},
        }
        said = {name: value for name, value in (good | changed).items() if value is not None}
        named = {name: value for name, value in ({"kid": key.kid} | header).items() if value is not None}
        token: str = jwt.encode(named, said, key, algorithms=["RS256", "HS256"])
        return token

    def metadata(self) -> dict[str, Any]:
        said = {
            "spec_version": "1_0",
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "configuration_endpoint": f"{self.issuer}/streams",
            "verification_endpoint": f"{self.issuer}/verify",
        }
        return {name: value for name, value in (said | self.changed).items() if value is not None}

    def reply(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, path:
            case "GET", "/.well-known/ssf-configuration":
                return self.status, self.metadata()
            case "GET", "/keys":
                return self.status, KeySet(self.published).as_dict(private=False)
            case "POST", "/streams":
                delivery = {"method": body["delivery"]["method"], "endpoint_url": f"{self.issuer}/poll"}
                return 201, {"stream_id": "s-1", "iss": self.issuer, "aud": AUDIENCE, "delivery": delivery} | self.made
            case "POST", "/poll" if self.talks:
                return 200, {"sets": {"new": self.token(f"{CAEP}session-presented", {"format": "opaque", "id": "x"})}}
            case "POST", "/poll" if self.answer is not None:
                return 200, self.answer
            case "POST", "/poll":
                for id in (*body["ack"], *body["setErrs"]):
                    self.waiting.pop(id, None)
                return 200, {"sets": self.waiting}
        return 204, None


@contextmanager
def providing() -> Iterator[Idp]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.loads(sent) if sent else None
            path = self.path.partition("?")[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            idp.asked.append((self.command, path, headers, body))
            status, said = idp.reply(self.command, path, body)
            answer = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_DELETE = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    idp = Idp(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield idp
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
