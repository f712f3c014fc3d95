"""A person who connects an account at a provider, and an agent that works on behalf of the person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp

from harness.clock import Clock
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.secrets.flows import connected_accounts as flows
from ostiaryd.secrets.model.connected_account import AccountProvider, ConnectedAccount
from ostiaryd.secrets.store import connected_accounts
from ostiaryd.secrets.wire_account_tokens import AccountRefreshes, end_due
from ostiaryd.secrets.wire_leases import revoke_due
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.secrets.vault_fixtures import VaultAgent, enter_agent
from tests.support.api_fixtures import Answer, register
from tests.support.page_client import PageClient, signed_in
from tests.support.token_provider import CLIENT, SECRET, TokenProvider

NAME = "code"
SCOPES = ("notes:read", "notes:write")


def provider_of(upstream: TokenProvider, **changes: Any) -> AccountProvider:
    """The registration of the server at that provider."""
    fields: dict[str, Any] = {
        "name": NAME,
        "label": "Code",
        "preset": "",
        "issuer": upstream.issuer,
        "authorization_endpoint": f"{upstream.issuer}/authorize",
        "token_endpoint": f"{upstream.issuer}/token",
        "revocation_endpoint": f"{upstream.issuer}/revoke",
        "states_issuer": True,
        "client_id": CLIENT,
        "authentication": "client_secret_basic",
        "signing_alg": "ES256",
        "scopes": SCOPES,
        "parameters": {},
        "token_type": "bearer",
        "separator": " ",
        "shares_tokens": False,
        "revokes_each": True,
        "roles": (),
        "added_at": 0,
    }
    return AccountProvider(**{**fields, **changes})


class AccountAgent(VaultAgent):
    """An agent with its task."""

    task = ""


class AccountStage:
    """A server with a provider, the browser of the person `ann`, and an agent of hers with a task on her behalf."""

    def __init__(self, world: World, app: ASGIApp, upstream: TokenProvider, clock: Clock, browser: PageClient) -> None:
        self.world, self.app, self.upstream, self.clock, self.browser = world, app, upstream, clock, browser

    async def add(self, **changes: Any) -> AccountProvider:
        provider = provider_of(self.upstream, **changes)
        return await act(self.world, "test.add", lambda a: flows.add_provider(a, provider, client_secret=SECRET))

    async def begin(self, *, browser: PageClient | None = None, name: str = NAME, **fields: str) -> str:
        """Consent to the connection; the URL at the provider."""
        browser = browser or self.browser
        await browser.get(f"/accounts/{name}")
        await browser.submit(f"/accounts/{name}", **fields)
        assert browser.answer.status == 200, browser.text
        return browser.text.split('content="0; url=')[1].split('"')[0].replace("&amp;", "&")

    async def finish(self, location: str, *, browser: PageClient | None = None, **changed: str | None) -> int:
        """Bring the answer of the provider."""
        browser, was = browser or self.browser, (browser or self.browser).follows
        answer = {name: value for name, value in {**self.upstream.grant(location), **changed}.items() if value}
        browser.follows = False
        try:
            return (await browser.get(f"/accounts/{NAME}/callback?{urlencode(answer)}")).status
        finally:
            browser.follows = was

    async def connect(self) -> None:
        """Connect the account."""
        status = await self.finish(await self.begin())
        assert status == 303, self.browser.text

    async def agent(
        self, name: str = "bot", *, behalf: str | None = "ann", bounds: Any = (), **more: Any
    ) -> AccountAgent:
        """An agent with a task on behalf of a person, logged in."""
        entered = await enter_agent(self.world, self.app, name, **more)
        spec = TaskSpec(agent=name, purpose="notes", on_behalf_of=behalf, bounds=bounds, ttl_s=86_400)
        task = await act(self.world, "test.task", lambda a: tasks.start(a, spec))
        agent = AccountAgent(entered.client, name)
        agent.task = str(task.task_id)
        await agent.login(task=agent.task)
        return agent

    def account(self, person: str | None = None) -> ConnectedAccount | None:
        """The account of ann."""
        found = [one for one in self.accounts() if person in (None, one.person)]
        return found[0] if found else None

    def accounts(self) -> list[ConnectedAccount]:
        from ostiaryd.ground.http.pages import Page

        return connected_accounts.page(self.world.db.read(), Page(100, ""))

    async def wait(self, seconds: int) -> None:
        """Let time pass, then run a round."""
        self.clock.advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        """Run one round of the loops that end leases and connections, to its end."""
        await revoke_due(self.world)
        await end_due(self.world)
        task = self.world.get_singleton(AccountRefreshes).revoking
        assert task is not None
        await task


def second_server(world: World) -> World:
    """Another server of the same database: nothing in memory is shared but the writer."""
    return replace(world, _singletons={})


async def stage_of(world: World, app: ASGIApp, upstream: TokenProvider, clock: Clock) -> AccountStage:
    """The stage, with ann signed in."""
    await register(world, name="first")  # beside the resources of the server
    return AccountStage(world, app, upstream, clock, await signed_in(world, app))


async def token_of(bot: VaultAgent, *scopes: str) -> Answer:
    """Ask for an access token of the account."""
    return await bot.ask("POST", f"oauth/creds/{NAME}", {"scopes": list(scopes)} if scopes else {})
