"""Connected accounts: consent, access tokens for agents, rotation of refresh tokens, revocation at the provider."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.patience import eventually_async
from ostiary.authorization.bounds import parse_details
from ostiary.protocol.errors import Invalid
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets.flows import connected_accounts as flows
from ostiaryd.secrets.model.connected_account import ATTEMPT_LIFETIME, PRESETS, AccountState, check_provider
from ostiaryd.secrets.store import connected_accounts as store
from ostiaryd.secrets.store import leases as lease_store
from ostiaryd.tasks import flows as tasks
from tests.secrets.account_fixtures import NAME, SCOPES, AccountStage, provider_of, second_server, stage_of, token_of
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, permit_all, seal_all, unseal
from tests.support.api_fixtures import Client, reconfigured, register
from tests.support.certificate_fixtures import put_policies
from tests.support.page_client import signed_in
from tests.support.role_fixtures import ask
from tests.support.token_provider import SECRET, TokenProvider, token_provider
from tests.support.trust_fixtures import API

SECOND = 1_000_000


@pytest.fixture
def upstream() -> Iterator[TokenProvider]:
    with token_provider() as made:
        yield made


@pytest.fixture
def here(world: World) -> World:
    return reconfigured(world, private_hosts="127.0.0.1")


@pytest.fixture
async def app(here: World) -> ASGIApp:
    await permit_all(here)
    return build_app(here)


@pytest.fixture
async def stage(here: World, app: ASGIApp, upstream: TokenProvider, clock: Clock) -> AccountStage:
    stage = await stage_of(here, app, upstream, clock)
    await stage.add()
    return stage


def entries(world: World, action: str) -> list[dict[str, Any]]:
    found = [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": action}, limit=50)]
    return [{"detail": entry.detail or {}, "person": entry.person, "agent": entry.agent} for entry in found]


def read_all(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_an_agent_gets_a_short_token_of_the_account_that_its_person_connected(
    stage: AccountStage, world: World
) -> None:
    upstream = stage.upstream
    bot = await stage.agent()
    refused = await token_of(bot)
    assert (refused.status, refused.json["errors"][0]) == (403, "the person has connected no account at Code")
    location = await stage.begin()
    asked = dict(parse_qsl(urlsplit(location).query))
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"https://ostiary.example.org/accounts/{NAME}/callback"
    assert asked["scope"] == " ".join(SCOPES)
    assert await stage.finish(location) == 303
    account = stage.account()
    assert account is not None
    assert (account.state, account.scopes) == (AccountState.ACTIVE, frozenset(SCOPES))
    await stage.browser.get("/accounts")
    assert "Disconnect" in stage.browser.text
    answer = await token_of(bot)
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert data == {
        "access_token": "access-2",
        "token_type": "Bearer",
        "scopes": list(SCOPES),
        "provider": NAME,
        "person": account.person,
        "expires_at": world.now() // SECOND + 300,
    }
    assert (answer.json["lease_id"].startswith(f"oauth/creds/{NAME}/"), answer.json["lease_duration"]) == (True, 300)
    assert list(upstream.live) == ["refresh-2"]
    narrow = await token_of(bot, SCOPES[0])
    assert narrow.json["data"]["scopes"] == [SCOPES[0]]
    assert upstream.asked[-1][1]["scope"] == SCOPES[0]
    wider = await token_of(bot, "notes:delete")
    assert (wider.status, "did not consent" in wider.json["errors"][0]) == (400, True)
    [first] = [one for one in entries(world, "account.refresh") if one["detail"]["scopes"] == list(SCOPES)]
    assert (first["person"], first["agent"], first["detail"]["provider"]) == (account.person, bot.client.id, NAME)


async def test_a_person_consents_to_a_part_of_the_scopes(stage: AccountStage) -> None:
    bot = await stage.agent()
    await stage.browser.get(f"/accounts/{NAME}")
    form = stage.browser.form(f"/accounts/{NAME}")
    form.pop("scope-2")
    await stage.browser.post(f"/accounts/{NAME}", **form)
    location = stage.browser.text.split('content="0; url=')[1].split('"')[0].replace("&amp;", "&")
    assert await stage.finish(location) == 303
    assert (await token_of(bot)).json["data"]["scopes"] == [SCOPES[0]]
    assert (await token_of(bot, SCOPES[1])).status == 400
    form = {"form_token": form["form_token"], "scope-1": "admin"}
    await stage.browser.post(f"/accounts/{NAME}/end", form_token=form["form_token"])
    await stage.settle()
    assert (await stage.browser.post(f"/accounts/{NAME}", **form)).status == 422
    assert "does not offer the scope" in stage.browser.text
    del form["scope-1"]
    assert (await stage.browser.post(f"/accounts/{NAME}", **form)).status == 422
    assert "at least one scope" in stage.browser.text


async def test_an_account_token_is_issued_only_for_a_task_on_behalf_of_the_person(
    stage: AccountStage, world: World
) -> None:
    await stage.connect()
    alone = await stage.agent("alone", behalf=None)
    assert "has no person on whose behalf" in (await token_of(alone)).json["errors"][0]
    await act(world, "test.person", lambda a: registry.create_person(a, name="eve"))
    foreign = await stage.agent("foreign", owner="eve")  # an administrator declared the task
    answer = await token_of(foreign)
    assert (answer.status, "has given the agent no consent" in answer.json["errors"][0]) == (403, True)
    other = await stage.agent("other", owner="eve", behalf="eve")
    assert "connected no account" in (await token_of(other)).json["errors"][0]


async def test_a_provider_response_is_accepted_only_in_the_session_of_its_attempt(
    stage: AccountStage, app: ASGIApp, world: World, clock: Clock
) -> None:
    eve = await signed_in(world, app, "eve")
    location = await stage.begin()
    eve_location = await stage.begin(browser=eve)
    code = stage.upstream.grant(eve_location)["code"]
    assert await stage.finish(location, browser=eve) == 403  # the state of another person
    assert await stage.finish(location, code=code) == 403  # a code for another verifier
    assert await stage.finish(location, state="x" * 43) == 403
    assert await stage.finish(location, state=None) == 403
    assert await stage.finish(location, iss="https://other.example") == 403
    assert await stage.finish(location, iss=None) == 403
    assert await stage.finish(location, code=None) == 403
    assert await stage.finish(location, error="access_denied") == 403
    cookies = dict(stage.browser.cookies)
    stage.browser.cookies["__Host-ostiary-account"] = eve.cookies["__Host-ostiary-account"]
    assert await stage.finish(location) == 403
    eve.cookies["__Host-ostiary-account"] = cookies["__Host-ostiary-account"]
    assert await stage.finish(location, browser=eve) == 403  # the whole attempt in the browser of another person
    stage.browser.cookies.pop("__Host-ostiary-account")
    assert await stage.finish(location) == 403
    stage.browser.cookies.update(cookies)
    clock.advance(ATTEMPT_LIFETIME // SECOND)
    assert await stage.finish(location) == 403
    assert not stage.accounts()
    location = await stage.begin()
    clock.advance(ATTEMPT_LIFETIME // SECOND - 1)
    assert await stage.finish(location) == 303
    assert stage.upstream.count("/token") == 2  # the code of another verifier, and the last one
    assert await stage.finish(location) == 403, "the attempt has ended"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"token_type": "mac"}, "a token of another type"),
        ({"expires_in": None}, "without an expiry"),
        ({"expires_in": 0}, "without an expiry"),
        ({"scope": "notes:read notes:admin"}, "notes:admin"),
        ({"access_token": "a" * 8193}, "malformed or too long"),
        ({"access_token": "a\u00e9"}, "malformed or too long"),
        ({"access_token": 7}, "not a token response"),
    ],
)
async def test_a_false_provider_response_gives_the_agent_no_token(
    stage: AccountStage, changed: dict[str, Any], message: str
) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    upstream.refreshed = changed
    answer = await token_of(bot)
    assert answer.status == 403, answer.body
    assert message in answer.json["errors"][0]
    upstream.refreshed = {}
    await stage.settle()
    if message not in ("malformed or too long", "not a token response"):
        assert upstream.revoked == ["access-2"]
        assert (await token_of(bot)).status == 200, "the new refresh token was kept"


async def test_a_slow_large_or_redirecting_provider_response_gives_the_agent_no_token(
    stage: AccountStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    upstream.failing = 307
    upstream.headers = {"location": f"{upstream.issuer}/elsewhere"}
    assert (await token_of(bot)).status == 502
    assert upstream.count("/elsewhere") == 0
    upstream.failing, upstream.headers = 503, {}
    assert (await token_of(bot)).status == 502
    monkeypatch.setattr("ostiaryd.secrets.wire_account_tokens.FETCH_S", 0.2)
    upstream.failing, upstream.held = 200, threading.Event()
    upstream.raw = b"x" * 70_000
    live = dict(upstream.live)
    assert (await token_of(bot)).status == 502, "too slow"
    upstream.held.set()
    await eventually_async(lambda: upstream.live != live)
    monkeypatch.undo()
    assert (await token_of(bot)).status == 502, "the lost answer had the new refresh token: its use ends the grant"


async def test_concurrent_refreshes_by_two_servers_do_not_reuse_a_refresh_token(
    stage: AccountStage, world: World
) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    other = build_app(second_server(stage.world))
    first = VaultAgent(replace(bot.client, app=other), bot.name)
    first.token = bot.token
    answers = await asyncio.gather(*(token_of(one) for one in (bot, first) * 3))
    assert [answer.status for answer in answers] == [200] * 6, [answer.body for answer in answers]
    assert len({answer.json["data"]["access_token"] for answer in answers}) == 6
    assert not upstream.reused
    assert len(upstream.live) == 1


async def test_a_shared_token_is_refreshed_once_and_has_all_scopes(
    here: World, app: ASGIApp, upstream: TokenProvider, clock: Clock
) -> None:
    stage = await stage_of(here, app, upstream, clock)
    await stage.add(shares_tokens=True)
    await stage.connect()
    bot = await stage.agent()
    answers = await asyncio.gather(*(token_of(bot) for _ in range(3)))
    assert {answer.json["data"]["access_token"] for answer in answers} == {"access-1"}
    assert upstream.count("/token") == 1
    assert (await token_of(bot, SCOPES[0])).status == 400
    clock.advance(3600 - 300)
    await bot.login(task=bot.task)
    assert (await token_of(bot)).json["data"]["access_token"] == "access-1"
    clock.advance(1)
    answers = await asyncio.gather(*(token_of(bot) for _ in range(3)))
    assert {answer.json["data"]["access_token"] for answer in answers} == {"access-2"}
    assert upstream.count("/token") == 2


async def test_the_end_of_the_task_revokes_the_token_at_the_provider(stage: AccountStage, world: World) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    first = (await token_of(bot)).json
    answer = await bot.ask("POST", "sys/leases/lookup", {"lease_id": first["lease_id"]})
    assert (answer.status, answer.json["data"]["renewable"]) == (200, False)
    assert await bot.status("POST", "sys/leases/renew", {"lease_id": first["lease_id"]}) == 400
    assert not lease_store.has_any(world.db.read(), NAME)  # of a database with the name of the provider
    assert await bot.status("POST", "sys/leases/revoke", {"lease_id": first["lease_id"]}) == 204
    assert await bot.status("POST", "sys/leases/revoke", {"lease_id": first["lease_id"]}) == 204, "it has ended"
    assert await bot.status("POST", "sys/leases/revoke", {"lease_id": f"{first['lease_id']}x"}) == 400
    upstream.revoking = 503
    await stage.settle()
    assert not upstream.revoked
    for _ in range(5):
        await stage.wait(60)
    assert [one["detail"]["leases"] for one in entries(world, "account.stuck")] == [[first["lease_id"]]]
    upstream.revoking = 200
    await stage.wait(600)
    assert upstream.revoked == [first["data"]["access_token"]]
    await bot.login(task=bot.task)
    second = (await token_of(bot)).json
    await act(world, "test.end", lambda a: tasks.end(a, bot.task))
    await stage.settle()
    assert upstream.revoked[1:] == [second["data"]["access_token"]]
    await stage.settle()
    assert len(upstream.revoked) == 2
    assert not store.leases_of(world.db.read(), stage.accounts()[0].account_id, limit=10)


async def test_a_token_that_has_expired_is_not_revoked(stage: AccountStage) -> None:
    await stage.connect()
    bot = await stage.agent()
    assert (await token_of(bot)).status == 200
    await stage.wait(3600)
    assert stage.upstream.count("/revoke") == 0
    assert not store.leases_of(stage.world.db.read(), stage.accounts()[0].account_id, limit=10)


async def test_a_connection_ended_by_the_provider_is_unusable_until_the_person_reconnects(
    stage: AccountStage, world: World
) -> None:
    await stage.connect()
    bot = await stage.agent()
    token = (await token_of(bot)).json["data"]["access_token"]
    stage.upstream.end_grants()
    answer = await token_of(bot)
    assert (answer.status, "has ended the connection" in answer.json["errors"][0]) == (403, True)
    asked = stage.upstream.count("/token")
    assert (await token_of(bot)).status == 403
    assert stage.upstream.count("/token") == asked
    assert len(entries(world, "account.break")) == 1
    await stage.browser.get("/accounts")
    assert "until you connect the account again" in stage.browser.text
    await stage.connect()
    await stage.settle()
    assert stage.upstream.revoked == [token], "no end of the new connection would reach it"
    assert (await token_of(bot)).status == 200
    assert len(stage.accounts()) == 1


async def test_the_end_of_a_connection_ends_its_tokens_and_revokes_the_grant(stage: AccountStage, world: World) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    token = (await token_of(bot)).json["data"]["access_token"]
    upstream.revoking = 503
    await stage.browser.get("/accounts")
    await stage.browser.submit(f"/accounts/{NAME}/end")
    assert (await token_of(bot)).status == 403
    await stage.settle()
    await stage.browser.get(f"/accounts/{NAME}")
    await stage.browser.submit(f"/accounts/{NAME}")
    assert stage.browser.answer.status == 409, "the earlier grant is still to be revoked"
    for _ in range(5):
        await stage.wait(60)
    assert [one["detail"].get("account") for one in entries(world, "account.stuck")] != []
    upstream.revoking = 200
    await stage.wait(600)
    assert set(upstream.revoked) == {token, "refresh-2"}
    assert not stage.accounts()
    await stage.connect()


@pytest.mark.parametrize("kind", ["left", "removed", "role"])
async def test_access_to_an_account_ends_with_the_person_the_provider_or_the_role(
    here: World, app: ASGIApp, upstream: TokenProvider, clock: Clock, kind: str
) -> None:
    world = here
    stage = await stage_of(here, app, upstream, clock)
    await stage.add(roles=("viewer",))
    await stage.browser.get(f"/accounts/{NAME}")
    assert stage.browser.answer.status == 403
    await act(world, "test.role", lambda a: registry.grant_role(a, "ann", "viewer"))
    await stage.connect()
    bot = await stage.agent()
    assert (await token_of(bot)).status == 200
    if kind == "role":
        await act(world, "test.role", lambda a: registry.revoke_role(a, "ann", "viewer"))
        assert (await token_of(bot)).status == 403
        return
    if kind == "left":
        await act(world, "test.leave", lambda a: registry.revoke_owner(a, "ann"))
        await act(world, "test.return", lambda a: registry.return_person(a, "ann"))
    else:
        await act(world, "test.remove", lambda a: flows.remove_provider(a, NAME))
    assert (await token_of(bot)).status in (403, 404)
    for _ in range(3):
        await stage.settle()
    assert set(upstream.revoked) == {"access-2", "refresh-2"}
    assert not stage.accounts()
    assert (store.provider(world.db.read(), NAME) is None) == (kind == "removed")


async def test_accounts_of_a_removed_provider_end_while_other_revocations_are_pending(
    stage: AccountStage, world: World, app: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.secrets.flows.connected_accounts.ENDED_AT_ONCE", 1)
    await stage.connect()
    bob = await signed_in(world, app, "bob")
    assert await stage.finish(await stage.begin(browser=bob), browser=bob) == 303
    stage.upstream.revoking = 503
    await act(world, "test.remove", lambda a: flows.remove_provider(a, NAME))
    assert sorted(account.state for account in stage.accounts()) == ["active", "ending"]
    await stage.settle()
    assert [account.state for account in stage.accounts()] == ["ending", "ending"]


async def test_sealed_secrets_prevent_a_refresh_and_keep_a_pending_refresh_response(
    stage: AccountStage, world: World
) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    upstream.held = threading.Event()
    waiting = asyncio.create_task(token_of(bot))
    await eventually_async(lambda: upstream.count("/token") == 2)
    await seal_all(world)
    upstream.held.set()
    assert (await waiting).status == 503, "nobody gets the token"
    assert (await token_of(bot)).status == 503
    assert upstream.count("/token") == 2
    assert (await stage.browser.get(f"/accounts/{NAME}")).status == 200
    await stage.settle()
    assert not upstream.revoked
    await unseal(world)
    await stage.settle()
    assert upstream.revoked == ["access-2"]
    assert (await token_of(bot)).status == 200
    assert not upstream.reused


async def test_a_client_that_hangs_up_loses_no_refresh_token(stage: AccountStage) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    upstream.held = threading.Event()
    waiting = asyncio.create_task(token_of(bot))
    await eventually_async(lambda: upstream.count("/token") == 2)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    upstream.held.set()
    assert (await token_of(bot)).status == 200
    assert not upstream.reused


@pytest.mark.parametrize("is_connected_again", [False, True])
async def test_tokens_from_a_refresh_of_an_ended_account_are_revoked(
    stage: AccountStage, world: World, is_connected_again: bool
) -> None:
    upstream = stage.upstream
    await stage.connect()
    bot = await stage.agent()
    account = stage.account()
    assert account is not None
    end = partial(flows.end_account, account_id=account.account_id, is_forgotten=True)
    upstream.held = threading.Event()
    waiting = asyncio.create_task(token_of(bot))
    await eventually_async(lambda: upstream.count("/token") == 2)
    await act(world, "account.end", end)
    if is_connected_again:
        held, upstream.held = upstream.held, None
        await stage.connect()
        held.set()
    else:
        upstream.held.set()
    assert (await waiting).status == 403
    await stage.settle()
    if is_connected_again:
        assert upstream.revoked == ["access-3"], "the end of the new refresh token could end the present connection"
        assert (await token_of(bot)).status == 200
    else:
        assert set(upstream.revoked) == {"access-2", "refresh-2"}


async def test_a_provider_that_was_added_again_gets_no_tokens_of_its_predecessor(
    stage: AccountStage, world: World
) -> None:
    location = await stage.begin()
    upstream = stage.upstream
    upstream.held = threading.Event()
    waiting = asyncio.create_task(stage.finish(location))
    await eventually_async(lambda: upstream.count("/token") == 1)
    await act(world, "test.remove", lambda a: flows.remove_provider(a, NAME))
    await stage.add(added_at=1)
    upstream.held.set()
    assert await waiting == 409
    assert not stage.accounts()
    assert upstream.count("/revoke") == 0, "the provider before gets no client secret of the present one"


async def test_bounds_and_policies_see_path_and_scopes(stage: AccountStage, world: World) -> None:
    await stage.connect()
    await put_policies(
        world,
        POLICIES
        + """@id("no-writing") forbid (principal, action == Action::"read_account_token", resource)
             when { context.token_scopes.contains("notes:write") };
             @id("tokens") permit (principal, action == Action::"read_account_token", resource)
             when { resource.mount == "oauth" && resource.path == "creds/code" };""",
    )
    bot = await stage.agent()
    assert (await token_of(bot)).status == 403
    assert (await token_of(bot, SCOPES[0])).status == 200
    bound = {
        "type": "tool",
        "locations": [API],
        "actions": ["read_account_token"],
        "arguments": {"path": {"one_of": ["oauth/creds/other"]}},
    }
    bounded = await stage.agent("bounded", bounds=parse_details([bound]))
    assert (await token_of(bounded, SCOPES[0])).status == 403
    bound["arguments"] = {"path": {"one_of": ["oauth/creds/code"]}}
    bounded = await stage.agent("within", bounds=parse_details([bound]))
    assert (await token_of(bounded, SCOPES[0])).status == 200


async def test_an_agent_without_permission_cannot_detect_which_providers_exist(
    stage: AccountStage, world: World
) -> None:
    async def answers(agent: VaultAgent) -> list[tuple[int, bytes]]:
        asked = [await agent.ask("GET", f"oauth/creds/{name}") for name in (NAME, "none")]
        asked += [await agent.ask("POST", f"oauth/creds/{name}", {"scopes": ["a"]}) for name in (NAME, "none")]
        return [(one.status, one.body) for one in asked]

    bot, alone = await stage.agent(), await stage.agent("alone", behalf=None)
    tokens = 'permit (principal is Agent, action == Action::"issue_token", resource is Resource);'
    for is_connected in (False, True):
        await stage.connect() if is_connected else None
        await put_policies(world, tokens)
        for agent in (bot, alone):
            present, missing, *with_scopes = await answers(agent)
            assert present == missing == with_scopes[0] == with_scopes[1], "one answer"
            assert present[0] == 403
        await permit_all(world)
        (status, body), missing, *_ = await answers(bot)
        assert missing[0] != 403, "an agent with rights is told what is wrong"
        assert (status, b"connected no account" in body) == ((200, False) if is_connected else (status, True))


async def test_no_token_is_in_the_ledger_or_in_clear_in_the_database(
    stage: AccountStage, world: World, database: str, tmp_path: Path
) -> None:
    await stage.connect()
    bot = await stage.agent()
    await token_of(bot)
    bodies = b"".join(body for _, body in ledger.search_entries(world.db.read(), {}, limit=1000))
    if database == "sqlite":
        bodies += read_all(tmp_path)
    assert [word in bodies for word in (b"access-2", b"refresh-2", b"refresh-1", SECRET.encode())] == [False] * 4


async def test_an_account_broken_by_a_recovery_is_unusable_until_the_person_reconnects(
    stage: AccountStage, world: World
) -> None:
    await stage.connect()
    bot = await stage.agent()
    assert await act(world, "test.recover", flows.break_all_accounts) == 1
    assert await act(world, "test.recover", flows.break_all_accounts) == 0
    assert (await token_of(bot)).status == 403
    await stage.connect()
    assert (await token_of(bot)).status == 200


async def test_the_person_and_the_administrator_see_which_agents_have_access(stage: AccountStage, world: World) -> None:
    await stage.connect()
    bot, other = await stage.agent(), await stage.agent("other")
    first = (await token_of(bot)).json
    assert (await token_of(other)).status == 200
    agent, key = await register(world, name="reader", scopes=(READ,))
    reader = Client(stage.app, world, agent.agent_id, key)

    async def shown() -> list[str]:
        answer = await ask(reader, "GET", "/api/v1/connected-accounts")
        assert answer.status == 200, answer.body
        [account] = answer.json["accounts"]
        await stage.browser.get("/accounts")
        assert (", ".join(account["agents"]) or "none") in stage.browser.text
        return list(account["agents"])

    assert await shown() == ["bot", "other"]
    leases = (await ask(reader, "GET", "/api/v1/leases")).json["leases"]
    assert {one["agent_name"] for one in leases} == {"bot", "other"}
    assert await bot.status("POST", "sys/leases/revoke", {"lease_id": first["lease_id"]}) == 204
    await stage.settle()
    assert await shown() == ["other"]


@pytest.mark.parametrize(
    ("method", "secret", "message"),
    [
        ("client_secret_basic", "", "the authentication `client_secret_basic` needs a client secret"),
        ("client_secret_post", "", "the authentication `client_secret_post` needs a client secret"),
        ("none", "s3cret", "the authentication `none` cannot be combined with a client secret"),
        ("private_key_jwt", "s3cret", "the authentication `private_key_jwt` cannot be combined with a client secret"),
        ("client_secret_post", "s3cret", ""),
        ("none", "", ""),
    ],
)
async def test_a_provider_has_a_client_secret_exactly_if_its_authentication_needs_one(
    here: World, app: ASGIApp, method: str, secret: str, message: str
) -> None:
    agent, key = await register(here, name="keeper", scopes=(ADMIN,))
    keeper = Client(app, here, agent.agent_id, key)
    endpoints = {name: f"https://code.example/{name}" for name in ("authorization_endpoint", "token_endpoint")}
    body = {"name": NAME, "client_id": "c", "client_secret": secret, "authentication": method, **endpoints}
    answer = await ask(keeper, "POST", "/api/v1/account-providers", body)
    assert (answer.status, answer.json.get("message", "")) == (422 if message else 201, message), answer.body


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"state": "x"}, "the parameter 'state' is a parameter of the protocol, which the server sets"),
        ({"": "x"}, "the parameter '' must have a name of 1 to 64 characters, and a value of 1 to 255"),
        (
            {"a" * 65: "x"},
            f"the parameter {'a' * 64!r} must have a name of 1 to 64 characters, and a value of 1 to 255",
        ),
        ({"a": ""}, "the parameter 'a' must have a name of 1 to 64 characters, and a value of 1 to 255"),
        ({"a": "x" * 256}, "the parameter 'a' must have a name of 1 to 64 characters, and a value of 1 to 255"),
        ({"a": "\n"}, "the parameter 'a' is not printable ASCII"),
    ],
)
def test_a_parameter_of_a_provider_is_refused_with_its_fault(
    upstream: TokenProvider, parameters: dict[str, str], message: str
) -> None:
    check_provider(provider_of(upstream, parameters={"a" * 64: "x" * 255}))
    with pytest.raises(Invalid) as refused:
        check_provider(provider_of(upstream, parameters=parameters))
    assert refused.value.message == message


@pytest.mark.parametrize("preset", [name for name, one in PRESETS.items() if one.token_endpoint])
async def test_a_provider_gets_the_endpoints_and_the_rules_of_its_preset(
    here: World, app: ASGIApp, preset: str
) -> None:
    agent, key = await register(here, name="keeper", scopes=(ADMIN,))
    keeper = Client(app, here, agent.agent_id, key)
    body = {"name": preset, "client_id": "c", "client_secret": "s3cret", "preset": preset}
    assert (await ask(keeper, "POST", "/api/v1/account-providers", body)).status == 201
    made, expected = flows.find_provider(here.db.read(), preset), PRESETS[preset]
    for name in ("label", "authorization_endpoint", "token_endpoint", "separator", "token_type", "shares_tokens"):
        assert getattr(made, name) == getattr(expected, name)
    assert urlsplit(made.token_endpoint).scheme == urlsplit(made.authorization_endpoint).scheme == "https"
