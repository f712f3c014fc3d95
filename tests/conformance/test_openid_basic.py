"""The checks that the OpenID Foundation's plan for a basic OpenID Provider makes, in the order of the plan.

The client is an agent with a key, or a public client where the plan needs bearer tokens. The tests of clients with a
secret are in `tests/tokens/test_registration.py`. The plan's request with neither `nonce` nor PKCE is refused.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from tests.support.api_fixtures import ISSUER, Answer, claims_of, send
from tests.tokens.code_flow import CALLBACK, VERIFIER, Browser, CodeFlow, begin_flow, header_of, sign_in

FORM = ("content-type", "application/x-www-form-urlencoded")
UNSIGNED = jose.b64u(b'{"alg":"none"}') + ".%s."


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    """A client and the browser of bea, who has an e-mail address, and has agreed to `openid profile email`."""
    flow = await begin_flow(world, app)
    await act(world, "test.mail", lambda act: registry.create_person(act, name="bea", email="bea@example.org"))
    flow.person = registry.find_person(world.db.read(), "bea").person_id
    await sign_in(world, flow.browser, flow.person)
    await flow.answer(scope="openid profile email")
    return flow


async def id_token_of(flow: CodeFlow, **changes: Any) -> dict[str, Any]:
    """Return the claims of the ID token that a good request gives."""
    tokens = await flow.tokens(**{"scope": "openid", **changes})
    claims: dict[str, Any] = claims_of(tokens["id_token"])
    return claims


class PublicClient:
    """A client that has registered itself, without authentication at the token endpoint and without DPoP."""

    def __init__(self, flow: CodeFlow, client_id: str) -> None:
        self.flow, self.id = flow, client_id

    async def tokens(self, **changes: Any) -> dict[str, Any]:
        answer = await self.flow.answer(client_id=self.id, **{"scope": "openid profile email", **changes})
        redeemed = await self.ask("/token", **self.flow.token_form(answer["code"]), client_id=self.id)
        assert redeemed.status == 200, redeemed.body
        tokens: dict[str, Any] = redeemed.json
        return tokens

    async def ask(self, path: str, *headers: tuple[str, str], **form: str) -> Answer:
        return await send(self.flow.client.app, "POST", path, headers=[FORM, *headers], body=urlencode(form).encode())


@pytest.fixture
async def public(app: ASGIApp, flow: CodeFlow) -> PublicClient:
    metadata = {"redirect_uris": [CALLBACK], "grant_types": ["authorization_code", "refresh_token"]}
    registered = await send(
        app,
        "POST",
        "/register",
        headers=[("content-type", "application/json")],
        body=json.dumps(metadata | {"token_endpoint_auth_method": "none"}).encode(),
    )
    assert registered.status == 201
    return PublicClient(flow, registered.json["client_id"])


async def test_the_code_flow_gives_an_id_token_about_the_person(flow: CodeFlow, app: ASGIApp) -> None:
    tokens = await flow.tokens(scope="openid", nonce="a nonce")
    claims = claims_of(tokens["id_token"])
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, flow.client.id, flow.person)
    assert claims["nonce"] == "a nonce"
    assert claims["iat"] < claims["exp"]
    assert len(claims["sub"]) <= 255
    keys = {key["kid"]: key for key in (await send(app, "GET", "/jwks")).json["keys"]}
    header = header_of(tokens["id_token"])
    public_key = jose.parse_public_jwk(keys[header["kid"]])
    assert keys[header["kid"]]["alg"] == header["alg"] == "RS256"
    jose.verify_jws(tokens["id_token"], key_for=lambda _: public_key, typ=("jwt",))


async def test_a_request_without_response_type_is_an_error(flow: CodeFlow) -> None:
    await flow.open(scope="openid", response_type=None)
    assert flow.arrived()["error"] == "invalid_request"


async def test_userinfo_is_returned_for_get_and_post_with_the_header(app: ASGIApp, public: PublicClient) -> None:
    token = (await public.tokens())["access_token"]
    header = ("authorization", f"Bearer {token}")
    by_get = await send(app, "GET", "/userinfo", headers=[header])
    by_post = await send(app, "POST", "/userinfo", headers=[header])
    by_form = await public.ask("/userinfo", header, x="y")
    assert by_get.status == 200
    assert by_get.headers["content-type"] == "application/json"
    assert by_get.json == by_post.json == by_form.json
    assert by_get.json["email"] == "bea@example.org"


async def test_userinfo_accepts_a_token_in_a_form_and_refuses_it_in_a_url(
    app: ASGIApp, public: PublicClient, flow: CodeFlow
) -> None:
    """The metadata say so: `bearer_methods_supported` is `header` and `body`."""
    token = (await public.tokens())["access_token"]
    by_form = await public.ask("/userinfo", access_token=token)
    assert (by_form.status, by_form.json["sub"]) == (200, flow.person)
    for header in (token, "x"):  # RFC 6750 section 2: a client uses one method
        both = await public.ask("/userinfo", ("authorization", f"Bearer {header}"), access_token=token)
        assert (both.status, both.error) == (400, "invalid_request")
    assert (await public.ask("/userinfo", access_token="x")).status == 401
    assert (await public.ask("/userinfo")).status == 401
    assert (await send(app, "GET", f"/userinfo?access_token={token}")).status == 401
    assert (await send(app, "POST", f"/userinfo?access_token={token}", headers=[FORM])).status == 401
    bound = (await flow.tokens(scope="openid"))["access_token"]
    assert (await public.ask("/userinfo", access_token=bound)).status == 401, "a bound token is no bearer token"


async def test_a_request_without_nonce_succeeds(flow: CodeFlow) -> None:
    assert "nonce" not in await id_token_of(flow, nonce=None)


async def test_scopes_in_any_order_return_their_claims(app: ASGIApp, public: PublicClient) -> None:
    cases: list[tuple[str, set[str]]] = [
        ("openid profile", {"name", "preferred_username"}),
        ("openid email", {"email"}),
        ("email profile openid", {"name", "preferred_username", "email"}),
        ("openid address phone", set[str]()),
    ]
    for scope, claims in cases:
        token = (await public.tokens(scope=scope))["access_token"]
        userinfo = await send(app, "GET", "/userinfo", headers=[("authorization", f"Bearer {token}")])
        assert set(userinfo.json) == {"sub", *claims}, scope


async def test_optional_and_unknown_parameters_are_accepted(flow: CodeFlow) -> None:
    cases: list[dict[str, str]] = [
        {"display": "page"},
        {"display": "popup"},
        {"extra": "foobar"},
        {"login_hint": "bea"},
        {"ui_locales": "se"},
        {"claims_locales": "se"},
        {"acr_values": "1 2"},
        {"max_age": "15000"},
    ]
    for extra in cases:
        assert "auth_time" in await id_token_of(flow, **extra), extra


async def test_prompt_login_signs_in_again_and_renews_auth_time(world: World, flow: CodeFlow, clock: Clock) -> None:
    first = await id_token_of(flow)
    clock.advance(10)
    await flow.open(scope="openid", prompt="login")
    await follow_login(world, flow)
    second = claims_of((await flow.redeem(flow.arrived()["code"])).json["id_token"])
    assert second["auth_time"] == first["auth_time"] + 10
    assert second["sub"] == first["sub"]


async def test_a_login_older_than_max_age_is_repeated(world: World, flow: CodeFlow, clock: Clock) -> None:
    first = await id_token_of(flow)
    clock.advance(2)
    await flow.open(scope="openid", max_age="1")
    await follow_login(world, flow)
    second = claims_of((await flow.redeem(flow.arrived()["code"])).json["id_token"])
    assert second["auth_time"] >= first["auth_time"] + 2


@pytest.mark.parametrize("demand", [{"max_age": "1"}, {"prompt": "login"}], ids=str)
async def test_a_login_after_a_pushed_request_counts_for_five_minutes(
    world: World, flow: CodeFlow, clock: Clock, demand: dict[str, str]
) -> None:
    pushed = (await flow.push(scope="openid", **demand)).json["request_uri"]
    opened = f"/authorize?{urlencode({'client_id': flow.client.id, 'request_uri': pushed})}"
    clock.advance(1)
    await sign_in(world, flow.browser, flow.person)
    clock.advance(301)
    await flow.browser.get(opened)
    assert flow.browser.path.startswith("/login?"), "the login is older than the pause that reading takes"
    await sign_in(world, flow.browser, flow.person)
    clock.advance(60)
    flow.browser.left_to = ""
    await flow.browser.get(opened)
    assert "code" in flow.arrived()


async def follow_login(world: World, flow: CodeFlow) -> None:
    """Sign the person in where the authorization endpoint asks for that, and return to the endpoint."""
    assert flow.browser.path.startswith("/login?")
    back = parse_qs(urlsplit(flow.browser.path).query)["return_to"][0]
    await sign_in(world, flow.browser, flow.person)
    flow.browser.left_to = ""
    await flow.browser.get(back)


async def test_prompt_none_keeps_the_login_and_shows_no_page(app: ASGIApp, flow: CodeFlow, clock: Clock) -> None:
    first = await id_token_of(flow)
    clock.advance(10)
    silent = await id_token_of(flow, prompt="none")
    assert {name: silent[name] for name in ("sub", "auth_time")} == {name: first[name] for name in ("sub", "auth_time")}
    flow.browser = Browser(app)
    await flow.open(scope="openid", prompt="none")
    answer = flow.arrived()
    assert (answer["error"], answer["state"]) == ("login_required", "the state")


async def test_an_id_token_hint_of_the_person_is_accepted(flow: CodeFlow) -> None:
    hint = (await flow.tokens(scope="openid"))["id_token"]
    assert (await id_token_of(flow, id_token_hint=hint, prompt="none"))["sub"] == flow.person


async def test_a_code_that_is_used_again_is_refused_and_its_tokens_end(
    app: ASGIApp, public: PublicClient, clock: Clock
) -> None:
    for seconds in (0, 30):
        code = (await public.flow.answer(client_id=public.id, scope="openid profile email"))["code"]
        form = {**public.flow.token_form(code), "client_id": public.id}
        header = ("authorization", f"Bearer {(await public.ask('/token', **form)).json['access_token']}")
        assert (await send(app, "GET", "/userinfo", headers=[header])).status == 200
        clock.advance(seconds)
        again = await public.ask("/token", **form)
        assert (again.status, again.error) == (400, "invalid_grant")
        assert (await send(app, "GET", "/userinfo", headers=[header])).status == 401


@pytest.mark.parametrize("uri", [f"{CALLBACK}/other", f"{CALLBACK}?x=y", "https://evil.example/"])
async def test_an_unregistered_redirect_uri_shows_an_error_page_without_a_redirect(flow: CodeFlow, uri: str) -> None:
    flow.browser.left_to = ""
    page = await flow.open(scope="openid", redirect_uri=uri)
    assert (page.status, flow.browser.left_to) == (400, "")
    assert page.headers["content-type"].startswith("text/html")
    assert "location" not in page.headers


async def test_an_unsigned_request_object_is_rejected_as_unsupported(flow: CodeFlow) -> None:
    inside = {"redirect_uri": "https://evil.example/", "client_id": flow.client.id, "scope": "openid"}
    for content in ({}, inside):
        flow.browser.left_to = ""
        await flow.open(scope="openid", request=UNSIGNED % jose.b64u(json.dumps(content).encode()))
        assert flow.arrived()["error"] == "request_not_supported"


async def test_an_essential_claim_is_returned(app: ASGIApp, public: PublicClient) -> None:
    claims = json.dumps({"userinfo": {"name": {"essential": True}}})
    token = (await public.tokens(scope="openid", claims=claims))["access_token"]
    userinfo = await send(app, "GET", "/userinfo", headers=[("authorization", f"Bearer {token}")])
    assert userinfo.json == {"sub": public.flow.person, "name": "bea"}


async def test_a_refresh_keeps_issuer_subject_audience_and_auth_time(
    public: PublicClient, flow: CodeFlow, clock: Clock
) -> None:
    first = await public.tokens(nonce="n")
    clock.advance(5)
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"], "client_id": public.id}
    second = (await public.ask("/token", **form)).json
    before, after = claims_of(first["id_token"]), claims_of(second["id_token"])
    assert [after[name] for name in ("iss", "sub", "aud", "auth_time")] == [
        before[name] for name in ("iss", "sub", "aud", "auth_time")
    ]
    assert after["iat"] == before["iat"] + 5
    other = await flow.refresh(second["refresh_token"])
    assert (other.status, other.error) == (400, "invalid_grant"), "a refresh token belongs to its client"


async def test_a_code_is_redeemed_with_the_verifier_of_its_challenge_alone(flow: CodeFlow) -> None:
    code = (await flow.answer(scope="openid"))["code"]
    assert (await flow.redeem(code, code_verifier="w" * 43)).error == "invalid_grant"
    assert (await flow.redeem(code, code_verifier=VERIFIER)).status == 200
