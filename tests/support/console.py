"""The built console for tests, and a person who opens it in Chromium."""

from __future__ import annotations

from importlib.resources import files

import pytest

from harness.live_server import ServerFixture
from tests.support.chromium import Chromium

needs_console = pytest.mark.skipif(
    not (files("ostiaryd.console") / "dist/index.html").is_file(), reason="the console is not built: make console"
)


def enter_console(live_server: ServerFixture, chromium: Chromium, name: str, role: str) -> str:
    """Open a window in which a new person with that role has signed in by passkey and sees the console; the URL of the
    server's pages.
    """
    live_server.api("POST", "/persons", {"name": name})
    live_server.api("POST", "/roles", {"subject": name, "role": role})
    chromium.open_window()
    chromium.add_authenticator()
    chromium.goto(live_server.api("POST", f"/persons/{name}/invite", {})["url"])
    chromium.click("text=Create a passkey")
    site = str(chromium.wait_for_url("**/account")).removesuffix("/account")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    chromium.goto(f"{site}/console")
    chromium.click("text=Sign in with a passkey")
    chromium.wait_for_url("**/console")
    return site
