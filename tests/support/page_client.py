"""A browser without script: pages of an ASGI application with a cookie jar, and the forms on them."""

from __future__ import annotations

import re
from base64 import b32decode
from dataclasses import dataclass, field
from urllib.parse import urlencode, urljoin

from starlette.types import ASGIApp

from harness.clock import Clock
from harness.person_browser import Forms
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.store import owners
from ostiaryd.trust.flows.setup import create_setup_link
from ostiaryd.trust.model.totp import STEP, hotp
from tests.support.api_fixtures import Answer, send
from tests.support.authenticator import Authenticator
from tests.support.world import PUBLIC_URL

PASSWORD = "four words are fine"
HOME = "198.51.100.7"


@dataclass
class PageClient:
    """`follows`: whether redirects are followed."""

    app: ASGIApp
    address: str = HOME
    follows: bool = True
    cookies: dict[str, str] = field(default_factory=dict)
    origin: str | None = PUBLIC_URL
    path: str = "/"
    answer: Answer = field(default_factory=lambda: Answer(0, {}, b""))

    @property
    def text(self) -> str:
        return self.answer.body.decode()

    async def get(self, path: str) -> Answer:
        return await self._send("GET", path)

    async def post(self, path: str, **fields: str) -> Answer:
        return await self._send("POST", path, urlencode(fields))

    async def submit(self, action: str, **fields: str) -> Answer:
        """Send the first form of the page that leads to `action`, with these fields filled in."""
        return await self.post(action, **{**self.form(action), **fields})

    def form(self, action: str) -> dict[str, str]:
        forms = self._parse().forms
        found = [fields for one, fields in forms if one == action]
        assert found, f"no form leads to {action}, only {[one for one, _ in forms]}: {self.text}"
        return found[0]

    def options(self, action: str) -> str:
        """Return the options of the passkey ceremony of a form."""
        return self._parse().options[action]

    @property
    def scripts(self) -> list[str]:
        return self._parse().scripts

    async def log_in(self, name: str = "ann", password: str = PASSWORD, *, path: str = "/login") -> Answer:
        await self.get(path)
        return await self.submit("/login", name=name, password=password)

    async def set_up(self, url: str, password: str = PASSWORD) -> Answer:
        await self.get(url.removeprefix(PUBLIC_URL))
        return await self.submit("/setup", password=password, repeated=password)

    def _parse(self) -> Forms:
        return Forms(self.text)

    async def _send(self, method: str, path: str, body: str = "") -> Answer:
        headers = [("user-agent", "Firefox")]
        if self.cookies:
            headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        if method == "POST":
            headers.append(("content-type", "application/x-www-form-urlencoded"))
            headers += [("origin", self.origin)] if self.origin is not None else []
        self.path = path
        self.answer = await send(self.app, method, path, headers=headers, body=body.encode(), address=self.address)
        for cookie in filter(None, self.answer.headers.get("set-cookie", "").split(", ")):
            self._keep(cookie)
        if self.follows and self.answer.status == 303:
            return await self._send("GET", urljoin(path, self.answer.headers["location"]))
        return self.answer

    def _keep(self, cookie: str) -> None:
        named, *attributes = cookie.split("; ")
        name, _, value = named.partition("=")
        assert name.startswith("__Host-"), cookie
        assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= set(attributes), cookie
        if "Max-Age=0" in attributes:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


async def invite(world: World, name: str = "ann") -> str:
    """Register a person of that name if there is none, and return the URL of a setup link."""

    def run(act: Act) -> str:
        if owners.get_person(act.tx, name) is None:
            registry.create_person(act, name=name)
        return create_setup_link(act, name, config=world.config).url

    return await act(world, "person.invite", run)


async def add_totp(browser: PageClient, clock: Clock) -> bytes:
    """Set up an authenticator app, and return its secret."""
    await browser.get("/account/totp")
    found = re.search(r"<code>([A-Z2-7]{32})</code>", browser.text)
    assert found is not None, browser.text
    secret = b32decode(found[1])
    await browser.submit("/account/totp", code=hotp(secret, clock() // STEP))
    assert "Recovery codes" in browser.text, browser.text
    return secret


def recovery_codes(browser: PageClient) -> list[str]:
    return re.findall(r"<li>([a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4})</li>", browser.text)


async def add_passkey(browser: PageClient) -> Authenticator:
    """Register a passkey for the person who is signed in."""
    device = Authenticator(PUBLIC_URL)
    await browser.get("/account/passkeys")
    await browser.submit("/account/passkeys", credential=device.create(browser.options("/account/passkeys")))
    assert browser.path == "/account", browser.text
    return device


async def signed_in(world: World, app: ASGIApp, name: str = "ann") -> PageClient:
    """Return a browser in which that person has signed in with a password."""
    browser = PageClient(app)
    await browser.set_up(await invite(world, name))
    assert browser.path == "/account", browser.text
    return browser
