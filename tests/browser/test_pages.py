"""The pages for people in Chromium: without script, and with a virtual authenticator for passkeys."""

from __future__ import annotations

import os
import time
from base64 import b32decode
from pathlib import Path

from harness.live_server import ServerFixture
from ostiaryd.trust.model.totp import STEP, hotp
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
    chromium.click("text=Set password")
    chromium.wait_for_url("**/account")
    take_pictures(chromium, "account")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    take_pictures(chromium, "login")
    chromium.fill("#name", "without-script")
    chromium.fill("#password", "another password")
    chromium.click("button:visible")
    chromium.wait_for(".alert:visible")
    take_pictures(chromium, "login-refused")
    chromium.fill("#password", PASSWORD)
    chromium.click("button:visible")
    chromium.wait_for_url("**/account")
    assert "without-script" in chromium.text()
    assert chromium.goto(url) == 404
    take_pictures(chromium, "error")
    assert chromium.get_problems() == []


def test_a_person_registers_a_passkey_with_a_setup_link_and_signs_in_with_it(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    url = invite(live_server, "with-passkey")
    chromium.open_window()
    device = chromium.add_authenticator()
    chromium.goto(url)
    take_pictures(chromium, "setup-passkey")
    chromium.fill("#label", "Laptop")
    chromium.click("text=Create a passkey")
    chromium.wait_for_url("**/account")
    assert "Laptop" in chromium.text()
    assert len(chromium.credentials(device)) == 1
    take_pictures(chromium, "account-passkey")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    take_pictures(chromium, "login-passkey")
    chromium.click("text=Sign in with a passkey")
    chromium.wait_for_url("**/account")
    session = live_server.api("GET", "/persons/with-passkey/sessions")["sessions"][0]
    assert session["acr"] == "urn:ostiary:acr:person:phr"
    assert chromium.get_problems() == []


def test_an_authenticator_without_user_verification_is_refused_by_the_page(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    url = invite(live_server, "unverified")
    chromium.open_window()
    chromium.add_authenticator(verifies=False)
    chromium.goto(url)
    chromium.click("text=Create a passkey")
    chromium.wait_for("[data-problem]:not([hidden])")
    take_pictures(chromium, "setup-passkey-problem")
    assert chromium.url() == url


def test_an_authenticator_app_and_its_pages(live_server: ServerFixture, chromium: Chromium) -> None:
    chromium.open_window(script=False)
    chromium.goto(invite(live_server, "with-app"))
    chromium.fill("#password", PASSWORD)
    chromium.fill("#repeated", PASSWORD)
    chromium.click("text=Set password")
    chromium.wait_for_url("**/account")
    chromium.click("text=Set up an app")
    chromium.wait_for_url("**/account/totp")
    take_pictures(chromium, "totp")
    secret = b32decode(chromium.text("code"))
    step = time.time_ns() // 1000 // STEP
    chromium.fill("#code", hotp(secret, step))
    chromium.click("text=Confirm")
    chromium.wait_for(".codes")
    take_pictures(chromium, "recovery")
    codes = chromium.text(".codes").split()
    chromium.click("text=I have kept them")
    chromium.wait_for_url("**/account")
    take_pictures(chromium, "account-app")
    chromium.goto(chromium.url().replace("/account", "/login?return_to=/account&max_age=0"))
    take_pictures(chromium, "confirm")
    chromium.goto(chromium.url().partition("/login")[0] + "/login?prompt=login")
    chromium.fill("#name", "with-app")
    chromium.fill("#password", PASSWORD)
    chromium.click("button:has-text('Sign in'):not([data-needs-passkeys] *)")
    chromium.wait_for_url("**/login/code*")
    take_pictures(chromium, "code")
    chromium.fill("#code", next(code for code in codes if "-" in code))
    chromium.click("text=Sign in")
    chromium.wait_for_url("**/account")
    assert "9 recovery codes are unused" in chromium.text()
    assert chromium.get_problems() == []
