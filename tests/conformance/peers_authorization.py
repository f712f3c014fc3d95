"""Run the MCP conformance suite's checks of authorization servers against a running server: `make peers`.

The suite is a client that registered itself; the person at the browser agrees.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from harness.live_server import ServerFixture, free_socket
from harness.patience import PATIENCE_S
from harness.person_browser import PersonBrowser
from harness.server import running
from tests.support.node import NODE

SUITE = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
RESOURCE = "https://files.example.org/mcp"


def main() -> int:
    with (
        TemporaryDirectory() as folder,
        running(Path(folder, "server")) as server,
        ServerFixture(server, Path(folder)) as live_server,
        PersonBrowser(server.url) as browser,
    ):
        person = live_server.owner()
        live_server.api("POST", "/roles", {"subject": person, "role": "viewer"})
        browser.set_up(live_server.api("POST", f"/persons/{person}/invite", {})["url"])
        resource, _ = live_server.resource(RESOURCE)
        live_server.api("PUT", f"/resources/{resource}/bearer/dynamic", {})
        sock, port = free_socket()
        sock.close()
        metadata = {"client_name": "Suite", "redirect_uris": [f"http://127.0.0.1:{port}/callback"]}
        registered = httpx2.post(f"{server.url}/register", json=metadata)
        assert registered.status_code == 201, registered.text
        named = ["--url", server.url, "--client-id", registered.json()["client_id"], "--resource", RESOURCE]
        return _run([*named, "--port", str(port), "--output-dir", f"{folder}/results"], browser)


def _run(arguments: list[str], browser: PersonBrowser) -> int:
    """Run the suite, open each authorization URL that it prints, and return its exit code."""
    command = ["node", "--import", "./glob_sync.mjs", SUITE, "authorization", *arguments]
    process = subprocess.Popen(command, cwd=NODE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    limit = threading.Timer(PATIENCE_S, process.kill)
    limit.start()
    for line in process.stdout:
        print(line, end="")
        if (url := re.search(r"https?://\S+/authorize\?\S+", line)) is not None:
            httpx2.get(browser.authorize(url[0]))
    limit.cancel()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
