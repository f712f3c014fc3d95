"""`kill -9` of a real server while refresh tokens rotate and codes are redeemed: nothing is lost or valid twice."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from harness.live_server import URI, ServerFixture
from harness.patience import PATIENCE_S
from harness.person_browser import PersonBrowser
from ostiary import ambient
from ostiary.keys import load_key
from ostiary.protocol import dpop, jose
from ostiaryd.tokens.model.grants import SECOND
from ostiaryd.tokens.model.refresh import GRACE
from tests.faults.prepared import PreparedServer
from tests.faults.tally import Tally
from tests.tokens.code_flow import CALLBACK, VERIFIER, challenge_of

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KILLS = 3


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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PreparedServer]:
    server = PreparedServer(tmp_path / "server")
    try:
        yield server
    finally:
        server.close()


def killed(
    server: PreparedServer, request: Callable[[], httpx2.Response], dice: random.Random
) -> httpx2.Response | None:
    """Kill the server at some moment of a request, and start it again. Return the answer, or None if it was lost."""
    answers: list[httpx2.Response] = []

    def send() -> None:
        with suppress(httpx2.TransportError):
            answers.append(request())

    sending = threading.Thread(target=send)
    sending.start()
    time.sleep(dice.uniform(0, dice.choice((0.03, 0.15))))  # the moment of the kill varies; no outcome rests on it
    server.kill()
    sending.join(PATIENCE_S)
    server.restart()
    return answers[0] if answers else None


@pytest.mark.slow
def test_refresh_tokens_and_codes_survive_a_kill_and_are_valid_once(
    server: PreparedServer, tmp_path: Path, seed: int, tally: Tally
) -> None:
    dice = random.Random(f"grants {seed}")
    lost = forked = reused = twice = 0
    with ServerFixture(server, tmp_path) as live_server:
        app = Application(server, live_server)
        for _ in range(KILLS):
            token = str(app.redeem(app.code()).json()["refresh_token"])
            began = time.monotonic()
            first, again = killed(server, partial(app.refresh, token), dice), app.refresh(token)
            is_late = time.monotonic() - began >= GRACE / SECOND  # then the repetition may be a reuse
            lost += again.status_code != 200 and not is_late
            if again.status_code == 200:
                latest = str(again.json()["refresh_token"])
                forked += first is not None and first.json()["refresh_token"] != latest
                newest = str(app.refresh(latest).json()["refresh_token"])
                killed(server, partial(app.refresh, token), dice)
                reused += app.refresh(token).status_code == 200
                reused += app.refresh(newest).status_code == 200

            code = app.code()
            redeemed, repeated = killed(server, partial(app.redeem, code), dice), app.redeem(code)
            answers = [one for one in (redeemed, repeated) if one is not None and one.status_code == 200]
            twice += len(answers) > 1
            if redeemed in answers:  # the client has used its code twice, which ends what it gave
                twice += app.refresh(answers[0].json()["refresh_token"]).status_code == 200
        app.browser.__exit__()
    tally("a refresh whose server is killed is answered after the restart", broken=lost, of=KILLS)
    tally("a refresh whose server is killed leaves one current token", broken=forked, of=KILLS)
    tally("the reuse of a refresh token ends its grant, though the server is killed", broken=reused, of=2 * KILLS)
    tally("a code gives tokens once, though the server is killed", broken=twice, of=2 * KILLS)
