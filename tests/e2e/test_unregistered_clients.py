"""MCP clients that no administrator registered connect to a guarded MCP server with their own code, and no manual step
but the consent of a person. A client registers itself, or is known by the URL of its metadata document.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import PATIENCE_S, eventually
from harness.person_browser import PersonBrowser
from harness.prepared import PreparedServer
from ostiary.guard import Guard
from ostiary.mcp import protect
from tests.e2e.mcp_files_server import files_server
from tests.support.client_site import ClientSite, serving_clients
from tests.support.mcp_token_storage import MemoryStorage
from tests.support.node import NODE

CALLBACK = "http://localhost:3030/callback"


class Files:
    """A guarded MCP server that accepts bearer tokens of clients that registered themselves, and a person's browser."""

    def __init__(self, live_server: ServerFixture, uri: str, resource: str, browser: PersonBrowser) -> None:
        self.live_server, self.uri, self.resource, self.browser = live_server, uri, resource, browser
        self.person = live_server.owner()
        live_server.api("POST", "/roles", {"subject": self.person, "role": "viewer"})
        self.withheld = ""
        """a scope that the person does not agree to"""
        browser.set_up(live_server.api("POST", f"/persons/{self.person}/invite", {})["url"])
        for registration in ("dynamic", "document"):
            live_server.api("PUT", f"/resources/{resource}/bearer/{registration}", {})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientSite]:
    """The web site of a client, with its metadata document."""
    with serving_clients(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory, site: ClientSite) -> Iterator[ServerFixture]:
    """A server that trusts the certificate of the site."""
    folder = tmp_path_factory.mktemp("live_server")
    settings = folder / "ostiary.toml"
    settings.write_text(f"ca_file = {json.dumps(site.ca_file)}\n")
    with PreparedServer(folder / "server", "--config", str(settings)) as server, ServerFixture(server, folder) as made:
        yield made


@pytest.fixture
def files(live_server: ServerFixture, tmp_path: Path) -> Iterator[Files]:
    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = live_server.resource(uri)
    with (
        Guard(guard_key, spool_dir=tmp_path / "spool") as guard,
        serving(protect(files_server(), guard), sock),
        PersonBrowser(live_server.server.url) as browser,
    ):
        made = Files(live_server, uri, resource, browser)
        eventually(lambda: guard.feed.current().exempt)
        yield made


def provider(files: Files, memory: MemoryStorage, *, document: str | None = None) -> OAuthClientProvider:
    """The OAuth client of the SDK, whose user is the person at the browser; `document` is the URL of its metadata."""
    arrived: list[str] = []

    async def open_browser(url: str) -> None:
        arrived.append(await asyncio.to_thread(files.browser.authorize, url, without=files.withheld))

    async def wait_for_callback() -> AuthorizationCodeResult:
        query = {name: value for name, (value,) in parse_qs(urlsplit(arrived[-1]).query).items()}
        return AuthorizationCodeResult(code=query["code"], state=query["state"], iss=query["iss"])

    metadata = OAuthClientMetadata(client_name="Example", redirect_uris=[CALLBACK])  # type: ignore[list-item]
    return OAuthClientProvider(
        files.uri, metadata, memory, open_browser, wait_for_callback, client_metadata_url=document
    )


@asynccontextmanager
async def connected(files: Files, auth: httpx2.Auth) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(auth=auth, timeout=PATIENCE_S) as http,
        Client(streamable_http_client(files.uri, http_client=http)) as client,
    ):
        yield client


async def test_the_mcp_sdk_registers_itself_and_calls_after_the_consent_of_a_person(files: Files) -> None:
    memory = MemoryStorage()
    async with connected(files, provider(files, memory)) as client:
        result: Any = await client.call_tool("read_file", {"path": "/a"})
        assert result.structured_content["result"][0] == "text of /a"
    assert memory.client is not None
    assert memory.token is not None
    assert (memory.client.client_id or "").startswith("cl_")
    assert memory.token.token_type == "Bearer"
    assert memory.token.refresh_token


async def test_the_mcp_sdk_is_known_by_the_url_of_its_metadata_document(files: Files, site: ClientSite) -> None:
    document, memory = site.put_client("/python.json", client_name="Python reader"), MemoryStorage()
    async with connected(files, provider(files, memory, document=document)) as client:
        await client.call_tool("read_file", {"path": "/a"})
    assert memory.client is not None
    assert memory.client.client_id == document
    assert memory.token is not None
    assert memory.token.refresh_token
    [consent] = files.live_server.api("GET", "/consents", person=files.person)["consents"]
    assert (consent["client_id"], consent["client_name"]) == (document, "Python reader")


async def test_the_mcp_sdk_steps_up_when_a_tool_needs_another_scope(files: Files) -> None:
    files.withheld = f"{files.resource}:write"
    memory = MemoryStorage()
    async with connected(files, provider(files, memory)) as client:
        await client.call_tool("read_file", {"path": "/a"})
        assert memory.token is not None
        assert memory.token.scope == f"{files.resource}:read"
        files.withheld = ""
        await client.call_tool("write_file", {"path": "/a"})
        assert f"{files.resource}:write" in (memory.token.scope or "").split()


def test_the_typescript_sdk_registers_itself_and_calls_after_the_consent_of_a_person(files: Files) -> None:
    seen = run_typescript(files)
    assert (seen["client"]["token_endpoint_auth_method"], "client_secret" in seen["client"]) == (
        "client_secret_post",
        True,
    )
    assert (seen["token"]["token_type"], seen["token"]["refreshes"]) == ("Bearer", True)


def test_the_typescript_sdk_is_known_by_the_url_of_its_metadata_document(files: Files, site: ClientSite) -> None:
    document = site.put_client("/typescript.json")
    seen = run_typescript(files, CLIENT_METADATA_URL=document)
    assert seen["client"]["client_id"] == document
    assert (seen["token"]["token_type"], seen["token"]["refreshes"]) == ("Bearer", True)


def run_typescript(files: Files, **environment: str) -> dict[str, Any]:
    """Return what the client of `mcp-oauth.mjs` saw after the consent of the person."""
    with TemporaryDirectory() as home:
        process = subprocess.Popen(
            ["node", NODE / "mcp-oauth.mjs"],
            env={"PATH": os.environ["PATH"], "HOME": home, "SERVER": files.uri, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith(files.live_server.server.url), url
        output, _ = process.communicate(files.browser.authorize(url) + "\n", timeout=PATIENCE_S)
    seen: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert "text of /a" in seen["read"], seen
    return seen
