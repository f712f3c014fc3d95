"""MCP clients made by others, which know no DPoP, call a guarded MCP server with their own code and defaults."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import PATIENCE_S, eventually
from ostiary.guard import Guard
from ostiary.keys import load_key
from ostiary.mcp import DENIED, protect
from tests.e2e.mcp_files_server import files_server
from tests.support.mcp_token_storage import MemoryStorage
from tests.support.pem import pem


class Files:
    """A guarded MCP server, and an agent that may read there with a bearer token."""

    def __init__(self, live_server: ServerFixture, uri: str, resource: str) -> None:
        self.live_server, self.uri, self.resource = live_server, uri, resource
        self.agent, self.credential = live_server.agent(f"{resource}:read")
        live_server.api("PUT", f"/agents/{self.agent}/bearer/{resource}", {})

    def secret(self) -> str:
        """A client secret of the agent."""
        return str(self.live_server.api("POST", f"/agents/{self.agent}/secrets", {})["client_secret"])

    def revoke(self) -> None:
        """Revoke the agent, and wait until the guard has heard of it."""
        seq = self.live_server.api("POST", "/revoke", {"kind": "agent", "id": self.agent})["seq"]
        feeds = self.live_server.api("GET", "/feeds", seq=seq, wait_ms=5000)
        assert {told["applied"] for told in feeds["guards"]} == {True}


@pytest.fixture
def files(live_server: ServerFixture, tmp_path: Path) -> Iterator[Files]:
    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = live_server.resource(uri)
    with (
        Guard(guard_key, spool_dir=tmp_path / "spool") as guard,
        serving(protect(files_server(), guard), sock),
    ):
        made = Files(live_server, uri, resource)
        eventually(lambda: guard.feed.current().exempt)
        yield made


def private_key_jwt(files: Files, memory: MemoryStorage) -> httpx2.Auth:
    credential = load_key(files.credential)
    parameters = SignedJWTParameters(
        issuer=credential.client_id,
        subject=credential.client_id,
        signing_key=pem(credential.key),
        signing_algorithm="ES256",
    )
    provider = parameters.create_assertion_provider()
    return PrivateKeyJWTOAuthProvider(
        files.uri, memory, credential.client_id, provider, issuer=files.live_server.server.url
    )


def client_secret(files: Files, memory: MemoryStorage) -> httpx2.Auth:
    client_id = load_key(files.credential).client_id
    return ClientCredentialsOAuthProvider(
        files.uri, memory, client_id, files.secret(), issuer=files.live_server.server.url
    )


@asynccontextmanager
async def connected(files: Files, auth: httpx2.Auth) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client(files.uri, http_client=http)) as client,
    ):
        yield client


def leaf(error: BaseException) -> BaseException:
    return leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


PROVIDERS: dict[str, Callable[[Files, MemoryStorage], httpx2.Auth]] = {
    "private_key_jwt": private_key_jwt,
    "client_secret": client_secret,
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_mcp_sdk_calls_a_guarded_server_until_its_agent_is_revoked(files: Files, provider: str) -> None:
    memory = MemoryStorage()
    async with connected(files, PROVIDERS[provider](files, memory)) as client:
        assert len((await client.list_tools()).tools) == 2
        result: Any = await client.call_tool("read_file", {"path": "/a"})
        assert result.structured_content["result"][0] == "text of /a"
        with pytest.raises(MCPError, match=f"{files.resource}:write") as denied:
            await client.call_tool("write_file", {"path": "/a"})
        assert denied.value.code == DENIED
        assert memory.token is not None
        assert (memory.token.token_type, memory.token.scope) == ("Bearer", f"{files.resource}:read")
    files.revoke()
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {memory.token.access_token}"}) as http:
        assert "is suspended" in (await http.post(files.uri, json={})).text  # says the guard
    with pytest.raises(ExceptionGroup) as refused:
        async with connected(files, PROVIDERS[provider](files, memory)):
            pass
    assert "the agent is suspended" in str(leaf(refused.value))  # says the server


NODE = Path(__file__).parents[1] / "node"
INSPECTOR = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


def node(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of `tests/node` in a home of its own."""
    with TemporaryDirectory() as home:
        return subprocess.run(
            ["node", NODE / script, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": home} | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


def typescript(files: Files, **environment: str) -> dict[str, Any]:
    """The view of the TypeScript SDK."""
    client_id = load_key(files.credential).client_id
    run = node("mcp-sdk.mjs", SERVER=files.uri, ISSUER=files.live_server.server.url, CLIENT_ID=client_id, **environment)
    assert run.returncode == 0, run.stderr
    seen: dict[str, Any] = json.loads(run.stdout)
    return seen


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_typescript_sdk_calls_a_guarded_server_until_its_agent_is_revoked(
    files: Files, tmp_path: Path, provider: str
) -> None:
    if provider == "client_secret":
        environment = {"CLIENT_SECRET": files.secret()}
    else:
        key = tmp_path / "private.jwk"
        key.write_text(json.dumps(load_key(files.credential).key.jwk()))
        environment = {"KEY": str(key)}
    seen = typescript(files, **environment)
    assert sorted(seen["tools"]) == ["read_file", "write_file"], seen
    assert "text of /a" in seen["read"]
    assert f"{files.resource}:write" in seen["write"]
    assert (seen["token"]["token_type"], seen["token"]["scope"]) == ("Bearer", f"{files.resource}:read")
    files.revoke()
    assert "the agent is suspended" in typescript(files, **environment)["refused"]


async def token_of(files: Files) -> str:
    """A bearer token as somebody would get one by hand."""
    memory = MemoryStorage()
    async with httpx2.AsyncClient(auth=private_key_jwt(files, memory)) as http:
        await http.post(files.uri, json={})
    assert memory.token is not None
    return memory.token.access_token


async def test_the_inspector_calls_a_guarded_server_with_a_header(files: Files) -> None:
    header = f"Authorization: Bearer {await token_of(files)}"

    def inspect(*arguments: str) -> subprocess.CompletedProcess[str]:
        return node(INSPECTOR, "--cli", files.uri, "--transport", "http", "--header", header, *arguments)

    listed = inspect("--method", "tools/list")
    assert sorted(tool["name"] for tool in json.loads(listed.stdout)["tools"]) == ["read_file", "write_file"]
    call = ("--method", "tools/call", "--tool-arg", "path=/a", "--tool-name")
    assert "text of /a" in inspect(*call, "read_file").stdout
    denied = inspect(*call, "write_file")
    assert f"{files.resource}:write" in denied.stdout + denied.stderr
    files.revoke()
    refused = inspect(*call, "read_file")
    assert refused.returncode != 0
    assert "auth_required" in refused.stdout + refused.stderr
