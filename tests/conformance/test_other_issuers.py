"""Our agents at an authorization server made by others, `oidc-provider` of npm: its methods, its types of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostiary import Agent
from ostiary.agent import AsyncAgent
from ostiary.client import TokenRefused
from ostiary.client.issuer import FORMS, Metadata, authenticate
from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden, Invalid
from tests.support.node import serving_provider

RESOURCE = "https://files.example/mcp"
SECRET = "a secret: with signs & + / of all kinds %"
KEY = jose.generate("ES256")


@contextmanager
def issuer(clients: list[dict[str, Any]], **options: Any) -> Iterator[str]:
    """The issuer identifier of a server with these clients, until the block ends."""
    configuration = {"clients": clients, "dpop": False, "nonce": False, "resource": RESOURCE, **options}
    with serving_provider("oidc-provider.mjs", configuration) as (port,):
        yield f"http://127.0.0.1:{port}"


def by_key(key: jose.PrivateKey = KEY, **more: Any) -> dict[str, Any]:
    """A client that authenticates with a key."""
    jwk = {**key.public.jwk, "alg": key.public.alg}
    return {
        "client_id": "writer",
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [jwk]},
        "token_endpoint_auth_signing_alg": key.public.alg,
        "scope": "files:read",
        **more,
    }


def by_secret(method: str) -> dict[str, Any]:
    return {"client_id": "writer", "client_secret": SECRET, "token_endpoint_auth_method": method, "scope": "files:read"}


Credentials = Callable[..., Path]


@pytest.fixture
def credential(tmp_path: Path) -> Credentials:
    """Writes a credential file."""

    def write(url: str, members: dict[str, Any]) -> Path:
        path = tmp_path / "writer.json"
        path.write_text(json.dumps({**members, "client_id": "writer", "issuer": url}))
        path.chmod(0o600)
        return path

    return write


def claims(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jose.unb64u(answer["access_token"].split(".")[1]))
    return found


@pytest.mark.parametrize("nonce", [False, True])
def test_a_token_is_bound_to_the_key_where_the_server_offers_dpop(credential: Credentials, nonce: bool) -> None:
    with issuer([by_key()], dpop=True, nonce=nonce) as url, Agent.from_credential(credential(url, KEY.jwk())) as agent:
        answer = agent.token(resource=RESOURCE, scope="files:read")
    assert answer["token_type"] == "DPoP"
    assert claims(answer)["cnf"] == {"jkt": KEY.public.thumbprint}
    assert (claims(answer)["aud"], claims(answer)["client_id"], claims(answer)["scope"]) == (
        RESOURCE,
        "writer",
        "files:read",
    )


async def test_a_proof_key_of_another_algorithm_is_used_where_the_own_one_is_not_offered(
    credential: Credentials,
) -> None:
    key = jose.generate("RS256")
    with issuer([by_key(key)], dpop=True) as url:
        async with AsyncAgent.from_credential(credential(url, key.jwk())) as agent:
            answer = await agent.token(resource=RESOURCE, scope="files:read")
    assert answer["token_type"] == "DPoP"
    assert claims(answer)["cnf"]["jkt"] != key.public.thumbprint


def test_a_token_is_a_bearer_token_where_the_server_does_not_offer_dpop(credential: Credentials) -> None:
    with issuer([by_key()]) as url, Agent.from_credential(credential(url, KEY.jwk())) as agent:
        answer = agent.token(resource=RESOURCE, scope="files:read")
    assert answer["token_type"] == "Bearer"
    assert "cnf" not in claims(answer)


@pytest.mark.parametrize("dpop", [False, True])
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_client_secret_is_used_where_the_server_offers_no_other_method(
    credential: Credentials, method: str, dpop: bool
) -> None:
    with issuer([by_secret(method)], dpop=dpop) as url:
        path = credential(url, {"client_secret": SECRET})
        with Agent.from_credential(path) as agent:
            answer = agent.token(resource=RESOURCE, scope="files:read")
            assert SECRET not in repr(agent._client.credential)
        with (
            Agent.from_credential(credential(url, KEY.jwk())) as keyed,
            pytest.raises(Invalid, match="does not offer `private_key_jwt`"),
        ):
            keyed.token()
        with (
            Agent.from_credential(credential(url, {"client_secret": "wrong"})) as wrong,
            pytest.raises(TokenRefused) as refused,
        ):
            wrong.token()
    assert answer["token_type"] == ("DPoP" if dpop else "Bearer")
    assert refused.value.code == "invalid_client"


def test_a_client_secret_is_not_sent_to_a_server_that_accepts_only_keys(credential: Credentials) -> None:
    with (
        issuer([by_key()]) as url,
        Agent.from_credential(credential(url, {"client_secret": SECRET})) as agent,
        pytest.raises(Invalid, match="takes no client secret"),
    ):
        agent.token()


@pytest.mark.parametrize(
    "form",
    [
        {"typ": "client-authentication+jwt", "audience": "issuer"},
        {"typ": "JWT", "audience": "token_endpoint"},
        {"typ": "JWT", "audience": "issuer"},
    ],
)
def test_the_assertion_has_a_form_that_the_server_accepts(credential: Credentials, form: dict[str, str]) -> None:
    with issuer([by_key()], form=form) as url, Agent.from_credential(credential(url, KEY.jwk())) as agent:
        assert agent.token(resource=RESOURCE, scope="files:read")["access_token"]
        assert agent.token(scope="files:read")["access_token"]


def test_an_unknown_client_gets_the_error_of_the_server(credential: Credentials) -> None:
    with (
        issuer([by_key(jose.generate("ES256"))]) as url,
        Agent.from_credential(credential(url, KEY.jwk())) as agent,
        pytest.raises(TokenRefused) as refused,
    ):
        agent.token()
    assert refused.value.code == "invalid_client"


@pytest.mark.parametrize(
    ("url", "resource", "says"),
    [
        ("https://evil.example/a", RESOURCE, "is not sent to https://evil.example"),
        ("http://files.example/mcp", RESOURCE, "in clear"),
        ("https://files.example:444/mcp", RESOURCE, "is not sent to"),
        (RESOURCE, None, "only the server has named"),
    ],
)
def test_a_bearer_token_is_not_sent_to_another_resource(
    credential: Credentials, url: str, resource: str | None, says: str
) -> None:
    sent = list[httpx2.Request]()
    challenge = f'Bearer resource_metadata="{httpx2.URL(url).copy_with(path="/.well-known/oauth-protected-resource")}"'

    with issuer([by_key()]) as at, Agent.from_credential(credential(at, KEY.jwk())) as agent:
        agent.token(resource=resource or RESOURCE, scope="files:read")

        def answer(request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            if request.url.host == "127.0.0.1":
                return agent._http.send(request)
            if request.url.path.startswith("/.well-known"):
                return httpx2.Response(200, json={"resource": url})
            return httpx2.Response(401, headers={"www-authenticate": challenge})

        with (
            httpx2.Client(transport=httpx2.MockTransport(answer), auth=agent.auth(resource, "files:read")) as http,
            pytest.raises(Forbidden, match=says),
        ):
            http.get(url)
    assert not [request for request in sent if request.headers.get("authorization", "").startswith("Bearer")]


def test_a_bearer_token_is_sent_to_its_resource(credential: Credentials) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text=request.headers["authorization"] + str("dpop" in request.headers))

    with issuer([by_key()]) as at, Agent.from_credential(credential(at, KEY.jwk())) as agent:
        text = agent.token(resource=RESOURCE, scope="files:read")["access_token"]
        with httpx2.Client(transport=httpx2.MockTransport(answer), auth=agent.auth(RESOURCE, "files:read")) as http:
            assert http.get(f"{RESOURCE}/a").text == f"Bearer {text}False"


def test_a_client_secret_is_not_sent_over_plain_http() -> None:
    metadata = Metadata("http://issuer.example", "http://issuer.example/token")
    with pytest.raises(Invalid, match="in clear"):
        authenticate(Credential(KEY, "writer", metadata.issuer, SECRET), metadata, FORMS[0], now_s=1, jti="1")
