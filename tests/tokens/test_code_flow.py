"""The authorization code flow: from the request of an application to tokens for a person, and its misuse."""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import call_admin_api, newest_entry
from ostiary.authorization.assurance import PERSON_MFA, PERSON_SINGLE
from ostiary.protocol import jose
from ostiary.protocol.errors import NotFound
from ostiary.protocol.jose import InvalidToken
from ostiaryd.app import build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model.load import load
from ostiaryd.policy.model.safeguards import extend
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Root
from ostiaryd.tasks import flows as tasks
from ostiaryd.tokens import flows
from ostiaryd.tokens.flows.authorization import CODE_S, REQUEST_S, TIME_DIGITS, key_of
from ostiaryd.tokens.model.authorization import REQUEST_URI
from ostiaryd.tokens.model.id_tokens import read_id_token_hint
from ostiaryd.tokens.store import authorization, logout
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.sessions import Proof
from tests.support.api_fixtures import FILES, ISSUER, SECOND, claims_of
from tests.tokens.code_flow import (
    CALLBACK,
    VERIFIER,
    Browser,
    CodeFlow,
    begin_flow,
    challenge_of,
    header_of,
    make_client,
    sign_in,
)


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    return await begin_flow(world, app)


async def test_codes_and_request_references_are_stored_as_hashes_in_the_order_of_their_times(
    world: World, flow: CodeFlow, clock: Clock
) -> None:
    secrets, references = list[str](), list[str]()
    for _ in range(4):
        references.append((await flow.push()).json["request_uri"].removeprefix(REQUEST_URI))
        secrets.append((await flow.answer())["code"])
        clock.advance(seconds=1)
    for secret in (*secrets, *references):  # a time, and 256 random bits
        assert re.fullmatch(rf"[0-9a-f]{{{TIME_DIGITS}}}[A-Za-z0-9_-]{{43}}", secret)
    assert len({secret[TIME_DIGITS:] for secret in (*secrets, *references)}) == 8
    reader = world.db.read()
    codes = [code for (code,) in reader.all(sql("select code from authorization_code order by created_at"))]
    pushed = [key_of(reference) for reference in references]
    assert codes == sorted(codes) == list(map(key_of, secrets))
    assert pushed == sorted(pushed)
    requests = {key for (key,) in reader.all(sql("select reference from authorization_request"))}
    assert requests >= set(pushed)
    for secret, key in zip(secrets, codes, strict=True):
        assert secret[TIME_DIGITS : TIME_DIGITS + 8] not in key


async def test_an_application_acts_for_a_person_after_the_consent(world: World, flow: CodeFlow) -> None:
    await flow.open(scope="openid files:read")
    assert "Allow <bdi>reader</bdi> to act for you?" in flow.browser.text
    await flow.allow()
    answer = flow.arrived()
    assert (answer["state"], answer["iss"]) == ("the state", ISSUER)
    assert newest_entry(world).action == "authorization.consent"
    got = (await flow.redeem(answer["code"], resource=FILES)).json
    claims = claims_of(got["access_token"])
    assert (got["token_type"], got["scope"], claims["aud"]) == ("DPoP", "files:read", FILES)
    assert (claims["sub"], claims["act"], claims["client_id"]) == (flow.person, {"sub": flow.client.id}, flow.client.id)
    assert (claims["acr"], claims["amr"]) == (PERSON_SINGLE, ["pwd"])
    task = tasks.live(world.db.read(), claims["task"], now=world.now())
    assert task.person == flow.person
    assert task.scopes == {"files:read"}
    identity = claims_of(got["id_token"])
    assert (identity["sub"], identity["aud"], identity["iss"]) == (flow.person, flow.client.id, ISSUER)
    entry = newest_entry(world)
    assert (entry.action, entry.person, entry.agent, entry.task) == (
        "token.code",
        flow.person,
        flow.client.id,
        claims["task"],
    )


async def test_a_consent_is_remembered_for_its_scopes(flow: CodeFlow) -> None:
    await flow.answer()
    await flow.open()
    assert "code" in flow.arrived()
    flow.browser.left_to = ""
    await flow.open(scope="files:read files:write")
    assert not flow.browser.left_to
    assert "files:write" in flow.browser.text
    await flow.open(prompt="consent")
    assert "Allow reader" in flow.browser.text


NO_CONSENT = """permit (principal, action, resource);
@id("no-consent") forbid (principal, action == Ostiary::Action::"consent", resource)
when { context.registered && context.client != "" && context.scopes.contains("files:read") };
"""


async def test_policies_decide_which_clients_may_act_for_a_person(world: World, flow: CodeFlow) -> None:
    tokens, code = await flow.tokens(), (await flow.answer())["code"]
    task = claims_of(tokens["access_token"])["task"]
    on_task = await flow.token(grant_type="client_credentials", task=task)
    assert claims_of(on_task.json["access_token"])["sub"] == flow.person
    await act(world, "test.put", lambda act: policies.put(act, load(extend({"own.cedar": NO_CONSENT}, ())), by=None))
    flow.browser.left_to = ""
    assert (await flow.answer(prompt="none"))["error"] == "access_denied", "no page where the client forbids one"
    flow.browser.left_to = ""
    assert (await flow.open()).status == 403
    assert flow.browser.left_to == "", "the person reads the page before they go back"
    assert "None of your roles permits this client to act for you" in flow.browser.text
    assert "An administrator grants roles" in flow.browser.text
    [back] = re.findall(r'href="(https://app.example/callback[^"]+)"', flow.browser.text)
    answer = dict(parse_qsl(urlsplit(unescape(back)).query))
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "the state", ISSUER)
    await flow.open(response_mode="form_post")
    assert flow.browser.form(CALLBACK)["error"] == "access_denied"
    assert (await flow.redeem(code)).error == "invalid_grant"
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    assert (await flow.token(grant_type="client_credentials", task=task)).error == "invalid_grant"
    flow.browser.left_to = ""
    assert "code" in await flow.answer(scope="files:write"), "the policy is about another scope"


