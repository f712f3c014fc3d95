"""MCP clients made by others, which know no DPoP, call a guarded MCP server with their own code and defaults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
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
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp.shared.exceptions import MCPError

from ostiary.guard import Guard
from ostiary.keys import load_key
from ostiary.mcp import DENIED, protect
from tests.conformance.test_mcp_client import pem
from tests.feed.house import House, listening, serving
from tests.feed.test_mcp_end_to_end import files_server
from tests.patience import eventually


class Memory:
    """The storage that the SDK asks for."""

    def __init__(self) -> None:
        self.token: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.token

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.token = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Files:
    """A guarded MCP server, and an agent that may read there with a bearer token."""

    def __init__(self, house: House, uri: str, resource: str) -> None:
        self.house, self.uri, self.resource = house, uri, resource
        self.agent, self.credential = house.agent(f"{resource}:read")
        house.api("PUT", f"/agents/{self.agent}/bearer/{resource}", {})

    def told(self, seq: int) -> None:
        """Wait until the guard has heard of that act."""
        feeds = self.house.api("GET", "/feeds", seq=seq, wait_ms=5000)
        assert all(told["applied"] for told in feeds["guards"])


@pytest.fixture
def files(house: House, tmp_path: Path) -> Iterator[Files]:
    sock, port = listening()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = house.resource(uri)
    with (
        Guard(guard_key, spool_dir=tmp_path / "spool") as guard,
        serving(protect(files_server(), guard), sock),
    ):
        made = Files(house, uri, resource)
        eventually(lambda: guard.feed.current().exempt)
        yield made


def private_key_jwt(files: Files, memory: Memory) -> httpx2.Auth:
    credential = load_key(files.credential)
    parameters = SignedJWTParameters(
        issuer=credential.client_id,
        subject=credential.client_id,
        signing_key=pem(credential.key),
        signing_algorithm="ES256",
    )
    provider = parameters.create_assertion_provider()
    return PrivateKeyJWTOAuthProvider(files.uri, memory, credential.client_id, provider, issuer=files.house.server.url)


def client_secret(files: Files, memory: Memory) -> httpx2.Auth:
    made = files.house.api("POST", f"/agents/{files.agent}/secrets", {})
    return ClientCredentialsOAuthProvider(
        files.uri, memory, made["client_id"], made["client_secret"], issuer=files.house.server.url
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


PROVIDERS: dict[str, Callable[[Files, Memory], httpx2.Auth]] = {
    "private_key_jwt": private_key_jwt,
    "client_secret": client_secret,
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_mcp_sdk_calls_a_guarded_server_until_its_agent_is_revoked(files: Files, provider: str) -> None:
    memory = Memory()
    async with connected(files, PROVIDERS[provider](files, memory)) as client:
        assert len((await client.list_tools()).tools) == 2
        result: Any = await client.call_tool("read_file", {"path": "/a"})
        assert result.structured_content["result"][0] == "text of /a"
        with pytest.raises(MCPError, match=f"{files.resource}:write") as denied:
            await client.call_tool("write_file", {"path": "/a"})
        assert denied.value.code == DENIED
        assert memory.token is not None
        assert (memory.token.token_type, memory.token.scope) == ("Bearer", f"{files.resource}:read")
    files.told(files.house.api("POST", "/revoke", {"kind": "agent", "id": files.agent})["seq"])
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {memory.token.access_token}"}) as http:
        assert "is suspended" in (await http.post(files.uri, json={})).text  # says the guard
    with pytest.raises(ExceptionGroup) as refused:
        async with connected(files, PROVIDERS[provider](files, memory)):
            pass
    assert "the agent is suspended" in str(leaf(refused.value))  # says the server
