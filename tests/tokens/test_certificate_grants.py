"""Grants of people to clients that show certificates (RFC 8705): tokens are bound, and stay bound at each refresh."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from harness.client_certificates import Made, self_signed
from harness.registry_fixtures import newest_entry, person_caller
from ostiaryd.app import build_app
from ostiaryd.approvals import store as approvals
from ostiaryd.approvals.flows import answer
from ostiaryd.approvals.model import Says
from ostiaryd.ground.http.pages import parse_page
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE
from ostiaryd.tokens.model import CIBA
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.clients import DEVICE_CODE, REFRESH_TOKEN
from tests.support.api_fixtures import ISSUER, Answer, claims_of, guard, send
from tests.support.tls_client import TlsClient
from tests.tokens.code_flow import CALLBACK, CodeFlow, begin_flow


@pytest.fixture
async def flow(world: World) -> CodeFlow:
    return await begin_flow(world, build_app(world))


@pytest.fixture
async def tls(flow: CodeFlow) -> TlsClient:
    """The application of the flow, with an authority that the server trusts."""
    made = TlsClient(flow.client)
    await made.trust()
    made.app = build_app(made.world)
    return made


def confirmation(answer: Answer) -> Any:
    """Return what the access token of an answer is bound to; it is sent as Bearer."""
    assert answer.status == 200, answer.body
    assert answer.json["token_type"] == "Bearer"
    return claims_of(answer.json["access_token"])["cnf"]


async def refresh(tls: TlsClient, made: Made | None, token: str, *fields: tuple[str, str], **form: str) -> Answer:
    sent = {"grant_type": REFRESH_TOKEN, "client_id": tls.client.id, "refresh_token": token} | form
    return await tls.post("/token", sent, *fields, made=made)


async def begin_code(flow: CodeFlow, tls: TlsClient, made: Made) -> Answer:
    return await tls.post(
        "/token", {"client_id": tls.client.id, **flow.token_form((await flow.answer())["code"])}, made=made
    )


async def begin_device(flow: CodeFlow, tls: TlsClient, made: Made) -> Answer:
    asked = {"client_id": tls.client.id, "scope": "files:read"}
    codes = (await tls.post("/device_authorization", asked, made=made)).json
    await flow.browser.get(codes["verification_uri_complete"].removeprefix(ISSUER))
    await flow.browser.submit("/device")
    await flow.browser.submit("/device/consent", decision="allow")
    form = {"grant_type": DEVICE_CODE, "device_code": codes["device_code"], "client_id": tls.client.id}
    return await tls.post("/token", form, made=made)


async def approve(tls: TlsClient, person: str) -> None:
    """Approve the newest request to a person."""
    [asked] = approvals.page(
        tls.world.db.read(), agent="", is_open=False, now=tls.world.now(), page=parse_page("1", None)
    )
    caller = structs.replace(person_caller(person, APPROVE), jkt="key")

    def run(act: Act) -> None:
        answer(act, asked.approval_id, Says.APPROVE, reason="go on", by=caller, config=tls.world.config)

    await act(tls.world, "approval.approve", run)


@pytest.mark.parametrize("begin", [begin_code, begin_device])
async def test_tokens_of_a_grant_are_bound_to_the_presented_certificate(
    flow: CodeFlow, tls: TlsClient, begin: Any
) -> None:
    await tls.register()
    first, renewed = tls.issue(), tls.issue()
    tokens = await begin(flow, tls, first)
    assert confirmation(tokens) == {"x5t#S256": first.shown.thumbprint}
    token = tokens.json["refresh_token"]
    for wrong in (None, tls.issue(names=()), self_signed(at=tls.now)):
        assert (await refresh(tls, wrong, token)).error == "invalid_client"
        assert (newest_entry(tls.world).action, newest_entry(tls.world).outcome) == ("token.refresh", "refused")
    again = await refresh(tls, renewed, token)
    assert confirmation(again) == {"x5t#S256": renewed.shown.thumbprint}, "a renewed certificate goes on"


async def test_the_token_of_an_approved_ciba_request_is_bound_to_the_certificate(
    flow: CodeFlow, tls: TlsClient
) -> None:
    await tls.register()
    made, client = tls.issue(), tls.client.id
    asked = {"client_id": client, "login_hint": "ann", "scope": "openid files:read", "binding_message": "report W7"}
    id = (await tls.post("/bc-authorize", asked, made=made)).json["auth_req_id"]
    await approve(tls, flow.person)
    form = {"grant_type": CIBA, "auth_req_id": id, "client_id": client}
    assert (await tls.post("/token", form, made=None)).error == "invalid_client"
    assert confirmation(await tls.post("/token", form, made=made)) == {"x5t#S256": made.shown.thumbprint}


async def test_a_grant_that_issued_a_bound_token_issues_no_unbound_token(flow: CodeFlow, tls: TlsClient) -> None:
    await guard(tls.world)
    await act(tls.world, "test.exempt", lambda act: trust.allow_bearer(act, "reader", "files"))
    made = tls.issue()
    form = flow.token_form((await flow.answer())["code"])
    tokens = await tls.post("/token", flow.authenticated(**form), made=made)
    assert confirmation(tokens) == {"x5t#S256": made.shown.thumbprint}
    token = tokens.json["refresh_token"]
    unbound = await tls.post("/token", flow.authenticated(grant_type=REFRESH_TOKEN, refresh_token=token))
    assert (unbound.status, unbound.error) == (400, "invalid_grant")
    again = await tls.post("/token", flow.authenticated(grant_type=REFRESH_TOKEN, refresh_token=token), made=made)
    assert confirmation(again) == {"x5t#S256": made.shown.thumbprint}
    form = flow.token_form((await flow.answer())["code"])
    bearer = (await tls.post("/token", flow.authenticated(**form))).json
    assert "cnf" not in claims_of(bearer["access_token"])
    form = flow.authenticated(grant_type=REFRESH_TOKEN, refresh_token=bearer["refresh_token"])
    assert (await tls.post("/token", form)).status == 200, "what began unbound goes on unbound"


async def test_the_refresh_token_of_a_public_client_is_bound_to_its_certificate(flow: CodeFlow, tls: TlsClient) -> None:
    members: dict[str, Any] = {
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "none",
        "client_name": "Reader",
    }
    members |= {"grant_types": ["authorization_code", "refresh_token"]}
    body = json.dumps(members | {"tls_client_certificate_bound_access_tokens": True}).encode()
    await act(tls.world, "test.role", lambda act: registry.grant_role(act, "ann", "viewer"))
    registered = await send(tls.app, "POST", "/register", headers=[("content-type", "application/json")], body=body)
    client_id = registered.json["client_id"]
    made, other = self_signed(at=tls.now), self_signed(at=tls.now)
    form = {"client_id": client_id, **flow.token_form((await flow.answer(client_id=client_id))["code"])}
    assert (await tls.post("/token", form)).error == "invalid_request", "the client demands the certificate"
    tokens = await tls.post("/token", form, made=made)
    assert confirmation(tokens) == {"x5t#S256": made.shown.thumbprint}
    token = tokens.json["refresh_token"]
    assert (await refresh(tls, other, token, client_id=client_id)).error == "invalid_grant"
    assert (await refresh(tls, None, token, client_id=client_id)).error == "invalid_request"
    again = await refresh(tls, made, token, client_id=client_id)
    assert confirmation(again) == {"x5t#S256": made.shown.thumbprint}
