"""Attacks on the OpenID Provider: redirects, mix-up, downgrades, tokens of the wrong kind or client, and URLs of
strangers. Each is refused in the form of the protocol, leaves an entry, and changes nothing else.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.protocol import dpop, jose
from ostiaryd.app import build_app
from ostiaryd.approvals.wire_ciba import BackchannelForm
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.tokens import flows
from ostiaryd.tokens.flows.logout import make_logout_token
from ostiaryd.tokens.store import logout
from ostiaryd.tokens.wire_authorize import PushedForm
from ostiaryd.tokens.wire_device import DeviceForm
from ostiaryd.tokens.wire_oauth import GRANT_TYPES, TokenForm, TokenQueryForm
from ostiaryd.trust.model.clients import InvalidRedirectUri, check_redirect_uri
from tests.support.api_fixtures import FILES, ISSUER, Answer, claims_of, send
from tests.tokens.code_flow import CALLBACK, VERIFIER, Browser, CodeFlow, begin_flow, challenge_of, sign_in

TABLES = ("authorization_request", "authorization_code", "oauth_grant", "consent", "task", "holding", "oauth_client")


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    return await begin_flow(world, app)


def counted(world: World) -> dict[str, int]:
    """Return the number of rows of each table that an authorization may add to."""
    reader = world.db.read()
    return {name: reader.all(sql(f"select count(*) from {name}"))[0][0] for name in TABLES}


def entries(world: World) -> int:
    [(count,)] = world.db.read().all(sql("select count(*) from entry"))
    return int(count)


# --- requests at once, and consents that change in mid-flight


async def test_a_code_from_before_its_consent_was_narrowed_is_refused(world: World, flow: CodeFlow) -> None:
    wide = (await flow.answer(scope="openid files:read files:write"))["code"]
    await flow.open(scope="openid files:read files:write", prompt="consent")
    await flow.allow(**{"scope.files:write": None})
    narrow, before = flow.arrived()["code"], counted(world)
    refused = await flow.redeem(wide)
    assert (refused.status, refused.error) == (400, "invalid_grant")
    assert (newest_entry(world).outcome, counted(world)) == ("refused", before)
    assert (await flow.redeem(narrow)).json["scope"] == "files:read"


async def test_concurrent_uses_of_a_refresh_token_get_one_successor(flow: CodeFlow) -> None:
    first = (await flow.tokens())["refresh_token"]
    answers = await asyncio.gather(*(flow.refresh(first) for _ in range(5)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["access_token"] for answer in answers}) == 5
    [successor] = {answer.json["refresh_token"] for answer in answers}
    assert (await flow.refresh(successor)).status == 200


async def test_a_code_sent_several_times_at_once_is_redeemed_once_and_its_grant_ends(
    world: World, flow: CodeFlow
) -> None:
    await flow.tokens()
    before, code = counted(world), (await flow.answer())["code"]
    answers = await asyncio.gather(*(flow.redeem(code) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
    assert counted(world)["oauth_grant"] == before["oauth_grant"] + 1
    [redeemed] = [answer.json for answer in answers if answer.status == 200]
    assert (await flow.refresh(redeemed["refresh_token"])).error == "invalid_grant"


async def test_a_pushed_request_opened_several_times_at_once_gives_one_code(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    await flow.tokens()
    pushed = (await flow.push()).json["request_uri"]
    url = f"/authorize?{urlencode({'client_id': flow.client.id, 'request_uri': pushed})}"
    before = counted(world)
    browsers = [Browser(app, cookies=dict(flow.browser.cookies)) for _ in range(4)]
    await asyncio.gather(*(browser.get(url) for browser in browsers))
    arrived = [dict(parse_qsl(urlsplit(browser.left_to).query)) for browser in browsers]
    assert sorted(answer.get("error", "") for answer in arrived) == ["", *["invalid_request"] * 3]
    assert counted(world)["authorization_code"] == before["authorization_code"] + 1


# --- redirects

WEB = CALLBACK
LOOSE = "http://127.0.0.1/native"
LOOSE_6 = "http://[::1]/native"
SPELLINGS = [
    "https:app.example/callback",
    "https:///app.example/callback",
    "https://app.example//callback",
    "https://app.example/./callback",
    "https://app.example/x/../callback",
    "https://app.example/x/%2e%2e/callback",
    "https://app.example/callback%00",
    "https://app.example/callback%0d%0aset-cookie:x=1",
    "https://app.example/callback\t",
    "https://app.example/callback ",
    " https://app.example/callback",
    "https://app.example/callback;x",
    "https://app.example/callback?",
    "https://app.example/Callback",
    "https://app.example./callback",
    "https://app.example:/callback",
    "https://app.example:0443/callback",
    "https://@app.example/callback",
    "https://:@app.example/callback",
    "https://app.example\\.evil.example/callback",
    "https://app.example%2eevil.example/callback",
    "https://app.example%40evil.example/callback",
    "https://evil.example/?https://app.example/callback",
    "https://evil.example/#https://app.example/callback",
    "https://аpp.example/callback",  # a Cyrillic letter
    "https://ａpp.example/callback",  # a full-width letter
    "https://xn--pp-7lc.example/callback",
    "HTTPS://app.example/callback",
    "http://app.example/callback",
    "//app.example/callback",
    "/callback",
    "callback",
    "http://127.1/native",
    "http://2130706433/native",
    "http://0x7f000001/native",
    "http://0177.0.0.1/native",
    "http://127.0.0.1.evil.example/native",
    "http://127.0.0.1:٨٠/native",
    "http://127.0.0.1:/native",
    "http://127.0.0.1:-1/native",
    "http://127.0.0.1:80:90/native",
    "http://127.0.0.1:65536/native",
    "http://127.0.0.1:0/native",
    "https://127.0.0.1/native",
    "http://localhost/native",
    "http://[::1/native",
    "http://[::1]evil.example/native",
    "http://[::1]:80@evil.example/native",
    "http://[::0001]/native",
    "http://[::ffff:127.0.0.1]/native",
    "http://[::ffff:7f00:1]/native",
    "http://[::1%25lo]/native",
    "http://[::]/native",
    "http://0.0.0.0/native",
    "javascript://app.example/%0aalert(1)",
    "data:text/html,x",
]


async def test_another_spelling_of_a_redirect_uri_is_refused_without_a_redirect(world: World, app: ASGIApp) -> None:
    flow = await begin_flow(world, app, redirect_uris=[WEB, LOOSE, LOOSE_6])
    before = counted(world)
    for uri in SPELLINGS:
        recorded = entries(world)
        query = urlencode(flow.query(redirect_uri=uri))
        got = await flow.browser.get(f"/authorize?{query}")
        posted = await flow.browser.post("/authorize", **flow.query(redirect_uri=uri))
        pushed = await flow.push(redirect_uri=uri)
        assert {got.status, posted.status, pushed.status} == {400}, uri
        assert not {"location", "refresh"} & {*got.headers, *posted.headers}, uri
        assert b"http-equiv" not in got.body
        assert (flow.browser.left_to, pushed.error) == ("", "invalid_request"), uri
        if uri == SPELLINGS[0]:  # later ones are counted, and summarised in one entry
            assert entries(world) == recorded + 3
    assert (newest_entry(world).action, newest_entry(world).outcome) == ("authorization.push", "refused")
    assert counted(world) == before


@pytest.mark.parametrize("name", ["code", "state", "iss", "error"])
def test_a_redirect_uri_with_a_parameter_of_the_response_is_refused(name: str) -> None:
    with pytest.raises(InvalidRedirectUri, match=name):
        check_redirect_uri(f"https://app.example/callback?a=b&{name}=x")
    assert check_redirect_uri(f"https://app.example/callback?{name}x=1")


# --- mix-up


async def test_every_authorization_response_names_the_issuer_once(world: World, app: ASGIApp) -> None:
    flow = await begin_flow(world, app, redirect_uris=[f"{CALLBACK}?tenant=1"])
    uri = f"{CALLBACK}?tenant=1"
    cases: list[dict[str, Any]] = [
        {},
        {"scope": "mail:read"},
        {"prompt": "none", "max_age": "0"},
        {"code_challenge": None},
    ]
    for changes in cases:
        flow.browser.left_to = ""
        await flow.open(redirect_uri=uri, **changes)
        if not flow.browser.left_to:
            await flow.allow()
        answer = parse_qsl(urlsplit(flow.browser.left_to).query)
        assert [value for name, value in answer if name == "iss"] == [ISSUER], changes
        assert ("tenant", "1") in answer, "the query of the registered URI stays"
        assert len(answer) == len(dict(answer)), changes
        await flow.open(redirect_uri=uri, response_mode="form_post", **changes)
        assert flow.browser.form(uri)["iss"] == ISSUER


# --- PKCE, and parameters beside a pushed request


async def test_parameters_beside_a_pushed_request_are_ignored(world: World, flow: CodeFlow) -> None:
    await flow.answer()
    pushed = (await flow.push(scope="files:read")).json["request_uri"]
    beside = {
        "client_id": flow.client.id,
        "request_uri": pushed,
        "redirect_uri": "https://evil.example/",
        "code_challenge": challenge_of("e" * 43),
        "code_challenge_method": "plain",
        "scope": "files:write",
        "state": "evil",
        "response_mode": "form_post",
    }
    flow.browser.left_to = ""
    await flow.browser.get(f"/authorize?{urlencode(beside)}")
    answer = flow.arrived()
    assert answer["state"] == "the state"
    wrong = await flow.token(**flow.token_form(answer["code"], code_verifier="e" * 43))
    assert wrong.error == "invalid_grant"
    assert (await flow.redeem(answer["code"])).json["scope"] == "files:read"


async def test_a_code_without_its_verifier_is_refused(world: World, flow: CodeFlow) -> None:
    code = (await flow.answer())["code"]
    before = counted(world)
    for verifier in (None, "", "w" * 43, challenge_of(VERIFIER), VERIFIER + "v", VERIFIER[:-1], VERIFIER.upper()):
        form = flow.token_form(code, code_verifier=verifier)
        answer = await flow.token(**{name: value for name, value in form.items() if value is not None})
        assert (answer.status, answer.error) in ((400, "invalid_grant"), (400, "invalid_request")), verifier
    assert counted(world) == before
    assert (await flow.redeem(code)).status == 200


async def test_a_replayed_code_ends_every_token_issued_from_it(world: World, app: ASGIApp, flow: CodeFlow) -> None:
    code = (await flow.answer(scope="openid files:read"))["code"]
    first = (await flow.redeem(code)).json
    second = (await flow.refresh(first["refresh_token"])).json
    about = (await flow.refresh(second["refresh_token"], resource=f"{ISSUER}/userinfo")).json
    other = await begin_flow(world, app, name="writer")
    assert (await other.redeem(code)).error == "invalid_grant", "another client ends nothing"
    assert (await call_userinfo(flow, about["access_token"])).status == 200
    assert (await flow.redeem(code)).error == "invalid_grant"
    for tokens in (first, second, about):
        holding = registry.get_holding(world.db.read(), claims_of(tokens["access_token"])["jti"])
        assert holding is not None
        assert holding.ended_at is not None
    assert (await call_userinfo(flow, about["access_token"])).status == 401
    assert (await flow.refresh(about["refresh_token"])).error == "invalid_grant"


async def call_userinfo(flow: CodeFlow, token: str, *, scheme: str = "DPoP") -> Answer:
    nonce = None
    for _ in range(2):
        proof = dpop.make_proof(
            flow.client.key,
            method="GET",
            uri=f"{ISSUER}/userinfo",
            now=flow.world.now(),
            jti=flow.client.jti(),
            access_token=token,
            nonce=nonce,
        )
        headers = [("authorization", f"{scheme} {token}"), ("dpop", proof)]
        answer = await send(flow.client.app, "GET", "/userinfo", headers=headers)
        if (nonce := answer.headers.get("dpop-nonce")) is None or answer.status == 200:
            break
    return answer


# --- tokens of another kind, or of another client


async def test_a_token_is_not_accepted_as_a_token_of_another_kind(world: World, flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope="openid files:read")
    session = claims_of(tokens["id_token"])["sid"]
    waiting = logout.Waiting("lo_1", flow.client.id, "https://app.example/out", flow.person, session, 0, world.now())
    logout_token = make_logout_token(world, waiting)
    before = counted(world)
    for token in (tokens["id_token"], logout_token, tokens["refresh_token"]):
        assert (await call_userinfo(flow, token)).status == 401
        assert (await flow.client.post("/introspect", flow.authenticated(token=token))).json == {"active": False}
        exchange = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token}
        kind = "urn:ietf:params:oauth:token-type:access_token"
        assert (await flow.token(**exchange, subject_token_type=kind, resource=FILES)).status == 400
    for token in (tokens["access_token"], logout_token, tokens["refresh_token"], flow.client.assertion()):
        flow.browser.left_to = ""
        await flow.open(id_token_hint=token)
        assert flow.arrived()["error"] == "invalid_request"
        assert (await flow.browser.get(f"/logout?{urlencode({'id_token_hint': token})}")).status == 400
        assert (await flow.refresh(token)).error in ("invalid_grant", "invalid_request") or token.startswith("rt_")
    for token in (tokens["id_token"], tokens["access_token"], logout_token):
        form = {"client_assertion": token, "client_assertion_type": flow.authenticated()["client_assertion_type"]}
        assert (await flow.client.post("/par", flow.query() | form)).status == 401
    assert counted(world) == before | {"oauth_grant": before["oauth_grant"], "holding": counted(world)["holding"]}


async def test_a_client_cannot_use_the_tokens_of_another_client(world: World, app: ASGIApp, flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope="openid files:read")
    other = await begin_flow(world, app, name="writer")
    assert (await other.refresh(tokens["refresh_token"])).error == "invalid_grant"
    seen = await other.client.post("/introspect", other.authenticated(token=tokens["access_token"]))
    assert seen.json == {"active": False}
    await other.client.post("/revoke", other.authenticated(token=tokens["access_token"]))
    await other.open(id_token_hint=tokens["id_token"])
    assert other.arrived()["error"] == "invalid_request"
    pushed = (await flow.push()).json["request_uri"]
    query = urlencode({"client_id": other.client.id, "request_uri": pushed})
    assert (await other.browser.get(f"/authorize?{query}")).status == 400
    holding = registry.get_holding(world.db.read(), claims_of(tokens["access_token"])["jti"])
    assert holding is not None
    assert holding.ended_at is None
    assert (await flow.refresh(tokens["refresh_token"])).status == 200


# --- URLs that strangers name


@pytest.fixture
def listeners() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port on both loopback addresses, on which nothing may arrive."""
    four, six = socket.socket(), socket.socket(socket.AF_INET6)
    four.bind(("127.0.0.1", 0))
    port = four.getsockname()[1]
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.bind(("::1", port))
    for one in (four, six):
        one.listen()
        one.setblocking(False)
    yield port, [four, six]
    for one in (four, six):
        one.close()


