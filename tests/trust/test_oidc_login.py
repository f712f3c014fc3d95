"""Login by an OpenID provider: the flow, the checks of its answer, the accounts, roles and teams that follow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.patience import PATIENCE_S, eventually_async
from harness.registry_fixtures import newest_entry
from ostiary.authorization.assurance import PERSON_MFA, PERSON_PHR, PERSON_SINGLE
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.app import build_app
from ostiaryd.ground.crypto.keyring import RootKey
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.trust.flows import providers as flows
from ostiaryd.trust.flows.sessions import find_session
from ostiaryd.trust.model.oidc_login import ATTEMPT_LIFETIME, LEEWAY, MAX_AGE
from ostiaryd.trust.model.providers import (
    MAX_PROVIDERS,
    PRESETS,
    GroupRule,
    OidcSettings,
    Provider,
    check_issuer,
    check_provider,
)
from ostiaryd.trust.model.sessions import SESSION_COOKIE, Session
from ostiaryd.trust.store.people import sessions_of
from ostiaryd.trust.store.providers import links
from ostiaryd.trust.wire_federation import MAX_ATTEMPTS, MAX_LOGINS, MAX_LOGINS_OF_NETWORK, PROVIDER_COOKIE
from tests.support.api_fixtures import reconfigured
from tests.support.openid_provider import EC, KEYS, SECRET, OpenIdProvider, openid_provider, symmetric_key
from tests.support.page_client import PageClient

SECOND = 1_000_000
RULES = (GroupRule("ops", role="operator"), GroupRule("security", team="security"))


def provider_of(idp: OpenIdProvider, **changes: Any) -> Provider:
    settings: dict[str, Any] = {
        "client_id": "ostiary",
        "authentication": "client_secret_basic",
        "scopes": ("openid", "email"),
        "reads_userinfo": True,
        "required_claims": {},
    }
    settings |= {name: changes.pop(name) for name in list(changes) if name in settings}
    fields = {
        "provider_id": "lp_" + "0" * 32,
        "name": "corp",
        "label": "Corp",
        "preset": "",
        "issuer": idp.issuer,
        "settings": OidcSettings(**settings),
        "accounts": "create",
        "group_claim": "groups",
        "rules": RULES,
        "mfa": ("mfa",),
        "phishing_resistant": ("urn:idp:hardware",),
        "created_at": 0,
    }
    return Provider(**{**fields, **changes})


async def add(world: World, provider: Provider, *, secret: str = SECRET) -> Provider:
    return await act(world, "test.add", lambda act: flows.add_provider(act, provider, client_secret=secret))


@pytest.fixture
def idp(clock: Clock) -> Iterator[OpenIdProvider]:
    with openid_provider(at=clock() // SECOND) as made:
        yield made


@pytest.fixture
def here(world: World) -> World:
    return reconfigured(world, private_hosts="127.0.0.1")


@pytest.fixture
def app(here: World) -> ASGIApp:
    return build_app(here)


@pytest.fixture
def browser(app: ASGIApp) -> PageClient:
    return PageClient(app, follows=False)


async def begin(browser: PageClient, **query: str) -> str:
    answer = await browser.get(f"/login/with/corp?{urlencode(query)}")
    assert answer.status == 303, browser.text
    return answer.headers["location"]


async def finish(browser: PageClient, idp: OpenIdProvider, location: str, **changed: str | None) -> int:
    answer = {name: value for name, value in {**idp.grant(location), **changed}.items() if value is not None}
    return (await browser.get(f"/login/callback/corp?{urlencode(answer)}")).status


async def log_in(browser: PageClient, idp: OpenIdProvider, **query: str) -> int:
    return await finish(browser, idp, await begin(browser, **query))


def session(world: World, browser: PageClient) -> Session:
    found = find_session(world.db.read(), browser.cookies.get(SESSION_COOKIE), world.now())
    assert found is not None
    return found


async def test_a_second_provider_needs_a_name_and_an_issuer_of_its_own(here: World, idp: OpenIdProvider) -> None:
    await add(here, provider_of(idp))
    for changed, message in (
        ({"issuer": "https://a.example"}, "a login provider with the name `corp` exists"),
        ({"name": "other"}, "the login provider `corp` has the same issuer"),
        ({}, "a login provider with the name `corp` exists"),
    ):
        with pytest.raises(Conflict, match=message):
            await add(here, provider_of(idp, provider_id="lp_" + "1" * 32, **changed))
    await add(here, provider_of(idp, provider_id="lp_" + "1" * 32, name="other", issuer="https://a.example"))


async def test_a_server_has_a_limited_number_of_login_providers(here: World, idp: OpenIdProvider) -> None:
    def numbered(number: int) -> Provider:
        host, id = f"https://a{number}.example", f"lp_{number:032}"
        return provider_of(idp, provider_id=id, name=f"corp{number}", issuer=host)

    for number in range(MAX_PROVIDERS):
        await add(here, numbered(number))
    with pytest.raises(Conflict, match=f"there are {MAX_PROVIDERS} login providers, the maximum"):
        await add(here, numbered(MAX_PROVIDERS))
    await act(here, "test.end", lambda act: flows.remove_provider(act, "corp0"))
    await add(here, numbered(MAX_PROVIDERS))


@pytest.mark.parametrize("is_removed", [True, False])
async def test_a_session_ends_with_its_provider_and_with_its_link(
    here: World, browser: PageClient, idp: OpenIdProvider, is_removed: bool
) -> None:
    await add(here, provider_of(idp))
    assert await log_in(browser, idp) == 303
    person = session(here, browser).person
    [(sub, _)] = links(here.db.read(), flows.find_provider(here.db.read(), "corp").issuer, Page(10, ""))
    with pytest.raises(NotFound, match="no person is linked to this `sub`"):
        await act(here, "test.end", lambda act: flows.unlink_account(act, "corp", f"{sub}x"))
    assert sessions_of(here.db.read(), person, now=here.now())
    end: Callable[[Act, str], object] = flows.remove_provider if is_removed else partial(flows.unlink_account, sub=sub)
    await act(here, "test.end", lambda act: end(act, "corp"))
    assert not sessions_of(here.db.read(), person, now=here.now())


async def test_the_first_login_makes_an_account_and_the_next_finds_it(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    await browser.get("/login?return_to=/consents")
    assert 'href="/login/with/corp?return_to=%2Fconsents"' in browser.text
    location = await begin(browser, return_to="/consents", login_hint="ann@corp.example")
    request = dict(parse_qsl(urlsplit(location).query))
    assert location.startswith(f"{idp.issuer}/authorize?tenant=corp&")
    assert {"response_type": "code", "client_id": "ostiary", "scope": "openid email"}.items() <= request.items()
    assert request["redirect_uri"] == "https://ostiary.example.org/login/callback/corp"
    assert request["code_challenge_method"] == "S256"
    assert request["login_hint"] == "ann@corp.example"
    assert await finish(browser, idp, location) == 303, browser.text
    assert browser.answer.headers["location"] == "/consents"
    assert PROVIDER_COOKIE not in browser.cookies
    first = session(here, browser)
    person = registry.find_person(here.db.read(), first.person)
    assert (person.name, person.email) == ("ann.smith", None), "the address was not verified"
    assert (first.provider, first.acr) == (idp.issuer, PERSON_SINGLE)
    assert newest_entry(here).action == "person.login"
    assert newest_entry(here).person == person.person_id
    idp.claims = {"preferred_username": "someone.else", "email": "new@corp.example"}
    other = PageClient(browser.app, follows=False)
    assert await log_in(other, idp) == 303
    assert session(here, other).person == person.person_id


async def test_an_account_is_never_found_by_its_address_or_name(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    ann = await act(
        here, "test.person", lambda act: registry.create_person(act, name="ann.smith", email="ann@corp.example")
    )
    idp.claims = {"email_verified": True}
    assert await log_in(browser, idp) == 303
    made = registry.find_person(here.db.read(), session(here, browser).person)
    assert made.person_id != ann.person_id
    assert made.name.startswith("ann.smith-")
    assert made.email == "ann@corp.example"


async def test_a_login_without_account_creation_needs_an_account_that_an_administrator_linked(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp, accounts="refuse"))
    assert await log_in(browser, idp) == 403
    assert SESSION_COOKIE not in browser.cookies
    entry = newest_entry(here)
    assert (entry.outcome, entry.reasons[0].code, (entry.detail or {})["sub"]) == ("refused", "no_account", "u-1")
    ann = await act(here, "test.person", lambda act: registry.create_person(act, name="ann"))
    await act(here, "test.link", lambda act: flows.link_account(act, "corp", "u-1", "ann"))
    assert await log_in(browser, idp) == 303
    assert session(here, browser).person == ann.person_id
    await act(here, "test.leave", lambda act: registry.revoke_owner(act, "ann"))
    assert await log_in(browser, idp) == 403
    assert newest_entry(here).reasons[0].code == "person_left"


async def test_roles_and_teams_follow_the_groups(here: World, browser: PageClient, idp: OpenIdProvider) -> None:
    await add(here, provider_of(idp))
    await act(here, "test.team", lambda act: registry.create_team(act, name="security", members=[]))
    idp.claims = {"groups": ["ops", "security", "others", 7]}
    assert await log_in(browser, idp) == 303
    reader, person = here.db.read(), session(here, browser).person
    assert registry.list_person_roles(reader, person) == {"operator"}
    team = registry.find_team(reader, "security").team_id
    assert registry.list_members(reader, team) == [person]
    await act(here, "test.grant", lambda act: registry.grant_role(act, person, "viewer"))
    idp.claims = {"groups": []}
    assert await log_in(browser, idp) == 303
    assert registry.list_person_roles(here.db.read(), person) == {"viewer"}, "what an administrator gave stays"
    assert registry.list_members(here.db.read(), team) == []


async def test_a_group_that_a_person_left_ends_its_role_in_every_live_session_at_the_next_login(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    second = PageClient(browser.app, follows=False)
    idp.claims = {"groups": ["ops"]}
    assert await log_in(browser, idp) == 303
    assert (await browser.get("/api/v1/agents")).status == 200
    for groups, status in ((["other"], 403), (["ops"], 200), ([], 403), (["OPS", "ops "], 403)):
        idp.claims = {"groups": groups}
        assert await log_in(second, idp) == 303
        assert session(here, second).person == session(here, browser).person
        assert (await browser.get("/api/v1/agents")).status == status, groups
        assert (await second.get("/api/v1/agents")).status == status, groups
    assert browser.answer.error == "role_required"


async def test_roles_from_rules_that_were_removed_end_at_the_next_login(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    idp.claims = {"groups": ["ops"]}
    assert await log_in(browser, idp) == 303
    person = session(here, browser).person
    assert registry.list_person_roles(here.db.read(), person) == {"operator"}
    await act(here, "test.change", lambda act: flows.change_provider(act, "corp", {"rules": ()}))
    assert await log_in(browser, idp) == 303
    assert registry.list_person_roles(here.db.read(), person) == set()


async def test_groups_of_userinfo_count_for_the_same_subject(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    idp.userinfo = {"groups": "ops"}
    assert await log_in(browser, idp) == 303
    assert registry.list_person_roles(here.db.read(), session(here, browser).person) == {"operator"}
    idp.userinfo = {"groups": "ops", "sub": "u-2"}
    assert await log_in(browser, idp) == 403
    assert newest_entry(here).reasons[0].code == "mixed_up"


async def test_the_name_of_userinfo_counts_where_the_id_token_has_none(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    """The code flow of OpenID Connect Core 1.0 section 5.4; groups may be in the ID token all the same."""
    await add(here, provider_of(idp))
    idp.claims = {"groups": ["ops"], "preferred_username": None, "email": None, "name": None}
    idp.userinfo = {"preferred_username": "carla", "email": "carla@example.org", "email_verified": True}
    assert await log_in(browser, idp) == 303
    person = registry.find_person(here.db.read(), session(here, browser).person)
    assert (person.name, person.email) == ("carla", "carla@example.org")


async def test_userinfo_that_fails_prevents_a_login_only_if_groups_depend_on_it(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    idp.claims = {"groups": ["ops"], "preferred_username": None, "email": None, "name": None}
    idp.changed = {"userinfo_endpoint": f"{idp.issuer}/nothing"}
    assert await log_in(browser, idp) == 303
    assert registry.find_person(here.db.read(), session(here, browser).person).name == "person"
    idp.claims = {}
    assert await log_in(browser, idp) == 503


async def test_an_internal_host_name_of_a_provider_is_logged_and_not_shown(
    here: World, browser: PageClient, idp: OpenIdProvider, caplog: pytest.LogCaptureFixture
) -> None:
    await add(here, provider_of(idp))
    idp.changed = {"token_endpoint": "https://inner.invalid/token"}
    assert await log_in(browser, idp) == 503
    assert "Corp does not answer" in browser.text
    assert "inner.invalid" not in browser.text
    assert "inner.invalid" in caplog.text


async def test_groups_that_the_provider_leaves_out_give_no_role(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp, reads_userinfo=False))
    idp.claims = {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x.example"}}}
    assert await log_in(browser, idp) == 303
    assert registry.list_person_roles(here.db.read(), session(here, browser).person) == set()
    assert (newest_entry(here).detail or {})["groups"] == "unknown"


@pytest.mark.parametrize(
    ("claims", "acr"),
    [
        ({"acr": "urn:idp:password", "amr": ["pwd"]}, PERSON_SINGLE),
        ({"amr": ["pwd", "mfa"]}, PERSON_MFA),
        ({"acr": "urn:idp:hardware"}, PERSON_PHR),
        ({"acr": "phr", "amr": "mfa"}, PERSON_SINGLE),
    ],
)
async def test_the_assurance_that_a_provider_states_counts_only_as_configured(
    here: World, browser: PageClient, idp: OpenIdProvider, claims: dict[str, Any], acr: str
) -> None:
    await add(here, provider_of(idp))
    idp.claims = claims
    assert await log_in(browser, idp) == 303
    assert session(here, browser).acr == acr


async def test_a_repeated_login_requires_a_recent_auth_time_from_the_provider(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    location = await begin(browser, prompt="login")
    assert {"prompt": "login", "max_age": "0"}.items() <= dict(parse_qsl(urlsplit(location).query)).items()
    assert await finish(browser, idp, location) == 403
    assert newest_entry(here).reasons[0].code == "not_asked_again"
    idp.claims = {"auth_time": idp.at - LEEWAY // SECOND - 1}
    assert await log_in(browser, idp, prompt="login") == 403
    idp.claims = {"auth_time": idp.at - LEEWAY // SECOND}
    assert await log_in(browser, idp, prompt="login") == 303
    assert session(here, browser).authenticated_at == here.now()
    idp.claims = {"auth_time": idp.at - 3600}
    assert await log_in(browser, idp) == 303
    assert session(here, browser).authenticated_at == here.now() - 3600 * SECOND


BAD_TOKENS: dict[str, Callable[[OpenIdProvider], object]] = {
    "another issuer": lambda idp: idp.claims.update(iss="https://evil.example"),
    "another audience": lambda idp: idp.claims.update(aud="other"),
    "another audience besides": lambda idp: idp.claims.update(aud=["ostiary", "other"]),
    "no audience": lambda idp: idp.claims.update(aud=None),
    "issued to another client": lambda idp: idp.claims.update(azp="other"),
    "expired": lambda idp: idp.claims.update(exp=idp.at - LEEWAY // SECOND),
    "no end": lambda idp: idp.claims.update(exp=None),
    "from the future": lambda idp: idp.claims.update(iat=idp.at + LEEWAY // SECOND + 1, exp=idp.at + 1000),
    "too old": lambda idp: idp.claims.update(iat=idp.at - (MAX_AGE + LEEWAY) // SECOND),
    "an end at the time of issue": lambda idp: idp.claims.update(iat=idp.at, exp=idp.at),
    "no time": lambda idp: idp.claims.update(iat=None),
    "another nonce": lambda idp: idp.claims.update(nonce="x" * 43),
    "no nonce": lambda idp: idp.claims.update(nonce=None),
    "another access token": lambda idp: idp.claims.update(at_hash="x" * 22),
    "no subject": lambda idp: idp.claims.update(sub=None),
    "a long subject": lambda idp: idp.claims.update(sub="x" * 256),
    "a subject that is a number": lambda idp: idp.claims.update(sub=7),
    "an access token": lambda idp: idp.header.update(typ="at+jwt"),
    "a logout token": lambda idp: idp.header.update(typ="logout+jwt"),
    "a key of the token's choice": lambda idp: idp.use(KEYS[1], kid=None, jwk=KEYS[1].as_dict(private=False)),
    "a key that is not published": lambda idp: idp.use(KEYS[1]),
    "a key of another under the same id": lambda idp: idp.use(KEYS[1], kid="key-0"),
    "a symmetric key": lambda idp: idp.use(symmetric_key()),
    "no token": lambda idp: idp.token.update(id_token=None),
    "no JWT": lambda idp: idp.token.update(id_token="x.y"),
    "an unsigned token": lambda idp: idp.token.update(
        id_token="eyJhbGciOiJub25lIn0." + idp.id_token("x").split(".")[1] + "."
    ),
}


FAULTS = {
    "another issuer": "another issuer issued the ID token (`iss`)",
    "another audience": "the audience of the ID token is not exactly this client (`aud`)",
    "another audience besides": "the audience of the ID token is not exactly this client (`aud`)",
    "no audience": "the audience of the ID token is not exactly this client (`aud`)",
    "issued to another client": "the ID token was issued to another client (`azp`)",
    "expired": "the token has expired",
    "no end": "`exp` is not a number of seconds between 0 and",
    "from the future": "the token was issued in the future (`iat`)",
    "too old": "the ID token is too old (`iat`)",
    "an end at the time of issue": "the ID token expires (`exp`) before its time of issue (`iat`)",
    "no time": "`iat` is not a number of seconds between 0 and",
    "another nonce": "the ID token belongs to another login (`nonce`)",
    "no nonce": "the ID token belongs to another login (`nonce`)",
    "another access token": "the ID token belongs to another access token (`at_hash`)",
    "no subject": "`sub` is not a string of 1 to 255 ASCII characters",
    "a long subject": "`sub` is not a string of 1 to 255 ASCII characters",
    "a subject that is a number": "`sub` is not a string of 1 to 255 ASCII characters",
    "an access token": "the token is not of type (none) or jwt",
    "a logout token": "the token is not of type (none) or jwt",
    "a key of the token's choice": "the signature was not made by this key over this data",
    "a key that is not published": "no keys fit the token's `kid` and `alg`",
    "a key of another under the same id": "the signature was not made by this key over this data",
    "a symmetric key": "no keys fit the token's `kid` and `alg`",
    "no token": "the response of the provider's token endpoint is not a token response",
    "no JWT": "the token is not a valid JWT",
    "an unsigned token": "no keys fit the token's `kid` and `alg`",
}


@pytest.mark.parametrize("why", BAD_TOKENS)
@pytest.mark.parametrize("database", ["sqlite"])
async def test_an_invalid_id_token_logs_no_person_in(
    here: World, browser: PageClient, idp: OpenIdProvider, why: str
) -> None:
    await add(here, provider_of(idp))
    BAD_TOKENS[why](idp)
    assert await log_in(browser, idp) == 403, why
    assert SESSION_COOKIE not in browser.cookies
    assert (newest_entry(here).action, newest_entry(here).outcome) == ("person.login", "refused")
    assert FAULTS[why] in newest_entry(here).reasons[0].message


@pytest.mark.parametrize("database", ["sqlite"])
async def test_an_id_token_is_accepted_at_the_limits_of_its_times(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    for claims in (
        {"exp": idp.at - LEEWAY // SECOND + 1, "iat": idp.at - 300},
        {"iat": idp.at + LEEWAY // SECOND, "exp": idp.at + 1000},
        {"iat": idp.at - (MAX_AGE + LEEWAY) // SECOND + 1},
    ):
        idp.claims = claims
        assert await log_in(browser, idp) == 303, claims


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"state": "x" * 43}, "wrong_state"),
        ({"state": None}, "wrong_state"),
        ({"iss": "https://evil.example"}, "mixed_up"),
        ({"iss": None}, "mixed_up"),
        ({"code": None}, "no_code"),
        ({"code": None, "error": "access_denied"}, "provider_refused"),
        ({"code": "another"}, "code_refused"),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_callback_that_does_not_match_its_login_or_has_no_valid_code_is_refused(
    here: World, browser: PageClient, idp: OpenIdProvider, changed: dict[str, str | None], code: str
) -> None:
    await add(here, provider_of(idp))
    assert await finish(browser, idp, await begin(browser), **changed) == 403
    assert newest_entry(here).reasons[0].code == code
    assert SESSION_COOKIE not in browser.cookies


async def test_a_callback_in_another_browser_is_refused(here: World, app: ASGIApp, idp: OpenIdProvider) -> None:
    await add(here, provider_of(idp))
    attacker, victim = PageClient(app, follows=False), PageClient(app, follows=False)
    answer = idp.grant(await begin(attacker))
    assert (await victim.get(f"/login/callback/corp?{urlencode(answer)}")).status == 403
    assert newest_entry(here).reasons[0].code == "no_login_in_progress"
    assert "Signing in did not work" in victim.text
    assert 'href="/login">Sign in</a>' in victim.text, "the page leads on"
    await begin(victim)
    assert (await victim.get(f"/login/callback/corp?{urlencode(answer)}")).status == 403
    assert newest_entry(here).reasons[0].code == "wrong_state"
    for forged in ("", "x", "A" * 9000, victim.cookies[PROVIDER_COOKIE][:-8] + "A" * 8):
        victim.cookies[PROVIDER_COOKIE] = forged
        assert (await victim.get(f"/login/callback/corp?{urlencode(answer)}")).status == 403


async def test_logins_in_several_tabs_of_one_browser_do_not_end_each_other(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    tabs = [await begin(browser, return_to=f"/device?tab={number}") for number in range(MAX_ATTEMPTS)]
    for number in (2, 0, 3, 1):
        assert await finish(browser, idp, tabs[number]) == 303, browser.text
        assert browser.answer.headers["location"] == f"/device?tab={number}"
    assert not any(name.startswith(PROVIDER_COOKIE) for name in browser.cookies)


async def test_a_login_beyond_the_maximum_number_of_attempts_replaces_the_first_attempt(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    first, *others = [await begin(browser) for _ in range(MAX_ATTEMPTS + 1)]
    assert sum(name.startswith(PROVIDER_COOKIE) for name in browser.cookies) == MAX_ATTEMPTS
    assert await finish(browser, idp, first) == 403
    assert newest_entry(here).reasons[0].code == "wrong_state"
    for location in others:
        assert await finish(browser, idp, location) == 303, browser.text


@pytest.mark.parametrize("names_issuer", [True, False])
async def test_an_authorization_code_of_one_provider_is_not_sent_to_another(
    here: World, browser: PageClient, idp: OpenIdProvider, clock: Clock, names_issuer: bool
) -> None:
    await add(here, provider_of(idp))
    with openid_provider(at=clock() // SECOND) as evil:
        evil.changed["authorization_response_iss_parameter_supported"] = names_issuer
        await add(here, provider_of(evil, name="evil", provider_id="lp_" + "1" * 32))
        answer = idp.grant(await begin(browser))
        if not names_issuer:
            del answer["iss"]
        assert (await browser.get(f"/login/callback/evil?{urlencode(answer)}")).status == 403
        assert newest_entry(here).reasons[0].code == "mixed_up"
        assert evil.count("/token") == 0


async def test_a_network_has_a_limited_share_of_the_logins_in_progress(
    here: World, app: ASGIApp, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    answering, reply = threading.Event(), idp.reply

    def reply_late(path: str, headers: dict[str, str], form: dict[str, str]) -> tuple[int, Any]:
        assert path != "/token" or answering.wait(PATIENCE_S)
        return reply(path, headers, form)

    async def begin_at(network: int, code: str) -> Callable[[], Coroutine[None, None, int]]:
        browser = PageClient(app, address=f"10.0.{network}.1", follows=False)
        answer = idp.grant(await begin(browser), code=code)

        async def arrive() -> int:
            return (await browser.get(f"/login/callback/corp?{urlencode(answer)}")).status

        return arrive

    networks = [network for network in range(4) for _ in range(MAX_LOGINS_OF_NETWORK)]
    admitted = [await begin_at(network, f"code-{number}") for number, network in enumerate(networks)]
    fifth, stranger = await begin_at(0, "fifth"), await begin_at(9, "stranger")
    idp.reply = reply_late  # type: ignore[method-assign]
    waiting = [asyncio.create_task(arrive()) for arrive in admitted[:MAX_LOGINS_OF_NETWORK]]
    await eventually_async(lambda: idp.count("/token") == MAX_LOGINS_OF_NETWORK)
    assert await fifth() == 503
    waiting += [asyncio.create_task(arrive()) for arrive in admitted[MAX_LOGINS_OF_NETWORK:]]
    await eventually_async(lambda: idp.count("/token") == MAX_LOGINS)
    assert await stranger() == 503, "all places are taken"
    answering.set()
    assert set(await asyncio.gather(*waiting)) == {303}
    assert [await fifth(), await stranger()] == [303, 303]


async def test_a_login_attempt_expires(here: World, browser: PageClient, idp: OpenIdProvider, clock: Clock) -> None:
    await add(here, provider_of(idp))
    location = await begin(browser)
    clock.advance(ATTEMPT_LIFETIME // SECOND)
    assert await finish(browser, idp, location) == 403
    assert newest_entry(here).reasons[0].code == "login_expired"


async def test_rotated_keys_of_a_provider_are_fetched_at_most_once_a_minute(
    here: World, browser: PageClient, idp: OpenIdProvider, clock: Clock
) -> None:
    await add(here, provider_of(idp))
    assert await log_in(browser, idp) == 303
    assert idp.count("/keys") == 1
    clock.advance(61)
    idp.at += 61
    idp.key, idp.published = KEYS[1], [KEYS[0], KEYS[1]]
    assert await log_in(browser, idp) == 303
    assert idp.count("/keys") == 2
    idp.key, idp.published = EC, [KEYS[1], EC]
    for _ in range(3):
        assert await log_in(browser, idp) == 403
    assert idp.count("/keys") == 2
    clock.advance(61)
    idp.at += 61
    idp.claims = {"at_hash": None}
    assert await log_in(browser, idp) == 303
    assert idp.count("/keys") == 3


@pytest.mark.parametrize(
    "published",
    [
        {"keys": [KEYS[0].as_dict(private=True)]},
        {"keys": [KEYS[0].as_dict(private=False)] * 2},
        {"keys": [KEYS[0].as_dict(private=False)] * 129},
        {"keys": "none"},
        b"[" * 100_000,
        b" " * (300 << 10),
    ],
    ids=["private", "twice", "many", "no list", "deep", "large"],
)
@pytest.mark.parametrize("database", ["sqlite"])
async def test_an_invalid_key_set_of_a_provider_logs_no_person_in(
    here: World, browser: PageClient, idp: OpenIdProvider, published: Any
) -> None:
    await add(here, provider_of(idp))
    idp.published = published
    assert await log_in(browser, idp) in (403, 503)
    assert SESSION_COOKIE not in browser.cookies


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://169.254.169.254/token"},
        {"jwks_uri": "http://10.0.0.1/keys"},
        {"token_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": ""},
        {"token_endpoint": ""},
        {"jwks_uri": ""},
        {"response_types_supported": ["token"]},
        {"code_challenge_methods_supported": ["plain"]},
    ],
)
@pytest.mark.parametrize("database", ["sqlite"])
async def test_an_invalid_discovery_document_causes_no_redirect(
    here: World, browser: PageClient, idp: OpenIdProvider, changed: dict[str, Any]
) -> None:
    await add(here, provider_of(idp))
    idp.changed = changed
    assert (await browser.get("/login/with/corp")).status in (422, 503)
    assert "location" not in browser.answer.headers


async def test_a_person_sees_that_the_provider_does_not_answer_and_signs_in_after_it_recovers(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp))
    reply = idp.reply

    def fail(path: str, headers: dict[str, str], form: dict[str, str]) -> tuple[int, Any]:
        return 502, {}

    def is_told() -> bool:
        words = ("Signing in there does not work now", "Corp does not answer", "sign in another way")
        return browser.answer.status == 503 and all(word in browser.text for word in words)

    idp.reply = fail  # type: ignore[method-assign]
    await browser.get("/login/with/corp")
    assert is_told(), browser.text
    idp.reply = reply  # type: ignore[method-assign]
    location = await begin(browser)
    idp.reply = fail  # type: ignore[method-assign]
    await finish(browser, idp, location)
    assert is_told(), browser.text
    assert SESSION_COOKIE not in browser.cookies
    idp.reply = reply  # type: ignore[method-assign]
    assert await log_in(browser, idp) == 303


async def test_the_client_secret_is_encrypted_at_rest_and_private_key_jwt_needs_no_secret(
    here: World, browser: PageClient, idp: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await add(here, provider_of(idp))
    assert made.sealed is not None
    assert SECRET.encode() not in made.sealed
    monkeypatch.setattr(here.keys, "root", RootKey(b"n" * 32, source="test"))
    assert flows.open_client_secret(made, here.keys) == SECRET, "also after the root key was replaced"
    await act(here, "test.remove", lambda act: flows.remove_provider(act, "corp"))
    await add(here, provider_of(idp, authentication="private_key_jwt"), secret="")
    assert await log_in(browser, idp) == 303
    form = next(form for path, _, form in idp.asked if path == "/token")
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def test_a_login_without_the_required_claims_is_refused(
    here: World, browser: PageClient, idp: OpenIdProvider
) -> None:
    await add(here, provider_of(idp, required_claims={"hd": "corp.example"}))
    assert await log_in(browser, idp) == 403
    assert newest_entry(here).reasons[0].code == "account_not_accepted"
    idp.claims = {"hd": "corp.example"}
    assert await log_in(browser, idp) == 303


ISSUERS_OF_PRESETS = [
    (
        "entra",
        "https://login.microsoftonline.com/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/v2.0",
        "https://login.microsoftonline.com/common/v2.0",
    ),
    ("okta", "https://acme.okta.com", "https://okta.com.evil.example"),
    ("google", "https://accounts.google.com", "https://accounts.google.com.evil.example"),
    ("keycloak", "https://sso.corp.example/realms/acme", "https://sso.corp.example/acme"),
]


@pytest.mark.parametrize(("preset", "good", "bad"), ISSUERS_OF_PRESETS)
def test_a_preset_accepts_only_issuers_of_its_form(preset: str, good: str, bad: str) -> None:
    check_issuer(preset, good)
    with pytest.raises(Invalid, match="does not have the form of the preset"):
        check_issuer(preset, bad)


def test_each_preset_has_an_accepted_and_a_refused_issuer() -> None:
    assert {preset for preset, _, _ in ISSUERS_OF_PRESETS} == PRESETS.keys() - {""}
    with pytest.raises(Invalid, match="`preset` .* is not known"):
        check_issuer("Okta", "https://acme.okta.com")


def test_the_google_preset_requires_hd_and_a_group_rule_names_either_a_role_or_a_team() -> None:
    google = Provider(
        provider_id="lp_x",
        name="google",
        label="Google",
        preset="google",
        issuer="https://accounts.google.com",
        settings=OidcSettings("c", "client_secret_basic", ("openid",), False, {}),
        accounts="create",
        group_claim="",
        rules=(),
        mfa=(),
        phishing_resistant=(),
        created_at=0,
    )
    with pytest.raises(Invalid, match="`hd`"):
        check_provider(google)
    for rule in (GroupRule("ops"), GroupRule("ops", role="operator", team="ops")):
        with pytest.raises(Invalid, match="a role or a team"):
            check_provider(Provider(**{f: getattr(google, f) for f in google.__struct_fields__} | {"rules": (rule,)}))