async def test_a_person_without_a_session_signs_in_first(world: World, app: ASGIApp, flow: CodeFlow) -> None:
    stranger = Browser(app)
    flow.browser = stranger
    await flow.open()
    assert stranger.path.startswith("/login?return_to=%2Fauthorize%3Fclient_id%3D")
    await sign_in(world, stranger, flow.person)
    await stranger.get(parse_qs(urlsplit(stranger.path).query)["return_to"][0])
    await flow.allow()
    assert (await flow.redeem(flow.arrived()["code"])).status == 200


BAD_REQUESTS: list[tuple[dict[str, Any], str, str]] = [
    ({"code_challenge": None}, "invalid_request", "`code_challenge` is missing"),
    ({"code_challenge_method": None}, "invalid_request", "`code_challenge_method` must be S256"),
    ({"code_challenge_method": "plain"}, "invalid_request", "`code_challenge_method` must be S256"),
    ({"code_challenge": "short"}, "invalid_request", "`code_challenge` is not a SHA-256 digest"),
    ({"code_challenge": "v" * 44}, "invalid_request", "`code_challenge` is not a SHA-256 digest"),
    ({"response_type": None}, "invalid_request", "`response_type` must be `code`"),
    ({"response_type": "token"}, "unsupported_response_type", "`response_type` must be `code`"),
    ({"response_type": "code id_token"}, "unsupported_response_type", "`response_type` must be `code`"),
    ({"response_mode": "fragment"}, "invalid_request", "`response_mode` must be `query` or `form_post`"),
    ({"scope": "openid openid\x01"}, "invalid_scope", "a scope must be printable ASCII"),
    ({"scope": "mail:read"}, "invalid_target", "there is no resource `mail`"),
    (
        {"scope": None, "resource": "https://mail.example/mcp"},
        "invalid_target",
        "a person can consent only to a registered resource",
    ),
    ({"resource": "files"}, "invalid_target", "`resource`: the URI is not accepted"),
    ({"resource": [FILES, FILES]}, "invalid_target", "a token can be for only one `resource` or `audience`"),
    ({"nonce": ["a", "b"]}, "invalid_request", "the parameter 'nonce' was sent 2 times"),
    ({"prompt": "none login"}, "invalid_request", "`prompt`: `none` cannot be combined"),
    ({"prompt": "create"}, "invalid_request", "`prompt` has a word that is not one of"),
    ({"prompt": "none"}, "consent_required", "the person has to consent"),
    ({"max_age": "-1"}, "invalid_request", "`max_age` must be a whole number of seconds"),
    ({"claims": "{"}, "invalid_request", "`claims`: not JSON"),
    ({"claims": '{"id_token": []}'}, "invalid_request", "`claims`: Expected `object | null`"),
    (
        {"claims": '{"id_token": {"sub": {"value": "pe_0"}}}', "prompt": "none"},
        "login_required",
        "the person has to sign in",
    ),
    (
        {"claims": '{"id_token": {"sub": {"values": ["pe_0"]}}}', "prompt": "none"},
        "login_required",
        "the person has to sign in",
    ),
    (
        {"claims": '{"id_token": {"sub": {"values": ["pe_0", "pe_1"]}}}'},
        "invalid_request",
        "`claims`: `sub` names more than one person",
    ),
    ({"claims": '{"id_token": {"sub": {"values": "pe_0"}}}'}, "invalid_request", "`claims`: `values` is not a list"),
    (
        {"claims": '{"userinfo": {"sub": {"value": 7}}}'},
        "invalid_request",
        "`claims`: `sub` names more than one person",
    ),
    ({"id_token_hint": "e30.e30.e30"}, "invalid_request", "`id_token_hint`: the header of the token has no `alg`"),
    ({"request": "e30.e30."}, "invalid_request_object", "`request`: the header of the token has no `alg`"),
    ({"request_uri": "https://app.example/request"}, "request_uri_not_supported", "`request_uri` is not supported"),
    ({"registration": "{}"}, "registration_not_supported", "`registration` is not supported"),
    ({"authorization_details": "[]x"}, "invalid_authorization_details", "`authorization_details`: not JSON"),
    ({"dpop_jkt": "x"}, "invalid_request", "`dpop_jkt` is not a JWK thumbprint"),
]


async def test_a_bad_request_is_refused_at_the_redirect_uri(flow: CodeFlow) -> None:
    for changes, error, why in BAD_REQUESTS:
        flow.browser.left_to = ""
        await flow.open(**changes)
        answer = flow.arrived()
        assert answer["error_description"].startswith(why), changes
        assert (answer["error"], answer["state"], answer["iss"]) == (error, "the state", ISSUER), changes
        assert "code" not in answer


async def test_a_request_without_resource_and_scope_is_refused_even_with_one_resource(flow: CodeFlow) -> None:
    """MCP clients of 2025-03-26 send neither member: the client may be connected to a server of an attacker."""
    await flow.open(scope=None, resource=None)
    answer = flow.arrived()
    assert (answer["error"], "code" in answer) == ("invalid_scope", False)
    assert "neither a `resource` nor a `scope`" in answer["error_description"]


async def test_a_request_for_a_resource_at_which_the_client_can_get_no_scope_is_refused(
    world: World, flow: CodeFlow
) -> None:
    uri = "https://mail.example/mcp"
    await act(world, "test.resource", lambda act: registry.create_resource(act, name="mail", uri=uri))
    await flow.open(scope=None, resource=uri)
    assert flow.arrived()["error_description"].startswith("the client can get no scope of `mail`")
    await flow.open(scope="mail:read", resource=uri)
    assert flow.arrived()["error_description"].startswith(
        "the client can get none of these scopes of `mail`: mail:read"
    )


