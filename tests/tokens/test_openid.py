"""Userinfo, device authorization, logout, the page of consents, and clients that no administrator registered."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from msgspec.structs import replace
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import call_admin_api, is_live, newest_entry
from ostiary.authorization.assurance import KEY, PERSON_MFA, PERSON_SINGLE, TWO_KEYS
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Refused, Unavailable
from ostiaryd.app import build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.database.server_keys import load_keys, replace_keys
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.tokens import flows
from ostiaryd.tokens.flows import authorization
from ostiaryd.tokens.flows.logout import SHARE, make_logout_token
from ostiaryd.tokens.model import InvalidRequest
from ostiaryd.tokens.model.authorization import CLAIMS, PERSON_CLAIMS
from ostiaryd.tokens.model.consent import Choice
from ostiaryd.tokens.model.device import DEVICE_S, read_user_code
from ostiaryd.tokens.model.id_tokens import IdToken
from ostiaryd.tokens.store import logout
from ostiaryd.tokens.wire_authorize import PARAMETERS, PushedForm
from ostiaryd.tokens.wire_oauth import ClientForm
from ostiaryd.tokens.wire_userinfo import UserinfoBody
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import registration, resolve_client, sessions
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.clients import DEVICE_CODE, ClientKind, ClientMetadata, ClientState, OAuthClient
from ostiaryd.trust.store import clients, people
from tests.support.api_fixtures import FILES, ISSUER, Answer, Client, claims_of, reconfigured, send
from tests.tokens.code_flow import CALLBACK, LOGOUT, Browser, CodeFlow, begin_flow, header_of, make_client, sign_in

USERINFO = f"{ISSUER}/userinfo"


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    return await begin_flow(world, app)


async def read_userinfo(flow: CodeFlow, token: str, *, key: jose.PrivateKey | None = None) -> Answer:
    """Read userinfo with a DPoP proof, with the retry that the nonce needs."""
    nonce = None
    for _ in range(2):
        proof = dpop.make_proof(
            key or flow.client.key,
            method="GET",
            uri=USERINFO,
            now=flow.world.now(),
            jti=flow.client.jti(),
            access_token=token,
            nonce=nonce,
        )
        answer = await send(
            flow.client.app, "GET", "/userinfo", headers=[("authorization", f"DPoP {token}"), ("dpop", proof)]
        )
        if (nonce := answer.headers.get("dpop-nonce")) is None or answer.status == 200:
            break
    return answer


def test_a_pushed_request_accepts_the_parameters_of_a_request_by_browser() -> None:
    pushed = PushedForm.__annotations__.keys() - ClientForm.__annotations__.keys()
    assert {one.name for one in PARAMETERS} - {"client_id", "request_uri"} == pushed


def test_each_claim_about_a_person_is_in_the_schemas_of_userinfo_and_id_token() -> None:
    assert UserinfoBody.__annotations__.keys() == {"sub", *PERSON_CLAIMS}
    assert {*CLAIMS} <= {*IdToken.__struct_fields__}


async def test_userinfo_has_the_claims_that_the_scopes_and_claims_parameter_request(
    world: World, flow: CodeFlow
) -> None:
    await act(world, "test.mail", lambda act: registry.create_person(act, name="bea", email="bea@example.org"))
    person = registry.find_person(world.db.read(), "bea").person_id
    await sign_in(world, flow.browser, person)
    tokens = await flow.tokens(scope="openid profile email")
    assert (tokens["scope"], claims_of(tokens["access_token"])["aud"]) == ("email openid profile", USERINFO)
    answer = await read_userinfo(flow, tokens["access_token"])
    assert answer.json == {"sub": person, "name": "bea", "preferred_username": "bea", "email": "bea@example.org"}
    assert newest_entry(world).person == person
    claims = json.dumps({"userinfo": {"email": None}, "id_token": {"name": {"essential": True}}})
    single = await flow.tokens(scope="openid", claims=claims)
    assert claims_of(single["id_token"])["name"] == "bea"
    assert (await read_userinfo(flow, single["access_token"])).json == {"sub": person, "email": "bea@example.org"}


async def test_userinfo_refuses_a_token_of_another_kind_or_key(world: World, flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope="openid files:read")
    for token in (tokens["id_token"], tokens["access_token"], "x"):
        answer = await read_userinfo(flow, token)
        assert (answer.status, answer.error) == (401, "invalid_token")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    own = (await flow.refresh(tokens["refresh_token"], resource=USERINFO)).json
    assert (await read_userinfo(flow, own["access_token"])).status == 200
    assert (await read_userinfo(flow, own["access_token"], key=jose.generate("ES256"))).status == 401
    bearer = await send(
        flow.client.app, "GET", "/userinfo", headers=[("authorization", f"Bearer {own['access_token']}")]
    )
    assert bearer.status == 401, "a bound token is not a bearer token"
    assert (await send(flow.client.app, "GET", "/userinfo")).status == 401


async def test_a_client_without_dpop_gets_a_bearer_token_only_for_userinfo(flow: CodeFlow) -> None:
    code = (await flow.answer(scope="openid"))["code"]
    answer = await flow.client.ask(proof=None, **flow.token_form(code))
    assert (answer.status, answer.json["token_type"]) == (200, "Bearer")
    headers = [("authorization", f"Bearer {answer.json['access_token']}")]
    assert (await send(flow.client.app, "GET", "/userinfo", headers=headers)).json == {"sub": flow.person}
    code = (await flow.answer(scope="files:read"))["code"]
    refused = await flow.client.ask(proof=None, **flow.token_form(code))
    assert (refused.status, refused.error) == (400, "invalid_dpop_proof")


# --- devices


async def begin_device(flow: CodeFlow, **form: Any) -> dict[str, Any]:
    answer = await flow.client.post("/device_authorization", flow.authenticated(**{"scope": "files:read", **form}))
    assert answer.status == 200, answer.body
    codes: dict[str, Any] = answer.json
    return codes


async def test_a_device_gets_tokens_once_after_a_person_consents(world: World, flow: CodeFlow, clock: Clock) -> None:
    codes = await begin_device(flow)
    form = {"grant_type": DEVICE_CODE, "device_code": codes["device_code"]}
    assert (await flow.token(**form)).error == "authorization_pending"
    assert (await flow.token(**form)).error == "slow_down"
    clock.advance(9, us=999_999)
    assert (await flow.token(**form)).error == "slow_down"
    clock.advance(15)
    assert (await flow.token(**form)).error == "authorization_pending"
    await flow.browser.get(codes["verification_uri_complete"].removeprefix(ISSUER))
    await flow.browser.submit("/device")
    assert "if the device in front of you shows this code" in flow.browser.text
    await flow.browser.submit("/device/consent", decision="allow")
    assert "The device is connected" in flow.browser.text
    tokens = (await flow.token(**form)).json
    claims = claims_of(tokens["access_token"])
    assert (claims["sub"], claims["act"]) == (flow.person, {"sub": flow.client.id})
    again = await flow.token(**form)
    assert again.error == "invalid_grant"
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant", "the replay ended the grant"


async def test_a_denied_or_expired_device_code_gets_no_tokens_and_is_answered_once(
    flow: CodeFlow, clock: Clock
) -> None:
    denied, late = await begin_device(flow), await begin_device(flow)
    await flow.browser.get("/device")
    await flow.browser.submit("/device", user_code=denied["user_code"].lower().replace("-", " "))
    form = flow.browser.form("/device/consent")
    await flow.browser.post("/device/consent", **form | {"decision": "deny"})
    assert "not connected" in flow.browser.text
    answer = await flow.token(grant_type=DEVICE_CODE, device_code=denied["device_code"])
    assert answer.error == "access_denied"
    assert (await flow.browser.post("/device/consent", **form)).status == 404
    clock.advance(DEVICE_S)
    assert (await flow.token(grant_type=DEVICE_CODE, device_code=late["device_code"])).error == "expired_token"
    await flow.browser.get("/device")
    assert (await flow.browser.submit("/device", user_code=late["user_code"])).status == 404


async def test_wrong_user_codes_are_limited_at_the_device_page(flow: CodeFlow) -> None:
    codes = await begin_device(flow)
    await flow.browser.get("/device")
    form = flow.browser.form("/device")
    statuses = [(await flow.browser.post("/device", **form | {"user_code": "BBBB-BBBB"})).status for _ in range(7)]
    assert statuses == [404] * 6 + [429]
    refused = await flow.browser.post("/device", **form | {"user_code": codes["user_code"]})
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert "Too many codes were wrong" in flow.browser.text
    assert "password" not in flow.browser.text.partition("<footer>")[0]


async def test_wrong_user_codes_are_limited_at_the_consent_form_of_the_device(flow: CodeFlow) -> None:
    codes = await begin_device(flow)
    await flow.browser.get("/device")
    await flow.browser.submit("/device", user_code=codes["user_code"])
    form = flow.browser.form("/device/consent") | {"decision": "deny"}
    guess = form | {"user_code": "BBBBBBBB"}
    statuses = [(await flow.browser.post("/device/consent", **guess)).status for _ in range(7)]
    assert statuses == [404] * 6 + [429]
    assert (await flow.browser.post("/device/consent", **form)).status == 429


@pytest.mark.parametrize(
    ("text", "code"), [("wdjb-mjht", "WDJBMJHT"), ("WDJB MJHT ", "WDJBMJHT"), ("WDJB-MJH", ""), ("AEIO-UYAE", "")]
)
def test_a_user_code_is_read_in_either_case_with_a_hyphen_or_a_space(text: str, code: str) -> None:
    assert read_user_code(text) == code


async def test_a_device_code_of_another_client_is_refused(world: World, app: ASGIApp, flow: CodeFlow) -> None:
    codes = await begin_device(flow)
    other = await begin_flow(world, app, name="writer")
    answer = await other.token(grant_type=DEVICE_CODE, device_code=codes["device_code"])
    assert answer.error == "invalid_grant"


# --- logout


async def test_logout_with_an_id_token_ends_the_session_and_its_grants(world: World, flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope="openid files:read")
    kept = await flow.tokens(scope="openid files:read offline_access")
    query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": LOGOUT, "state": "s"}
    await flow.browser.get(f"/logout?{urlencode(query)}")
    assert flow.browser.left_to == f"{LOGOUT}?state=s"
    assert not flow.browser.cookies
    await flows.follow_sessions(world)
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    assert (await flow.refresh(kept["refresh_token"])).status == 200, "offline_access survives the session"


async def test_a_logout_without_a_hint_asks_the_person_and_refuses_unregistered_uris(flow: CodeFlow) -> None:
    await flow.browser.get(f"/logout?{urlencode({'client_id': flow.client.id, 'post_logout_redirect_uri': LOGOUT})}")
    assert "asks to sign you out" in flow.browser.text
    assert flow.browser.cookies
    await flow.browser.submit("/logout/confirm")
    assert (flow.browser.left_to, flow.browser.cookies) == (LOGOUT, {})
    flow.browser.left_to = ""
    for query in (
        {"client_id": flow.client.id, "post_logout_redirect_uri": "https://evil.example/"},
        {"post_logout_redirect_uri": LOGOUT},
        {"id_token_hint": "e30.e30.e30"},
    ):
        assert (await flow.browser.get(f"/logout?{urlencode(query)}")).status == 400
        assert not flow.browser.left_to


@pytest.mark.parametrize("names_client", [True, False])
async def test_a_logout_with_a_hint_of_a_forgotten_key_asks_the_person(
    world: World, flow: CodeFlow, names_client: bool
) -> None:
    tokens = await flow.tokens(scope="openid files:read")
    await act(world, "keys.rotate", lambda act: replace_keys(act.tx, act.tx.keys.root, use="token"))
    load_keys(world.keys, world.db.read())
    flow.browser.left_to = ""
    query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": LOGOUT}
    query |= {"client_id": flow.client.id} if names_client else {}
    assert (await flow.browser.get(f"/logout?{urlencode(query)}")).status == 200
    assert flow.browser.cookies, "the person has to confirm"
    await flow.browser.submit("/logout/confirm")
    assert (flow.browser.left_to, flow.browser.cookies) == (LOGOUT if names_client else "", {})


async def test_a_logout_redirects_only_to_clients_that_the_person_agreed_to(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    await make_document(world, post_logout_redirect_uris=("https://evil.example/",))
    query = urlencode({"client_id": DOCUMENT, "post_logout_redirect_uri": "https://evil.example/"})
    stranger = Browser(app)
    for browser in (stranger, flow.browser):
        assert (await browser.get(f"/logout?{query}")).status == 400
        assert browser.left_to == ""
    await flow.answer()
    await stranger.get(f"/logout?{query}")
    assert stranger.left_to == "", "another person agreed to the client: the browser does not go there by itself"
    assert ("evil.example" in stranger.text, 'href="https://evil.example/"' in stranger.text) == (True, True)
    await flow.browser.get(f"/logout?{query}")
    await flow.browser.submit("/logout/confirm")
    assert flow.browser.left_to == "https://evil.example/", "this person agreed to the client"


async def test_a_confirmed_logout_does_not_redirect_to_a_client_of_another_person(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    await make_document(world, post_logout_redirect_uris=("https://evil.example/",))
    await flow.answer()
    await act(world, "test.person", lambda act: registry.create_person(act, name="bea"))
    other = Browser(app)
    await sign_in(world, other, registry.find_person(world.db.read(), "bea").person_id)
    await other.get(
        f"/logout?{urlencode({'client_id': DOCUMENT, 'post_logout_redirect_uri': 'https://evil.example/'})}"
    )
    await other.submit("/logout/confirm")
    assert (other.left_to, other.cookies) == ("", {})
    assert "The application leads to <strong>evil.example</strong>." in other.text


async def test_a_logout_with_the_id_token_of_another_person_does_not_redirect(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    await make_document(world, post_logout_redirect_uris=("https://evil.example/",))
    code = (await flow.answer(scope="openid files:read"))["code"]
    got = (await public_token(flow, **flow.token_form(code))).json
    query = {"post_logout_redirect_uri": "https://evil.example/", "id_token_hint": got["id_token"]}
    stranger = Browser(app)
    await stranger.get(f"/logout?{urlencode(query)}")
    assert (stranger.left_to, 'href="https://evil.example/"' in stranger.text) == ("", True)
    await flow.browser.get(f"/logout?{urlencode(query)}")
    assert flow.browser.left_to == "https://evil.example/"


async def test_a_cross_site_post_to_authorize_or_logout_works_by_a_redirect_to_get(
    world: World, flow: CodeFlow
) -> None:
    tokens = await flow.tokens(scope="openid files:read")
    cookies, flow.browser.cookies = flow.browser.cookies, {}
    flow.browser.left_to = ""
    for path, form in (
        ("/authorize", flow.query(scope="openid files:read")),
        ("/logout", {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": LOGOUT, "state": "a b"}),
    ):
        flow.browser.origin, flow.browser.follows = "https://app.example", False
        answer = await flow.browser.post(path, **form)
        assert (answer.status, flow.browser.left_to) == (303, "")
        location = answer.headers["location"]
        assert location.startswith(path + "?")
        flow.browser.cookies = dict(cookies)  # the navigation that follows is a GET, and has them
        flow.browser.follows = True
        await flow.browser.get(location)
        assert flow.browser.left_to.startswith(CALLBACK if path == "/authorize" else f"{LOGOUT}?state=a+b")
        flow.browser.cookies, flow.browser.left_to = {}, ""
    assert people.sessions_of(world.db.read(), flow.person, now=world.now()) == []


async def test_a_client_with_a_back_channel_is_sent_one_logout_token_about_a_logout(world: World, app: ASGIApp) -> None:
    flow = await begin_flow(world, app, backchannel_logout_uri="https://app.example/logout")
    tokens = await flow.tokens(scope="openid")
    sid = claims_of(tokens["id_token"])["sid"]
    await act(world, "test.logout", lambda act: sessions.end_session(act, sid))
    await flows.follow_sessions(world)
    await flows.follow_sessions(world)
    [waiting] = logout.due(world.db.read(), now=world.now(), limit=10, share=10)
    token = make_logout_token(world, waiting)
    claims = claims_of(token)
    assert header_of(token)["typ"] == "logout+jwt"
    assert (claims["aud"], claims["sub"], claims["sid"]) == (flow.client.id, flow.person, sid)
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert "nonce" not in claims


async def test_a_logout_token_is_sent_to_a_client_whose_tokens_have_expired(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    flow = await begin_flow(world, app)
    uri = "https://app.example/logout"
    public = await make_document(world, backchannel_logout_uri=uri)
    stored = replace(public, metadata=replace(public.metadata, grant_types=("authorization_code",)))
    await act(world, "test.client", lambda act: clients.put(act.tx, stored))
    flow.client = Client(app, world, DOCUMENT, jose.generate("ES256"))
    code = (await flow.answer(scope="openid"))["code"]
    tokens = (await public_token(flow, **flow.token_form(code))).json
    assert "refresh_token" not in tokens
    clock.advance(world.config.token_lifetime_s + 1)
    await flows.forget(world)
    sid = claims_of(tokens["id_token"])["sid"]
    await act(world, "test.logout", lambda act: sessions.end_session(act, sid))
    await flows.follow_sessions(world)
    [waiting] = logout.due(world.db.read(), now=world.now(), limit=10, share=10)
    assert (waiting.client_id, waiting.session, waiting.uri) == (DOCUMENT, sid, uri)


async def test_the_clients_of_a_session_are_forgotten_when_the_session_expires(
    world: World, flow: CodeFlow, clock: Clock
) -> None:
    await flow.tokens(scope="openid")
    clock.advance(world.config.session_lifetime_s - 1)
    await flows.forget(world)
    [(count,)] = world.db.read().all(sql("select count(*) from session_client"))
    assert count == 1
    clock.advance(1)
    await flows.forget(world)
    [(count,)] = world.db.read().all(sql("select count(*) from session_client"))
    assert count == 0


async def test_a_logout_token_is_sent_for_a_session_that_a_new_login_prolonged(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    flow = await begin_flow(world, app, backchannel_logout_uri="https://app.example/logout")
    sid = claims_of((await flow.tokens(scope="openid"))["id_token"])["sid"]
    step = world.config.session_idle_s // 2
    clock.advance(step)
    assert await sign_in(world, flow.browser, flow.person, replaces=sid) == sid
    for _ in range(world.config.session_lifetime_s // step):
        await flow.browser.get("/account")
        clock.advance(step)
    clock.advance(-1)
    await flows.forget(world)
    await act(world, "test.logout", lambda act: sessions.end_session(act, sid))
    await flows.follow_sessions(world)
    [waiting] = logout.due(world.db.read(), now=world.now(), limit=10, share=10)
    assert (waiting.client_id, waiting.session) == (flow.client.id, sid)


async def test_a_logout_does_not_redirect_to_a_client_without_a_consent(world: World, app: ASGIApp) -> None:
    flow = await begin_flow(world, app)
    await make_document(world, post_logout_redirect_uris=("https://evil.example/",))
    query = urlencode({"client_id": DOCUMENT, "post_logout_redirect_uri": "https://evil.example/"})
    for browser in (flow.browser, Browser(app)):
        answer = await browser.get(f"/logout?{query}")
        assert (answer.status, browser.left_to) == (400, "")
        assert "evil.example" not in browser.text
    await act(world, "test.use", lambda act: trust.note_client_use(act.tx, DOCUMENT))
    await flow.browser.get(f"/logout?{query}")
    assert "asks to sign you out" in flow.browser.text, "a person has agreed to the client"


async def test_a_logout_to_another_port_than_registered_is_refused(world: World, app: ASGIApp) -> None:
    registered = "http://127.0.0.1:8000/bye"
    flow = await begin_flow(world, app, post_logout_redirect_uris=[registered])
    for uri, status in ((registered, 200), (registered.replace("8000", "8001"), 400)):
        query = {"client_id": flow.client.id, "post_logout_redirect_uri": uri}
        assert (await flow.browser.get(f"/logout?{urlencode(query)}")).status == status


@pytest.mark.parametrize("kind", [ClientKind.AGENT, ClientKind.DOCUMENT])
async def test_a_logout_token_for_an_unregistered_client_reaches_no_private_host(
    world: World, app: ASGIApp, monkeypatch: pytest.MonkeyPatch, kind: ClientKind
) -> None:
    world = reconfigured(world, private_hosts="intranet.example")
    sent: list[Any] = []

    async def deliver(uri: str, body: bytes, *, private: Any, **options: Any) -> tuple[int, str]:
        sent.append((uri, set(private)))
        return 200, ""

    monkeypatch.setattr("ostiaryd.tokens.flows.logout.deliver", deliver)
    uri = "https://intranet.example/delete"
    flow = await begin_flow(world, app, backchannel_logout_uri=uri, private=["intranet.example"])
    client_id = flow.client.id
    if kind is ClientKind.DOCUMENT:
        client_id = (await make_document(world, backchannel_logout_uri=uri)).client_id
    waiting = logout.Waiting("lo_" + "0" * 32, client_id, uri, flow.person, "se_1", 0, world.now() + 10**9)
    await act(world, "test.logout", lambda act: logout.put(act.tx, waiting))
    await flows.deliver_logouts(world)
    assert sent == [(uri, {"intranet.example"} if kind is ClientKind.AGENT else set())]


# --- consents


async def test_a_person_and_an_administrator_can_list_and_withdraw_consents(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    tokens = await flow.tokens(scope="openid files:read files:write")
    await flow.browser.get("/consents")
    for line in ("files:read", "files:write", "Know who you are: your id at this server"):
        assert f"<bdi>{line}</bdi>" in flow.browser.text
    status, listed = await call_admin_api(world, "GET", "/consents?person=ann")
    [consent] = listed["consents"]
    assert (status, consent["agent"], consent["person"]) == (200, "reader", "ann")
    other = Browser(app)
    await act(world, "test.person", lambda act: registry.create_person(act, name="eve"))
    await sign_in(world, other, registry.find_person(world.db.read(), "eve").person_id)
    await other.get("/consents")
    stolen = {"form_token": _token_of(other), "consent": consent["consent_id"]}
    assert (await other.post("/consents", **stolen)).status == 403
    await flow.browser.submit("/consents")
    assert "You have consented to nothing" in flow.browser.text
    assert newest_entry(world).action == "consent.withdraw"
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    second = await flow.tokens(scope="openid files:read")
    [again] = flows.list_consents(world.db.read(), flow.person)
    status, shown = await call_admin_api(world, "POST", f"/consents/{again.consent_id}/revoke")
    assert (status, shown["ended_why"]) == (200, "withdrawn")
    assert (await flow.refresh(second["refresh_token"])).error == "invalid_grant"


def _token_of(browser: Browser) -> str:
    return "x" if "form_token" not in browser.text else browser.text.split('name="form_token" value="')[1].split('"')[0]


# --- clients that no administrator registered

DOCUMENT = "https://app.example/client.json"


async def make_document(world: World, grants: Collection[str] = (), **changes: Any) -> OAuthClient:
    """Store a client as its metadata document made it, fresh for a day."""
    described: dict[str, Any] = {
        "redirect_uris": (CALLBACK,),
        "client_name": "Example Notes",
        "grant_types": ("authorization_code", "refresh_token", *grants),
    }
    metadata = ClientMetadata(**described | changes)
    client = OAuthClient(
        client_id=DOCUMENT,
        handle="cl_" + "0" * 32,
        kind=ClientKind.DOCUMENT,
        state=ClientState.ACTIVE,
        metadata=metadata,
        digest=metadata.digest(),
        created_at=world.now(),
        changed_at=world.now(),
        fresh_until=world.now() + 86_400_000_000,
    )

    def put(act: Act) -> None:
        clients.put(act.tx, client)
        registry.grant_role(act, "ann", "operator")  # unregistered clients act for people with a role alone

    await act(world, "test.document", put)
    return client


async def public_flow(world: World, app: ASGIApp) -> CodeFlow:
    flow = await begin_flow(world, app)
    await make_document(world)
    flow.client = Client(app, world, DOCUMENT, jose.generate("ES256"))
    return flow


async def post_from(address: str, app: ASGIApp, path: str, form: dict[str, Any]) -> Answer:
    headers = [("content-type", "application/x-www-form-urlencoded")]
    return await send(app, "POST", path, headers=headers, body=urlencode(form).encode(), address=address)


async def public_token(flow: CodeFlow, *, key: jose.PrivateKey | None = None, **form: Any) -> Answer:
    for _ in range(2):
        proof = flow.client.proof(key=key or flow.client.key)
        answer = await flow.client.post("/token", {"client_id": DOCUMENT, **form}, dpop=proof)
        if answer.error != "use_dpop_nonce":
            break
    return answer


async def test_an_unregistered_client_becomes_an_agent_of_the_person(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    await flow.open()
    assert "No administrator has registered this application. Only app.example vouches for it." in flow.browser.text
    await flow.allow()
    got = (await public_token(flow, **flow.token_form(flow.arrived()["code"]))).json
    claims = claims_of(got["access_token"])
    agent = registry.find_agent(world.db.read(), claims["client_id"])
    assert (claims["sub"], claims["act"], agent.owner) == (flow.person, {"sub": agent.agent_id}, flow.person)
    assert agent.scopes == {"files:read"}
    assert (agent.state.value, claims["registration"]) == ("active", "document")
    second = await public_token(flow, **flow.token_form((await flow.answer(scope="files:write"))["code"]))
    assert claims_of(second.json["access_token"])["client_id"] == agent.agent_id
    stranger = await public_token(
        flow, key=jose.generate("ES256"), grant_type="refresh_token", refresh_token=got["refresh_token"]
    )
    assert stranger.error == "invalid_grant", "the refresh token of a public client is bound to its key"
    refreshed = await public_token(flow, grant_type="refresh_token", refresh_token=got["refresh_token"])
    assert refreshed.status == 200
    await make_document(world, software_version="2", policy_uri="https://app.example/privacy")
    token = refreshed.json["refresh_token"]
    assert (await public_token(flow, grant_type="refresh_token", refresh_token=token)).status == 200


async def test_a_client_uses_only_the_grant_types_of_its_registration(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    got = (await public_token(flow, **flow.token_form((await flow.answer())["code"]))).json
    device = {"grant_type": DEVICE_CODE, "device_code": "x"}
    assert (await public_token(flow, key=None, **device)).error == "unauthorized_client"
    assert newest_entry(world).outcome == "refused"
    asked = await flow.client.post("/device_authorization", {"client_id": DOCUMENT, "scope": "openid"})
    assert asked.error == "unauthorized_client"
    await make_document(world, grant_types=("authorization_code",))
    refresh = {"grant_type": "refresh_token", "refresh_token": got["refresh_token"]}
    assert (await public_token(flow, key=None, **refresh)).error == "unauthorized_client"


async def test_an_unregistered_client_can_revoke_only_its_own_tokens(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    got = (await public_token(flow, **flow.token_form((await flow.answer())["code"]))).json
    agent = await begin_flow(world, app, name="writer")
    for token in (got["access_token"], got["refresh_token"]):
        refused = await agent.client.post("/revoke", agent.authenticated(token=token))
        assert refused.error == "invalid_grant"
    own = await agent.tokens()
    for token in (own["access_token"], own["refresh_token"]):
        assert (await flow.client.post("/revoke", {"client_id": DOCUMENT, "token": token})).error == "invalid_grant"
    jti = claims_of(got["access_token"])["jti"]
    assert (await flow.client.post("/revoke", {"client_id": DOCUMENT, "token": got["access_token"]})).status == 200
    assert not is_live(world, jti)
    refreshed = await public_token(flow, grant_type="refresh_token", refresh_token=got["refresh_token"])
    assert refreshed.status == 200
    token = refreshed.json["refresh_token"]
    assert (await flow.client.post("/revoke", {"client_id": DOCUMENT, "token": token})).status == 200
    assert not is_live(world, claims_of(refreshed.json["access_token"])["jti"])
    assert (await public_token(flow, grant_type="refresh_token", refresh_token=token)).error == "invalid_grant"


async def test_open_requests_of_unregistered_clients_are_limited_for_each_network(
    world: World, app: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.tokens.flows.authorization.MAX_REQUESTS", 2)
    flow = await public_flow(world, app)

    async def push(address: str = "192.0.2.1") -> Answer:
        return await post_from(address, app, "/par", flow.query(client_id=DOCUMENT))

    first = (await push()).json["request_uri"]
    assert (await push()).status == 201
    for address in ("192.0.2.1", "192.0.2.255"):
        assert (await push(address)).error == "temporarily_unavailable"
    assert (await push("192.0.3.0")).status == 201, "another network"
    await flow.browser.get(f"/authorize?{urlencode({'client_id': DOCUMENT, 'request_uri': first})}")
    await flow.allow()
    assert (await push()).status == 201, "an answered request makes room"


async def test_device_requests_of_unregistered_clients_are_limited_for_each_network(
    world: World, app: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.tokens.wire_device.DeviceBuckets.burst", 6)
    flow = await begin_flow(world, app)
    await make_document(world, {DEVICE_CODE})
    form = {"client_id": DOCUMENT, "scope": "files:read", "resource": FILES}
    addresses = ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.255", "192.0.3.0")
    answers = [await post_from(address, app, "/device_authorization", form) for address in addresses]
    assert [answer.status for answer in answers] == [200, 200, 503, 503, 200]
    assert await begin_device(flow), "an agent that an administrator registered has a limit of its own"


async def test_an_error_does_not_redirect_to_a_client_that_the_person_has_not_agreed_to(
    world: World, app: ASGIApp
) -> None:
    flow = await public_flow(world, app)
    for changes in ({"scope": "mail:read"}, {"prompt": "none"}, {"response_type": "token"}):
        answer = await flow.open(**changes)
        assert (answer.status >= 400, flow.browser.left_to) == (True, ""), changes
        assert "The answer goes to <strong>app.example</strong>" in flow.browser.text
        assert f'href="{CALLBACK}?error=' in flow.browser.text
    await flow.answer()
    assert (await flow.answer(scope="mail:read"))["error"] == "invalid_target", "this person agreed to the client"
    await act(world, "test.person", lambda act: registry.create_person(act, name="bea"))
    flow.browser = Browser(app)
    await flow.open(scope="mail:read")
    assert flow.browser.left_to == "", "nobody is signed in"
    assert (await flow.answer(prompt="none"))["error"] == "login_required", "a silent request is answered"
    flow.browser = Browser(app)
    await sign_in(world, flow.browser, registry.find_person(world.db.read(), "bea").person_id)
    for changes in ({"scope": "mail:read"}, {"prompt": "none"}):
        await flow.open(**changes)
        assert flow.browser.left_to == "", "another person agreed to the client"


async def test_a_client_whose_document_changed_needs_a_new_consent(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    tokens = (await public_token(flow, **flow.token_form((await flow.answer())["code"]))).json
    client = clients.get_oauth_client(world.db.read(), DOCUMENT)
    assert client is not None
    metadata = replace(client.metadata, redirect_uris=(CALLBACK, "https://elsewhere.example/callback"))
    changed = replace(client, metadata=metadata, digest=metadata.digest())
    await act(world, "test.change", lambda act: clients.put(act.tx, changed))
    refused = await public_token(flow, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refused.error == "invalid_grant"
    flow.browser.left_to = ""
    await flow.open(redirect_uri="https://elsewhere.example/callback")
    assert "The application has changed its name, keys or redirect addresses since you agreed." in flow.browser.text
    assert "The application receives the answer at elsewhere.example, which is not app.example." in flow.browser.text


async def test_the_consent_page_warns_of_a_name_that_looks_like_a_known_application(world: World, app: ASGIApp) -> None:
    flow = await begin_flow(world, app, name="example-n0tes")
    await flow.answer()
    await make_document(world)
    flow.client = Client(app, world, DOCUMENT, jose.generate("ES256"))
    flow.browser.left_to = ""
    await flow.open()
    assert "The name of the application looks like <code>example-n0tes</code>" in flow.browser.text


async def test_the_consent_page_warns_of_a_name_that_looks_like_an_agent_or_the_server(
    world: World, app: ASGIApp
) -> None:
    flow = await begin_flow(world, app, name="examp1e-notes")  # the person never agreed to this agent
    await make_document(world)
    flow.client = Client(app, world, DOCUMENT, jose.generate("ES256"))
    await flow.open()
    assert "The name of the application looks like <code>examp1e-notes</code>" in flow.browser.text
    await make_document(world, client_name="0stiarу")
    await flow.open()
    assert "The name of the application looks like <code>Ostiary</code>" in flow.browser.text


@pytest.mark.parametrize(
    ("change", "refusal"), [("stop", InvalidClient), ("change", InvalidRequest), ("delete", InvalidClient), ("", None)]
)
async def test_a_client_that_is_stopped_changed_or_deleted_during_its_request_gets_no_code(
    world: World, app: ASGIApp, change: str, refusal: type[Refused] | None
) -> None:
    flow = await public_flow(world, app)
    await flow.open()
    client, form = await resolve_client(world, DOCUMENT), flow.browser.form("/consent")
    reader, now = world.db.read(), world.now()
    stored = authorization.find_request(reader, form["request_uri"], client, now=now)
    [session] = people.sessions_of(reader, flow.person, now=now)
    offer = authorization.make_offer(reader, stored.request, client, now=now, config=world.config)
    if change == "stop":
        await act(world, "client.stop", lambda act: registration.stop_client(act, client.handle))
    if change == "delete":
        await act(world, "client.delete", lambda act: registration.delete_client(act, client))
    if change == "change":
        await make_document(world, client_name="Another")

    def agree(act: Act) -> str:
        choice = Choice(scopes=offer.scopes, details=frozenset(), seconds=3600, digest=client.digest)
        return authorization.agree(
            act, stored.request, offer, choice, client, session, session.assurance, request_uri=form["request_uri"]
        )

    if refusal is None:
        assert await act(world, "authorization.consent", agree)
        return
    with pytest.raises(refusal):
        await act(world, "authorization.consent", agree)
    assert newest_entry(world).outcome == "refused"
    assert flows.list_consents(world.db.read(), flow.person) == []


async def test_a_response_by_form_post_is_a_form_to_the_redirect_uri(flow: CodeFlow) -> None:
    await flow.answer()
    answer = await flow.open(response_mode="form_post")
    fields = flow.browser.form(CALLBACK)
    assert (fields["state"], fields["iss"]) == ("the state", ISSUER)
    assert "form-action 'self' https://app.example" in answer.headers["content-security-policy"]
    assert (await flow.redeem(fields["code"])).status == 200


async def test_a_redirect_uri_adds_no_directive_to_the_content_security_policy(world: World, flow: CodeFlow) -> None:
    uri = "com.example.app://x;sandbox,x/callback"
    await make_client(world, registry.find_agent(world.db.read(), "reader"), redirect_uris=[uri])
    await flow.open(response_mode="form_post", redirect_uri=uri)
    await flow.allow()
    policy = flow.browser.answer.headers["content-security-policy"]
    assert "form-action 'self' com.example.app:" in policy
    assert "sandbox" not in policy


@pytest.mark.parametrize(
    "uri", ["com.example.app://bank.example/callback", "cursor://bank.example/callback", "com.example.app:/callback"]
)
async def test_the_consent_page_names_a_private_use_scheme_and_no_host_behind_it(
    world: World, flow: CodeFlow, uri: str
) -> None:
    await make_client(world, registry.find_agent(world.db.read(), "reader"), redirect_uris=[uri])
    await flow.open(redirect_uri=uri)
    assert f"an application on this device ({uri.partition(':')[0]})" in flow.browser.text
    assert "bank.example" not in flow.browser.text
    await flow.allow()
    assert f"{uri}?code=" in flow.browser.left_to


async def test_the_device_page_asks_for_a_login_that_returns_to_the_page(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    browser = Browser(app)
    await browser.get("/device?user_code=WDJB-MJHT")
    query = parse_qs(urlsplit(browser.path).query)
    assert query["return_to"] == ["/device?user_code=WDJB-MJHT"]


async def test_an_authorization_request_by_post_is_accepted_like_a_request_by_get(flow: CodeFlow) -> None:
    await flow.answer()
    flow.browser.left_to = ""
    await flow.browser.post("/authorize", **flow.query())
    assert "code" in flow.arrived()


async def test_registered_defaults_apply_to_requests_without_max_age_or_acr_values(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    flow = await public_flow(world, app)
    await flow.answer()
    metadata = ClientMetadata(
        redirect_uris=(CALLBACK,), client_name="Example Notes", default_max_age=100, default_acr_values=(PERSON_MFA,)
    )
    stored = replace(await make_document(world), metadata=metadata, digest=metadata.digest(), used_at=world.now())

    async def ask(**changes: Any) -> str:
        flow.browser.left_to = ""
        answer = await flow.answer(prompt="none", **changes)
        return answer.get("error", "code")

    await act(world, "test.client", lambda act: clients.put(act.tx, stored))
    assert await ask() == "login_required"
    assert await ask(acr_values=PERSON_SINGLE) == "code"
    clock.advance(101)
    assert await ask(acr_values=PERSON_SINGLE) == "login_required"
    assert await ask(acr_values=PERSON_SINGLE, max_age="101") == "code"


async def test_a_client_that_registered_for_bound_tokens_gets_no_bearer_token(world: World, app: ASGIApp) -> None:
    flow = await public_flow(world, app)
    client = await make_document(world)
    metadata = replace(client.metadata, dpop_bound_access_tokens=True)
    await act(world, "test.client", lambda act: clients.put(act.tx, replace(client, metadata=metadata)))
    form = {"client_id": DOCUMENT, **flow.token_form((await flow.answer(scope="openid"))["code"])}
    refused = await flow.client.post("/token", form)
    assert (refused.status, refused.error) == (400, "invalid_dpop_proof"), "also for userinfo"
    assert (await public_token(flow, **form)).json["token_type"] == "DPoP"


async def test_a_token_request_must_name_the_used_redirect_uri_of_several_to_sign_in(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    several = await begin_flow(world, app, name="writer", redirect_uris=[CALLBACK, "https://app.example/other"])
    for one, scope, status in ((flow, "openid", 200), (several, "files:read", 200), (several, "openid", 400)):
        form = one.token_form((await one.answer(scope=scope))["code"])
        del form["redirect_uri"]
        answer = await one.token(**form)
        assert answer.status == status, scope
    assert answer.error == "invalid_grant"
    assert "redirect_uri" in answer.json["error_description"]


async def test_a_request_with_an_id_token_hint_of_another_person_is_refused(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    hint = (await flow.tokens(scope="openid"))["id_token"]
    assert "code" in await flow.answer(scope="openid", id_token_hint=hint, prompt="none")
    await act(world, "test.person", lambda act: registry.create_person(act, name="eve"))
    await sign_in(world, flow.browser, registry.find_person(world.db.read(), "eve").person_id)
    assert (await flow.answer(scope="openid", id_token_hint=hint, prompt="none"))["error"] == "login_required"
    other = await begin_flow(world, app, name="writer")
    assert (await other.answer(scope="openid", id_token_hint=hint))["error"] == "invalid_request"


async def test_an_essential_acr_is_met_or_refused(flow: CodeFlow) -> None:
    await flow.answer()
    claims = {"id_token": {"acr": {"essential": True, "values": [PERSON_MFA]}}}
    assert (await flow.answer(claims=json.dumps(claims), prompt="none"))["error"] == "login_required"
    claims["id_token"]["acr"]["values"] = [PERSON_SINGLE]
    assert "code" in await flow.answer(claims=json.dumps(claims), prompt="none")
    assert "code" in await flow.answer(acr_values="urn:mace:incommon:iap:silver", prompt="none"), "a wish"


@pytest.mark.parametrize("is_essential", [True, False])
async def test_an_acr_that_no_login_of_a_person_reaches_is_refused_at_once(flow: CodeFlow, is_essential: bool) -> None:
    """OpenID Connect Core 1.0 section 5.5.1.1: an essential level that cannot be met is a failed login."""
    unreachable = (KEY, TWO_KEYS, f"{KEY} {TWO_KEYS}", *(["urn:mace:incommon:iap:silver"] if is_essential else []))
    for levels in unreachable:
        claims = {"id_token": {"acr": {"essential": True, "values": levels.split()}}}
        demand = {"claims": json.dumps(claims)} if is_essential else {"acr_values": levels}
        assert (await flow.answer(**demand))["error"] == "unmet_authentication_requirements", levels
        assert (await flow.push(**demand)).error == "unmet_authentication_requirements", levels
    assert "code" in await flow.answer(acr_values=f"{TWO_KEYS} {PERSON_SINGLE}")


async def test_a_renewed_id_token_states_the_same_login(flow: CodeFlow, clock: Clock) -> None:
    first = await flow.tokens(scope="openid", nonce="n")
    clock.advance(100)
    renewed = claims_of((await flow.refresh(first["refresh_token"])).json["id_token"])
    before = claims_of(first["id_token"])
    assert {name: renewed[name] for name in ("iss", "sub", "aud", "auth_time", "sid")} == {
        name: before[name] for name in ("iss", "sub", "aud", "auth_time", "sid")
    }
    assert renewed["iat"] == before["iat"] + 100
    assert "nonce" not in renewed


async def test_scopes_that_no_resource_can_have_are_ignored_with_openid(flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope="openid address phone files:read")
    assert claims_of(tokens["access_token"])["scope"] == "files:read"
    alone = await flow.tokens(scope="openid address")
    assert (alone["scope"], claims_of(alone["access_token"])["aud"]) == ("openid", USERINFO)
    device = await flow.client.post("/device_authorization", flow.authenticated(scope="openid phone"))
    assert device.status == 200
    flow.browser.left_to = ""
    await flow.open(scope="address")
    assert flow.arrived()["error"] == "invalid_target", "without openid, the client asks for a resource"


async def test_every_claim_that_the_metadata_names_is_supplied(world: World, app: ASGIApp, flow: CodeFlow) -> None:
    await act(world, "test.mail", lambda act: registry.create_person(act, name="bea", email="bea@example.org"))
    await sign_in(world, flow.browser, registry.find_person(world.db.read(), "bea").person_id)
    tokens = await flow.tokens(scope="openid profile email", nonce="n")
    userinfo = (await read_userinfo(flow, tokens["access_token"])).json
    named = (await send(app, "GET", "/.well-known/openid-configuration")).json["claims_supported"]
    assert set(named) == set(claims_of(tokens["id_token"])) | set(userinfo)


async def test_a_challenge_of_userinfo_offers_the_bearer_and_the_dpop_scheme(app: ASGIApp) -> None:
    """OpenID Connect Core 1.0 section 5.3.3, RFC 6750 section 3: the scheme is Bearer; RFC 9449 section 7.1: both."""
    for headers, error in (([], ""), ([("authorization", "Bearer x")], 'error="invalid_token", ')):
        refused = await send(app, "GET", "/userinfo", headers=headers)
        challenges = refused.headers["www-authenticate"]
        metadata = f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource/userinfo"'
        assert challenges.startswith(f"Bearer {error}{metadata}, DPoP {error}algs="), challenges
        assert challenges.endswith(metadata)
    proof = await send(app, "GET", "/userinfo", headers=[("authorization", "DPoP x"), ("dpop", "y")])
    assert proof.status == 401


async def test_a_challenge_of_userinfo_names_the_metadata_of_userinfo(app: ASGIApp) -> None:
    refused = await send(app, "GET", "/userinfo")
    assert (refused.status, refused.error) == (401, "invalid_token")
    challenge = refused.headers["www-authenticate"]
    assert "error=" not in challenge, "RFC 6750 section 3.1: no error code without a token"
    url = challenge.partition('resource_metadata="')[2].partition('"')[0]
    document = (await send(app, "GET", url.removeprefix(ISSUER))).json
    assert (document["resource"], document["authorization_servers"]) == (USERINFO, [ISSUER])
    assert USERINFO in (await send(app, "GET", "/.well-known/oauth-authorization-server")).json["protected_resources"]


async def test_a_head_request_gets_the_status_and_headers_of_a_get_request(app: ASGIApp, flow: CodeFlow) -> None:
    request = urlencode(flow.query(scope="openid", prompt="none"))
    for path in (f"/authorize?{request}", "/authorize", "/logout", "/login", "/account", "/accounts", "/device"):
        by_get, by_head = await send(app, "GET", path), await send(app, "HEAD", path)
        names = ("content-type", "location")
        expected = (by_get.status, *map(by_get.headers.get, names))
        assert (by_head.status, *map(by_head.headers.get, names)) == expected, path


async def test_unknown_and_optional_parameters_are_accepted(flow: CodeFlow) -> None:
    await flow.answer()
    extra = {"display": "page", "ui_locales": "fr de", "claims_locales": "fr", "nonsense": "x", "login_hint": "ann"}
    assert "code" in await flow.answer(**extra)


async def test_a_logout_token_that_cannot_be_delivered_is_retried_and_then_given_up(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    flow = await begin_flow(world, app, backchannel_logout_uri="https://app.invalid/logout")
    tokens = await flow.tokens(scope="openid")
    sid = claims_of(tokens["id_token"])["sid"]
    await act(world, "test.logout", lambda act: sessions.end_session(act, sid))
    await flows.follow_sessions(world)
    for wait_s in (5, 30, 120, 600):
        await flows.deliver_logouts(world)
        assert logout.due(world.db.read(), now=world.now(), limit=10, share=10) == []
        clock.advance(wait_s)
        assert len(logout.due(world.db.read(), now=world.now(), limit=10, share=10)) == 1
    await flows.deliver_logouts(world)
    assert newest_entry(world).action == "logout.give_up"
    clock.advance(3600)
    assert logout.due(world.db.read(), now=world.now(), limit=10, share=10) == []


async def test_an_unreachable_receiver_of_logout_tokens_delays_no_other_receiver(
    world: World, app: ASGIApp, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of sessions at one application end at once, and its service is down."""
    sent: list[str] = []

    async def deliver(uri: str, body: bytes, **options: Any) -> tuple[int, str]:
        sent.append(uri)
        if uri == down:
            raise Unavailable("the remote server does not answer in time")
        return 200, ""

    monkeypatch.setattr("ostiaryd.tokens.flows.logout.deliver", deliver)
    down, good = "https://down.example/logout", "https://good.example/logout"
    clients = [
        (await begin_flow(world, app, name=name, backchannel_logout_uri=uri)).client.id
        for name, uri in (("first", down), ("second", good))
    ]

    async def wait(number: int, client_id: str, uri: str) -> None:
        waiting = logout.Waiting(f"lo_{number:032}", client_id, uri, "pe_1", "se_1", 0, world.now() + 10**12)
        await act(world, "test.logout", lambda act: logout.put(act.tx, waiting))

    for number in range(30):
        await wait(number, clients[0], down)
    clock.advance(us=1)
    await wait(30, clients[1], good)
    await flows.deliver_logouts(world)
    assert (sent.count(down), sent.count(good)) == (SHARE, 1)
    await wait(31, clients[1], good)
    await flows.deliver_logouts(world)
    assert (sent.count(down), sent.count(good)) == (SHARE, 2), "the tokens for the service that is down wait"
    clock.advance(5)
    await flows.deliver_logouts(world)
    assert sent.count(down) == 2 * SHARE


async def test_an_id_token_has_the_claims_of_the_granted_scopes(flow: CodeFlow) -> None:
    """OpenID Connect Core 1.0 section 5.4; many clients read them only there."""
    assert "name" not in claims_of((await flow.tokens(scope="openid"))["id_token"])
    claims = claims_of((await flow.tokens(scope="openid profile email"))["id_token"])
    person = registry.find_person(flow.world.db.read(), flow.person)
    assert (claims["name"], claims["preferred_username"]) == (person.name, person.name)
    assert claims.get("email") == person.email
