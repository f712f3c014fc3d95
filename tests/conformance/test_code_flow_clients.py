"""OpenID Connect clients made by others sign a person in at a server: openid-client and oauth4webapi (node), and
Authlib.

Each checks what it gets: metadata, `state`, `iss`, `nonce`, signature and claims of the ID token, `at_hash`, userinfo.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from harness.patience import PATIENCE_S
from harness.person_browser import PersonBrowser
from harness.prepared import PreparedServer
from harness.server import Server
from ostiary.protocol import jose
from tests.support.node import NODE

RESOURCE = "https://files.example.org/mcp"
CALLBACK = "https://app.example.org/callback"
LOGOUT = "https://app.example.org/bye"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with PreparedServer(tmp_path_factory.mktemp("server")) as server:
        server.ostiary("person", "create", "olga", "--email", "olga@example.org")
        server.ostiary("resource", "create", "files", "--uri", RESOURCE)
        yield server


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[PersonBrowser]:
    with PersonBrowser(server.url) as browser:
        browser.set_up(server.ostiary("person", "invite", "olga")["url"])
        yield browser


def register(server: Server, folder: Path, name: str) -> tuple[str, jose.PrivateKey]:
    key = jose.generate("ES256")
    (folder / "public.jwk").write_text(json.dumps(dict(key.public.jwk)))
    (folder / "private.jwk").write_text(json.dumps(key.jwk()))
    agent = server.ostiary(
        *("agent", "create", name, "--owner", "olga", "--purpose", "signs people in"),
        *("--scope", "files:read", "--jwk", str(folder / "public.jwk")),
    )
    server.ostiary("agent", "redirect", name, CALLBACK, "--post-logout", LOGOUT)
    return str(agent["agent_id"]), key


def walk(script: str, server: Server, browser: PersonBrowser, folder: Path) -> dict[str, Any]:
    """Let the client build its URL, send the person there, and let the client go on with where they arrived."""
    client_id, _ = register(server, folder, script.removesuffix(".mjs"))
    environment = {
        "PATH": os.environ["PATH"],
        "ISSUER": server.url,
        "CLIENT_ID": client_id,
        "KEY": str(folder / "private.jwk"),
        "RESOURCE": RESOURCE,
        "SCOPE": "openid profile files:read",
        "CALLBACK": CALLBACK,
        "LOGOUT": LOGOUT,
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(["node", NODE / script], env=environment, text=True, **pipes) as run:  # type: ignore[call-overload]
        url = run.stdout.readline().strip()
        arrived = browser.authorize(url) if url else ""
        output, errors = run.communicate(arrived + "\n", timeout=PATIENCE_S)
    assert run.returncode == 0, errors
    seen: dict[str, Any] = json.loads(output)
    assert seen["claims"]["aud"] == client_id
    assert seen["userinfo"]["name"] == "olga"
    assert seen["userinfo"]["sub"] == seen["claims"]["sub"]
    return seen


def test_openid_client_signs_a_person_in_with_par_and_dpop(
    server: Server, browser: PersonBrowser, tmp_path: Path
) -> None:
    seen = walk("openid-client-code.mjs", server, browser, tmp_path)
    assert (seen["type"], seen["scope"]) == ("dpop", "files:read")
    assert seen["logout"].startswith(f"{server.url}/logout?")


def test_oauth4webapi_signs_a_person_in_with_bearer_tokens(
    server: Server, browser: PersonBrowser, tmp_path: Path
) -> None:
    seen = walk("oauth4webapi-code.mjs", server, browser, tmp_path)
    assert (seen["type"], seen["scope"]) == ("bearer", "openid profile")


def test_authlib_signs_a_person_in_as_a_relying_party(server: Server, browser: PersonBrowser, tmp_path: Path) -> None:
    client_id, key = register(server, tmp_path, "authlib")
    metadata = httpx2.get(f"{server.url}/.well-known/openid-configuration").json()
    with OAuth2Client(
        client_id,
        ECKey.import_key({**key.jwk()}),
        scope="openid profile",
        redirect_uri=CALLBACK,
        code_challenge_method="S256",
        token_endpoint_auth_method=PrivateKeyJWT(metadata["token_endpoint"], alg="ES256"),
    ) as client:
        verifier = "v" * 48
        url, state = client.create_authorization_url(
            metadata["authorization_endpoint"], nonce="the nonce", code_verifier=verifier
        )
        tokens = client.fetch_token(
            metadata["token_endpoint"],
            authorization_response=browser.authorize(url),
            state=state,
            code_verifier=verifier,
        )
        keys = KeySet.import_key_set(httpx2.get(metadata["jwks_uri"]).json())
        token = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"])
        claims = CodeIDToken(
            token.claims,
            token.header,
            {"iss": {"value": server.url}, "aud": {"value": client_id}},
            {"nonce": "the nonce", "client_id": client_id, "access_token": tokens["access_token"]},
        )
        claims.validate()
        userinfo = client.get(metadata["userinfo_endpoint"]).json()
    assert userinfo == {"sub": claims["sub"], "name": "olga", "preferred_username": "olga"}
