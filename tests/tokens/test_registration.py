"""Clients that no administrator registered, over HTTP: `/register`, their administration, CORS, and the code flow."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import call_admin_api, is_live, newest_entry
from ostiary.protocol import dpop, jose
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.tokens import flows as consents
from ostiaryd.trust import flows as trust
from tests.support.api_fixtures import FILES, Answer, claims_of, guard, reconfigured, register, send
from tests.tokens.code_flow import VERIFIER, Browser, challenge_of, sign_in

CALLBACK = "https://app.example/callback"
BODY = {
    "client_name": "Example",
    "redirect_uris": [CALLBACK],
    "grant_types": ["authorization_code", "refresh_token"],
}
BEARER = [("content-type", "application/json")]


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


async def call(app: ASGIApp, method: str, path: str, body: Any = None, *, token: str = "", **headers: str) -> Answer:
    sent = [("content-type", "application/json")] if body is not None else []
    sent += [("authorization", f"Bearer {token}")] if token else []
    sent += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await send(app, method, path, headers=sent, body=b"" if body is None else json.dumps(body).encode())


async def test_a_registration_is_made_read_changed_and_deleted(world: World, app: ASGIApp) -> None:
    made = await call(app, "POST", "/register", BODY)
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    client = made.json
    assert client["token_endpoint_auth_method"] == "none"
    assert "client_secret" not in client
    assert client["redirect_uris"] == [CALLBACK]
    path, token = (
        client["registration_client_uri"].removeprefix(world.config.issuer),
        client["registration_access_token"],
    )
    assert path == f"/register/{client['client_id']}"
    read = await call(app, "GET", path, token=token)
    assert (read.status, read.json) == (200, client)
    body = BODY | {"client_id": client["client_id"], "client_name": "Example 2"}
    changed = await call(app, "PUT", path, body, token=token)
    assert (changed.status, changed.json["client_name"]) == (200, "Example 2")
    deleted = await call(app, "DELETE", path, token=token)
    assert (deleted.status, "content-type" in deleted.headers) == (204, False), "an empty body is not JSON"
    gone = await call(app, "GET", path, token=token)
    assert (gone.status, gone.json["error"]) == (401, "invalid_token")
    assert gone.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_malformed_registration_gets_the_error_of_rfc_7591(app: ASGIApp) -> None:
    cases: list[tuple[Any, str]] = [
        (BODY | {"redirect_uris": ["http://evil.example/"]}, "invalid_redirect_uri"),
        (BODY | {"response_types": ["token"]}, "invalid_client_metadata"),
        (BODY | {"software_statement": "x"}, "invalid_software_statement"),
        ([], "invalid_client_metadata"),
        ("x", "invalid_client_metadata"),
    ]
    for body, error in cases:
        answer = await call(app, "POST", "/register", body)
        assert (answer.status, answer.json["error"]) == (400, error), body


async def test_a_network_has_a_limited_number_of_registrations(app: ASGIApp, clock: Clock) -> None:
    wrong = json.dumps(BODY | {"response_types": ["token"]}).encode()

    async def ask(address: str = "192.0.2.1") -> int:
        answer = await send(app, "POST", "/register", headers=BEARER, body=wrong, address=address)
        assert answer.status == 400 or "too many registrations from this network" in answer.json["error_description"]
        return answer.status

    assert [await ask() for _ in range(101)] == [400] * 100 + [503]
    assert await ask("198.51.100.1") == 400
    clock.advance(3, us=-1)
    assert await ask() == 503
    clock.advance(us=1)
    assert [await ask() for _ in range(2)] == [400, 503]


async def test_a_registration_that_is_not_json_is_refused(app: ASGIApp) -> None:
    for body, headers in ((b"{", BEARER), (b"a=b", [("content-type", "application/x-www-form-urlencoded")])):
        assert (await send(app, "POST", "/register", headers=headers, body=body)).status in (400, 415)


async def test_a_token_of_another_registration_or_scheme_is_refused(app: ASGIApp) -> None:
    one, other = [(await call(app, "POST", "/register", BODY)).json for _ in range(2)]
    path = f"/register/{one['client_id']}"
    for method in ("GET", "DELETE"):
        assert (await call(app, method, path, token=other["registration_access_token"])).status == 401
        assert (await call(app, method, path)).status == 401
        assert (await call(app, method, path, authorization=f"DPoP {one['registration_access_token']}")).status == 401
    assert (await call(app, "GET", path, token=one["registration_access_token"])).status == 200


async def test_the_metadata_state_whether_unregistered_clients_may_register_or_use_documents(world: World) -> None:
    path = "/.well-known/oauth-authorization-server"
    metadata = (await call(build_app(world), "GET", path)).json
    assert metadata["registration_endpoint"] == f"{world.config.issuer}/register"
    assert metadata["client_id_metadata_document_supported"] is True
    closed = reconfigured(world, client_registration="closed", client_documents="closed")
    metadata = (await call(build_app(closed), "GET", path)).json
    assert "registration_endpoint" not in metadata
    assert metadata["client_id_metadata_document_supported"] is False


CROSS_ORIGIN = [
    ("GET", "/jwks"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/openid-configuration"),
    ("GET", "/.well-known/oauth-protected-resource"),
    ("POST", "/register"),
    ("POST", "/token"),
    ("POST", "/revoke"),
    ("POST", "/par"),
    ("GET", "/userinfo"),
]
SAME_ORIGIN = [
    ("GET", "/authorize"),
    ("GET", "/login"),
    ("POST", "/consent"),
    ("GET", "/account"),
    ("GET", "/api/v1/agents"),
    ("GET", "/openapi.json"),
    ("POST", "/access/v1/evaluation"),
]


async def test_scripts_of_every_origin_may_call_client_endpoints(app: ASGIApp) -> None:
    for method, path in CROSS_ORIGIN:
        preflight = await call(app, "OPTIONS", path, origin="https://app.example", access_control_request_method=method)
        assert (preflight.status, preflight.body) == (204, b""), path
        assert method in preflight.headers["access-control-allow-methods"]
        assert "dpop" in preflight.headers["access-control-allow-headers"]
        for answer in (preflight, await call(app, method, path, origin="https://app.example")):
            assert answer.headers["access-control-allow-origin"] == "*", path
            assert "access-control-allow-credentials" not in answer.headers
    exposed = (await call(app, "POST", "/token")).headers["access-control-expose-headers"]
    assert {"dpop-nonce", "www-authenticate"} <= set(exposed.split(", "))


async def test_no_script_of_another_origin_reads_a_page_or_the_admin_api(app: ASGIApp) -> None:
    for method, path in SAME_ORIGIN:
        preflight = await call(app, "OPTIONS", path, origin="https://app.example", access_control_request_method=method)
        assert preflight.status == 405, path
        answer = await call(app, method, path, origin="https://app.example")
        assert not [name for name in (*answer.headers, *preflight.headers) if name.startswith("access-control")], path


async def test_administrators_approve_stop_and_delete_clients(world: World) -> None:
    strict = build_app(reconfigured(world, client_registration="approval"))
    client = (await call(strict, "POST", "/register", BODY)).json
    [waiting] = (await call_admin_api(world, "GET", "/clients?state=pending"))[1]["clients"]
    assert (waiting["client_id"], waiting["kind"], waiting["network"] != "") == (client["client_id"], "dynamic", False)
    id = waiting["id"]
    for verb, state in (("approve", "active"), ("stop", "stopped"), ("approve", "active")):
        status, shown = await call_admin_api(world, "POST", f"/clients/{id}/{verb}", {})
        assert (status, shown["state"], newest_entry(world).action) == (200, state, f"client.{verb}")
    assert (await call_admin_api(world, "POST", f"/clients/{id}/approve", {}))[0] == 409
    assert (await call_admin_api(world, "GET", f"/clients/{id}"))[1]["state"] == "active"
    assert (await call_admin_api(world, "GET", "/clients?state=asleep"))[0] == 422
    assert (await call_admin_api(world, "DELETE", f"/clients/{id}"))[0] == 200
    for method, path in (("GET", f"/clients/{id}"), ("DELETE", f"/clients/{id}"), ("POST", f"/clients/{id}/stop")):
        assert (await call_admin_api(world, method, path, {}))[0] == 404


async def test_an_initial_access_token_registers_a_client_if_registration_is_closed(world: World) -> None:
    closed = build_app(reconfigured(world, client_registration="closed"))
    refused = await call(closed, "POST", "/register", BODY)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    status, invitation = await call_admin_api(world, "POST", "/client-invitations", {"uses": 1})
    assert status == 201
    token = invitation["initial_access_token"]
    assert (await call(closed, "POST", "/register", BODY, token=token)).status == 201
    assert (await call(closed, "POST", "/register", BODY, token=token)).status == 401


class Application:
    """A client that registered itself, and the browser of ann, who is signed in."""

    def __init__(self, world: World, app: ASGIApp, browser: Browser, registered: dict[str, Any]) -> None:
        self.world, self.app, self.browser, self.client_id = world, app, browser, registered["client_id"]
        self.registration_token = registered["registration_access_token"]
        self.registered = registered
        self.key = jose.generate("ES256")
        self.address = "198.51.100.7"

    def query(self) -> dict[str, str]:
        """Return a good authorization request."""
        return {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": CALLBACK,
            "scope": "files:read",
            "resource": FILES,
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
        }

    async def begin_device(self) -> Answer:
        """Send a device authorization request."""
        headers = [("content-type", "application/x-www-form-urlencoded")]
        body = urlencode({"client_id": self.client_id, "scope": "files:read", "resource": FILES}).encode()
        return await send(self.app, "POST", "/device_authorization", headers=headers, body=body, address=self.address)

    async def code(self, **changes: str) -> str:
        """Go through authorization, and return the code."""
        await self.browser.get(f"/authorize?{urlencode(self.query() | changes)}")
        if not self.browser.left_to:
            form = self.browser.form("/consent") | {"decision": "allow"}
            await self.browser.post("/consent", **form)
        answer = parse_qs(urlsplit(self.browser.left_to).query)
        self.browser.left_to = ""
        return answer["code"][0]

    async def token(self, *, is_bound: bool = False, **form: str) -> Answer:
        """Send a token request, with a proof or without."""
        headers = [("content-type", "application/x-www-form-urlencoded")]
        if "authorization" in form:
            headers.append(("authorization", form.pop("authorization")))
        if is_bound:
            headers.append(("dpop", self.proof()))
        body = urlencode({"client_id": self.client_id} | form).encode()
        return await send(self.app, "POST", "/token", headers=headers, body=body, address=self.address)

    async def redeem(self, code: str, **more: Any) -> Answer:
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        return await self.token(**form | more)

    def proof(self) -> str:
        nonce = dpop.make_nonce(self.world.keys.secret("nonce"), b"as", self.world.now())
        return dpop.make_proof(
            self.key,
            method="POST",
            uri=f"{self.world.config.issuer}/token",
            now=self.world.now(),
            jti=self.world.random(16).hex(),
            nonce=nonce,
        )


@pytest.fixture
async def application(world: World, app: ASGIApp) -> Application:
    await register(world)
    await guard(world)
    await act(world, "role.grant", lambda act: registry.grant_role(act, "ann", "viewer"))
    client = (await call(app, "POST", "/register", BODY)).json
    browser = Browser(app)
    await sign_in(world, browser, registry.find_person(world.db.read(), "ann").person_id)
    return Application(world, app, browser, client)


async def allow_class(world: World, registration: Any = "dynamic") -> None:
    await act(world, "bearer.allow", lambda act: trust.allow_bearer_class(act, "files", registration))


async def test_an_unregistered_client_gets_a_bearer_token_only_if_its_class_is_exempt(
    world: World, application: Application
) -> None:
    refused = await application.redeem(await application.code())
    assert refused.json["error"] == "invalid_dpop_proof"
    bound = await application.redeem(await application.code(), is_bound=True)
    claims = claims_of(bound.json["access_token"])
    assert (bound.json["token_type"], claims["registration"]) == ("DPoP", "dynamic")
    await allow_class(world, "document")
    assert (await application.redeem(await application.code())).json["error"] == "invalid_dpop_proof"
    await allow_class(world)
    answer = await application.redeem(await application.code())
    claims = claims_of(answer.json["access_token"])
    assert (answer.json["token_type"], "cnf" in claims, claims["aud"]) == ("Bearer", False, FILES)
    assert (claims["sub"][:3], claims["act"]["sub"], claims["registration"]) == ("pe_", claims["client_id"], "dynamic")
    assert claims["exp"] - claims["iat"] <= 300
    assert claims["client_id"] != application.client_id


async def test_a_stopped_client_gets_no_token_and_its_tokens_end(world: World, application: Application) -> None:
    await allow_class(world)
    tokens = (await application.redeem(await application.code())).json
    agent = claims_of(tokens["access_token"])["client_id"]
    code = await application.code()
    await call_admin_api(world, "POST", f"/clients/{application.client_id}/stop", {})
    assert (await application.redeem(code)).json["error"] == "invalid_client"
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await application.token(**refresh)).json["error"] == "invalid_client"
    assert registry.find_agent(world.db.read(), agent).agent_id == agent
    jti = claims_of(tokens["access_token"])["jti"]
    assert not is_live(world, jti)
    await call_admin_api(world, "POST", f"/clients/{application.client_id}/approve", {})
    assert (await application.token(**refresh)).json["error"] == "invalid_grant"


async def test_a_consent_records_the_use_of_its_client(world: World, application: Application) -> None:
    assert trust.get_oauth_client(world.db.read(), application.client_id).used_at is None  # type: ignore[union-attr]
    await application.code()
    assert trust.get_oauth_client(world.db.read(), application.client_id).used_at is not None  # type: ignore[union-attr]


async def test_changed_redirect_uris_are_not_covered_by_the_consent(world: World, application: Application) -> None:
    await allow_class(world)
    tokens = (await application.redeem(await application.code())).json

    body = BODY | {"client_id": application.client_id, "redirect_uris": [CALLBACK, "https://evil.example/"]}
    changed = await call(
        application.app, "PUT", f"/register/{application.client_id}", body, token=application.registration_token
    )
    assert changed.status == 200
    refused = await application.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refused.json["error"] == "invalid_grant"
    await application.browser.get("/account")
    assert (await application.redeem(await application.code())).status == 200  # after a new consent


async def test_a_client_that_changes_while_its_consent_page_is_open_gets_no_consent(
    world: World, application: Application
) -> None:
    browser, device = application.browser, "urn:ietf:params:oauth:grant-type:device_code"
    path, token = f"/register/{application.client_id}", application.registration_token
    body = BODY | {"client_id": application.client_id, "grant_types": ["authorization_code", device]}

    async def change(name: str) -> None:
        answer = await call(application.app, "PUT", path, body | {"client_name": name}, token=token)
        assert answer.status == 200

    await change("Example")
    codes = (await application.begin_device()).json
    await browser.get(codes["verification_uri_complete"].removeprefix(world.config.issuer))
    await browser.submit("/device")
    form = browser.form("/device/consent") | {"decision": "allow"}
    await change("Another")
    refused = await browser.post("/device/consent", **form)
    assert (refused.status, "changed during this request" in browser.text) == (400, True)
    await browser.get(f"/authorize?{urlencode(application.query())}")
    form = browser.form("/consent") | {"decision": "allow"}
    await change("Example")
    await browser.post("/consent", **form)
    answer = parse_qs(urlsplit(browser.left_to).query)
    assert ("code" in answer, answer["error"]) == (False, ["invalid_request"])
    assert "changed during this request" in answer["error_description"][0]
    browser.left_to = ""
    person = registry.find_person(world.db.read(), "ann").person_id
    assert consents.list_consents(world.db.read(), person) == []
    assert await application.code(), "a new page shows the present metadata"


async def test_a_public_client_that_sends_a_secret_is_refused(application: Application) -> None:
    code = await application.code()
    pair = b64encode(f"{application.client_id}:secret".encode()).decode()
    for wrong in ({"client_secret": "secret"}, {"authorization": f"Basic {pair}"}):
        answer = await application.redeem(code, is_bound=True, **wrong)
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert (await application.redeem(code, is_bound=True)).status == 200, "the code is still good"


async def test_a_public_client_may_name_itself_in_the_basic_header_with_an_empty_secret(
    application: Application,
) -> None:
    """RFC 6749 section 2.3.1: an empty secret may be left out, so both forms say the same."""
    pair = b64encode(f"{application.client_id}:".encode()).decode()
    answer = await application.redeem(await application.code(), is_bound=True, authorization=f"Basic {pair}")
    assert answer.status == 200, answer.body


@pytest.fixture
async def confidential(application: Application) -> Application:
    """An application of the same person and browser whose client registered with a secret."""
    client = (
        await call(application.app, "POST", "/register", BODY | {"token_endpoint_auth_method": "client_secret_basic"})
    ).json
    return Application(application.world, application.app, application.browser, client)


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()}


async def ask_about(
    application: Application, token: str, headers: dict[str, str], *, at: str = "/introspect", **form: str
) -> Answer:
    """Introspect or revoke a token, as the client that the headers or the form name."""
    return await send(
        application.app,
        "POST",
        at,
        headers=[("content-type", "application/x-www-form-urlencoded"), *headers.items()],
        body=urlencode({"token": token} | form).encode(),
    )


async def test_a_client_with_a_secret_can_introspect_only_its_own_access_tokens(
    confidential: Application, application: Application
) -> None:
    headers = basic(confidential.client_id, confidential.registered["client_secret"])
    own = (await confidential.redeem(await confidential.code(scope="openid", resource=""), **headers)).json
    seen = await ask_about(confidential, own["access_token"], headers)
    assert seen.json == {"active": True, "token_type": "Bearer", **claims_of(own["access_token"])}
    theirs = (await application.redeem(await application.code(), is_bound=True)).json
    for unseen in (theirs["access_token"], own["refresh_token"], own["id_token"]):
        assert (await ask_about(confidential, unseen, headers)).json == {"active": False}
    public = await ask_about(application, theirs["access_token"], {}, client_id=application.client_id)
    assert (public.status, public.json["error"]) == (401, "invalid_client"), "anyone may name a public client"


async def test_a_client_that_registers_for_a_secret_must_authenticate_with_that_secret(
    confidential: Application,
) -> None:
    client = confidential.registered
    assert (client["token_endpoint_auth_method"], client["client_secret_expires_at"]) == ("client_secret_basic", 0)
    id, secret = client["client_id"], client["client_secret"]
    path, token = f"/register/{id}", client["registration_access_token"]
    assert (await call(confidential.app, "GET", path, token=token)).json["client_secret"] == secret
    code = await confidential.code(scope="openid", resource="")
    other = (
        await call(confidential.app, "POST", "/register", BODY | {"token_endpoint_auth_method": "client_secret_post"})
    ).json
    assert other["client_secret"] != secret
    for wrong in (
        {},
        {"client_secret": "x"},
        {"client_secret": secret[:-1]},
        {"client_secret": other["client_secret"]},
        basic(id, other["client_secret"]),
        basic(other["client_id"], other["client_secret"]) | {"client_id": ""},
        basic(id, ""),
    ):
        refused = await confidential.redeem(code, **wrong)
        assert refused.json["error"] in ("invalid_client", "invalid_grant"), wrong
    tokens = await confidential.redeem(code, **basic(id, secret))
    assert (tokens.status, tokens.json["token_type"]) == (200, "Bearer"), tokens.body
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens.json["refresh_token"]}
    assert (await confidential.token(**refresh)).json["error"] == "invalid_client"
    assert (await confidential.token(**refresh, client_secret=secret)).status == 200
    revoked = await ask_about(confidential, tokens.json["refresh_token"], basic(id, secret), at="/revoke")
    assert revoked.status == 200, revoked.body
    assert (await confidential.token(**refresh, client_secret=secret)).json["error"] == "invalid_grant"


async def test_a_change_of_a_client_may_state_only_its_present_secret(confidential: Application) -> None:
    """RFC 7592 section 2.2: the value must match the currently issued secret."""
    secret, path = confidential.registered["client_secret"], f"/register/{confidential.client_id}"
    body = BODY | {"client_id": confidential.client_id, "token_endpoint_auth_method": "client_secret_basic"}

    async def change(**more: Any) -> Answer:
        return await call(confidential.app, "PUT", path, body | more, token=confidential.registration_token)

    changed = await change(client_secret=secret, client_name="Renamed")
    assert (changed.status, changed.json["client_secret"], changed.json["client_name"]) == (200, secret, "Renamed")
    for wrong in ("x", secret[:-1], "", ["x"], "\u00fc"):
        assert (await change(client_secret=wrong)).json["error"] == "invalid_client_metadata", wrong
    assert (await change(client_secret=secret, client_secret_expires_at=0)).json["error"] == "invalid_client_metadata"
    public = await change(token_endpoint_auth_method="none")
    assert "client_secret" not in public.json
    assert (await change(client_secret=secret, token_endpoint_auth_method="none")).status == 400


async def test_concurrent_refreshes_give_the_same_new_refresh_token(
    world: World, application: Application, confidential: Application, clock: Clock
) -> None:
    await allow_class(world)
    secret = {"client_secret": confidential.registered["client_secret"]}
    for client, proof in ((confidential, secret), (application, {})):
        first = (await client.redeem(await client.code(), **proof)).json["refresh_token"]
        refresh = {"grant_type": "refresh_token", "refresh_token": first}
        answers = await asyncio.gather(*(client.token(**refresh, **proof) for _ in range(4)))
        [second] = {answer.json["refresh_token"] for answer in answers}
        clock.advance(30, us=1)
        assert (await client.token(**refresh | {"refresh_token": second}, **proof)).status == 200
        assert (await client.token(**refresh, **proof)).json["error"] == "invalid_grant", "a reuse after the grace"
        assert (await client.token(**refresh | {"refresh_token": second}, **proof)).json["error"] == "invalid_grant"


@pytest.mark.parametrize("address", ["203.0.113.7", ""])
async def test_a_repeated_refresh_of_a_bearer_client_must_come_from_the_same_network(
    world: World, application: Application, address: str
) -> None:
    await allow_class(world)
    first = (await application.redeem(await application.code())).json["refresh_token"]
    second = (await application.token(grant_type="refresh_token", refresh_token=first)).json["refresh_token"]
    home, application.address = application.address, address
    stolen = await application.token(grant_type="refresh_token", refresh_token=first)
    assert (stolen.status, stolen.json["error"]) == (400, "invalid_grant")
    application.address = home
    ended = await application.token(grant_type="refresh_token", refresh_token=second)
    assert ended.json["error"] == "invalid_grant", "the reuse ended the grant"


async def test_a_refresh_token_before_the_last_one_is_a_reuse_even_within_the_grace_period(
    world: World, application: Application
) -> None:
    """A tab may be two refreshes behind."""
    await allow_class(world)
    tokens = [(await application.redeem(await application.code())).json["refresh_token"]]
    for _ in range(2):
        answer = await application.token(grant_type="refresh_token", refresh_token=tokens[-1])
        tokens.append(answer.json["refresh_token"])
    assert (await application.token(grant_type="refresh_token", refresh_token=tokens[0])).status == 400
    assert (await application.token(grant_type="refresh_token", refresh_token=tokens[2])).status == 400


async def test_a_repeated_refresh_does_not_extend_the_grace_period(
    world: World, application: Application, clock: Clock
) -> None:
    await allow_class(world)
    first = (await application.redeem(await application.code())).json["refresh_token"]
    refresh = {"grant_type": "refresh_token", "refresh_token": first}
    assert (await application.token(**refresh)).status == 200
    clock.advance(30)
    assert (await application.token(**refresh)).status == 200
    clock.advance(0, us=1)
    assert (await application.token(**refresh)).json["error"] == "invalid_grant"


@pytest.mark.parametrize("end", ["consent withdrawn", "client stopped", "person stopped", "token revoked"])
async def test_a_refresh_is_not_repeated_after_its_grant_has_ended(
    world: World, application: Application, end: str
) -> None:
    await allow_class(world)
    first = (await application.redeem(await application.code())).json["refresh_token"]
    refresh = {"grant_type": "refresh_token", "refresh_token": first}
    second = (await application.token(**refresh)).json["refresh_token"]
    assert (await application.token(**refresh)).status == 200
    ann = registry.find_person(world.db.read(), "ann").person_id
    match end:
        case "consent withdrawn":
            [consent] = consents.list_consents(world.db.read(), ann)
            await act(world, "consent.withdraw", lambda act: consents.withdraw(act, consent.consent_id))
        case "client stopped":
            [client] = (await call_admin_api(world, "GET", "/clients"))[1]["clients"]
            await call_admin_api(world, "POST", f"/clients/{client['id']}/stop", {})
        case "person stopped":
            await act(world, "kill.put", lambda act: registry.stop(act, "owner", ann, why="test", by="test"))
        case "token revoked":
            form = urlencode({"client_id": application.client_id, "token": second}).encode()
            headers = [("content-type", "application/x-www-form-urlencoded")]
            assert (await send(application.app, "POST", "/revoke", headers=headers, body=form)).status == 200
    answer = await application.token(**refresh)
    assert (answer.status in (400, 401), "access_token" in answer.json) == (True, False), answer.body


async def test_a_repeated_refresh_gives_no_scope_or_resource_outside_the_consent(
    world: World, application: Application
) -> None:
    await allow_class(world)
    first = (await application.redeem(await application.code())).json["refresh_token"]
    refresh = {"grant_type": "refresh_token", "refresh_token": first}
    second = (await application.token(**refresh)).json["refresh_token"]
    for more, error in (
        ({"scope": "files:write"}, "invalid_scope"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"scope": "openid"}, "invalid_scope"),
    ):
        assert (await application.token(**refresh | more)).json["error"] == error, more
    assert (await application.token(**refresh)).json["refresh_token"] == second


async def test_a_client_with_a_secret_still_needs_the_verifier_of_its_code(confidential: Application) -> None:
    secret = {"client_secret": confidential.registered["client_secret"]}
    code = await confidential.code(scope="openid", resource="")
    assert (await confidential.redeem(code, **secret, code_verifier="w" * 43)).json["error"] == "invalid_grant"
    assert (await confidential.redeem(code, **secret)).status == 200


async def test_a_code_is_not_redeemed_with_another_client_id(
    world: World, app: ASGIApp, application: Application
) -> None:
    other = (await call(app, "POST", "/register", BODY)).json["client_id"]
    agent = registry.find_agent(world.db.read(), "reader").agent_id
    code = await application.code()
    for client_id in (other, agent, "cl_0123456789abcdef0123456789abcdef", ""):
        answer = await application.redeem(code, is_bound=True, client_id=client_id)
        assert answer.json["error"] in ("invalid_client", "invalid_grant", "invalid_request"), client_id


async def test_a_public_client_gets_no_sign_in_without_pkce(
    application: Application, confidential: Application
) -> None:
    sign_in = {"response_type": "code", "redirect_uri": CALLBACK, "scope": "openid", "nonce": "n"}
    for client, is_allowed in ((application, False), (confidential, True)):
        query = urlencode(sign_in | {"client_id": client.client_id})
        await client.browser.get(f"/authorize?{query}")
        assert ("/consent" in client.browser.text) is is_allowed, client.browser.text


async def test_a_client_that_drops_its_secret_redeems_no_code_without_pkce(confidential: Application) -> None:
    """The request is pushed under the secret, and the person agrees to the client without one."""
    registered = confidential.registered
    request = {"response_type": "code", "redirect_uri": CALLBACK, "scope": "openid", "nonce": "n"}
    pushed = await send(
        confidential.app,
        "POST",
        "/par",
        headers=[("content-type", "application/x-www-form-urlencoded")],
        body=urlencode(
            request | {"client_id": confidential.client_id, "client_secret": registered["client_secret"]}
        ).encode(),
    )
    assert pushed.status == 201, pushed.body
    public = BODY | {"client_id": confidential.client_id, "token_endpoint_auth_method": "none"}
    path, token = f"/register/{confidential.client_id}", registered["registration_access_token"]
    changed = await call(confidential.app, "PUT", path, public, token=token)
    assert "client_secret" not in changed.json
    query = urlencode({"client_id": confidential.client_id, "request_uri": pushed.json["request_uri"]})
    await confidential.browser.get(f"/authorize?{query}")
    await confidential.browser.post("/consent", **confidential.browser.form("/consent") | {"decision": "allow"})
    code = parse_qs(urlsplit(confidential.browser.left_to).query)["code"][0]
    assert (await confidential.redeem(code, code_verifier="")).json["error"] == "invalid_grant"