FOREIGN_URIS = [
    None,
    "https://app.example/callback/",
    "https://app.example/callback?x=1",
    "https://APP.example/callback",
    "https://app.example:443/callback",
    "https://app.example/%63allback",
    "https://app.example/callback#x",
    "https://app.example@evil.example/callback",
    "https://app.example.evil.example/callback",
    "https://evil.example\\@app.example/callback",
    "http://127.0.0.1:80/other",
    "http://127.0.0.1:0/native",
    "http://127.0.0.1:70000/native",
    "http://127.0.0.2:8000/native",
    "http://127.0.0.1:8000/native/",
    "http://user@127.0.0.1:8000/native",
    "http://127.0.0.1:8000@evil.example/native",
    "http://[::1%25eth0]:8000/native",
    "http://[0:0:0:0:0:0:0:1]:8000/native",
    "javascript:alert(1)",
]
NATIVE = ["http://127.0.0.1:49152/native", "http://[::1]:1/native", "http://127.0.0.1/native"]


async def test_only_a_registered_redirect_uri_is_followed_and_a_loopback_one_with_any_port(
    world: World, app: ASGIApp
) -> None:
    flow = await begin_flow(world, app, redirect_uris=[CALLBACK, "http://127.0.0.1/native", "http://[::1]/native"])
    for uri in FOREIGN_URIS:
        answer = await flow.open(redirect_uri=uri)
        assert (answer.status, flow.browser.left_to) == (400, ""), uri
        assert f"<code>redirect_uri</code> is {'not registered' if uri else 'missing'}" in flow.browser.text
    answer = await flow.open(redirect_uri=[CALLBACK, CALLBACK])
    assert (answer.status, flow.browser.left_to) == (400, "")
    assert "<code>redirect_uri</code> was sent 2 times" in flow.browser.text
    for uri in NATIVE:
        await flow.open(redirect_uri=uri, prompt="none")
        assert flow.browser.left_to.startswith(uri + "?"), uri


async def test_a_request_of_an_unknown_client_is_refused_without_a_redirect(flow: CodeFlow) -> None:
    for id in ("ag_" + "0" * 32, "", "https://evil.example/client"):
        answer = await flow.open(client_id=id)
        assert answer.status >= 400
        assert not flow.browser.left_to


async def test_a_code_is_redeemed_once_and_its_replay_ends_the_issued_tokens(world: World, flow: CodeFlow) -> None:
    code = (await flow.answer())["code"]
    first = (await flow.redeem(code)).json
    again = await flow.redeem(code)
    assert (again.status, again.error) == (400, "invalid_grant")
    assert newest_entry(world).action == "token.reuse"
    claims = claims_of(first["access_token"])
    holding = registry.get_holding(world.db.read(), claims["jti"])
    assert holding is not None
    assert holding.ended_at is not None
    assert (await flow.refresh(first["refresh_token"])).error == "invalid_grant"
    assert tasks.find_task(world.db.read(), claims["task"]).ended_at is not None


async def test_a_code_expires_after_a_minute(flow: CodeFlow, clock: Clock) -> None:
    await flow.client.token()
    early, late = (await flow.answer())["code"], (await flow.answer())["code"]
    clock.advance(CODE_S, us=-1)
    assert (await flow.redeem(early)).status == 200
    clock.advance(us=1)
    assert (await flow.redeem(late)).error == "invalid_grant"


BAD_REDEMPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"code_verifier": "w" * 43}, "invalid_grant"),
    ({"code_verifier": "v" * 42}, "invalid_grant"),
    ({"code_verifier": "v" * 129}, "invalid_grant"),
    ({"code_verifier": ""}, "invalid_request"),
    ({"code_verifier": challenge_of(VERIFIER)}, "invalid_grant"),
    ({"redirect_uri": "https://app.example/other"}, "invalid_grant"),
    ({"code": "x" * 43}, "invalid_grant"),
    ({"resource": "https://mail.example/mcp"}, "invalid_target"),
    ({"scope": "files:write"}, "invalid_scope"),
]


async def test_a_code_is_not_redeemed_with_parameters_that_differ_from_its_request(flow: CodeFlow) -> None:
    code = (await flow.answer())["code"]
    for changes, error in BAD_REDEMPTIONS:
        answer = await flow.token(**flow.token_form(code) | changes)
        assert (answer.status, answer.error) == (400, error), changes
    assert (await flow.redeem(code)).status == 200, "a refused request leaves the code unused"


async def test_code_and_refresh_token_of_one_client_are_refused_for_another(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    other = await begin_flow(world, app, name="writer")
    code = (await flow.answer())["code"]
    stolen = await other.redeem(code)
    assert (stolen.status, stolen.error) == (400, "invalid_grant")
    tokens = (await flow.redeem(code)).json
    assert (await other.refresh(tokens["refresh_token"])).error == "invalid_grant"
    assert (await flow.refresh(tokens["refresh_token"])).status == 200


async def test_a_code_that_is_bound_to_a_key_is_redeemed_with_that_key_alone(flow: CodeFlow) -> None:
    key = jose.generate("ES256")
    code = (await flow.answer(dpop_jkt=key.public.thumbprint))["code"]
    assert (await flow.redeem(code)).error == "invalid_grant"
    form = flow.token_form(code)
    answer = await flow.client.ask(proof=flow.client.proof(key=key), **form)
    assert answer.status == 200, answer.body
    assert claims_of(answer.json["access_token"])["cnf"] == {"jkt": key.public.thumbprint}


async def test_a_pushed_request_is_answered_once_and_by_its_client(world: World, app: ASGIApp, flow: CodeFlow) -> None:
    pushed = await flow.push()
    assert (pushed.status, pushed.json["expires_in"]) == (201, REQUEST_S)
    uri = pushed.json["request_uri"]
    assert uri.startswith("urn:ietf:params:oauth:request_uri:")
    other = await begin_flow(world, app, name="writer")
    await other.browser.get(f"/authorize?{urlencode({'client_id': other.client.id, 'request_uri': uri})}")
    assert (other.browser.answer.status, other.browser.left_to) == (400, "")
    query = urlencode({"client_id": flow.client.id, "request_uri": uri})
    await flow.browser.get(f"/authorize?{query}")
    form = flow.browser.form("/consent") | {"decision": "allow"}
    await flow.allow()
    assert (await flow.redeem(flow.arrived()["code"])).status == 200
    flow.browser.left_to = ""
    await flow.browser.post("/consent", **form)
    assert (flow.browser.answer.status, flow.browser.left_to) == (400, "")
    reference = key_of(uri.removeprefix(REQUEST_URI))
    assert not await world.writer.submit(lambda tx: authorization.use_request(tx, reference))
    await flow.browser.get(f"/authorize?{query}")
    assert (flow.browser.answer.status, flow.browser.left_to) == (400, "")


BAD_PUSHES: list[tuple[dict[str, Any], int, str]] = [
    ({"client_assertion": None}, 401, "invalid_client"),
    ({"redirect_uri": "https://evil.example/"}, 400, "invalid_request"),
    ({"code_challenge": None}, 400, "invalid_request"),
    ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, 400, "invalid_request"),
    ({"scope": "mail:read"}, 400, "invalid_target"),
    ({"resource": [FILES, FILES]}, 400, "invalid_target"),
]


