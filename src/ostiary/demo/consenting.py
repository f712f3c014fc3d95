"""The chapter about consent: in a browser, a person allows an unregistered MCP client to act for them, and
later withdraws the consent.
"""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from ostiary import ambient
from ostiary.demo.stage import PATIENCE_S, Stage
from ostiary.demo.telling import attempt, chapter, note, run, say
from ostiary.protocol.errors import Unavailable

CALLBACK = "http://localhost:3030/callback"
_CONTINUE = re.compile(r'http-equiv="refresh" content="0; url=([^"]+)"')


async def consent_and_withdraw(stage: Stage, *, person: str) -> None:
    """Run the chapter of the demo: consent, a call, withdrawal, and the refused call with the same token."""
    chapter("A client without registration: a person consents, and later withdraws")
    run(stage, "role", "grant", person, "viewer")
    run(stage, "resource", "allow-bearer", "files")
    browser = Browser(stage.url)
    link = run(stage, "person", "invite", person)["url"]
    await asyncio.to_thread(browser.set_up, link)
    say(f"{person} opens the link in a browser and is signed in")
    store = Memory()
    provider = OAuthClientProvider(
        stage.files_uri,
        OAuthClientMetadata(client_name="Notebook", redirect_uris=[CALLBACK]),  # type: ignore[list-item]
        store,
        browser.follow,
        browser.answer,
    )
    async with (
        httpx2.AsyncClient(auth=provider, timeout=PATIENCE_S) as http,
        Client(streamable_http_client(stage.files_uri, http_client=http)) as client,
    ):
        say("the client registers itself, and sends the browser to the consent page;")
        say(f"{person} unticks files:write, and agrees")
        await attempt(stage, "notebook", client, "read_file", path="reports/q3.txt")
    [consent] = run(stage, "consent", "list", "--person", person)
    say(f"{consent['client_name']} may {' '.join(consent['scopes'])} for {consent['person']}")
    note(f"Later, {person} withdraws the consent on the page /consents of the server.")
    await asyncio.to_thread(browser.withdraw)
    assert store.tokens is not None
    headers = {"authorization": f"Bearer {store.tokens.access_token}"}
    is_refused = False
    async with asyncio.timeout(PATIENCE_S):  # the guard hears of the withdrawal within milliseconds
        while not is_refused:
            answer = await asyncio.to_thread(httpx2.post, stage.files_uri, json={}, headers=headers, timeout=PATIENCE_S)
            is_refused = answer.status_code == 401
    say(f"the client's token is refused: {answer.status_code} {answer.reason_phrase}")


class Memory:
    """The client's storage for its tokens and its registration."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """Return the stored tokens of the client; None before the client has any."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Store the tokens of the client in memory."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the stored registration of the client; None before the client has registered."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Store the registration of the client in memory."""
        self.client = client_info


class Form(HTMLParser):
    """The last form of a page, which is the form that needs no passkey: its URL, and its fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action, self.fields, self._select = "", dict[str, str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read the URL or a field of a form; a later form replaces an earlier form."""
        named = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action, self.fields = named["action"], {}
        elif tag == "input" and named.get("name"):
            self.fields[named["name"]] = named.get("value", "")
        elif tag == "select":
            self._select = named["name"]
        elif tag == "option" and "selected" in named:
            self.fields[self._select] = named["value"]


class Browser:
    """The browser of a person, without scripts. It does not follow a link to another server; `left_to` is then
    the link.
    """

    def __init__(self, server: str) -> None:
        self._own = server.replace("127.0.0.1", "localhost") + "/"
        self._server, self._cookies, self.page, self.left_to = server + "/", dict[str, str](), "", ""
        self._password = ambient.random(16).hex()

    def set_up(self, link: str) -> None:
        """Open a setup link as a person would, and set a password on the page."""
        self._send("GET", link)
        self._submit(password=self._password, repeated=self._password)

    async def follow(self, url: str) -> None:
        """Open an authorization URL, and consent to all scopes except write access."""
        await asyncio.to_thread(self._agree, url)

    async def answer(self) -> AuthorizationCodeResult:
        """Return the authorization response that the browser delivers to the client."""
        query = {name: value for name, (value,) in parse_qs(urlsplit(self.left_to).query).items()}
        return AuthorizationCodeResult(code=query["code"], state=query["state"], iss=query["iss"])

    def withdraw(self) -> None:
        """Withdraw the consent that the page shows."""
        self._send("GET", f"{self._own}consents")
        self._submit()

    def _agree(self, url: str) -> None:
        self._send("GET", url)
        self._submit(decision="allow", **{"scope.files:write": ""})

    def _submit(self, **fields: str) -> None:
        form = Form(self.page)
        sent = {name: value for name, value in {**form.fields, **fields}.items() if value}
        self._send("POST", urljoin(self._own, form.action), sent)

    def _send(self, method: str, url: str, fields: dict[str, str] | None = None) -> None:
        if not url.startswith((self._own, self._server)):
            self.left_to = url
            return
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        answer = httpx2.request(method, url, data=fields, headers=headers, timeout=PATIENCE_S, trust_env=False)
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        self.page = answer.text
        if answer.is_error:
            raise Unavailable(f"the server answered the browser with {answer.status_code}: {self.page}")
        if answer.is_redirect:
            self._send("GET", urljoin(url, answer.headers["location"]))
        elif (onward := _CONTINUE.search(self.page)) is not None:
            self._send("GET", onward[1].replace("&amp;", "&"))
