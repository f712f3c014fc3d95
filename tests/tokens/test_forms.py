"""Malformed forms are refused, each with its error, and change only the ledger."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from ostiary.protocol import jose
from ostiary.protocol.errors import Refused
from ostiaryd.app import build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.http.edge import SMALL_BODY
from ostiaryd.ground.world import World
from ostiaryd.ledger.model.entry import USES
from ostiaryd.tokens import wire_oauth
from ostiaryd.tokens.model import ACCESS_TOKEN, CIBA, MAX_VALUE, TOKEN_EXCHANGE
from ostiaryd.tokens.wire_errors import ERRORS, render_oauth
from ostiaryd.trust.model.clients import DEVICE_CODE
from tests.support.api_fixtures import ASSERTION_TYPE, FILES, Answer, Client, send

FORM = "application/x-www-form-urlencoded"
SPOKEN = {
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unsupported_grant_type",
    "unauthorized_client",
    "invalid_scope",
    "invalid_client_metadata",
    "invalid_redirect_uri",
    "invalid_software_statement",
    "unapproved_software_statement",
    "unsupported_response_type",
    "access_denied",
    "temporarily_unavailable",
    "server_error",
    "invalid_target",
    "invalid_authorization_details",
    "invalid_dpop_proof",
    "use_dpop_nonce",
    "invalid_token",
    "unmet_authentication_requirements",
    "authorization_pending",
    "slow_down",
    "expired_token",
    "unknown_user_id",
    "invalid_binding_message",
    "insufficient_scope",
    "login_required",
    "consent_required",
    "invalid_request_object",
    "request_not_supported",
    "request_uri_not_supported",
    "registration_not_supported",
    "recovery",  # an extension (RFC 6749 8.5), with 503: a client must not mistake it for a moment's absence
}
"""RFC 6749 sections 4.1.2.1 and 5.2, RFC 6750 3.1, RFC 8707 2, RFC 9396 5, RFC 9449 12.2, RFC 9470 5, CIBA 11 and 13,
OpenID Connect Core 1.0 section 3.1.2.6, RFC 9101 7."""


def kinds(kind: type[Refused] = Refused) -> list[type[Refused]]:
    return [kind, *[below for child in kind.__subclasses__() for below in kinds(child)]]


def test_every_refusal_of_the_server_has_an_oauth_error_code() -> None:
    importlib.import_module("ostiaryd.app")  # with it, every refusal that there is
    of_the_server = [
        kind
        for kind in kinds()
        if kind.__module__.startswith(
            ("ostiaryd.", "ostiary.protocol.", "ostiary.authorization.", "ostiary.provenance.", "ostiary.decision.")
        )
    ]
    assert len(of_the_server) > 20
    for kind in of_the_server:
        assert not kind.__module__.startswith("ostiaryd.tokens.model.") or kind in ERRORS, f"{kind} has a row in ERRORS"
        parameters = inspect.signature(kind).parameters.values()
        needed = {one.name: None for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty}
        positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        words = ["no"] * max(len(positional[:1]), sum(one.default is one.empty for one in positional))
        status, said = rendered(kind(*words, **needed))  # type: ignore[arg-type]
        assert said["error"] in SPOKEN, kind
        assert 400 <= status <= 503, kind


def rendered(refusal: Refused) -> tuple[int, dict[str, str]]:
    answer = render_oauth(refusal)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)


def test_the_table_of_oauth_errors_has_a_default_row() -> None:
    assert ERRORS[Refused] == ("invalid_request", 400)


def test_an_error_description_has_only_characters_that_oauth_permits() -> None:
    _, said = rendered(Refused('a "quote", a \\ and \u00fc\n', hint="tab\t"))
    assert said["error_description"] == "a 'quote', a ' and ''; tab'"


async def test_a_repeated_parameter_is_refused(client: Client) -> None:
    cases: list[str] = ["grant_type", "client_assertion", "client_id", "scope", "authorization_details", "x"]
    for name in cases:
        form = client.form(client_id=client.id, scope="files:read", authorization_details="[]", x="unknown to us")
        answer = await client.post("/token", form | {name: [form[name], form[name]]}, dpop=client.proof())
        assert answer.error == "invalid_request", name
        assert (await client.post("/token", form, dpop=client.proof())).status == 200, name


async def test_every_grant_type_refuses_repeated_headers_alike(client: Client) -> None:
    repeated = [("authorization", "Basic eDp5"), ("dpop", client.proof())] * 2
    for grant_type in wire_oauth.GRANT_TYPES:
        body = urlencode({"grant_type": grant_type}).encode()
        answer = await send(client.app, "POST", "/token", headers=[("content-type", FORM), *repeated], body=body)
        assert answer.error == "invalid_request", grant_type
        assert "`authorization` was sent more than once" in answer.json["error_description"], grant_type


async def test_a_parameter_without_a_value_counts_as_absent(client: Client) -> None:
    for said in (b"scope", b"scope=", b"unknown&&"):  # RFC 6749 section 3.2
        assert (await post(client, said + b"&grant_type")).json["error_description"] == "`grant_type` is missing"


async def post(
    client: Client, body: bytes, *, content_type: str | None = FORM, path: str = "/token", **more: str
) -> Answer:
    headers = [("content-type", content_type)] if content_type is not None else []
    return await send(client.app, "POST", path, headers=headers + list(more.items()), body=body)


@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
async def test_a_body_with_another_content_type_than_a_form_is_refused(client: Client, path: str) -> None:
    cases: list[tuple[str | None, int]] = [
        (FORM, 400),
        (FORM + ";charset=UTF-8", 400),
        (FORM.upper(), 400),
        ("application/json", 415),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
        (None, 415),
    ]
    for content_type, status in cases:
        answer = await post(client, b"nothing=here", content_type=content_type, path=path)
        assert (answer.status, answer.error) == (status, "invalid_request"), content_type


async def test_a_malformed_form_is_refused(client: Client) -> None:
    cases: list[bytes] = [
        b"grant_type",
        b"grant_type=%ff",
        b"grant_type=client_credentials&\xff=1",
        b"&".join(b"a%d=1" % number for number in range(101)),
        b"a=1;b=2&&",
    ]
    for body in cases:
        assert (await post(client, body)).error == "invalid_request", body


async def test_a_body_longer_than_the_limit_is_refused(client: Client) -> None:
    limit = SMALL_BODY
    assert (await post(client, b"a=" + b"x" * (limit - 2))).status == 400
    assert (await post(client, b"a=" + b"x" * (limit - 1))).status == 413


async def test_a_parameter_longer_than_the_limit_is_refused(client: Client) -> None:
    assert (await client.ask(nonsense="x" * MAX_VALUE)).status == 200
    assert (await client.ask(nonsense="x" * (MAX_VALUE + 1))).error == "invalid_request"


async def test_a_request_with_two_methods_of_client_authentication_is_refused(client: Client) -> None:
    both = await client.post("/token", client.form(), dpop=client.proof(), authorization="Basic YTpi")
    assert (both.status, both.error) == (400, "invalid_request")
    secret = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": "x"}
    assert (await client.post("/token", secret, authorization="Basic YTpi")).error == "invalid_request"


@pytest.mark.parametrize(
    ("tried", "challenge"),
    [("Basic YTpi", 'Basic realm="'), ("basic YTpi", 'Basic realm="'), ("Bearer x", "DPoP")],  # RFC 7617 section 2
)
async def test_a_refused_client_authentication_is_challenged_by_a_fitting_scheme(
    client: Client, tried: str, challenge: str
) -> None:
    answer = await client.post("/token", {"grant_type": "client_credentials"}, authorization=tried)
    assert (answer.status, answer.error) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith(challenge)


AUTHENTICATED = [
    ("/token", {"grant_type": "client_credentials"}),
    ("/token", {"grant_type": "authorization_code", "code": "x", "code_verifier": "v" * 43}),
    ("/token", {"grant_type": "refresh_token", "refresh_token": "x"}),
    ("/token", {"grant_type": TOKEN_EXCHANGE, "subject_token": "x", "subject_token_type": ACCESS_TOKEN}),
    ("/token", {"grant_type": DEVICE_CODE, "device_code": "x"}),
    ("/token", {"grant_type": CIBA, "auth_req_id": "x"}),
    ("/introspect", {"token": "x"}),
    ("/revoke", {"token": "x"}),
    ("/par", {"response_type": "code"}),
    ("/device_authorization", {"scope": "openid"}),
    ("/bc-authorize", {"scope": "files:read", "login_hint": "ann"}),
]


def test_each_grant_type_is_tested_and_counts_as_a_use_of_its_agent() -> None:
    assert {form["grant_type"] for path, form in AUTHENTICATED if path == "/token"} == set(wire_oauth.GRANT_TYPES)
    written = set(re.findall(r'"(token\.\w+)"', inspect.getsource(wire_oauth)))
    assert written - {"token.introspect", "token.reuse", "token.revoke"} == {
        action for action in USES if action.startswith("token.")
    }


async def test_every_client_endpoint_challenges_the_scheme_that_the_client_used(world: World) -> None:
    app = build_app(world)

    async def ask(path: str, form: dict[str, str], *headers: tuple[str, str]) -> Answer:
        return await send(app, "POST", path, headers=[("content-type", FORM), *headers], body=urlencode(form).encode())

    for path, form in AUTHENTICATED:
        answer = await ask(path, form, ("authorization", "Basic bm9ib2R5OnNlY3JldA=="))
        assert (answer.status, answer.error) == (401, "invalid_client"), path
        assert answer.headers["www-authenticate"] == 'Basic realm="ostiary"', path
        assert "www-authenticate" not in (await ask(path, form | {"client_id": "nobody"})).headers, path


async def test_a_response_with_a_token_is_not_cacheable(client: Client) -> None:
    answer = await client.ask()
    assert (answer.status, answer.headers["cache-control"], answer.headers["pragma"]) == (200, "no-store", "no-cache")


async def test_a_get_request_to_a_token_endpoint_is_refused(client: Client) -> None:
    for path in ("/token", "/introspect", "/revoke"):
        assert (await send(client.app, "GET", path)).status == 405


def state(world: World) -> dict[str, list[Any]]:
    """Return the rows of all tables, except those of the ledger and of used proofs."""
    reader = world.db.read()
    if world.db.is_sqlite:
        named = reader.all(sql("select name from sqlite_master where type = 'table'"))
    else:
        named = reader.all(sql("select tablename from pg_tables where schemaname = 'public'"))
    names = {name for (name,) in named} - {"entry", "subtree", "log_head", "log_time", "spent", "writer_commit"}
    return {name: sorted(map(repr, reader.all(sql(f"select * from {name}")))) for name in names}


HOSTILE: list[dict[str, Any]] = [
    {"client_assertion": "a.b.c"},
    {"client_assertion": "." * 5000},
    {"client_assertion": jose.b64u(b'{"alg":"none"}') + "." + jose.b64u(b'{"sub":"ag_1"}') + "."},
    {"client_assertion_type": "x"},
    {"client_assertion": None, "client_secret": "secret"},
    {"proof": "a.b.c"},
    {"proof": None},
    {"proof": "eyJ" * 2000},
    {"scope": "files:delete"},
    {"scope": 'files:"'},
    {"scope": " ".join(f"files:s{number}" for number in range(300))},
    {"resource": "http://169.254.169.254/latest"},
    {"resource": "file:///etc/passwd"},
    {"resource": "https://files.example/mcp' or 1=1 --"},
    {"resource": [FILES, FILES]},
    {"task": "tk_' or 1=1 --"},
    {"task": "t" * 10_000},
    {"authorization_details": "[" * 10_000},
    {"authorization_details": '[{"type":"tool","locations":["\\ud800"]}]'},
    {"authorization_details": '[{"type":"tool","locations":["https://files.example/mcp"],"actions":["a"],"x":1}]'},
    {"authorization_details": "1e999999"},
    {"grant_type": "password"},
    {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"},
    {"client_id": "ag_' or 1=1 --"},
    {"task": "\x00"},
    {"scope": "\x00"},
    {"resource": "https://files.example/\x00"},
    {"client_id": "\x00"},
]


async def test_a_hostile_request_is_refused_and_changes_nothing_but_the_ledger(client: Client) -> None:
    await client.token()
    before = state(client.world)
    for said in HOSTILE:
        answer = await client.ask(**said)
        assert 400 <= answer.status < 500, (said, answer.body)
        assert answer.error in SPOKEN, said
    assert state(client.world) == before


async def test_hostile_claims_of_an_assertion_are_refused_and_change_nothing_but_the_ledger(client: Client) -> None:
    await client.token()
    before = state(client.world)
    for claims in (
        {"iss": "\ud800", "sub": "\ud800"},
        {"iss": "ag_" + "x" * 5000, "sub": "ag_" + "x" * 5000},
        {"iss": "ag_\x00", "sub": "ag_\x00"},
        {"iss": "rs_\x00", "sub": "rs_\x00"},
        {"jti": "\ud800"},
        {"exp": float("1e308")},
        {"iat": -(2**63)},
        {"aud": {"$ne": None}},
    ):
        answer = await client.ask(client_assertion=client.assertion(**claims))
        assert (answer.status, answer.error) == (401, "invalid_client"), claims
    assert state(client.world) == before


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
async def test_hostile_tokens_change_nothing_but_the_ledger(client: Client, path: str) -> None:
    await client.token()
    for token in ("a.b.c", "x" * MAX_VALUE, "' or 1=1 --", "\u00e4", "\ud7ff"):
        form = {"token": token, "client_assertion": client.assertion(), "client_assertion_type": ASSERTION_TYPE}
        before = state(client.world)
        assert (await client.post(path, form)).status == 200
        assert state(client.world) == before
