"""People sign in with a passkey and consent in Chromium, for clients made by others and for a client that is a page."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import PATIENCE_S, eventually
from ostiary.guard import Guard
from ostiary.mcp import protect
from ostiary.protocol import jose
from tests.browser.page_server import serving_pages
from tests.e2e.mcp_files_server import files_server
from tests.support.chromium import Chromium, set_up_person
from tests.support.node import NODE
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["live_server"]
PAGE = '<!doctype html><html lang="en"><title>App</title><output></output><script src="/app.js"></script>'


def walk(
    script: str, live_server: ServerFixture, chromium: Chromium, folder: Path, origin: str, *, without: str
) -> dict[str, Any]:
    """Send the person where the client says, sign in with the passkey, untick a line, and let the client go on."""
    name, callback = script.removesuffix(".mjs"), f"{origin}/callback"
    key = jose.generate("ES256")
    (folder / "private.jwk").write_text(json.dumps(key.jwk()))
    uri = f"https://{name}.example.org/mcp"
    live_server.api("POST", "/persons", {"name": f"{name}-owner"})
    live_server.api("POST", "/resources", {"name": name, "uri": uri})
    agent: dict[str, Any] = {
        "name": f"{name}-agent",
        "owner": f"{name}-owner",
        "purpose": "sums up the reports of a month",
    }
    agent |= {"scopes": [f"{name}:read", f"{name}:write"], "jwk": dict(key.public.jwk)}
    client_id = live_server.api("POST", "/agents", agent)["agent_id"]
    client = {"redirect_uris": [callback], "post_logout_redirect_uris": [f"{origin}/bye"]}
    live_server.api("PUT", f"/agents/{client_id}/client", client)
    environment = {
        "PATH": os.environ["PATH"],
        "ISSUER": live_server.server.url,
        "CLIENT_ID": client_id,
        "KEY": str(folder / "private.jwk"),
        "RESOURCE": uri,
        "SCOPE": f"openid profile {name}:read {name}:write",
        "CALLBACK": callback,
        "LOGOUT": f"{origin}/bye",
    }
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(["node", NODE / script], env=environment, text=True, **pipes) as run:
        assert run.stdout is not None
        chromium.goto(run.stdout.readline().strip())
        chromium.wait_for_url("**/login*")
        chromium.click("text=Sign in with a passkey")
        chromium.wait_for("text=to act for you?")
        examine_page(chromium, f"consent-{name}")
        chromium.check(f'[name="scope.{without.format(name=name)}"]', on=False)
        examine_page(chromium, f"consent-{name}-narrowed")
        chromium.click("text=Allow >> nth=-1")
        arrived = chromium.wait_for_url(f"{callback}*")
        output, errors = run.communicate(arrived + "\n", timeout=PATIENCE_S)
    assert run.returncode == 0, errors
    seen: dict[str, Any] = json.loads(output)
    assert seen["claims"]["aud"] == client_id
    assert seen["userinfo"]["sub"] == seen["claims"]["sub"]
    return seen


def test_openid_client_gets_only_the_scopes_that_a_person_with_a_passkey_left_ticked(
    live_server: ServerFixture, chromium: Chromium, tmp_path: Path
) -> None:
    name = set_up_person(live_server, chromium, "olga")
    with serving_pages({}) as origin:
        seen = walk("openid-client-code.mjs", live_server, chromium, tmp_path, origin, without="{name}:write")
        assert (seen["type"], seen["scope"]) == ("dpop", "openid-client-code:read")
        assert (seen["claims"]["acr"], seen["userinfo"]["name"]) == ("urn:ostiary:acr:person:phr", name)
        chromium.goto(seen["logout"])
        chromium.wait_for_url(f"{origin}/bye*")
    chromium.goto(f"{live_server.server.url}/account")
    assert "/login" in chromium.url()


def test_oauth4webapi_gets_only_the_scopes_that_a_person_with_a_passkey_left_ticked(
    live_server: ServerFixture, chromium: Chromium, tmp_path: Path
) -> None:
    set_up_person(live_server, chromium, "oscar")
    with serving_pages({}) as origin:
        seen = walk("oauth4webapi-code.mjs", live_server, chromium, tmp_path, origin, without="profile")
    assert (seen["type"], seen["scope"]) == ("bearer", "openid")
    assert "name" not in seen["userinfo"]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of `mcp-page.mjs` as one script."""
    file = tmp_path_factory.mktemp("bundle") / "app.js"
    subprocess.run(["node", NODE / "bundle.mjs", NODE / "mcp-page.mjs", file], check=True, capture_output=True)
    return file.read_text()


@pytest.fixture
def guarded(live_server: ServerFixture, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URI and name of a guarded MCP server that accepts bearer tokens of clients that registered themselves."""
    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = live_server.resource(uri)
    live_server.api("PUT", f"/resources/{resource}/bearer/dynamic", {})
    with Guard(guard_key, spool_dir=tmp_path / "spool") as guard, serving(protect(files_server(), guard), sock):
        eventually(lambda: guard.feed.current().exempt)
        yield uri, resource


def test_a_page_of_another_origin_registers_itself_and_calls_a_guarded_server(
    live_server: ServerFixture, chromium: Chromium, guarded: tuple[str, str], script: str
) -> None:
    uri, resource = guarded
    set_up_person(live_server, chromium, "paula")
    with serving_pages({"/": ("text/html", PAGE), "/app.js": ("text/javascript", script)}) as origin:
        chromium.goto(f"{origin}/?server={uri}&tool=read_file")
        chromium.wait_for_url("**/login*")
        chromium.click("text=Sign in with a passkey")
        chromium.wait_for("text=to act for you?")
        assert "No administrator has registered this application" in chromium.text()
        assert "an application on this computer" in chromium.text()
        examine_page(chromium, "consent-unregistered")
        chromium.check(f'[name="scope.{resource}:write"]', on=False)
        chromium.click("text=Allow >> nth=-1")
        chromium.wait_for("output:not(:empty)")
        seen = json.loads(chromium.text("output"))
        assert seen.get("text") == "text of /a", seen
        assert (sorted(seen["tools"]), seen["scope"]) == (["read_file", "write_file"], f"{resource}:read")
        assert seen["client"].startswith("cl_")
        chromium.goto(f"{origin}/?tool=write_file")
        chromium.wait_for("text=to act for you?")
        examine_page(chromium, "consent-step-up")
        chromium.click("text=Allow >> nth=-1")
        chromium.wait_for("output:not(:empty)")
        seen = json.loads(chromium.text("output"))
        assert f"{resource}:write" in seen.get("scope", "").split(), seen