def has_arrived(listeners: list[socket.socket]) -> bool:
    """Return whether a connection was opened to one of them."""
    for one in listeners:
        try:
            one.accept()
        except BlockingIOError:
            continue
        return True
    return False


HOSTS = (
    "127.0.0.1",
    "localhost",
    "localhost.",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0.0.0.0",
)
FIELDS = (
    *("jwks_uri", "logo_uri", "client_uri", "policy_uri", "tos_uri", "initiate_login_uri", "backchannel_logout_uri"),
    *("sector_identifier_uri", "frontchannel_logout_uri", "request_uris", "post_logout_redirect_uris"),
)


async def test_a_url_in_a_request_opens_no_connection_to_this_machine(
    world: World, app: ASGIApp, flow: CodeFlow, listeners: tuple[int, list[socket.socket]]
) -> None:
    port, sockets = listeners
    for host in HOSTS:
        for scheme in ("https", "http"):
            url = f"{scheme}://{host}:{port}/x"
            for name in FIELDS:
                await _try_field(app, flow, name, [url] if name.endswith("uris") else url)
                assert not has_arrived(sockets), (name, url)
            await flow.browser.get(f"/authorize?{urlencode(flow.query(client_id=url))}")
            await flow.open(request_uri=url)
            await flow.push(request_uri=url)
            await flow.push(client_id=url)
            assert not has_arrived(sockets), url
    await flows.deliver_logouts(world)
    assert not has_arrived(sockets)


