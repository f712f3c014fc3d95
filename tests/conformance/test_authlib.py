"""Authlib, unmodified and as its manual sets it up: refused, unless an administrator exempted this very client.

It names the token endpoint as audience, calls its assertions `JWT`, lets them live an hour, and knows no DPoP: what
RFC 7523 and RFC 6750 were content with, and rfc7523bis and we are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

from ostiary.core import jose
from tests.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        server.ostiary("owner", "create", "olga", "--email", "olga@example.org")
        yield server


def register(server: Server, name: str, folder: Path) -> tuple[str, jose.PrivateKey]:
    key = jose.generate("ES256")
    (folder / "public.jwk").write_text(json.dumps(dict(key.public.jwk)))
    made = server.ostiary(
        *("agent", "create", name, "--owner", "olga", "--purpose", "an old gateway", "--scope", "ostiary:read"),
        *("--jwk", str(folder / "public.jwk")),
    )
    return made["agent_id"], key


@contextmanager
def authlib(server: Server, client_id: str, key: jose.PrivateKey) -> Iterator[tuple[OAuth2Client, dict[str, Any]]]:
    """A client with a token, as Authlib's documentation has it. Raises OAuthError."""
    private = ECKey.import_key({**key.jwk()})
    with OAuth2Client(client_id, private, token_endpoint_auth_method="private_key_jwt") as client:
        client.register_client_auth_method(PrivateKeyJWT(alg="ES256"))
        yield (
            client,
            client.fetch_token(f"{server.url}/token", grant_type="client_credentials", resource=f"{server.url}/api/v1"),
        )


def refusal(server: Server, client_id: str, key: jose.PrivateKey) -> str:
    with pytest.raises(OAuthError) as refused, authlib(server, client_id, key):
        pass
    return f"{refused.value.error}: {refused.value.description}"


def test_authlib_gets_through_while_its_client_is_exempt_and_only_then(server: Server, tmp_path: Path) -> None:
    client_id, key = register(server, "gateway", tmp_path)
    assert refusal(server, client_id, key).startswith("invalid_client: the client assertion is not for this issuer")
    assert server.ostiary("agent", "allow-bearer", "gateway")["bearer"] is True
    with authlib(server, client_id, key) as (client, token):
        assert (token["token_type"], token["scope"]) == ("Bearer", "ostiary:read")
        answer = client.get(f"{server.url}/api/v1/agents/gateway")  # Authlib sends its token by itself
        assert (answer.status_code, answer.json()["agent_id"]) == (200, client_id)
        assert server.ostiary("agent", "forbid-bearer", "gateway")["bearer"] is False
        assert client.get(f"{server.url}/api/v1/agents/gateway").status_code == 401
    assert refusal(server, client_id, key).startswith("invalid_client: the client assertion is not for this issuer")


def test_the_exemption_of_one_is_none_of_another(server: Server, tmp_path: Path) -> None:
    register(server, "exempt", tmp_path)
    server.ostiary("agent", "allow-bearer", "exempt")
    client_id, key = register(server, "strict", tmp_path)
    assert refusal(server, client_id, key).startswith("invalid_client")
    assert server.ostiary("agent", "show", "strict")["bearer"] is False


def test_the_doctor_names_who_is_exempt(server: Server, tmp_path: Path) -> None:
    def clients() -> dict[str, Any]:
        return next(line for line in server.ostiary("doctor") if line["name"] == "clients")

    register(server, "old", tmp_path)
    server.ostiary("agent", "allow-bearer", "old")
    line = clients()
    assert (line["state"], "`old`" in line["saw"], line["hint"]) == ("weak", True, "ostiary agent forbid-bearer NAME")
    for agent in server.ostiary("agent", "list"):
        server.ostiary("agent", "forbid-bearer", agent["name"])
    assert clients()["state"] == "ok"
