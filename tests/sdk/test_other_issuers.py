"""Issuers that are no Ostiary servers: which assertion they get, and where their bearer tokens go."""

from __future__ import annotations

from urllib.parse import parse_qs

import httpx2
import pytest

from ostiary.client import Auth, Client, Target, TokenRefused, run
from ostiary.client.issuer import FORMS, AssertionForm
from ostiary.core import jose
from ostiary.core.errors import Forbidden
from ostiary.core.jose import parse_header
from ostiary.keys import Credential
from tests.clock import Clock, Dice

ISSUER = "https://login.example"
RESOURCE = "https://files.example/mcp"
KEY = jose.generate("ES256")


class Issuer:
    """Gives bearer tokens for assertions of one form. `forms` has what it was shown."""

    def __init__(self, form: AssertionForm | None) -> None:
        self.form = form
        self.forms: list[AssertionForm] = []

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
        return httpx2.Response(200, json={"access_token": "t", "token_type": "bearer", "expires_in": 300})


@pytest.fixture
def client(clock: Clock, dice: Dice) -> Client:
    return Client(Credential(KEY, "writer", ISSUER), now=clock, random=dice)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_that_the_issuer_takes_is_found_once(client: Client, form: AssertionForm) -> None:
    issuer = Issuer(form)
    http = httpx2.Client(transport=httpx2.MockTransport(issuer))
    assert run(http, client.token(Target(RESOURCE))).text == "t"
    assert run(http, client.token(Target(RESOURCE, "more"))).text == "t"
    assert issuer.forms == [*FORMS[: FORMS.index(form) + 1], form]


def test_an_issuer_that_takes_no_form_is_asked_once_for_each(client: Client) -> None:
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
def test_a_bearer_token_is_sent_to_the_origin_of_its_resource_alone(client: Client, url: str, is_sent: bool) -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(Issuer(FORMS[1])), auth=Auth(client, Target(RESOURCE)))
    if is_sent:
        assert http.get(url).text == "Bearer t"
    else:
        with pytest.raises(Forbidden):
            http.get(url)
