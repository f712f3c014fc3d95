"""The pages for people in Chromium: without script, and with a virtual authenticator for passkeys."""

from __future__ import annotations

import os
from pathlib import Path

from harness.live_server import ServerFixture
from tests.support.chromium import Chromium, chromium
from tests.support.page_client import PASSWORD
from tests.support.servers import live_server

__all__ = ["chromium", "live_server"]
SHOTS = os.environ.get("OSTIARY_SCREENSHOTS")
"""Folder for pictures of every page; none without."""


def take_pictures(chromium: Chromium, name: str) -> None:
    if SHOTS:
        for look, dark, width in (("light", False, 1000), ("dark", True, 1000), ("phone", False, 380)):
            chromium.set_look(dark=dark, width=width)
            chromium.screenshot(str(Path(SHOTS) / f"{name}-{look}.png"))
        chromium.set_look(dark=False, width=1000)


def invite(live_server: ServerFixture, name: str) -> str:
    live_server.api("POST", "/persons", {"name": name})
    return str(live_server.api("POST", f"/persons/{name}/invite", {})["url"])


def test_a_person_sets_a_password_and_signs_in_and_out_without_script(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    url = invite(live_server, "without-script")
    chromium.open_window(script=False)
    assert chromium.goto(url) == 200
    take_pictures(chromium, "setup")
    chromium.fill("#password", PASSWORD)
    chromium.fill("#repeated", PASSWORD)
    chromium.click("button")
    chromium.wait_for_url("**/account")
    take_pictures(chromium, "account")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    take_pictures(chromium, "login")
    chromium.fill("#name", "without-script")
    chromium.fill("#password", "another password")
    chromium.click("button")
    chromium.wait_for(".alert")
    take_pictures(chromium, "login-refused")
    chromium.fill("#password", PASSWORD)
    chromium.click("button")
    chromium.wait_for_url("**/account")
    assert "without-script" in chromium.text()
    assert chromium.goto(url) == 404
    take_pictures(chromium, "error")
    assert chromium.get_problems() == []
