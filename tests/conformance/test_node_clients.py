"""Two OAuth clients made by others (`tests/node`) get, use and end tokens of a running server.

They check what they are told: metadata (RFC 8414), private_key_jwt (RFC 7523), DPoP with the nonces of the server
(RFC 9449), JWT access tokens (RFC 9068), introspection (RFC 7662), revocation (RFC 7009).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import Server
from ostiary.protocol import jose
from tests.support.node import NODE
from tests.support.world import Kind

RESOURCE = "https://files.example.org/mcp"
ALGS = sorted(jose.ALGS - {"Ed25519"})


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    kind: Kind = request.param
    options: list[str] = []
    if kind == "postgres":
        postgres = request.getfixturevalue("postgres_server")
        options = ["--database", postgres.url(postgres.create())]
    with PreparedServer(tmp_path_factory.mktemp("server"), *options) as server:
        server.ostiary("person", "create", "olga", "--email", "olga@example.org")
        server.ostiary("resource", "create", "files", "--uri", RESOURCE)
        yield server


def walk(script: str, alg: str, server: Server, folder: Path) -> dict[str, Any]:
    """Register an agent with a key of this algorithm, let the client walk, and read what it saw."""
    key = jose.generate(alg)
    (folder / "public.jwk").write_text(json.dumps(dict(key.public.jwk)))
    (folder / "private.jwk").write_text(json.dumps(key.jwk()))
    agent = server.ostiary(
        *("agent", "create", f"{Path(script).stem}-{alg.lower()}", "--owner", "olga", "--purpose", "conformance"),
        *("--scope", "files:read", "--jwk", str(folder / "public.jwk")),
    )
    environment = {
        "PATH": os.environ["PATH"],
        "ISSUER": server.url,
        "CLIENT_ID": agent["agent_id"],
        "KEY": str(folder / "private.jwk"),
        "RESOURCE": RESOURCE,
        "SCOPE": "files:read",
    }
    run = subprocess.run(
        ["node", NODE / script], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert run.returncode == 0, run.stderr
    seen: dict[str, Any] = json.loads(run.stdout)
    assert seen["thumbprint"] == key.public.thumbprint
    return seen | {"client_id": agent["agent_id"]}


def check_life(seen: dict[str, Any]) -> None:
    """The token was bound to the key, alive, and after its revocation dead."""
    assert seen["answer"]["token_type"] == "dpop"  # both libraries fold the case
    assert seen["answer"]["scope"] == "files:read"
    assert seen["before"]["active"] is True
    assert seen["before"]["cnf"] == {"jkt": seen["thumbprint"]}
    assert seen["before"]["client_id"] == seen["client_id"]
    assert seen["after"] == {"active": False}


@pytest.mark.parametrize("alg", ALGS)
def test_oauth4webapi_gets_uses_and_ends_a_token(alg: str, server: Server, tmp_path: Path) -> None:
    seen = walk("oauth4webapi.mjs", alg, server, tmp_path)
    check_life(seen)
    assert seen["nonceRetries"] == 1, "the first proof has no nonce, and the server insists on one"
    assert seen["claims"]["iss"] == server.url
    assert seen["claims"]["aud"] == RESOURCE
    assert seen["claims"]["client_id"] == seen["client_id"]
    assert seen["claims"]["cnf"] == {"jkt": seen["thumbprint"]}


@pytest.mark.parametrize("alg", ["ES256"])
def test_openid_client_gets_and_ends_a_token(alg: str, server: Server, tmp_path: Path) -> None:
    check_life(walk("openid-client.mjs", alg, server, tmp_path))