async def test_a_malformed_pushed_request_is_refused(flow: CodeFlow) -> None:
    for changes, status, error in BAD_PUSHES:
        answer = await flow.push(**changes)
        assert (answer.status, answer.json["error"]) == (status, error), changes


async def test_a_person_may_narrow_scopes_and_duration_before_the_consent(world: World, flow: CodeFlow) -> None:
    await flow.open(scope="files:read files:write openid profile")
    await flow.allow(**{"scope.files:write": None, "scope.profile": None, "seconds": "3600"})
    got = (await flow.redeem(flow.arrived()["code"])).json
    assert got["scope"] == "files:read"
    [consent] = flows.list_consents(world.db.read(), flow.person)
    assert consent.scopes == {"files:read", "openid"}
    assert consent.expires_at == consent.granted_at + 3600 * SECOND


async def test_a_new_consent_keeps_the_scopes_and_the_end_that_its_page_did_not_show(
    world: World, flow: CodeFlow, clock: Clock
) -> None:
    await flow.open(scope="openid profile files:write")
    await flow.allow(seconds="3600")
    [first] = flows.list_consents(world.db.read(), flow.person)
    clock.advance(60)
    await flow.open(scope="files:read")
    await flow.allow()
    [second] = flows.list_consents(world.db.read(), flow.person)
    assert second.scopes == {"openid", "profile", "files:read", "files:write"}
    assert second.expires_at == first.expires_at, "the page did not speak of `files:write`"
    await flow.open(scope="openid profile files:read", prompt="consent")
    await flow.allow(**{"scope.profile": None})
    [third] = flows.list_consents(world.db.read(), flow.person)
    assert third.scopes == {"openid", "files:read", "files:write"}, "the person unticked `profile`"


async def test_an_older_consent_with_bounds_is_not_widened_by_a_new_consent(world: World, flow: CodeFlow) -> None:
    bounds = [{"type": "tool", "locations": [FILES], "actions": ["read"]}]
    tokens = await flow.tokens(scope="files:write", authorization_details=json.dumps(bounds))
    await flow.answer(scope="files:read")
    [consent] = flows.list_consents(world.db.read(), flow.person)
    assert consent.scopes == {"files:read"}
    assert consent.details == ()
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    flow.browser.left_to = ""
    await flow.open(scope="files:write")
    assert (flow.browser.left_to, "Allow reader" in flow.browser.text) == ("", True), "the person is asked again"