async def _try_field(app: ASGIApp, flow: CodeFlow, name: str, value: Any) -> None:
    """Register a client with a URL, and where it is accepted, use the client."""
    key = jose.generate("ES256", kid="1")
    method = "private_key_jwt" if name == "jwks_uri" else "none"
    metadata = {"client_name": "Evil", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method, name: value}
    body = json.dumps(metadata).encode()
    made = await send(
        app, "POST", "/register", headers=[("content-type", "application/json")], body=body, address=_address()
    )
    assert made.status in (201, 400), made.body
    if made.status == 400:
        assert made.json["error"] in ("invalid_client_metadata", "invalid_redirect_uri")
        return
    id = made.json["client_id"]
    await flow.browser.get(f"/authorize?{urlencode(flow.query(client_id=id, scope='openid'))}")
    now = flow.world.now() // 1_000_000
    claims = {"iss": id, "sub": id, "aud": ISSUER, "iat": now, "exp": now + 60, "jti": flow.client.jti()}
    form = {"client_id": id, "grant_type": "authorization_code", "code": "x", "code_verifier": VERIFIER}
    if method != "none":
        form["client_assertion"] = jose.sign_jwt(key, typ="client-authentication+jwt", claims=claims)
        form["client_assertion_type"] = flow.authenticated()["client_assertion_type"]
    assert (await flow.client.post("/token", form)).status in (400, 401, 503)


