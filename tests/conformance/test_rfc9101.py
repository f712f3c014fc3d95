"""Signed authorization requests: RFC 9101, and `request` of OpenID Connect Core 1.0 section 6.1."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.types import ASGIApp

from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.ledger.store import search_entries
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.clients import OAuthClient
from ostiaryd.trust.store import clients
from tests.conformance.table import ACCEPTED, Row, row
from tests.support.api_fixtures import FILES, ISSUER, SECOND, claims_of, register
from tests.tokens.code_flow import CALLBACK, CodeFlow, begin_flow

HOUR = 3600
UNSIGNED = ".".join(jose.b64u(part) for part in (b'{"alg":"none"}', b"{}")) + "."


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    flow = await begin_flow(world, app)
    await flow.answer()  # the person has consented
    flow.browser.left_to = ""
    return flow


def signed(
    flow: CodeFlow, *, key: jose.PrivateKey | None = None, typ: str | None = "oauth-authz-req+jwt", **changes: Any
) -> str:
    """Return a good request object, but for the changes; a member of None is left out."""
    now = flow.world.now() // SECOND
    times = {"iat": now, "nbf": now, "exp": now + 60}
    good = flow.query() | {"iss": flow.client.id, "aud": ISSUER, "jti": "one"} | times
    claims = {name: value for name, value in (good | changes).items() if value is not None}
    return jose.sign_jwt(key or flow.client.key, typ=typ, claims=claims)


async def send_to_page(flow: CodeFlow, request: str, **outside: Any) -> dict[str, str]:
    """Send the browser with this request object, and return what arrives at the redirect URI."""
    flow.browser.left_to = ""
    await flow.open(**{name: None for name in flow.query() if name != "client_id"} | {"request": request} | outside)
    return flow.arrived()


async def test_each_unsigned_request_object_is_refused_and_recorded(world: World, flow: CodeFlow) -> None:
    for _ in range(2):
        answer = await send_to_page(flow, UNSIGNED, redirect_uri=CALLBACK)
        assert answer["error"] == "request_not_supported"
    said = [decode_entry(body) for _, body in search_entries(world.db.read(), {}, limit=2)]
    assert [(entry.action, entry.outcome) for entry in said] == [("authorization.request", "refused")] * 2


async def test_a_signed_request_object_gives_a_code(flow: CodeFlow) -> None:
    for typ in ("oauth-authz-req+jwt", "JWT", None):
        answer = await send_to_page(flow, signed(flow, typ=typ))
        assert (answer["state"], answer["iss"]) == ("the state", ISSUER)
        assert (await flow.redeem(answer["code"])).status == 200


async def test_only_the_parameters_in_the_object_count(flow: CodeFlow) -> None:
    outside = {"scope": "files:write", "state": "evil", "redirect_uri": "https://evil.example/", "prompt": "none"}
    answer = await send_to_page(flow, signed(flow), **outside)
    assert answer["state"] == "the state"
    assert (await flow.redeem(answer["code"])).json["scope"] == "files:read"


async def test_structured_parameters_in_a_request_object_are_json_values(flow: CodeFlow) -> None:
    detail = {"type": "tool", "locations": [FILES], "actions": ["read_file"]}
    inside: dict[str, Any] = {
        "scope": "openid files:read",
        "resource": [FILES],
        "max_age": 3600,
        "claims": {"id_token": {"name": None}},
        "authorization_details": [detail],
        "unknown": {"members": [1, True, 0.5]},
    }
    request = signed(flow, **inside)
    flow.browser.left_to = ""
    await flow.open(request=request, redirect_uri=None)
    await flow.allow()
    tokens = (await flow.redeem(flow.arrived()["code"])).json
    assert tokens["authorization_details"] == [detail]
    assert claims_of(tokens["id_token"])["auth_time"]
    assert claims_of(tokens["access_token"])["aud"] == FILES


def objects(flow: CodeFlow, other: jose.PrivateKey) -> list[Row]:
    now = flow.world.now() // SECOND
    bad = "invalid_request_object"
    return [
        row("a good object", request=signed(flow)),
        row("a list of audiences with this server", request=signed(flow, aud=["https://a.example", ISSUER])),
        row("no iat, no nbf and no jti", request=signed(flow, iat=None, nbf=None, jti=None)),
        row("another audience", bad, request=signed(flow, aud="https://other.example")),
        row("no audience", bad, request=signed(flow, aud=None)),
        row("no issuer", bad, request=signed(flow, iss=None)),
        row("another issuer", bad, request=signed(flow, iss="ag_" + "0" * 32)),
        row("another client", bad, request=signed(flow, client_id="ag_" + "0" * 32)),
        row("no client", bad, request=signed(flow, client_id=None)),
        row("the subject of an assertion", bad, request=signed(flow, sub=flow.client.id)),
        row("no end", bad, request=signed(flow, exp=None)),
        row("ended", bad, request=signed(flow, exp=now - 11)),
        row("an end after more than an hour", bad, request=signed(flow, exp=now + HOUR + 20)),
        row("not valid yet", bad, request=signed(flow, nbf=now + 60)),
        row("begun more than an hour ago", bad, request=signed(flow, nbf=now - HOUR - 20)),
        row("another key", bad, request=signed(flow, key=other)),
        row("the type of an assertion", bad, request=signed(flow, typ="client-authentication+jwt")),
        row("the type of a proof", bad, request=signed(flow, typ="dpop+jwt")),
        row("a request in the request", bad, request=signed(flow, request=signed(flow))),
        row("a reference in the request", bad, request=signed(flow, request_uri="urn:x")),
        row("no JWT", bad, request="e30.e30."),
        row("two objects", "invalid_request", request=[signed(flow), signed(flow)]),
        row("no signature", "request_not_supported", request=UNSIGNED),
        row("a changed object", bad, request=signed(flow)[:-8] + "A" * 8),
        row("a client assertion", bad, request=flow.client.assertion()),
        row("a wrong parameter", "invalid_request", request=signed(flow, response_mode="fragment")),
        row("a wrong type of a parameter", "invalid_scope", request=signed(flow, scope=["files:read"])),
    ]


async def test_each_rule_of_a_request_object_holds_at_the_authorization_endpoint(world: World, flow: CodeFlow) -> None:
    _, other = await register(world, name="other")
    wrong = []
    for what, due, said, _ in objects(flow, other):
        answer = await send_to_page(flow, said["request"])
        if answer.get("error", ACCEPTED) != due or (due == ACCEPTED) is not ("code" in answer):
            wrong.append(f"{what}: due {due or 'accepted'}, was {answer}")
    assert not wrong, "\n".join(wrong)


async def test_each_rule_of_a_request_object_holds_at_the_pushed_request_endpoint(world: World, flow: CodeFlow) -> None:
    _, other = await register(world, name="other")
    wrong = []
    for what, due, said, _ in objects(flow, other):
        answer = await flow.client.post("/par", flow.authenticated() | said)
        if answer.json.get("error", ACCEPTED) != due or answer.status != (400 if due else 201):
            wrong.append(f"{what}: due {due or 'accepted'}, was {answer.status} {answer.body!r}")
    assert not wrong, "\n".join(wrong)


async def test_a_pushed_request_object_gives_a_code_for_its_own_parameters(flow: CodeFlow) -> None:
    pushed = await flow.client.post("/par", flow.authenticated(request=signed(flow), scope="files:write", state="evil"))
    await flow.browser.get(f"/authorize?client_id={flow.client.id}&request_uri={pushed.json['request_uri']}")
    answer = flow.arrived()
    assert answer["state"] == "the state"
    assert (await flow.redeem(answer["code"])).json["scope"] == "files:read"


async def test_a_request_object_does_not_authenticate_a_client(flow: CodeFlow) -> None:
    for typ in ("JWT", "oauth-authz-req+jwt", None):
        form = flow.authenticated(**flow.query()) | {"client_assertion": signed(flow, typ=typ)}
        assert (await flow.client.post("/par", form)).error == "invalid_client"


async def test_a_request_object_with_an_unregistered_redirect_uri_is_refused_without_a_redirect(flow: CodeFlow) -> None:
    flow.browser.left_to = ""
    await flow.open(request=signed(flow, redirect_uri="https://evil.example/"))
    assert (flow.browser.answer.status, flow.browser.left_to) == (400, "")


async def test_a_request_object_together_with_a_request_uri_is_refused(flow: CodeFlow) -> None:
    answer = await send_to_page(flow, signed(flow), request_uri="https://app.example/request", redirect_uri=CALLBACK)
    assert answer["error"] == "invalid_request"


async def test_a_client_that_must_sign_requests_is_refused_without_a_request_object(
    world: World, flow: CodeFlow
) -> None:
    client = trust.get_oauth_client(world.db.read(), flow.client.id)
    assert client is not None
    metadata = replace(client.metadata, require_signed_request_object=True)
    await act(world, "test.client", lambda act: clients.put(act.tx, replace(client, metadata=metadata)))
    flow.browser.left_to = ""
    await flow.open()
    answer, pushed = flow.arrived(), await flow.push()
    assert (answer["error"], pushed.error) == ("invalid_request", "invalid_request")
    for description in (answer["error_description"], pushed.json["error_description"]):
        assert description.startswith("this client must sign its authorization requests")
    assert "code" in await send_to_page(flow, signed(flow))


async def test_a_request_object_must_use_the_registered_algorithm(world: World, flow: CodeFlow) -> None:
    client = trust.get_oauth_client(world.db.read(), flow.client.id)
    assert client is not None
    for alg, is_good in (("ES256", True), ("RS256", False)):
        changed = replace(client, metadata=replace(client.metadata, request_object_signing_alg=alg))
        await act(world, "test.client", partial(_put, changed))
        assert ("code" in await send_to_page(flow, signed(flow))) is is_good


def _put(client: OAuthClient, act: Act) -> None:
    clients.put(act.tx, client)
