"""Login of people: passwords, sessions, and the forms and cookies that carry them."""

from __future__ import annotations

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.trust.flows.passwords import PasswordHashing
from ostiaryd.trust.model.sessions import LOGIN_COOKIE, SESSION_COOKIE
from ostiaryd.trust.model.throttle import FREE_OF_ACCOUNT
from tests.support.page_client import PASSWORD, PageClient, invite, signed_in

SECOND = 1_000_000
STRICT = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
def browser(app: ASGIApp) -> PageClient:
    return PageClient(app)


async def test_a_setup_link_sets_a_password_once_and_signs_in(world: World, app: ASGIApp, browser: PageClient) -> None:
    url = await invite(world)
    assert url.startswith("https://ostiary.example.org/setup?code=")
    await browser.set_up(url)
    assert browser.path == "/account"
    assert "ann" in browser.text
    assert newest_entry(world).action == "person.set_up"
    other = PageClient(app)
    answer = await other.get(url.removeprefix("https://ostiary.example.org"))
    assert answer.status == 404
    assert "used before, or has expired" in other.text


async def test_name_and_password_sign_in_and_logout_ends_the_session(
    world: World, app: ASGIApp, browser: PageClient
) -> None:
    await signed_in(world, app)
    await browser.log_in(path="/login?return_to=/account")
    assert browser.path == "/account"
    entry = newest_entry(world)
    assert (entry.action, entry.person, entry.network) == ("person.login", registry_id(world), "198.51.100.0/24")
    cookie = browser.cookies[SESSION_COOKIE]
    await browser.submit("/account/logout")
    assert browser.path == "/login"
    assert SESSION_COOKIE not in browser.cookies
    browser.cookies[SESSION_COOKIE] = cookie
    await browser.get("/account")
    assert browser.path.startswith("/login")


def registry_id(world: World, name: str = "ann") -> str:
    return registry.find_person(world.db.read(), name).person_id


async def test_every_page_has_the_strict_headers_and_no_script(app: ASGIApp, browser: PageClient) -> None:
    for path in ("/login", "/setup?code=wrong"):
        answer = await browser.get(path)
        assert {name: answer.headers[name] for name in STRICT} == STRICT
        assert not browser.scripts


@pytest.mark.parametrize("name", ["ann", "nobody"])
async def test_known_and_unknown_names_get_the_same_answer_for_the_same_work(
    world: World, app: ASGIApp, name: str
) -> None:
    await signed_in(world, app)
    browser, hashing = PageClient(app, follows=False), world.keep(PasswordHashing)
    for count in range(1, FREE_OF_ACCOUNT + 2):
        before = hashing.computed
        answer = await browser.log_in(name, "another password")
        assert (answer.status, hashing.computed - before) == (403, 1), count
        assert "Name or password is wrong" in browser.text
    answer = await browser.log_in(name, "another password")
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")


async def test_a_login_cookie_from_before_is_worth_nothing_afterwards(world: World, app: ASGIApp) -> None:
    browser = await signed_in(world, app)
    first = browser.cookies[SESSION_COOKIE]
    await browser.log_in(path="/login?prompt=login")
    assert browser.cookies[SESSION_COOKIE] != first
    thief = PageClient(app, cookies={SESSION_COOKIE: first})
    await thief.get("/account")
    assert thief.path.startswith("/login")


async def test_a_form_from_elsewhere_is_refused(world: World, app: ASGIApp, browser: PageClient) -> None:
    await signed_in(world, app)
    await browser.get("/login")
    for origin, change in (
        ("https://evil.example", {}),
        ("null", {}),
        ("https://ostiary.example.org", {"form_token": "x"}),
        (None, {"form_token": ""}),
    ):
        browser.origin = origin
        answer = await browser.post(
            "/login", **{**browser.form("/login"), "name": "ann", "password": PASSWORD, **change}
        )
        assert answer.status == 403
        assert SESSION_COOKIE not in browser.cookies
        await browser.get("/login")
    browser.origin = None  # an old browser sends none; the token decides
    await browser.log_in()
    assert browser.path == "/account"


async def test_a_person_who_leaves_has_no_session_and_no_password_even_after_the_return(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    browser = await signed_in(world, app)
    clock.advance(1)
    await act(world, "person.leave", lambda one: registry.revoke_owner(one, "ann"))
    await browser.get("/account")
    assert browser.path.startswith("/login")
    await act(world, "person.return", lambda one: registry.return_person(one, "ann"))
    await browser.get("/account")
    assert browser.path.startswith("/login")
    answer = await browser.log_in()
    assert answer.status == 403


async def test_a_second_cookie_of_the_name_is_no_session(world: World, app: ASGIApp) -> None:
    browser = await signed_in(world, app)
    mine = browser.cookies.pop(SESSION_COOKIE)
    browser.cookies = {f"{SESSION_COOKIE}=planted; {SESSION_COOKIE}": mine}
    await browser.get("/account")
    assert browser.path.startswith("/login")
    browser.cookies = {SESSION_COOKIE.removeprefix("__Host-"): mine}
    await browser.get("/account")
    assert browser.path.startswith("/login")


async def test_the_login_cookie_is_accepted_only_as_we_made_it(app: ASGIApp, browser: PageClient, clock: Clock) -> None:
    await browser.get("/login")
    made = browser.cookies[LOGIN_COOKIE]
    browser.cookies[LOGIN_COOKIE] = "x" + made
    await browser.get("/login")
    assert browser.cookies[LOGIN_COOKIE] not in (made, "x" + made)
