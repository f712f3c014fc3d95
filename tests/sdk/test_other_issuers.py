"""Issuers other than Ostiary servers: the form of their assertions, and the origins that get their bearer tokens."""

from __future__ import annotations

from urllib.parse import parse_qs

import httpx2
import pytest

from harness.clock import Clock, SeededRandom
from ostiary.client import Auth, Client, Target, TokenRefused, run
from ostiary.client.flows import DEFAULT_LIFETIME_S, MARGIN_US, SECOND
from ostiary.client.issuer import FORMS, AssertionForm
from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden, Malformed
from ostiary.protocol.jose import parse_header

ISSUER = "https://login.example"
RESOURCE = "https://files.example/mcp"
KEY = jose.generate("ES256")


class Issuer:
    """Gives bearer tokens for assertions of one form. `forms` has what it was shown."""

    def __init__(self, form: AssertionForm | None) -> None:
        self.form = form
        self.forms: list[AssertionForm] = []
        self.answer: dict[str, object] = {"access_token": "t", "token_type": "bearer", "expires_in": 300}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.host != "login.example":
            return httpx2.Response(200, text=request.headers.get("authorization", ""))
        if request.url.path == "/.well-known/openid-configuration":
            return httpx2.Response(200, json={"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"})
        if request.url.path != "/token":
            return httpx2.Response(404)
        assertion = parse_qs(request.content.decode())["client_assertion"][0]
        audience = jose.parse_claims(jose.parse_jws(assertion, max_bytes=4096).payload)["aud"]
        typ = str(parse_header(assertion.partition(".")[0])["typ"])
        self.forms.append(AssertionForm(typ, "issuer" if audience == ISSUER else "token_endpoint"))
        if self.forms[-1] != self.form:
            return httpx2.Response(401, json={"error": "invalid_client"})
        return httpx2.Response(200, json=self.answer)


@pytest.fixture
def client(clock: Clock, dice: SeededRandom) -> Client:
    return Client(Credential(KEY, "writer", ISSUER), now=clock, random=dice)


@pytest.mark.parametrize("form", FORMS)
def test_the_assertion_form_that_an_issuer_accepts_is_found_once(client: Client, form: AssertionForm) -> None:
    issuer = Issuer(form)
    http = httpx2.Client(transport=httpx2.MockTransport(issuer))
    assert run(http, client.token(Target(RESOURCE))).text == "t"
    assert run(http, client.token(Target(RESOURCE, "more"))).text == "t"
    assert issuer.forms == [*FORMS[: FORMS.index(form) + 1], form]


def test_an_issuer_that_accepts_no_assertion_form_gets_one_request_for_each_form(client: Client) -> None:
    issuer = Issuer(None)
    with pytest.raises(TokenRefused):
        run(httpx2.Client(transport=httpx2.MockTransport(issuer)), client.token(Target(RESOURCE)))
    assert issuer.forms == list(FORMS)


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        (RESOURCE, True),
        (f"{RESOURCE}/a?b", True),
        ("https://files.example/other", True),
        ("http://files.example/mcp", False),
        ("https://files.example:444/mcp", False),
        ("https://evil.example/mcp", False),
        ("https://files.example.evil.example/mcp", False),
    ],
)
def test_a_bearer_token_is_sent_only_to_the_origin_of_its_resource(client: Client, url: str, is_sent: bool) -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(Issuer(FORMS[1])), auth=Auth(client, Target(RESOURCE)))
    if is_sent:
        assert http.get(url).text == "Bearer t"
    else:
        with pytest.raises(Forbidden):
            http.get(url)


@pytest.mark.parametrize(
    ("expires_in", "lifetime_s"), [(300, 300), (300.0, 300), ("300", 300), (-5, None), ("soon", None), (None, None)]
)
def test_a_token_lifetime_may_be_a_string_and_an_invalid_one_gets_the_default(
    client: Client, clock: Clock, expires_in: object, lifetime_s: int | None
) -> None:
    issuer = Issuer(FORMS[0])
    issuer.answer["expires_in"] = expires_in
    token = run(httpx2.Client(transport=httpx2.MockTransport(issuer)), client.token(Target(RESOURCE)))
    margin_us = min(MARGIN_US, (lifetime_s or DEFAULT_LIFETIME_S) * SECOND // 5)
    assert token.renew_at == clock() + (lifetime_s or DEFAULT_LIFETIME_S) * SECOND - margin_us


@pytest.mark.parametrize("text", ["", "a\r\nX: b", "a b", "\u00fc"])
def test_a_token_with_characters_outside_rfc_6750_is_refused(client: Client, text: str) -> None:
    issuer = Issuer(FORMS[0])
    issuer.answer["access_token"] = text
    with pytest.raises(Malformed, match="with characters that RFC 6750 does not allow"):
        run(httpx2.Client(transport=httpx2.MockTransport(issuer)), client.token(Target(RESOURCE)))
