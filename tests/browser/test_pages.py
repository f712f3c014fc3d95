"""The pages for people in Chromium: without script, and with a virtual authenticator for passkeys."""

from __future__ import annotations

import time
from base64 import b32decode

from harness.live_server import ServerFixture
from ostiaryd.trust.model.totp import STEP, hotp
from tests.support.chromium import Chromium
from tests.support.page_client import PASSWORD
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["live_server"]


def invite(live_server: ServerFixture, name: str) -> str:
    live_server.api("POST", "/persons", {"name": name})
    return str(live_server.api("POST", f"/persons/{name}/invite", {})["url"])


def test_a_person_sets_a_password_and_signs_in_and_out_without_script(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    url = invite(live_server, "without-script")
    chromium.open_window(script=False)
    assert chromium.goto(url) == 200
    examine_page(chromium, "setup")
    chromium.fill("#password", PASSWORD)
    chromium.fill("#repeated", PASSWORD)
    chromium.click("text=Set password")
    chromium.wait_for_url("**/account")
    examine_page(chromium, "account")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    examine_page(chromium, "login")
    chromium.fill("#name", "without-script")
    chromium.fill("#password", "another password")
    chromium.click("button:visible")
    chromium.wait_for(".alert:visible")
    examine_page(chromium, "login-refused")
    chromium.fill("#password", PASSWORD)
    chromium.click("button:visible")
    chromium.wait_for_url("**/account")
    assert "without-script" in chromium.text()
    assert chromium.goto(url) == 404
    examine_page(chromium, "error")
    assert chromium.get_problems() == []


def test_a_person_registers_a_passkey_with_a_setup_link_and_signs_in_with_it(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    url = invite(live_server, "with-passkey")
    chromium.open_window()
    device = chromium.add_authenticator()
    chromium.goto(url)
    examine_page(chromium, "setup-passkey")
    chromium.fill("#label", "Laptop")
    chromium.click("text=Create a passkey")
    chromium.wait_for_url("**/account")
    assert "Laptop" in chromium.text()
    assert len(chromium.credentials(device)) == 1
    examine_page(chromium, "account-passkey")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    examine_page(chromium, "login-passkey")
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
    examine_page(chromium, "setup-passkey-problem")
    assert chromium.url() == url


def test_a_person_adds_an_authenticator_app_and_signs_in_with_a_recovery_code_and_with_a_code_of_the_app(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    chromium.open_window(script=False)
    chromium.goto(invite(live_server, "with-app"))
    chromium.fill("#password", PASSWORD)
    chromium.fill("#repeated", PASSWORD)
    chromium.click("text=Set password")
    chromium.wait_for_url("**/account")
    chromium.click("text=Set up an app")
    chromium.wait_for_url("**/account/totp")
    examine_page(chromium, "totp")
    secret = b32decode(chromium.text("code"))
    step = time.time_ns() // 1000 // STEP
    chromium.fill("#code", hotp(secret, step))
    chromium.click("text=Confirm")
    chromium.wait_for(".codes")
    examine_page(chromium, "recovery")
    codes = chromium.text(".codes").split()
    chromium.click("text=I have kept them")
    chromium.wait_for_url("**/account")
    examine_page(chromium, "account-app")
    chromium.goto(chromium.url().replace("/account", "/login?return_to=/account&max_age=0"))
    examine_page(chromium, "confirm")
    login = chromium.url().partition("/login")[0] + "/login?prompt=login"

    def sign_in(code: str) -> None:
        chromium.goto(login)
        chromium.fill("#name", "with-app")
        chromium.fill("#password", PASSWORD)
        chromium.click("button:has-text('Sign in'):not([data-needs-passkeys] *)")
        chromium.wait_for_url("**/login/code*")
        examine_page(chromium, "code")
        chromium.fill("#code", code)
        chromium.click("text=Sign in")
        chromium.wait_for_url("**/account")
        assert "9 recovery codes are unused" in chromium.text()

    sign_in(next(code for code in codes if "-" in code))
    sign_in(hotp(secret, max(step + 1, time.time_ns() // 1000 // STEP)))
    assert chromium.get_problems() == []