_NUMBERS = iter(range(10_000))


def _address() -> str:
    """Return an address of another network each time, so that no rate is reached."""
    number = next(_NUMBERS)
    return f"10.{number // 250}.{number % 250}.1"


async def test_a_logout_token_is_not_sent_to_this_machine(
    world: World, app: ASGIApp, listeners: tuple[int, list[socket.socket]]
) -> None:
    port, sockets = listeners

    def queue(act: Act) -> None:
        for host in HOSTS:
            uri = f"https://{host}:{port}/logout"
            logout.put(act.tx, logout.Waiting(f"lo_{host}", "cl_1", uri, "pe_1", "se_1", 0, act.now + 10**9))

    await act(world, "test.logout", queue)
    await flows.deliver_logouts(world)
    assert not has_arrived(sockets)


async def test_a_session_cannot_answer_the_consent_request_of_another_person(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    await flow.open()
    form = flow.browser.form("/consent") | {"decision": "allow"}
    other = Browser(app)
    person = await act(world, "test.person", lambda act: registry.create_person(act, name="eve"))
    await sign_in(world, other, person.person_id)
    assert (await other.post("/consent", **form)).status == 403
    assert flows.list_consents(world.db.read(), flow.person) == []


# --- secrets in the wrong field

SECRET = "correct-horse-battery-staple"
GRANTS = "urn:ietf:params:oauth:grant-type:"
FORMS: dict[str, dict[str, str]] = {
    "/token": {"grant_type": "client_credentials"},
    "/token#code": {"grant_type": "authorization_code", "code": "x", "code_verifier": VERIFIER},
    "/token#refresh": {"grant_type": "refresh_token", "refresh_token": "x"},
    "/token#device": {"grant_type": f"{GRANTS}device_code", "device_code": "x"},
    "/token#ciba": {"grant_type": "urn:openid:params:grant-type:ciba", "auth_req_id": "x"},
    "/token#exchange": {
        "grant_type": f"{GRANTS}token-exchange",
        "subject_token": "x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "resource": FILES,
    },
    "/par": {},
    "/device_authorization": {"scope": "files:read"},
    "/bc-authorize": {"login_hint": "ann", "scope": "openid files:read"},
    "/introspect": {"token": "x"},
    "/revoke": {"token": "x"},
}
"""By path, the form of a request but for its client; `#` separates a remark."""
FORM_FIELDS = {
    name
    for form in (TokenForm, TokenQueryForm, PushedForm, DeviceForm, BackchannelForm)
    for name in form.__annotations__
} - {"scope"}
"""Fields of the endpoints. A scope that a client lacks is named in the entry of its refusal."""
URIS = ("client_id", "redirect_uri", "resource", "request_uri")


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_secret_in_the_wrong_field_is_in_no_entry(world: World, flow: CodeFlow, clock: Clock) -> None:
    texts = [(field, SECRET) for field in sorted(FORM_FIELDS)]
    for field in URIS:
        texts += [(field, f"https://ann:{SECRET}@app.example/"), (field, f"https://app.example/?{SECRET}#")]
    leaks, last = [], entries(world)
    assert {form.get("grant_type") for form in FORMS.values()} >= set(GRANT_TYPES)
    forms = FORMS | {"/par": flow.query()}
    for (path, form), (field, text) in product(forms.items(), texts):
        path, _, _ = path.partition("#")
        clock.advance(61)  # so that every refusal has a full entry
        client = flow.authenticated() if field != "client_id" else {}
        await flow.client.post(path, client | form | {field: text})
        new = world.db.read().all(sql("select body from entry where idx >= :last"), last=last)
        leaks += [(path, field, bytes(body)) for (body,) in new if SECRET.encode() in body]
        last += len(new)
    assert not leaks
    assert last > 200
