"""A relying party with a back-channel hears of a logout over HTTP, also if it was down (Back-Channel Logout 1.0)."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import KeySet

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from harness.person_browser import PersonBrowser

CALLBACK = "https://app.example.org/callback"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
VERIFIER = "v" * 48


class Receiver:
    """The service of a relying party: down for the first requests, then it takes logout tokens."""

    def __init__(self, *, failures: int) -> None:
        self.failures = failures
        self.received: list[tuple[str, dict[str, list[str]], int]] = []
        """content type, form, and the status that was answered"""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (scope["type"], scope["method"], scope["path"]) == ("http", "POST", "/logout")
        body, is_more = b"", True
        while is_more:
            message = await receive()
            body, is_more = body + message.get("body", b""), message.get("more_body", False)
        status = 503 if len(self.received) < self.failures else 200
        kind = dict(scope["headers"])[b"content-type"].decode()
        self.received.append((kind, parse_qs(body.decode()), status))
        await send({"type": "http.response.start", "status": status, "headers": [(b"cache-control", b"no-store")]})
        await send({"type": "http.response.body", "body": b""})


def sign_in(server: str, browser: PersonBrowser, client_id: str) -> dict[str, Any]:
    """Sign a person in to a public client, and return the claims of the verified ID token."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "scope": "openid",
        "nonce": "n",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    arrived = browser.authorize(f"{server}/authorize?{urlencode(query)}")
    code = parse_qs(urlsplit(arrived).query)["code"][0]
    form = {"grant_type": "authorization_code", "client_id": client_id, "redirect_uri": CALLBACK}
    response = httpx2.post(f"{server}/token", data=form | {"code": code, "code_verifier": VERIFIER})
    assert response.status_code == 200, response.text
    return dict(jwt.decode(response.json()["id_token"], keys(server), algorithms=["RS256"]).claims)


def keys(server: str) -> KeySet:
    return KeySet.import_key_set(httpx2.get(f"{server}/jwks").json())


def test_a_receiver_that_was_down_gets_a_valid_logout_token(live_server: ServerFixture, tmp_path: Path) -> None:
    server, receiver = live_server.server.url, Receiver(failures=1)
    sock, port = free_socket()
    person = live_server.owner()
    metadata = {
        "client_name": "Receiver",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code"],
        "backchannel_logout_uri": f"http://127.0.0.1:{port}/logout",
        "backchannel_logout_session_required": True,
    }
    registered = httpx2.post(f"{server}/register", json=metadata)
    assert registered.status_code == 201, registered.text
    client_id = registered.json()["client_id"]
    with serving(receiver, sock), PersonBrowser(server) as browser:
        browser.set_up(live_server.api("POST", f"/persons/{person}/invite", {})["url"])
        identity = sign_in(server, browser, client_id)
        browser.get(f"{server}/logout")
        browser.submit("/logout/confirm")
        eventually(lambda: len(receiver.received) == 2)
        assert [status for _, _, status in receiver.received] == [503, 200], "it is sent again after a failure"
        assert {kind for kind, _, _ in receiver.received} == {"application/x-www-form-urlencoded"}
        tokens = [form["logout_token"] for _, form, _ in receiver.received]
        claims = [check(server, token, client_id, identity) for (token,) in tokens]
        assert claims[0]["jti"] == claims[1]["jti"], "the receiver can tell that it is the same logout"
        browser.get(f"{server}/account")
        assert 'name="password"' in browser.text, "the person has to sign in again"


def check(server: str, token: str, client_id: str, identity: dict[str, Any]) -> dict[str, Any]:
    """Validate a logout token as section 2.6 says, and return its claims."""
    decoded = jwt.decode(token, keys(server), algorithms=["RS256"])
    claims = dict(decoded.claims)
    assert decoded.header["typ"] == "logout+jwt"
    assert (claims["iss"], claims["aud"]) == (server, client_id)
    assert (claims["sub"], claims["sid"]) == (identity["sub"], identity["sid"])
    assert claims["iat"] - 5 <= time.time() < claims["exp"]
    assert claims["events"] == {EVENT: {}}
    assert "nonce" not in claims
    return claims
