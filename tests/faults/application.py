"""A client of the code flow whose server is killed during its requests."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

from harness.live_server import URI, ServerFixture
from harness.patience import PATIENCE_S
from harness.person_browser import PersonBrowser
from harness.prepared import PreparedServer
from ostiary import ambient
from ostiary.keys import load_key
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Unavailable
from tests.tokens.code_flow import CALLBACK, VERIFIER, challenge_of

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Application:
    """A client of the code flow, and the person who has consented to it."""

    def __init__(self, server: PreparedServer, live_server: ServerFixture) -> None:
        self.server, self.issuer = server, live_server.admin.issuer
        resource, _ = live_server.resource(URI)
        name, path = live_server.agent(f"{resource}:read")
        live_server.api("PUT", f"/agents/{name}/client", {"redirect_uris": [CALLBACK]})
        person = live_server.owner()
        live_server.api("POST", "/roles", {"subject": person, "role": "viewer"})
        self.browser = PersonBrowser(server.url)
        self.browser.set_up(live_server.api("POST", f"/persons/{person}/invite", {})["url"])
        self.credential, self.scope, self.nonce = load_key(path), f"openid {resource}:read", ""

    def code(self) -> str:
        """Return a new code, after the consent of the person."""
        query = {
            "response_type": "code",
            "client_id": self.credential.client_id,
            "redirect_uri": CALLBACK,
            "scope": self.scope,
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
        }
        url = self.browser.authorize(
            f"{self.server.url.replace('127.0.0.1', 'localhost')}/authorize?{urlencode(query)}"
        )
        [code] = parse_qs(urlsplit(url).query)["code"]
        return code

    def redeem(self, code: str) -> httpx2.Response:
        fields = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        return self._request(fields)

    def refresh(self, refresh_token: str) -> httpx2.Response:
        return self._request({"grant_type": "refresh_token", "refresh_token": refresh_token})

    def _request(self, fields: dict[str, str]) -> httpx2.Response:
        """Send a token request, again with the nonce for which the server asks."""
        key, client_id = self.credential.key, self.credential.client_id
        while True:
            now = ambient.now()
            claims = {"iss": client_id, "sub": client_id, "aud": self.issuer, "iat": now // 1_000_000}
            claims |= {"exp": now // 1_000_000 + 60, "jti": os.urandom(16).hex()}
            proof = dpop.make_proof(
                key,
                method="POST",
                uri=f"{self.issuer}/token",
                now=now,
                jti=os.urandom(16).hex(),
                nonce=self.nonce or None,
            )
            proved = {
                "client_id": client_id,
                "client_assertion_type": ASSERTION,
                "client_assertion": jose.sign_jwt(key, typ="client-authentication+jwt", claims=claims),
                "resource": URI,
            }
            answer = httpx2.post(f"{self.server.url}/token", data=fields | proved, headers={"dpop": proof})
            self.nonce = answer.headers.get("dpop-nonce", self.nonce)
            if "use_dpop_nonce" not in answer.text:
                return answer


def killed(
    server: PreparedServer, request: Callable[[], httpx2.Response], dice: random.Random
) -> httpx2.Response | None:
    """Kill the server at some moment of a request, and start it again. Return the answer, or None if it was lost."""
    answers: list[httpx2.Response] = []

    def send() -> None:
        with suppress(Unavailable, httpx2.TransportError):
            answers.append(request())

    sending = threading.Thread(target=send)
    sending.start()
    time.sleep(dice.uniform(0, dice.choice((0.03, 0.15))))  # the moment of the kill varies; no outcome rests on it
    server.kill()
    sending.join(PATIENCE_S)
    server.restart()
    return answers[0] if answers else None