async def test_a_client_revokes_its_refresh_token_and_the_grant_ends(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    tokens = await flow.tokens()
    other = await begin_flow(world, app, name="writer")
    refused = await other.client.post("/revoke", other.authenticated(token=tokens["refresh_token"]))
    assert refused.error == "invalid_grant"
    assert (await flow.client.post("/revoke", flow.authenticated(token=tokens["refresh_token"]))).status == 200
    holding = registry.get_holding(world.db.read(), claims_of(tokens["access_token"])["jti"])
    assert holding is not None
    assert holding.ended_at is not None
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    assert (await flow.client.post("/revoke", flow.authenticated(token=tokens["refresh_token"]))).status == 200


async def test_a_consent_to_scopes_or_durations_that_were_not_offered_is_refused(flow: CodeFlow) -> None:
    wrong: list[dict[str, str | None]] = [
        {"scope.files:write": "1"},
        {"seconds": "1"},
        {"seconds": "9" * 30},
        {"detail.0": "1"},
        {"scope.files:read": None},
    ]
    for fields in wrong:
        await flow.open()
        await flow.allow(**fields)
        assert flow.arrived()["error"] == "invalid_request", fields


async def test_a_consent_without_a_ticked_scope_or_bound_names_the_missing_kind(flow: CodeFlow) -> None:
    await flow.open()
    await flow.allow(**{"scope.files:read": None})
    assert flow.arrived()["error_description"].startswith("no scope is ticked")
    bounds = [{"type": "tool", "locations": [FILES], "actions": ["read"]}]
    await flow.open(authorization_details=json.dumps(bounds))
    await flow.allow(**{"detail.0": None})
    assert flow.arrived()["error_description"].startswith("no bound is ticked")


async def test_a_denied_authorization_request_leaves_no_consent(world: World, flow: CodeFlow) -> None:
    await flow.open()
    await flow.allow(decision="deny")
    assert flow.arrived()["error"] == "access_denied"
    assert [entry.action for entry in [newest_entry(world)]] == ["authorization.deny"]
    assert flows.list_consents(world.db.read(), flow.person) == []


async def test_a_consent_form_from_another_site_or_browser_is_refused(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    await flow.open()
    form = flow.browser.form("/consent") | {"decision": "allow"}
    other = Browser(app)
    await sign_in(world, other, flow.person)
    for browser, changes in ((other, {}), (flow.browser, {"form_token": "x"})):
        answer = await browser.post("/consent", **(form | changes))
        assert (answer.status, browser.left_to) == (403, "")
    flow.browser.origin = "https://evil.example"
    assert (await flow.browser.post("/consent", **form)).status == 403
    assert flows.list_consents(world.db.read(), flow.person) == []


async def test_a_code_whose_consent_was_withdrawn_is_not_redeemed(world: World, flow: CodeFlow) -> None:
    code = (await flow.answer())["code"]
    [consent] = flows.list_consents(world.db.read(), flow.person)
    await act(world, "consent.withdraw", lambda act: flows.withdraw(act, consent.consent_id))
    refused = await flow.redeem(code)
    assert refused.error == "invalid_grant"
    assert refused.json["error_description"].startswith("the consent was withdrawn")
    assert newest_entry(world).outcome == "refused"
    with pytest.raises(NotFound, match="consent not found"):
        await act(world, "consent.withdraw", lambda act: flows.withdraw(act, "co_unknown"))
    assert (await flow.redeem((await flow.answer())["code"])).status == 200


async def test_a_withdrawn_consent_ends_its_tokens_refresh_tokens_and_tasks_at_once(
    world: World, flow: CodeFlow
) -> None:
    tokens = await flow.tokens()
    [consent] = flows.list_consents(world.db.read(), flow.person)
    await act(world, "consent.withdraw", lambda act: flows.withdraw(act, consent.consent_id))
    claims = claims_of(tokens["access_token"])
    holding = registry.get_holding(world.db.read(), claims["jti"])
    assert holding is not None
    assert holding.ended_at is not None
    assert tasks.find_task(world.db.read(), claims["task"]).ended_at is not None
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    flow.browser.left_to = ""
    await flow.open()
    assert "Allow reader" in flow.browser.text, "the person is asked again"


async def test_refresh_tokens_rotate_and_the_reuse_of_a_refresh_token_ends_the_grant(
    world: World, flow: CodeFlow, clock: Clock
) -> None:
    first = await flow.tokens()
    second = (await flow.refresh(first["refresh_token"])).json
    assert second["refresh_token"] != first["refresh_token"]
    clock.advance(31)
    third = (await flow.refresh(second["refresh_token"])).json
    clock.advance(us=1)
    reused = await flow.refresh(first["refresh_token"])
    assert (reused.status, reused.error) == (400, "invalid_grant")
    for tokens in (second, third):
        holding = registry.get_holding(world.db.read(), claims_of(tokens["access_token"])["jti"])
        assert holding is not None
        assert holding.ended_at is not None
    assert (await flow.refresh(third["refresh_token"])).error == "invalid_grant"


async def test_the_least_recently_used_grant_of_a_consent_ends_when_the_limit_is_reached(
    world: World, flow: CodeFlow, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.tokens.flows.grants.MAX_GRANTS", 3)
    held = []
    for _ in range(3):
        held.append(await flow.tokens())
        clock.advance(1)
    held[0] = (await flow.refresh(held[0]["refresh_token"])).json
    code = (await flow.answer())["code"]
    newest = (await flow.redeem(code)).json
    assert newest_entry(world).outcome == "ok"
    refreshed = [await flow.refresh(tokens["refresh_token"]) for tokens in (*held, newest)]
    assert [answer.status for answer in refreshed] == [200, 400, 200, 200], "the one that was used longest ago ends"
    assert (refreshed[1].error, _tasks(world, flow)) == ("invalid_grant", 3)
    await flow.client.post("/revoke", flow.authenticated(token=refreshed[3].json["refresh_token"]))
    assert (await flow.redeem((await flow.answer())["code"])).status == 200
    again = [await flow.refresh(refreshed[number].json["refresh_token"]) for number in (0, 2)]
    assert [answer.status for answer in again] == [200, 200], "a grant that has ended makes room first"
    replayed = await flow.redeem(code)
    assert (replayed.status, replayed.error) == (400, "invalid_grant"), "its grant was forgotten"
    assert newest_entry(world).action == "token.reuse"


def _tasks(world: World, flow: CodeFlow) -> int:
    """Return the number of live tasks of the application."""
    return len(tasks.list_live_tasks(world.db.read(), AgentId(flow.client.id)))


async def test_a_refresh_is_repeated_with_the_same_refresh_token_within_the_grace_period(
    flow: CodeFlow, clock: Clock
) -> None:
    first = await flow.tokens()
    second = (await flow.refresh(first["refresh_token"])).json
    clock.advance(30)
    again = await flow.refresh(first["refresh_token"])
    assert (again.status, again.json["refresh_token"]) == (200, second["refresh_token"])
    third = (await flow.refresh(second["refresh_token"])).json
    clock.advance(30, us=1)
    assert (await flow.refresh(second["refresh_token"])).error == "invalid_grant"
    assert (await flow.refresh(third["refresh_token"])).error == "invalid_grant", "the reuse ended the grant"


async def test_a_malformed_or_unknown_refresh_token_is_refused(flow: CodeFlow) -> None:
    await flow.tokens()
    for token in ("", "x", "rt_" + "0" * 32 + ".0." + "A" * 43):
        assert (await flow.refresh(token)).error == ("invalid_grant" if token else "invalid_request")


async def test_a_refresh_narrows_and_never_widens(flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope="files:read files:write")
    narrow = (await flow.refresh(tokens["refresh_token"], scope="files:read")).json
    assert narrow["scope"] == "files:read"
    whole = (await flow.refresh(narrow["refresh_token"])).json
    assert whole["scope"] == "files:read files:write", "the grant itself stays whole"
    assert (await flow.refresh(whole["refresh_token"], scope="mail:read")).error == "invalid_scope"


async def test_the_grants_of_a_person_who_left_have_ended_even_after_the_return(world: World, flow: CodeFlow) -> None:
    own = await flow.tokens()
    bea = await act(world, "test.person", lambda act: registry.create_person(act, name="bea"))
    flow.browser.left_to = ""
    await sign_in(world, flow.browser, bea.person_id)
    tokens = await flow.tokens()
    claims = claims_of(tokens["access_token"])
    assert claims["sub"] == bea.person_id
    await act(world, "test.leave", lambda act: tasks.revoke(act, tasks.RevokedKind.OWNER, "bea"))
    holding = registry.get_holding(world.db.read(), claims["jti"])
    assert holding is not None
    assert holding.ended_at is not None
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    await act(world, "test.return", lambda act: registry.return_person(act, "bea"))
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    assert (await flow.refresh(own["refresh_token"])).status == 200, "a grant of the same agent by another person"


async def test_the_revocation_of_an_agent_ends_its_grants(world: World, flow: CodeFlow) -> None:
    tokens = await flow.tokens()
    await act(world, "agent.suspend", lambda act: registry.revoke_agent(act, flow.client.id))
    assert (await flow.refresh(tokens["refresh_token"])).status == 401
    holding = registry.get_holding(world.db.read(), claims_of(tokens["access_token"])["jti"])
    assert holding is not None
    assert holding.ended_at is not None


async def test_an_id_token_is_never_accepted_as_an_access_token_nor_an_access_token_as_a_hint(
    world: World, flow: CodeFlow
) -> None:
    tokens = await flow.tokens(scope="openid files:read", nonce="n")
    identity, access = tokens["id_token"], tokens["access_token"]
    assert (header_of(identity)["typ"], header_of(access)["typ"]) == ("JWT", "at+jwt")
    assert (header_of(identity)["alg"], claims_of(identity)["nonce"]) == ("RS256", "n")
    await flow.open(id_token_hint=access)
    assert flow.arrived()["error"] == "invalid_request"
    with pytest.raises(InvalidToken, match="typ"):
        read_id_token_hint(access, keys=world.keys.public("token").get, issuer=ISSUER)
    answer = await flow.client.post("/introspect", flow.authenticated(token=identity))
    assert answer.json == {"active": False}


async def test_a_step_up_requires_a_new_login_and_the_token_states_the_level(world: World, flow: CodeFlow) -> None:
    await flow.tokens()
    await flow.open(acr_values=PERSON_MFA)
    assert flow.browser.path.startswith("/login?")
    now = world.now()
    await sign_in(
        world, flow.browser, flow.person, proofs=(Proof(method="password", at=now), Proof(method="totp", at=now))
    )
    flow.browser.left_to = ""
    await flow.open(acr_values=PERSON_MFA)
    got = (await flow.redeem(flow.arrived()["code"])).json
    assert claims_of(got["access_token"])["acr"] == PERSON_MFA


async def test_a_step_up_keeps_the_session_and_sends_no_logout(world: World, app: ASGIApp) -> None:
    flow = await begin_flow(world, app, backchannel_logout_uri="https://app.example/logout")
    tokens = await flow.tokens(scope="openid files:read")
    before, session = dict(flow.browser.cookies), claims_of(tokens["id_token"])["sid"]
    now = world.now()
    proofs = (Proof(method="password", at=now), Proof(method="totp", at=now))
    assert await sign_in(world, flow.browser, flow.person, proofs=proofs, replaces=session) == session
    await flows.follow_sessions(world)
    assert logout.due(world.db.read(), now=world.now(), limit=10, share=10) == []
    assert (await flow.refresh(tokens["refresh_token"])).status == 200
    again = await flow.tokens(scope="openid files:read", acr_values=PERSON_MFA)
    assert claims_of(again["id_token"])["sid"] == session
    flow.browser.cookies = before
    assert (await flow.answer(prompt="none"))["error"] == "login_required", "the cookie from before is worth nothing"


async def test_the_login_of_another_person_ends_the_session(world: World, flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope="openid files:read")
    session = claims_of(tokens["id_token"])["sid"]
    other = await act(world, "test.person", lambda act: registry.create_person(act, name="bea"))
    assert await sign_in(world, flow.browser, other.person_id, replaces=session) != session
    await flows.follow_sessions(world)
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"


async def test_a_task_continues_with_a_new_login_of_its_person(world: World, flow: CodeFlow, clock: Clock) -> None:
    first = await flow.tokens()
    task = claims_of(first["access_token"])["task"]
    clock.advance(100)
    await sign_in(world, flow.browser, flow.person)
    second = await flow.redeem((await flow.answer(max_age="10"))["code"], task=task)
    claims = claims_of(second.json["access_token"])
    assert (claims["task"], claims["auth_time"]) == (task, claims_of(first["access_token"])["auth_time"] + 100)
    assert (await flow.refresh(first["refresh_token"])).error == "invalid_grant", "its login is older"
    holding = registry.get_holding(world.db.read(), claims_of(first["access_token"])["jti"])
    assert holding is not None
    assert holding.ended_at is not None
    renewed = await flow.refresh(second.json["refresh_token"])
    assert claims_of(renewed.json["access_token"])["task"] == task


async def test_a_grant_that_ends_in_the_commit_of_its_refresh_issues_no_token(world: World, flow: CodeFlow) -> None:
    tokens = await flow.tokens()
    holding = registry.get_holding(world.db.read(), claims_of(tokens["access_token"])["jti"])
    assert holding is not None
    assert holding.parent is not None
    grant = holding.parent
    ended, refreshed = await asyncio.gather(
        act(world, "test.end", lambda act: registry.end_holdings(act, Root.HOLDING, grant, why="test")),
        flow.refresh(tokens["refresh_token"]),
    )
    assert ended["grant"] == 1
    assert refreshed.error == "invalid_grant"


async def test_a_task_continues_only_for_its_own_client_and_scopes_while_live(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    other = await begin_flow(world, app, name="writer")
    task = claims_of((await flow.tokens(scope="files:read files:write"))["access_token"])["task"]
    for one, scope in ((other, "files:read files:write"), (flow, "files:read"), (flow, "files:write")):
        answer = await one.redeem((await one.answer(scope=scope))["code"], task=task)
        assert (answer.status, answer.error) == (400, "invalid_grant"), scope
    code = (await flow.answer(scope="files:read files:write"))["code"]
    assert (await flow.redeem(code, task="tk_" + "0" * 32)).error == "invalid_grant"
    await act(world, "test.cancel", lambda act: tasks.cancel(act, task))
    assert (await flow.redeem(code, task=task)).error == "invalid_grant"
    assert (await flow.redeem(code)).status == 200, "a refused request leaves the code unused"


async def test_a_redirect_uri_that_is_removed_during_a_request_receives_no_code(world: World, flow: CodeFlow) -> None:
    pushed = (await flow.push()).json
    query = urlencode({"client_id": flow.client.id, "request_uri": pushed["request_uri"]})
    await flow.browser.get(f"/authorize?{query}")
    form = flow.browser.form("/consent") | {"decision": "allow"}
    agent = registry.find_agent(world.db.read(), flow.client.id)
    await make_client(world, agent, redirect_uris=["https://app.example/other"])
    assert (await flow.browser.get(f"/authorize?{query}")).status == 400
    assert (await flow.browser.post("/consent", **form)).status == 400
    assert flow.browser.left_to == ""
    assert flows.list_consents(world.db.read(), flow.person) == []


async def test_a_request_with_prompt_none_is_answered_without_a_page(app: ASGIApp, flow: CodeFlow) -> None:
    await flow.answer()
    assert "code" in await flow.answer(prompt="none")
    flow.browser = Browser(app)
    assert (await flow.answer(prompt="none"))["error"] == "login_required"


async def test_max_age_and_prompt_login_need_a_login_after_the_request(
    world: World, flow: CodeFlow, clock: Clock
) -> None:
    await flow.answer()
    clock.advance(100)
    assert "code" in await flow.answer(max_age="100")
    assert (await flow.answer(max_age="99", prompt="none"))["error"] == "login_required"
    await flow.open(prompt="login")
    assert flow.browser.path.startswith("/login?")
    back = parse_qs(urlsplit(flow.browser.path).query)["return_to"][0]
    await sign_in(world, flow.browser, flow.person)
    flow.browser.left_to = ""
    await flow.browser.get(back)
    assert "code" in flow.arrived()


async def test_the_consent_page_shows_bounds_and_a_person_may_remove_a_bound(flow: CodeFlow) -> None:
    bounds = [
        {"type": "tool", "locations": [FILES], "actions": ["read"], "arguments": {"path": {"prefix": "/reports/"}}},
        {"type": "tool", "locations": [FILES], "actions": ["delete"]},
    ]
    await flow.open(authorization_details=json.dumps(bounds))
    assert "path begins with /reports/" in flow.browser.text
    await flow.allow(**{"detail.1": None})
    got = (await flow.redeem(flow.arrived()["code"])).json
    assert got["authorization_details"] == bounds[:1]
    assert claims_of(got["access_token"])["authorization_details"] == bounds[:1]
    await flow.browser.get("/consents")
    assert "<bdi>read, path begins with /reports/</bdi>" in flow.browser.text
    flow.browser.left_to = ""
    await flow.open(authorization_details=json.dumps(bounds[:1]))
    assert "code" in flow.arrived(), "within the consent"
    for wider in (bounds, None):
        flow.browser.left_to = ""
        await flow.open(authorization_details=None if wider is None else json.dumps(wider))
        assert "Allow reader" in flow.browser.text


async def test_an_agent_with_a_client_secret_redeems_a_code_for_sign_in(flow: CodeFlow) -> None:
    """The secret takes the place of the assertion; without an exemption, its bearer tokens are for userinfo alone."""
    made = await act(flow.world, "test.secret", lambda act: trust.create_secret(act, flow.client.id))
    named = {"client_id": flow.client.id, "client_secret": made.secret}
    code = (await flow.answer(scope="openid"))["code"]
    for wrong in ("", "x", made.secret[:-1]):
        refused = await flow.client.post("/token", flow.token_form(code) | named | {"client_secret": wrong})
        assert (refused.status, refused.error) == (401, "invalid_client")
    tokens = await flow.client.post("/token", flow.token_form(code) | named)
    assert (tokens.status, tokens.json["token_type"]) == (200, "Bearer"), tokens.body
    assert claims_of(tokens.json["id_token"])["aud"] == flow.client.id
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens.json["refresh_token"]}
    assert (await flow.client.post("/token", refresh | {"client_id": flow.client.id})).error == "invalid_client"
    renewed = await flow.client.post("/token", refresh | named)
    assert renewed.status == 200, renewed.body
    code = (await flow.answer(scope="files:read"))["code"]
    assert (await flow.client.post("/token", flow.token_form(code) | named)).error == "invalid_dpop_proof"
    await act(flow.world, "test.revoke", lambda act: trust.revoke_secret(act, flow.client.id, made.id))
    refresh["refresh_token"] = renewed.json["refresh_token"]
    assert (await flow.client.post("/token", refresh | named)).error == "invalid_client"


async def test_an_agent_with_a_client_secret_pushes_a_request_and_gets_bound_tokens_with_a_proof(
    flow: CodeFlow,
) -> None:
    made = await act(flow.world, "test.secret", lambda act: trust.create_secret(act, flow.client.id))
    named = {"client_id": flow.client.id, "client_secret": made.secret}
    pushed = await flow.client.post("/par", flow.query() | named)
    assert pushed.status == 201, pushed.body
    url = urlencode({"client_id": flow.client.id, "request_uri": pushed.json["request_uri"]})
    await flow.browser.get(f"/authorize?{url}")
    await flow.allow()
    redeem = flow.token_form(flow.arrived()["code"]) | named
    assert (await flow.client.post("/token", redeem, dpop=flow.client.proof(nonce=None))).error == "use_dpop_nonce"
    proof = flow.client.proof()
    bound = await flow.client.post("/token", redeem, dpop=proof)
    assert (bound.status, bound.json["token_type"]) == (200, "DPoP"), bound.body
    refresh = {"grant_type": "refresh_token", "refresh_token": bound.json["refresh_token"]}
    assert (await flow.client.post("/token", refresh | named, dpop=proof)).error == "invalid_dpop_proof", "a copy"
    assert (await flow.client.post("/token", refresh | named)).error == "invalid_grant", "a grant stays bound"
    renewed = await flow.client.post("/token", refresh | named, dpop=flow.client.proof())
    assert renewed.json["token_type"] == "DPoP", renewed.body


async def test_bound_tokens_obtained_with_a_secret_end_with_the_secret_and_those_of_a_key_do_not(
    flow: CodeFlow,
) -> None:
    made = await act(flow.world, "test.secret", lambda act: trust.create_secret(act, flow.client.id))
    named = {"client_id": flow.client.id, "client_secret": made.secret}
    by_key = await flow.redeem((await flow.answer())["code"])
    form = flow.token_form((await flow.answer())["code"]) | named
    by_secret = await flow.client.post("/token", form, dpop=flow.client.proof())
    assert (by_secret.status, by_key.status) == (200, 200), (by_secret.body, by_key.body)
    tokens = [claims_of(answer.json["access_token"])["jti"] for answer in (by_secret, by_key)]

    def live() -> list[bool]:
        holdings = (registry.get_holding(flow.world.db.read(), token) for token in tokens)
        return [one is not None and one.is_live(flow.world.now()) for one in holdings]

    assert live() == [True, True]
    await act(flow.world, "test.revoke", lambda act: trust.revoke_secret(act, flow.client.id, made.id))
    assert live() == [False, True]


async def test_a_sign_in_with_a_nonce_needs_no_pkce_if_its_client_authenticates(flow: CodeFlow) -> None:
    """OAuth 2.1 section 7.5.1; most OpenID Connect clients with a secret send no challenge."""
    plain = {"code_challenge": None, "code_challenge_method": None}
    code = (await flow.answer(scope="openid profile", nonce="n", **plain))["code"]
    refused = await flow.redeem(code)
    assert refused.error == "invalid_grant", "a verifier without a challenge shows that the challenge was removed"
    tokens = await flow.redeem(code, code_verifier="")
    assert tokens.status == 200, tokens.body
    assert claims_of(tokens.json["id_token"])["nonce"] == "n"
    assert (await flow.redeem(code, code_verifier="")).error == "invalid_grant", "a code is used once"
    for access in ({"scope": "openid"}, {"scope": "openid files:read", "nonce": "n"}, {"scope": "openid", "nonce": ""}):
        await flow.open(**plain | access)
        assert flow.arrived()["error"] == "invalid_request", access
    await flow.open(scope="openid", nonce="n", resource=FILES, **plain)
    assert flow.arrived()["error"] == "invalid_request", "access to a resource needs PKCE"
    await flow.open(scope="openid", nonce="n", code_challenge=None)
    assert flow.arrived()["error"] == "invalid_request", "a method without a challenge"


async def test_a_code_with_a_challenge_always_needs_its_verifier(flow: CodeFlow) -> None:
    code = (await flow.answer(scope="openid", nonce="n"))["code"]
    assert (await flow.redeem(code, code_verifier="")).error == "invalid_request"
    assert (await flow.redeem(code)).status == 200


async def test_the_origin_of_a_resource_stands_for_the_only_resource_of_the_scopes(flow: CodeFlow) -> None:
    """MCP clients of 2025 send the origin of the MCP server as `resource`, in each request."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(FILES))
    for resource in (origin, f"{origin}/"):
        code = (await flow.answer(scope="files:read", resource=resource))["code"]
        tokens = await flow.redeem(code, resource=resource)
        assert claims_of(tokens.json["access_token"])["aud"] == FILES
        renewed = await flow.refresh(tokens.json["refresh_token"], resource=resource)
        assert claims_of(renewed.json["access_token"])["aud"] == FILES
    for foreign in (
        "https://other.example",
        origin.replace("https:", "http:"),
        f"{origin}:444",
        f"{origin}/x",
        origin[:-1],
    ):
        flow.browser.left_to = ""
        await flow.open(scope="files:read", resource=foreign)
        assert flow.arrived()["error"] == "invalid_target", foreign
    code = (await flow.answer(scope="files:read"))["code"]
    assert (await flow.redeem(code, resource="https://other.example")).error == "invalid_target"


async def test_the_origin_of_several_resources_is_refused_as_a_resource_without_scopes(
    flow: CodeFlow, world: World
) -> None:
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(FILES))
    code = (await flow.answer(scope=None, resource=origin))["code"]
    tokens = await flow.redeem(code, resource=origin)
    assert claims_of(tokens.json["access_token"])["aud"] == FILES
    other = {"name": "more", "uri": f"{origin}/more", "jwk": dict(jose.generate("ES256").public.jwk)}
    assert (await call_admin_api(world, "POST", "/resources", other))[0] == 201
    flow.browser.left_to = ""
    await flow.open(scope=None, resource=origin)
    assert flow.arrived()["error"] == "invalid_target"
    code = (await flow.answer(scope="files:read", resource=origin))["code"]
    assert claims_of((await flow.redeem(code)).json["access_token"])["aud"] == FILES
