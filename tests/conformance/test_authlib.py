"""Authlib, unmodified and as its manual sets it up.

It names the endpoint that it calls as audience, calls its assertions `JWT` and lets them live an hour. A new server
accepts that; a strict one refuses it. Authlib knows no DPoP: its tokens need a proof that the caller adds, or an
exemption by name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

from harness.prepared import PreparedServer
from harness.server import Server
from ostiary.protocol import dpop, jose


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with PreparedServer(tmp_path_factory.mktemp("server")) as server:
        server.ostiary("person", "create", "olga", "--email", "olga@example.org")
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
def authlib(
    server: Server, client_id: str, key: jose.PrivateKey, *, proof: str | None = None, audience: str | None = None
) -> Iterator[tuple[OAuth2Client, dict[str, Any]]]:
    """A client with a token, as Authlib's documentation has it. Raises OAuthError."""
    private = ECKey.import_key({**key.jwk()})
    method = "private_key_jwt"
    with OAuth2Client(
        client_id, private, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method
    ) as client:
        client.register_client_auth_method(PrivateKeyJWT(audience, alg="ES256"))
        token = client.fetch_token(
            f"{server.url}/token",
            grant_type="client_credentials",
            resource=f"{server.url}/api/v1",
            headers={} if proof is None else {"dpop": proof},
        )
        yield client, token


def refusal(server: Server, client_id: str, key: jose.PrivateKey) -> str:
    with pytest.raises(OAuthError) as refused, authlib(server, client_id, key):
        pass
    return f"{refused.value.error}: {refused.value.description}"


def test_authlib_gets_a_bearer_token_only_while_its_client_is_exempt(server: Server, tmp_path: Path) -> None:
    client_id, key = register(server, "gateway", tmp_path)
    assert refusal(server, client_id, key).startswith("invalid_dpop_proof")
    assert server.ostiary("agent", "allow-bearer", "gateway", "--resource", "ostiary")["bearer"]
    with authlib(server, client_id, key) as (client, token):
        assert (token["token_type"], token["scope"]) == ("Bearer", "ostiary:read")
        answer = client.get(f"{server.url}/api/v1/agents/gateway")  # Authlib sends its token by itself
        assert (answer.status_code, answer.json()["agent_id"]) == (200, client_id)
        assert server.ostiary("agent", "forbid-bearer", "gateway", "--resource", "ostiary")["bearer"] == []
        assert client.get(f"{server.url}/api/v1/agents/gateway").status_code == 401
    assert refusal(server, client_id, key).startswith("invalid_dpop_proof")


def test_authlib_gets_a_bound_token_with_a_proof(server: Server, tmp_path: Path) -> None:
    client_id, key = register(server, "prover", tmp_path)

    def proof(nonce: str | None = None) -> str:
        now = int(time.time()) * 1_000_000
        return dpop.make_proof(key, method="POST", uri=f"{server.url}/token", now=now, jti=uuid4().hex, nonce=nonce)

    nonces: list[str] = []
    for audience in (None, server.url, f"{server.url}/"):
        if not nonces:
            with pytest.raises(OAuthError, match="use_dpop_nonce"), authlib(server, client_id, key, proof=proof()):
                pass
            answer = httpx2.post(f"{server.url}/token", headers={"dpop": proof()}, data=form(server, client_id, key))
            nonces.append(answer.headers["dpop-nonce"])
        with authlib(server, client_id, key, proof=proof(nonces[0]), audience=audience) as (_, token):
            assert token["token_type"] == "DPoP"


def form(server: Server, client_id: str, key: jose.PrivateKey) -> dict[str, str]:
    """A token request with an assertion as Authlib makes it."""
    assertion = PrivateKeyJWT(alg="ES256").sign(
        OAuth2Client(client_id, ECKey.import_key({**key.jwk()})), f"{server.url}/token"
    )
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return {"grant_type": "client_credentials", "client_assertion_type": kind, "client_assertion": assertion}


def test_authlib_introspects_and_revokes_a_token(server: Server, tmp_path: Path) -> None:
    """Authlib names the endpoint that it calls as audience: introspection, revocation."""
    client_id, key = register(server, "asker", tmp_path)
    server.ostiary("agent", "allow-bearer", "asker", "--resource", "ostiary")
    with authlib(server, client_id, key) as (client, token):
        value = token["access_token"]
        assert client.introspect_token(f"{server.url}/introspect", token=value).json()["active"] is True
        assert client.revoke_token(f"{server.url}/revoke", token=value).status_code == 200
        assert client.introspect_token(f"{server.url}/introspect", token=value).json() == {"active": False}


def test_the_exemption_of_one_client_does_not_count_for_another(server: Server, tmp_path: Path) -> None:
    register(server, "exempt", tmp_path)
    server.ostiary("agent", "allow-bearer", "exempt", "--resource", "ostiary")
    client_id, key = register(server, "bound", tmp_path)
    assert refusal(server, client_id, key).startswith("invalid_dpop_proof")
    assert server.ostiary("agent", "show", "bound")["bearer"] == []


def test_a_strict_server_refuses_authlib(tmp_path: Path) -> None:
    settings = tmp_path / "strict.toml"
    settings.write_text('client_assertions = "strict"')
    with PreparedServer(tmp_path / "server", "--config", str(settings)) as strict:
        strict.ostiary("person", "create", "olga", "--email", "olga@example.org")
        client_id, key = register(strict, "gateway", tmp_path)
        words = "invalid_client: the client assertion has another audience"
        assert refusal(strict, client_id, key).startswith(words)


def test_the_doctor_names_exempt_clients(server: Server, tmp_path: Path) -> None:
    def clients() -> dict[str, Any]:
        return next(line for line in server.ostiary("doctor") if line["name"] == "clients")

    register(server, "old", tmp_path)
    server.ostiary("agent", "allow-bearer", "old", "--resource", "ostiary")
    line = clients()
    assert (line["state"], "`old`" in line["saw"], line["hint"]) == (
        "weak",
        True,
        "end an exemption: ostiary agent forbid-bearer NAME --resource RESOURCE",
    )
    for agent in server.ostiary("agent", "list"):
        server.ostiary("agent", "forbid-bearer", agent["name"], "--resource", "ostiary")
    assert clients()["state"] == "ok"
