"""An application and a person's browser that go through the code flow without a socket."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from ostiary.protocol import jose
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import get_session
from ostiaryd.trust.flows.sessions import begin_session
from ostiaryd.trust.model.sessions import SESSION_COOKIE, Proof
from tests.support.api_fixtures import ASSERTION_TYPE, Answer, Client, register
from tests.support.page_client import PageClient

CALLBACK = "https://app.example/callback"
VERIFIER = "v" * 43
LOGOUT = "https://app.example/bye"


def challenge_of(verifier: str) -> str:
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class Browser(PageClient):
    """A browser that stops where it would leave the server, and keeps the URL."""

    left_to = ""

    async def _send(self, method: str, path: str, body: str = "") -> Answer:
        if urlsplit(path).netloc:
            self.left_to = path
            return self.answer
        answer = await super()._send(method, path, body)
        if (url := _CONTINUE.search(self.text)) is not None:
            self.left_to = unescape(url[1])
        return answer


_CONTINUE = re.compile(r'<meta http-equiv="refresh" content="0; url=([^"]+)">')


@dataclass
class CodeFlow:
    """The application is the agent of `client`; `browser` is that of the person."""

    world: World
    browser: Browser
    client: Client
    person: str

    def query(self, **changes: Any) -> dict[str, Any]:
        """Return a valid authorization request with the changes; a member of None is left out."""
        good = {
            "response_type": "code",
            "client_id": self.client.id,
            "redirect_uri": CALLBACK,
            "scope": "files:read",
            "state": "the state",
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    async def open(self, **changes: Any) -> Answer:
        """Send the browser to the authorization endpoint."""
        return await self.browser.get(f"/authorize?{urlencode(self.query(**changes), doseq=True)}")

    async def allow(self, **fields: str | None) -> Answer:
        """Agree on the consent page; a field of None is unticked."""
        form = self.browser.form("/consent") | {"decision": "allow"}
        given = {name: value for name, value in (form | fields).items() if value is not None}
        return await self.browser.post("/consent", **given)

    async def answer(self, **changes: Any) -> dict[str, str]:
        """Send the browser there, agree where it is asked, and return what arrives at the redirect URI."""
        await self.open(**changes)
        if "/consent" in self.browser.text and self.browser.answer.status == 200:
            await self.allow()
        return self.arrived()

    def arrived(self) -> dict[str, str]:
        """Return the parameters of the answer that the browser carries to the redirect URI."""
        url = self.browser.left_to
        assert url.startswith(CALLBACK), url or self.browser.text
        return {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}

    def authenticated(self, **form: Any) -> dict[str, Any]:
        """Return a form with the assertion of the application."""
        return {"client_assertion": self.client.assertion(), "client_assertion_type": ASSERTION_TYPE, **form}

    async def push(self, **changes: Any) -> Answer:
        """Push an authorization request (RFC 9126)."""
        return await self.client.post("/par", self.authenticated(**self.query()) | changes)

    def token_form(self, code: str, **changes: Any) -> dict[str, Any]:
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        return form | changes

    async def redeem(self, code: str, **changes: Any) -> Answer:
        """Redeem a code, with the retry that the nonce needs."""
        return await self.token(**self.token_form(code, **changes))

    async def refresh(self, refresh_token: str, **changes: Any) -> Answer:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **changes)

    async def token(self, **form: Any) -> Answer:
        answer = await self.client.ask(**form)
        return await self.client.ask(**form) if answer.error == "use_dpop_nonce" else answer

    async def tokens(self, **changes: Any) -> dict[str, Any]:
        """Go through the whole flow and return the token response."""
        answer = await self.redeem((await self.answer(**changes))["code"])
        assert answer.status == 200, answer.body
        tokens: dict[str, Any] = answer.json
        return tokens


async def sign_in(
    world: World, browser: PageClient, person: str, *, proofs: tuple[Proof, ...] = (), replaces: str = ""
) -> str:
    """Begin a session of a person in a browser without the login page; return its id. `replaces` is the id of the one
    that the browser had.
    """

    def begin(act: Any) -> Any:
        given = proofs or (Proof(method="password", at=act.now),)
        return begin_session(
            act,
            person=person,
            proofs=given,
            config=world.config,
            network="198.51.100.0/24",
            unverified_browser=None,
            replaces=get_session(act.tx, replaces, now=act.now) if replaces else None,
        )

    new = await act(world, "test.login", begin)
    browser.cookies[SESSION_COOKIE] = new.cookie
    return str(new.session.id)


async def begin_flow(world: World, app: Any, *, name: str = "reader", **client: Any) -> CodeFlow:
    """A registered agent with a redirect URI, and a browser in which ann is signed in."""
    agent, key = await register(world, name=name)
    await make_client(world, agent, **client)
    person = registry.find_person(world.db.read(), "ann").person_id
    browser = Browser(app)
    await sign_in(world, browser, person)
    return CodeFlow(world, browser, Client(app, world, agent.agent_id, key), person)


async def make_client(world: World, agent: Agent, **changes: Any) -> None:
    settings = {"redirect_uris": [CALLBACK], "post_logout_redirect_uris": [LOGOUT], **changes}
    await act(world, "test.client", lambda act: trust.set_agent_client(act, agent.agent_id, **settings))


def header_of(token: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(jose.unb64u(token.split(".")[0]))
    return header
