"""The MCP Inspector connects to a guarded server: a person signs in with a passkey, consents, and calls a tool."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import eventually
from ostiary.guard import Guard
from ostiary.mcp import protect
from tests.e2e.mcp_files_server import files_server
from tests.support.chromium import Chromium, set_up_person
from tests.support.node import NODE
from tests.support.servers import live_server

__all__ = ["live_server"]
INSPECTOR = NODE / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


@contextmanager
def inspecting(uri: str, home: Path, *, era: str) -> Iterator[str]:
    """Run the Inspector for one server; the URL of its page. `era` is the Inspector's word for the revision of MCP."""
    sockets = [free_socket() for _ in ("page", "sandbox")]
    for sock, _ in sockets:
        sock.close()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "CLIENT_PORT": str(sockets[0][1]),
        "MCP_SANDBOX_PORT": str(sockets[1][1]),
        "MCP_AUTO_OPEN_ENABLED": "false",
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
    command = ["node", str(INSPECTOR), "--web", "--server-url", uri, "--transport", "http", "--protocol-era", era]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        try:
            yield next(line.strip() for line in run.stdout if "MCP_INSPECTOR_API_TOKEN=" in line)
        finally:
            run.terminate()


@pytest.mark.parametrize(("era", "first"), [("legacy", "INITIALIZE"), ("modern", "SERVER/DISCOVER")])
def test_the_mcp_inspector_calls_a_tool_after_a_login_and_a_consent(
    live_server: ServerFixture, chromium: Chromium, tmp_path: Path, era: str, first: str
) -> None:
    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = live_server.resource(uri)
    live_server.api("PUT", f"/resources/{resource}/bearer/dynamic", {})
    person = set_up_person(live_server, chromium, f"ida-{era}")
    with (
        Guard(guard_key, spool_dir=tmp_path / "spool") as guard,
        serving(protect(files_server(), guard), sock),
        inspecting(uri, tmp_path, era=era) as page,
    ):
        eventually(lambda: guard.feed.current().exempt)
        chromium.goto(page)
        chromium.click("label:has([role=switch])")
        chromium.wait_for_url("**/login*")
        chromium.click("text=Sign in with a passkey")
        chromium.wait_for("text=to act for you?")
        chromium.check(f'[name="scope.{resource}:write"]', on=False)
        chromium.click("text=Allow >> nth=-1")
        chromium.wait_for(f"text={first}")
        chromium.click("text=Tools >> nth=0")
        chromium.click("text=read_file >> nth=0")
        chromium.fill('label:has-text("Path") >> xpath=.. >> input', "/a")
        chromium.click("text=Execute Tool")
        chromium.wait_for("text=text of /a")
        [consent] = live_server.api("GET", "/consents", person=person)["consents"]
        assert (consent["client_name"], consent["scopes"]) == ("MCP Inspector", [f"{resource}:read"])
