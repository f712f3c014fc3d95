"""Login of people: passwords, sessions, and the forms and cookies that carry them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.authorization.assurance import PERSON_MFA, PERSON_PHR
from ostiary.protocol.errors import Conflict, Invalid
from ostiary.protocol.jose import b64u
from ostiaryd import trust
from ostiaryd.app import build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as log
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.store import get_head
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.flows import credentials, passkeys, passwords, prune
from ostiaryd.trust.flows.browsers import LIFETIME_S as BROWSER_S
from ostiaryd.trust.flows.logins import MAX_NAME
from ostiaryd.trust.flows.passkeys import NewPasskey, UsedPasskey, parse_challenge, parse_response
from ostiaryd.trust.flows.passwords import (
    LONGEST,
    MAX_KNOWN,
    MAX_OF_NETWORK,
    MAX_WAITING,
    SHORTEST,
    PasswordHashing,
    TooManyLogins,
    check_password,
)
from ostiaryd.trust.flows.sessions import (
    begin_session,
    end_session,
    end_sessions,
    end_sessions_of_provider,
)
from ostiaryd.trust.flows.setup import SetupLink, create_setup_link
from ostiaryd.trust.model import Spend
from ostiaryd.trust.model.passkeys import MAX_PASSKEY_NAME, MAX_PASSKEYS, PasskeyRefused
from ostiaryd.trust.model.sessions import (
    BROWSER_COOKIE,
    LOGIN_COOKIE,
    MAX_SESSIONS,
    SESSION_COOKIE,
    Proof,
    parse_return,
)
from ostiaryd.trust.model.throttle import (
    ACCOUNT,
    BROWSER,
    CODE,
    LONGEST_WAIT,
    NETWORK,
    Failures,
    Limit,
    count_failure,
    wait_until,
)
from ostiaryd.trust.model.totp import STEP, hotp, match_code
from ostiaryd.trust.store.people import find_passkey, sessions_of
from ostiaryd.trust.wire_account import RECENT_S
from tests.support.api_fixtures import reconfigured, send
from tests.support.authenticator import PRESENT, Authenticator
from tests.support.database_changes import change_database, complete_state_check
from tests.support.page_client import PASSWORD, PageClient, add_passkey, add_totp, invite, recovery_codes, signed_in
from tests.support.world import PUBLIC_URL

SECOND = 1_000_000
ISSUER = "https://idp.example.org"
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


async def test_times_of_sessions_and_passkeys_are_seconds_in_the_api(world: World, app: ASGIApp) -> None:
    browser = await signed_in(world, app)
    await add_passkey(browser)
    await act(world, "role.grant", lambda a: registry.grant_role(a, "ann", "viewer"))
    now = world.now() // SECOND
    [session] = (await browser.get("/api/v1/persons/ann/sessions")).json["sessions"]
    assert session["expires_at"] == session["created_at"] + world.config.session_lifetime_s
    assert {session[name] for name in ("authenticated_at", "created_at", "used_at")} <= {now - 1, now}
    [passkey] = (await browser.get("/api/v1/persons/ann/login")).json["passkeys"]
    assert passkey["added_at"] == now
    assert passkey["used_at"] is None


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
    assert "was replaced by a newer one, or has expired" in other.text


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


async def test_the_fields_of_the_pages_have_the_limits_of_the_code(
    world: World, app: ASGIApp, browser: PageClient
) -> None:
    def limits(page: PageClient, id: str) -> dict[str, int]:
        [field] = re.findall(rf'<input id="{id}"[^>]*>', page.text)
        return {name: int(number) for name, number in re.findall(r'(m..length)="(\d+)"', field)}

    new_password = {"minlength": SHORTEST, "maxlength": LONGEST}
    await browser.get((await invite(world)).removeprefix("https://ostiary.example.org"))
    assert limits(browser, "label") == {"maxlength": MAX_PASSKEY_NAME}
    assert limits(browser, "password") == limits(browser, "repeated") == new_password
    await browser.get("/login")
    assert limits(browser, "name") == {"maxlength": MAX_NAME}
    assert limits(browser, "password") == {"maxlength": LONGEST}
    signed = await signed_in(world, app)
    await signed.get("/account")
    assert limits(signed, "password") == limits(signed, "repeated") == new_password
    await signed.get("/account/passkeys")
    assert limits(signed, "label") == {"maxlength": MAX_PASSKEY_NAME}
    numbers = {
        (path.name, number)
        for path in Path(trust.__file__).parent.glob("pages/*.html")
        for number in re.findall(r'm..length="(\d+)"', path.read_text("utf-8"))
    }
    assert numbers == {("parts.html", "20")}, "a page repeats no constant; a code has no constant for its longest form"


async def test_every_page_has_the_strict_headers(world: World, app: ASGIApp, browser: PageClient) -> None:
    scripts = {}
    signed = await signed_in(world, app)
    pages = [(browser, path) for path in ("/login", "/setup?code=wrong")]
    pages += [(signed, path) for path in ("/account", "/account/totp", "/account/passkeys", "/login?prompt=login")]
    for one, path in pages:
        answer = await one.get(path)
        csp = answer.headers["content-security-policy"]
        scripts[path] = one.scripts
        assert csp == STRICT["content-security-policy"] + ("; script-src 'self'" if one.scripts else "")
        assert {name: answer.headers[name] for name in STRICT if name not in ("content-security-policy",)} == {
            name: value for name, value in STRICT.items() if name != "content-security-policy"
        }
        assert "style=" not in one.text
        assert " on" not in re.sub(r">[^<]*<", "><", one.text).replace(" on one", ""), "an inline handler"
    assert {path for path, found in scripts.items() if found} == {"/login", "/account/passkeys", "/login?prompt=login"}
    assert all(re.fullmatch(r"/assets/passkey-[0-9a-f]{16}\.js", src) for found in scripts.values() for src in found)


@pytest.mark.parametrize("name", ["ann", "nobody"])
async def test_a_failed_login_gets_the_same_response_at_the_same_cost_for_known_and_unknown_names(
    world: World, app: ASGIApp, name: str
) -> None:
    await signed_in(world, app)
    browser, hashing = PageClient(app, follows=False), world.get_singleton(PasswordHashing)
    for count in range(1, ACCOUNT.free + 2):
        before = hashing.computed
        answer = await browser.log_in(name, "another password")
        assert (answer.status, hashing.computed - before) == (403, 1), count
        assert "Name, password or code is wrong" in browser.text
    answer = await browser.log_in(name, "another password")
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize("name", ["ann", "bob"])
async def test_a_new_login_invalidates_the_session_cookie_of_the_earlier_login(
    world: World, app: ASGIApp, name: str
) -> None:
    await signed_in(world, app, "bob")
    browser = await signed_in(world, app)
    first = browser.cookies[SESSION_COOKIE]
    await browser.log_in(name, path="/login?prompt=login")
    assert browser.path == "/account"
    assert browser.cookies[SESSION_COOKIE] != first
    thief = PageClient(app, cookies={SESSION_COOKIE: first})
    await thief.get("/account")
    assert thief.path.startswith("/login")


async def test_a_login_form_from_another_origin_or_without_its_form_token_is_refused(
    world: World, app: ASGIApp, browser: PageClient
) -> None:
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


@pytest.mark.parametrize("way", ["/login", "/login/passkey", "/login/code"])
async def test_a_login_form_in_a_second_tab_still_works_after_a_login_in_the_first_tab(
    world: World, app: ASGIApp, clock: Clock, way: str
) -> None:
    first = await signed_in(world, app)
    secret, device = await add_totp(first, clock), await add_passkey(first)
    await first.submit("/account/logout")
    second = PageClient(app, cookies=first.cookies)
    await second.get("/login?return_to=/consents")
    sent = second.form("/login/passkey" if way == "/login/passkey" else "/login")
    sent |= {"name": "ann", "password": PASSWORD}
    if way == "/login/passkey":
        sent["credential"] = device.get(second.options("/login/passkey"))
    if way == "/login/code":
        await second.post("/login", **sent)
        sent = second.form("/login/code") | {"code": "000000"}
    await first.get("/login")
    await first.submit("/login", name="ann", password=PASSWORD)
    clock.advance(30)
    await first.submit("/login/code", code=hotp(secret, clock() // STEP))
    assert first.path == "/account"
    await second.post(way, **sent)
    assert second.path == "/consents", second.text


async def test_an_expired_login_form_of_a_second_person_does_not_continue_the_session_of_the_first(
    world: World, app: ASGIApp, browser: PageClient
) -> None:
    """Two persons share a browser, and the second goes back to the login page of the first."""
    for name in ("bob", "ann"):
        await signed_in(world, app, name)
    await browser.get("/login?return_to=/consents")
    old = browser.form("/login")
    await browser.submit("/login", name="ann", password=PASSWORD)
    answer = await browser.post("/login", **old | {"name": "bob", "password": PASSWORD})
    assert (answer.status, "the form has expired" in browser.text.lower()) == (403, True)
    await browser.submit("/login", password=PASSWORD)
    assert browser.path == "/consents"
    await browser.get("/account")
    assert "Account of bob" in browser.text


async def test_an_expired_form_with_a_passkey_of_a_second_person_is_refused(
    world: World, app: ASGIApp, browser: PageClient
) -> None:
    device = await add_passkey(await signed_in(world, app, "bob"))
    await signed_in(world, app, "ann")
    await browser.get("/login?return_to=/consents")
    sent = browser.form("/login/passkey") | {"credential": device.get(browser.options("/login/passkey"))}
    await browser.submit("/login", name="ann", password=PASSWORD)
    answer = await browser.post("/login/passkey", **sent)
    assert (answer.status, "the form has expired" in browser.text.lower()) == (403, True)


async def test_an_expired_login_form_keeps_its_return_page(world: World, app: ASGIApp, browser: PageClient) -> None:
    await signed_in(world, app)
    await browser.get("/login?return_to=/consents")
    browser.cookies.clear()
    answer = await browser.submit("/login", name="ann", password=PASSWORD)
    assert (answer.status, "the form has expired" in browser.text.lower()) == (403, True)
    await browser.submit("/login", name="ann", password=PASSWORD)
    assert browser.path == "/consents"


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


async def test_a_setup_link_ends_earlier_sessions(world: World, app: ASGIApp, browser: PageClient) -> None:
    thief = await signed_in(world, app)
    await browser.set_up(await invite(world), "another four words")
    assert browser.path == "/account"
    await thief.get("/account")
    assert thief.path.startswith("/login")
    assert [one.id for one in sessions_of(world.db.read(), registry_id(world), now=world.now())] == [
        newest_entry(world).object
    ]


async def test_a_person_stopped_by_the_kill_switch_has_no_session_and_cannot_log_in(
    world: World, app: ASGIApp, browser: PageClient
) -> None:
    mine, person = await signed_in(world, app), registry_id(world)
    link = (await invite(world)).removeprefix(PUBLIC_URL)
    await act(world, "test.stop", lambda a: registry.stop(a, "owner", person, why="stolen", by=None))
    await mine.get("/account")
    assert mine.path.startswith("/login")
    assert (await browser.log_in()).status == 403
    assert "kill switch" in browser.text
    assert (await browser.set_up(link)).status == 403
    assert not sessions_of(world.db.read(), person, now=world.now())
    await act(world, "test.lift", lambda a: registry.lift_stop(a, "owner", person))
    await mine.get("/account")
    assert mine.path == "/account"
    await browser.log_in()
    assert browser.path == "/account"


def _end_one(act: Act, person: str, session: str) -> None:
    end_session(act, session, person=person)


def _end_all(act: Act, person: str, session: str) -> None:
    assert end_sessions(act, person) == 1


def _reset(act: Act, person: str, session: str) -> None:
    assert credentials.reset(act, person) == 1


def _end_of_provider(act: Act, person: str, session: str) -> None:
    end_sessions_of_provider(act, ISSUER)


@pytest.mark.parametrize("end", [_end_one, _end_all, _reset, _end_of_provider])
async def test_a_session_that_ends_while_its_person_is_stopped_stays_ended(
    world: World, app: ASGIApp, end: Callable[[Act, str, str], None]
) -> None:
    await signed_in(world, app)
    person, proof = registry_id(world), Proof(method="federated", at=world.now(), source=ISSUER)

    def begin(act: Act) -> str:
        end_sessions(act, person)
        return begin_session(
            act, person=person, proofs=[proof], config=world.config, network="", unverified_browser=None
        ).session.id

    session = await act(world, "test.begin", begin)
    await act(world, "test.stop", lambda a: registry.stop(a, "owner", person, why="stolen", by=None))
    await act(world, "test.end", lambda a: end(a, person, session))
    await act(world, "test.lift", lambda a: registry.lift_stop(a, "owner", person))
    assert not sessions_of(world.db.read(), person, now=world.now())


async def test_a_duplicate_or_misnamed_session_cookie_does_not_authenticate(world: World, app: ASGIApp) -> None:
    browser = await signed_in(world, app)
    mine = browser.cookies.pop(SESSION_COOKIE)
    for first, second in (("planted", mine), (mine, "planted"), (mine, mine)):
        browser.cookies = {f"{SESSION_COOKIE}={first}; {SESSION_COOKIE}": second}
        await browser.get("/account")
        assert browser.path.startswith("/login")
    short = SESSION_COOKIE.removeprefix("__Host-")
    planted = (short, f"__host-{short}", *(f"{char}{SESSION_COOKIE}" for char in "\xa0\x85\x0b\x0c\x1c="))
    for name in planted:
        browser.cookies = {name: mine}
        await browser.get("/account")
        assert browser.path.startswith("/login"), name
    browser.cookies = {f"a=b; \t{SESSION_COOKIE}": mine}
    await browser.get("/account")
    assert browser.path == "/account"


async def test_a_modified_login_cookie_is_replaced(app: ASGIApp, browser: PageClient, clock: Clock) -> None:
    await browser.get("/login")
    made = browser.cookies[LOGIN_COOKIE]
    browser.cookies[LOGIN_COOKIE] = "x" + made
    await browser.get("/login")
    assert browser.cookies[LOGIN_COOKIE] not in (made, "x" + made)


async def test_a_password_login_requires_a_totp_code_that_is_accepted_once(
    world: World, app: ASGIApp, browser: PageClient, clock: Clock
) -> None:
    secret = await add_totp(await signed_in(world, app), clock)
    clock.advance(30)
    code = hotp(secret, clock() // STEP)
    await browser.log_in()
    assert browser.path.startswith("/login/code")
    assert SESSION_COOKIE not in browser.cookies
    await browser.submit("/login/code", code=code)
    assert browser.path == "/account"
    assert (newest_entry(world).detail or {})["acr"] == PERSON_MFA
    other = PageClient(app)
    await other.log_in()
    answer = await other.submit("/login/code", code=code)
    assert answer.status == 403
    assert SESSION_COOKIE not in other.cookies
    clock.advance(30)
    await other.submit("/login/code", code=hotp(secret, clock() // STEP))
    assert other.path == "/account"


@pytest.mark.parametrize(("steps", "is_accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_totp_code_of_the_previous_present_or_next_step_is_accepted(steps: int, is_accepted: bool) -> None:
    now, secret = 1_800_000_015 * SECOND, b"12345678901234567890"
    code = hotp(secret, now // STEP + steps)
    step = match_code(secret, code, now=now, last_step=0)
    assert step == (now // STEP + steps if is_accepted else None)
    if step is not None:
        assert match_code(secret, code, now=now, last_step=step) is None
        assert match_code(secret, code, now=now, last_step=step - 1) == step


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"), (2000000000, "279037")],
)
def test_codes_are_those_of_rfc_6238_appendix_b(seconds: int, code: str) -> None:
    assert match_code(b"12345678901234567890", code, now=seconds * SECOND, last_step=0) is not None


async def test_a_recovery_code_replaces_a_totp_code_once(
    world: World, app: ASGIApp, browser: PageClient, clock: Clock
) -> None:
    mine = await signed_in(world, app)
    await add_totp(mine, clock)
    codes = recovery_codes(mine)
    assert len(set(codes)) == 10
    await browser.log_in()
    await browser.submit("/login/code", code=codes[3].upper())
    assert browser.path == "/account"
    assert "9 recovery codes are unused" in browser.text
    other = PageClient(app)
    await other.log_in()
    assert (await other.submit("/login/code", code=codes[3])).status == 403
    rows = world.db.read().all(sql("select digest from recovery_code"))
    assert len(rows) == 9
    assert not any(code.replace("-", "").encode() in bytes(digest) for (digest,) in rows for code in codes)


@pytest.mark.parametrize("counts", [True, False])
async def test_a_passkey_signs_in_without_a_name_and_its_response_is_accepted_once(
    world: World, app: ASGIApp, browser: PageClient, counts: bool
) -> None:
    device = await add_passkey(await signed_in(world, app))
    device.counts = counts
    await browser.get("/login?return_to=/account")
    assert json.loads(browser.options("/login/passkey"))["allowCredentials"] == []
    form = browser.form("/login/passkey")
    form["credential"] = device.get(browser.options("/login/passkey"))
    kept = browser.cookies[LOGIN_COOKIE]
    await browser.post("/login/passkey", **form)
    assert browser.path == "/account"
    entry = newest_entry(world)
    assert (entry.action, entry.person, (entry.detail or {})["acr"]) == ("person.login", registry_id(world), PERSON_PHR)
    replay = PageClient(app, cookies={LOGIN_COOKIE: kept})
    assert (await replay.post("/login/passkey", **form)).status == 403
    assert SESSION_COOKIE not in replay.cookies


@pytest.mark.parametrize(
    "wrong",
    ["origin", "rp_id", "flags", "key", "crossOrigin", "challenge", "handle", "type", "another browser", "old page"],
)
async def test_a_passkey_response_that_is_not_for_this_page_is_refused(
    world: World, app: ASGIApp, browser: PageClient, clock: Clock, wrong: str
) -> None:
    device = await add_passkey(await signed_in(world, app))
    await browser.get("/login")
    options = browser.options("/login/passkey")
    match wrong:
        case "origin":
            device.origin = "https://ostiary.example.org.evil.example"
        case "rp_id":
            device.rp_id = "example.org"
        case "flags":
            device.flags = PRESENT
        case "key":
            device.key = Authenticator(device.origin).key
        case "crossOrigin":
            device.changes = {"crossOrigin": True}
        case "challenge":
            options = json.dumps({"challenge": b64u(bytes(56))})
        case "handle":
            device.handle = b"pe_another"
        case "type":
            device.changes = {"type": "webauthn.create"}
        case "another browser":
            other = PageClient(app)
            await other.get("/login")
            options = other.options("/login/passkey")
        case "old page":
            clock.advance(600)
    answer = await browser.submit("/login/passkey", credential=device.get(options))
    assert answer.status == 403, browser.text
    assert SESSION_COOKIE not in browser.cookies
    assert newest_entry(world).outcome == "refused"


async def test_a_copy_of_an_authenticator_whose_counter_is_behind_is_refused(
    world: World, app: ASGIApp, browser: PageClient
) -> None:
    device = await add_passkey(await signed_in(world, app))
    for count, path in ((4, "/account"), (4, "/login/passkey"), (3, "/login/passkey"), (5, "/account")):
        device.count = count - 1
        await browser.get("/login?prompt=login")
        await browser.submit("/login/passkey", credential=device.get(browser.options("/login/passkey")))
        assert browser.path == path, count


@pytest.mark.parametrize(("late_us", "is_accepted"), [(-1, True), (0, False)])
async def test_a_passkey_response_whose_challenge_expires_before_the_act_is_refused(
    world: World, app: ASGIApp, clock: Clock, late_us: int, is_accepted: bool
) -> None:
    """A request may wait for the database, and the record of an earlier use is then deleted."""
    device = await add_passkey(await signed_in(world, app))
    passkey = find_passkey(world.db.read(), b64u(device.id))
    assert passkey is not None
    login, registration = (Spend(bytes([n] * 16), world.now() - late_us, world.now() - 1) for n in (1, 2))
    new = NewPasskey("another", b"key", 0, "", registration)
    for step in (
        lambda a: passkeys.use_passkey(a, UsedPasskey(passkey, 0, login)),
        lambda a: passkeys.add_passkey(a, passkey.person, new, name="another"),
    ):
        with nullcontext() if is_accepted else pytest.raises(PasskeyRefused):
            await act(world, "person.login", step)


async def test_a_person_has_a_limited_number_of_passkeys_and_each_once(world: World, app: ASGIApp) -> None:
    device = await add_passkey(await signed_in(world, app))
    passkey = find_passkey(world.db.read(), b64u(device.id))
    assert passkey is not None

    async def add(number: int, id: str) -> None:
        new = NewPasskey(id, b"key", 0, "", Spend(number.to_bytes(16), world.now() + 1, world.now() - 1))
        await act(world, "person.add_passkey", lambda a: passkeys.add_passkey(a, passkey.person, new, name="another"))

    with pytest.raises(Conflict, match="this passkey is registered already"):
        await add(0, passkey.id)
    for number in range(1, MAX_PASSKEYS):
        await add(number, f"another{number}")
    with pytest.raises(Conflict, match=f"the account has {MAX_PASSKEYS} passkeys, the maximum"):
        await add(MAX_PASSKEYS, "one more")
    await act(
        world, "person.remove_passkey", lambda a: credentials.remove_passkey(a, passkey.person, passkey.id, session="")
    )
    await add(MAX_PASSKEYS + 1, "one more")


@pytest.mark.parametrize("behind", [0, 4, 5])
async def test_the_counter_of_an_authenticator_never_decreases_in_concurrent_logins_with_a_copy(
    world: World, app: ASGIApp, behind: int
) -> None:
    device = await add_passkey(await signed_in(world, app))
    device.counts = False
    original, copy = PageClient(app), PageClient(app)
    sent = []
    for browser, count in ((original, 5), (copy, behind)):
        await browser.get("/login")
        device.count = count
        sent.append(browser.form("/login/passkey") | {"credential": device.get(browser.options("/login/passkey"))})
    await asyncio.gather(original.post("/login/passkey", **sent[0]), copy.post("/login/passkey", **sent[1]))
    assert SESSION_COOKIE in original.cookies
    assert SESSION_COOKIE not in copy.cookies
    assert world.db.read().all(sql("select sign_count from person_passkey")) == [(5,)]


async def test_a_setup_link_registers_a_passkey(world: World, app: ASGIApp, browser: PageClient) -> None:
    url = (await invite(world)).removeprefix("https://ostiary.example.org")
    device = Authenticator("https://ostiary.example.org")
    await browser.get(url)
    credential = device.create(browser.options("/setup/passkey"))
    await browser.submit("/setup/passkey", credential=credential, label="Key <b>")
    assert browser.path == "/account"
    assert "Key &lt;b&gt;" in browser.text
    assert (await browser.get(url)).status == 404


async def test_a_login_delay_applies_to_a_password_alone_and_not_to_a_login_with_a_second_factor(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    mine = await signed_in(world, app)
    secret = await add_totp(mine, clock)
    device = await add_passkey(mine)
    stranger = PageClient(app, address="203.0.113.9")
    for _ in range(ACCOUNT.free + 4):
        clock.advance(3600 // 4)
        await stranger.log_in(password="a wrong guess")
    owner = PageClient(app)
    for _ in range(12):
        await stranger.log_in(password="a wrong guess")
    assert (await owner.log_in()).status == 429
    await owner.submit("/login", name="ann", password=PASSWORD, code=hotp(secret, clock() // STEP))
    assert owner.path == "/account"
    again = PageClient(app)
    await again.get("/login")
    await again.submit("/login/passkey", credential=device.get(again.options("/login/passkey")))
    assert again.path == "/account"


async def test_password_guesses_of_strangers_do_not_delay_a_person_in_a_known_browser(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    mine = await signed_in(world, app)
    await mine.submit("/account/logout")
    stranger = PageClient(app)  # in the same network
    for _ in range(NETWORK.free + 12):
        await stranger.log_in(password="a wrong guess")
    assert (await PageClient(app).log_in()).status == 429
    for _ in range(2):
        await mine.log_in()
        assert mine.path == "/account"
        await mine.submit("/account/logout")
    assert (await PageClient(app).log_in()).status == 429, "a login in a known browser renews no guesses of strangers"
    other = mine.cookies[BROWSER_COOKIE]
    for forged in (other[:-8] + "A" * 8, "x", "e30." + other.partition(".")[2], other.partition(".")[0]):
        assert (await PageClient(app, cookies={BROWSER_COOKIE: forged}).log_in()).status == 429


async def test_password_guesses_in_a_known_browser_are_limited_and_delay_only_that_browser(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    mine, other = await signed_in(world, app), await signed_in(world, app, "ben")
    for _ in range(BROWSER.free + 1):
        assert (await mine.log_in(password="a wrong guess", path="/login?prompt=login")).status == 403
    assert (await mine.log_in(path="/login?prompt=login")).status == 429
    await PageClient(app).log_in()  # a copied cookie delays no other browser
    assert newest_entry(world).outcome == "ok"
    for _ in range(ACCOUNT.free + 1):
        await PageClient(app).log_in(password="a wrong guess")
    assert (await other.log_in(path="/login?prompt=login")).status == 429, "known for ben, not for ann"


@pytest.mark.parametrize(("seconds", "status"), [(BROWSER_S - 1, 200), (BROWSER_S, 429)])
async def test_a_browser_is_known_for_half_a_year_after_the_last_login(
    world: World, app: ASGIApp, clock: Clock, seconds: int, status: int
) -> None:
    mine = await signed_in(world, app)
    clock.advance(seconds)
    for _ in range(ACCOUNT.free + 1):
        await PageClient(app).log_in(password="a wrong guess")
    assert (await mine.log_in()).status == status


async def test_concurrent_wrong_codes_count_before_the_right_code(
    world: World, app: ASGIApp, browser: PageClient, clock: Clock
) -> None:
    secret = await add_totp(await signed_in(world, app), clock)
    clock.advance(30)
    right = hotp(secret, clock() // STEP)
    wrong = next(code for code in ("000000", "111111") if match_code(secret, code, now=clock(), last_step=0) is None)
    await browser.log_in()
    form = browser.form("/login/code")
    guesses = [*[wrong] * (CODE.free + 1), right]
    tabs = [PageClient(app, follows=False, cookies=dict(browser.cookies)) for _ in guesses]
    sent = [tab.post("/login/code", **{**form, "code": code}) for tab, code in zip(tabs, guesses, strict=True)]
    assert {answer.status for answer in await asyncio.gather(*sent)} == {403}
    await browser.submit("/login/code", code=right)
    assert "too many codes were wrong" in browser.text.lower()
    clock.advance(1)
    answer = await browser.submit("/login/code", code=right)
    assert browser.path == "/account", answer.body


@pytest.mark.parametrize("limit", [ACCOUNT, BROWSER, CODE, NETWORK])
def test_the_delay_after_the_free_failures_starts_at_one_second_and_doubles(limit: Limit) -> None:
    failures, now = Failures(0, 0), 1_800_000_000 * SECOND
    waits = []
    for _ in range(limit.free + 14):
        failures = count_failure(failures, limit, now=now)
        waits.append(max(0, wait_until(failures, limit) - now))
    assert waits[: limit.free] == [0] * limit.free
    assert waits[limit.free :] == [min(SECOND << n, LONGEST_WAIT) for n in range(14)]
    assert count_failure(failures, limit, now=now + limit.wears_off - 1).number == failures.number + 1
    assert count_failure(failures, limit, now=now + limit.wears_off).number == failures.number
    assert count_failure(failures, limit, now=now + 10**6 * limit.wears_off).number == 1


async def test_a_login_attempt_is_checked_again_at_the_end_of_its_delay(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    await signed_in(world, app)
    browser = PageClient(app)
    for _ in range(ACCOUNT.free + 1):
        await browser.log_in(password="a wrong guess")
    clock.advance(us=SECOND - 1)
    assert (await browser.log_in()).status == 429
    clock.advance(us=1)
    await browser.log_in()
    assert browser.path == "/account"


async def test_a_step_up_asks_only_for_the_missing_proof_and_starts_a_new_session(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    browser = await signed_in(world, app)
    secret = await add_totp(browser, clock)
    clock.advance(400)
    await browser.get("/login?return_to=/account&max_age=300")
    await browser.submit("/login", password=PASSWORD)
    assert browser.path == "/account"
    first = browser.cookies[SESSION_COOKIE]
    await browser.get(f"/login?return_to=/account&acr_values={PERSON_MFA}&max_age=300")
    assert "Confirm it is you" in browser.text
    assert "/login/code" in browser.text
    assert 'type="password"' not in browser.text
    await browser.submit("/login/code", code=hotp(secret, clock() // STEP))
    assert browser.path == "/account"
    assert browser.cookies[SESSION_COOKIE] != first
    stale = PageClient(app, cookies={SESSION_COOKIE: first})
    await stale.get("/account")
    assert stale.path.startswith("/login")
    await browser.get(f"/login?return_to=/account&acr_values={PERSON_PHR}")
    assert "stronger login than your account has" in browser.text


async def test_a_proof_that_is_older_than_max_age_is_asked_for_again(world: World, app: ASGIApp, clock: Clock) -> None:
    browser = await signed_in(world, app)
    clock.advance(300)
    await browser.get("/login?return_to=/account&max_age=300")
    assert browser.path == "/account"
    clock.advance(us=1)
    await browser.get("/login?return_to=/account&max_age=300")
    assert "Confirm it is you" in browser.text
    await browser.submit("/login", password=PASSWORD)
    assert browser.path == "/account"
    await browser.get("/login?return_to=/account&max_age=300")
    assert browser.path == "/account"


async def test_a_credential_is_changed_only_after_a_recent_proof_and_ends_the_other_sessions(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    browser = await signed_in(world, app)
    other = PageClient(app)
    await other.log_in()
    await browser.get("/account")
    form = browser.form("/account/password") | {"password": "another good one", "repeated": "another good one"}
    clock.advance(RECENT_S, us=1)
    await browser.post("/account/password", **form)
    assert browser.path.startswith("/login?")
    await browser.submit("/login", password=PASSWORD)
    assert browser.path == "/account"
    await browser.submit("/account/password", password="another good one", repeated="another good one")
    assert browser.path == "/account"
    await other.get("/account")
    assert other.path.startswith("/login")
    await other.log_in(password="another good one")
    assert other.path == "/account"


async def test_the_last_login_method_of_a_person_cannot_be_removed(world: World, app: ASGIApp) -> None:
    browser = await signed_in(world, app)
    device = await add_passkey(browser)
    form = browser.form("/account/password/remove")
    await browser.post("/account/password/remove", **form)
    assert browser.path == "/account"
    for path, message in (
        ("/account/password/remove", "The account has no password"),
        ("/account/totp/remove", "The account has no authenticator app"),
    ):
        size = get_head(world.db.read())[0].size
        assert (await browser.post(path, **form)).status == 409
        assert message in browser.text
        assert (get_head(world.db.read())[0].size, newest_entry(world).outcome) == (size + 1, "refused")
    await browser.get("/account")
    answer = await browser.submit("/account/passkeys/remove", passkey=b64u(device.id))
    assert answer.status == 409
    assert "only way to sign in" in browser.text
    assert (await browser.submit("/account/passkeys/remove", passkey="another")).status == 404


@pytest.mark.parametrize(
    "given",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/authorize/../../x",
        "/authorize\r\nx: y",
        "/account#x",
        "/account?a=b c",
        "javascript:alert(1)",
        "/accountx",
        "account",
        "/token",
        "/authorize?x=\\",
        "/authorize?" + "a" * 4096,
        "/console/",
        "/console/../token",
        "/console//evil.example",
        "/console/%2e%2e/token",
        "/console/a/%2E%2e/x",
        "/console/.%2e",
        "/console/%2fevil",
        "/console/a%5cb",
        "/console/%00",
    ],
)
def test_a_login_does_not_redirect_to_a_page_that_is_not_on_the_list(given: str) -> None:
    assert parse_return(given) == "/account"


def test_a_login_redirects_to_a_listed_page_with_its_query() -> None:
    for path in (
        "/authorize?client_id=a&request_uri=urn:x",
        "/device",
        "/account",
        "/accounts",
        "/consents",
        "/logout?x=%0a",
        "/console/agents/a:b?x=1",
        "/console/agents/a%20b.c",
    ):
        assert parse_return(path) == path


async def test_a_browser_at_a_loopback_address_is_redirected_to_localhost(world: World) -> None:
    here = reconfigured(world, public_url="http://127.0.0.1:8700")
    app = build_app(here)
    paths = ("/login?return_to=/account", "/account", "/setup?code=x")
    for path in (*paths, "/consents", "/device?user_code=x", "/logout?state=x", "/authorize?client_id=x&prompt=none"):
        answer = await send(app, "GET", path, headers=[("host", "127.0.0.1:8700")])
        assert (answer.status, answer.headers["location"]) == (303, f"http://localhost:8700{path}")
    for host in ("localhost:8700", "evil.example", "127.0.0.1:8701"):
        answer = await send(app, "GET", "/login", headers=[("host", host)])
        assert answer.status == 200


@pytest.mark.parametrize(("hours", "is_valid"), [(0, False), (1, True), (168, True), (169, False)])
async def test_a_setup_link_has_a_lifetime_of_one_hour_to_one_week(world: World, hours: int, is_valid: bool) -> None:
    await invite(world)

    async def create() -> SetupLink:
        return await act(
            world, "person.invite", lambda one: create_setup_link(one, "ann", config=world.config, hours=hours)
        )

    if is_valid:
        assert (await create()).expires_at == world.now() + hours * 3600 * SECOND
    else:
        with pytest.raises(Invalid, match="1 to 168"):
            await create()


async def test_a_setup_link_expires_at_its_end_and_is_replaced_by_a_new_link(
    world: World, app: ASGIApp, browser: PageClient, clock: Clock
) -> None:
    first, second = [(await invite(world)).removeprefix("https://ostiary.example.org") for _ in range(2)]
    assert (await browser.get(first)).status == 404
    assert "This link has ended" in browser.text
    clock.advance(24 * 3600, us=-1)
    assert (await browser.get(second)).status == 200
    form = browser.form("/setup") | {"password": PASSWORD, "repeated": PASSWORD}
    clock.advance(us=1)
    assert (await browser.post("/setup", **form)).status == 404
    assert (await browser.get(second)).status == 404


async def test_a_session_ends_when_it_is_idle_or_reaches_its_maximum_lifetime(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    browser = await signed_in(world, app)
    idle, longest = world.config.session_idle_s, world.config.session_lifetime_s
    begun = clock.now
    while clock.now + (idle - 1) * SECOND < begun + longest * SECOND:
        clock.advance(idle - 1)
        await browser.get("/account")
        assert browser.path == "/account"
    clock.now = begun + longest * SECOND - 1
    await browser.get("/account")
    assert browser.path == "/account"
    clock.advance(us=1)
    await browser.get("/account")
    assert browser.path.startswith("/login")
    await browser.log_in()
    clock.advance(idle)
    await browser.get("/account")
    assert browser.path.startswith("/login")


@pytest.mark.parametrize("path", ["/account", "/consents", "/device", "/login?return_to=/account"])
async def test_every_page_counts_as_a_use_of_the_session(world: World, app: ASGIApp, clock: Clock, path: str) -> None:
    browser = await signed_in(world, app)
    for _ in range(2):
        clock.advance(world.config.session_idle_s - 1)
        await browser.get(path)
        assert sessions_of(world.db.read(), registry_id(world), now=world.now()), path


async def test_expired_sessions_and_links_are_deleted_with_an_entry(world: World, app: ASGIApp, clock: Clock) -> None:
    await signed_in(world, app)
    await invite(world, "bob")
    clock.advance(world.config.session_lifetime_s + 24 * 3600)
    await prune(world)
    assert world.db.read().all(sql("select id from person_session")) == []
    assert world.db.read().all(sql("select person from setup_link")) == []
    assert newest_entry(world).action == "person.expire_sessions"


async def test_a_login_over_the_limit_ends_the_session_that_was_used_longest_ago(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    first = await signed_in(world, app)
    person = registry_id(world)

    def begin(one: Act) -> str:
        proofs = [Proof(method="password", at=one.now)]
        new = begin_session(one, person=person, proofs=proofs, config=world.config, network="", unverified_browser=None)
        return str(new.session.id)

    def live() -> set[str]:
        return {one.id for one in sessions_of(world.db.read(), person, now=clock.now)}

    begun = []
    for _ in range(MAX_SESSIONS - 1):
        clock.advance(1)
        begun.append(await act(world, "person.login", begin))
    assert len(live()) == MAX_SESSIONS, "the limit itself is allowed"
    clock.advance(60)
    await first.get("/account")
    before = live()
    await PageClient(app).log_in()
    after = live()
    assert (before - after, len(after)) == ({begun[0]}, MAX_SESSIONS)
    await first.get("/account")
    assert first.path == "/account", "the oldest session was used later"


async def test_the_queue_of_password_checks_gives_each_network_a_limited_share(world: World) -> None:
    hashing = world.get_singleton(PasswordHashing)

    async def verify(network: str) -> bool:
        return await hashing.verify("a wrong guess", None, network=network)

    waiting = [asyncio.create_task(verify("203.0.113.0/24")) for _ in range(MAX_OF_NETWORK)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyLogins):
        await verify("203.0.113.0/24")
    assert await verify("198.51.100.0/24") is False
    assert await asyncio.gather(*waiting) == [False] * MAX_OF_NETWORK
    assert await verify("203.0.113.0/24") is False


async def test_a_flood_of_logins_leaves_places_in_the_queue_to_known_browsers(world: World) -> None:
    hashing = world.get_singleton(PasswordHashing)
    flood = [
        asyncio.create_task(hashing.verify("a guess", None, network=f"203.0.{n // MAX_OF_NETWORK}.0/24"))
        for n in range(MAX_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyLogins):
        await hashing.verify("a guess", None, network="198.51.100.0/24")
    known = [
        asyncio.create_task(hashing.verify("a guess", None, network="", browser=f"b{n // MAX_OF_NETWORK} pe_1"))
        for n in range(MAX_KNOWN)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyLogins):
        await hashing.verify("a guess", None, network="", browser="another pe_1")
    assert not any(await asyncio.gather(*flood, *known))


@pytest.mark.parametrize(
    ("password", "is_valid"),
    [
        ("eleven char", False),
        ("twelve chars", True),
        ("x7 " * 4, False),
        ("Ann likes tea in may", True),
        ("annMorningTeaANN", False),
        ("annMorning TeasANN", True),
        ("abcde" * 51 + "f", True),
        ("abcde" * 51 + "fg", False),
    ],
)
def test_a_password_has_12_to_256_characters_in_addition_to_the_name(password: str, is_valid: bool) -> None:
    if is_valid:
        check_password(password, password, name="ann")
        with pytest.raises(Invalid, match="differ"):
            check_password(password, password + "x", name="ann")
    else:
        with pytest.raises(Invalid):
            check_password(password, password, name="ann")


async def test_a_password_is_compared_in_a_unicode_normal_form(world: World) -> None:
    hashing = world.get_singleton(PasswordHashing)
    hash = await hashing.hash("Zu\u0308rich im Regen", network="")
    assert await hashing.verify("Z\u00fcrich im Regen", hash, network="")
    assert not await hashing.verify("Zurich im Regen", hash, network="")
    other = PasswordHashing(dataclasses.replace(world, random=lambda count: bytes(count)))
    other._secret = bytes(32)
    assert not await other.verify("Z\u00fcrich im Regen", hash, network="")
    await other.close()


@pytest.mark.parametrize("parameter", ["ITERATIONS", "MEMORY_KIB"])
async def test_a_login_replaces_a_hash_that_has_other_parameters_than_new_hashes(
    world: World, app: ASGIApp, monkeypatch: pytest.MonkeyPatch, parameter: str
) -> None:
    def hash() -> str:
        return str(store.people.password(world.db.read(), ann))

    def renewals() -> int:
        return len(log.search_entries(world.db.read(), {"action": "person.renew_hash"}, limit=9))

    present = getattr(passwords, parameter)
    with monkeypatch.context() as earlier:
        earlier.setattr(passwords, parameter, present // 2)
        await signed_in(world, app)
        ann = registry.find_person(world.db.read(), "ann").person_id
        old = hash()
        await PageClient(app).log_in()
        assert (hash(), renewals()) == (old, 0), "the parameters are the same"
    await PageClient(app).log_in("ann", "another password")
    assert (hash(), renewals()) == (old, 0), "the password was wrong"
    browser = PageClient(app)
    await browser.log_in()
    assert browser.path == "/account"
    assert hash().split("$")[3] == f"m={passwords.MEMORY_KIB},t={passwords.ITERATIONS},p={passwords.LANES}"
    assert renewals() == 1
    new = hash()
    await browser.log_in(path="/login?prompt=login")
    assert (browser.path, hash(), renewals()) == ("/account", new, 1)
    assert not (await complete_state_check(world)).differences


async def test_a_hash_is_not_renewed_while_too_many_passwords_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashing = world.get_singleton(PasswordHashing)
    hash = await hashing.hash("a right password", network="")
    monkeypatch.setattr(passwords, "ITERATIONS", passwords.ITERATIONS + 1)
    waiting = [
        asyncio.create_task(hashing.verify("a guess", None, network="203.0.113.0/24")) for _ in range(MAX_OF_NETWORK)
    ]
    await asyncio.sleep(0)
    assert await hashing.renew("a right password", hash, network="203.0.113.0/24") is None
    await asyncio.gather(*waiting)
    new = await hashing.renew("a right password", hash, network="203.0.113.0/24")
    assert new is not None
    assert await hashing.verify("a right password", new, network="")


async def test_a_session_row_changed_outside_the_server_is_reported_as_a_difference(world: World, app: ASGIApp) -> None:
    await signed_in(world, app)
    await complete_state_check(world)
    change_database(world, 'update person_session set proofs = \'[{"method":"passkey","at":1}]\'')
    check = await complete_state_check(world)
    assert any(name.startswith("session ") for name in check.differences)


@given(data=st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
@settings(max_examples=30)
def test_an_arbitrary_json_value_as_an_authenticator_response_is_refused(data: Any) -> None:
    for value in (data, {"id": data, "response": data}, {"id": "x", "response": {"clientDataJSON": data}}):
        with pytest.raises(PasskeyRefused):
            parse_challenge(parse_response(json.dumps(value)))
