"""The ledger in the console: the browser verifies each answer itself, and shows no answer that is not proved."""

from __future__ import annotations

import json

import pytest

from harness.live_server import ServerFixture
from tests.support.chromium import Chromium, chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["chromium", "live_server"]
pytestmark = needs_console

PROVED, REFUSED = "text=Verified in this browser", "text=Not proved"


def reload_page(chromium: Chromium) -> None:
    chromium.goto(chromium.url())


def test_the_browser_verifies_the_ledger_and_refuses_a_tampered_answer(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    site = enter_console(live_server, chromium, "aria", "auditor")
    chromium.goto(f"{site}/console/ledger")
    chromium.wait_for(PROVED)
    assert "trusts the key that it saw now" in chromium.text()
    name = "<img src=x onerror=alert(1)>"
    live_server.api("POST", "/agents", {"name": "bot", "owner": "aria", "purpose": name})
    reload_page(chromium)
    chromium.wait_for("text=that this browser verified before")
    chromium.fill("#filter-action", "agent.create")
    chromium.click("text=Search")
    chromium.wait_for_url("**/ledger?action=agent.create")
    chromium.wait_for(".rows li")
    examine_page(chromium, "console-ledger")
    [entry] = live_server.api("GET", "/audit", action="agent.create", limit=1)["entries"]
    chromium.click(f".rows a:has-text('{entry['index']}')")
    chromium.wait_for("text=both match")
    chromium.wait_for("text=agent.create")
    examine_page(chromium, "console-entry")

    for pattern, find, put, message in (
        ("**/proof", "agent.create", "agent.delete", "does not match the signed root"),
        ("**/proof", "index ", "index 1", "entry"),
        ("**/ledger/v1/key", "+", "x+", "another key"),
    ):
        chromium.tamper(pattern, find, put)
        reload_page(chromium)
        chromium.wait_for(REFUSED)
        assert message in chromium.text()
        assert "Content" not in chromium.text("main"), "nothing of the entry is shown"
        chromium.be_honest()

    chromium.goto(f"{site}/console/ledger")
    chromium.wait_for(PROVED)
    stored = json.loads(chromium.evaluate("localStorage.getItem('ostiary-log')"))
    live_server.owner()
    for pattern, message in (("**/ledger/v1/tile/**", "does not extend"), ("**/ledger/v1/checkpoint", "")):
        chromium.tamper(pattern, "", "")
        reload_page(chromium)
        chromium.wait_for(REFUSED)
        assert message in chromium.text()
        chromium.be_honest()
    assert json.loads(chromium.evaluate("localStorage.getItem('ostiary-log')")) == stored, "nothing new is trusted"
    reload_page(chromium)
    chromium.wait_for("text=that this browser verified before")


@pytest.mark.parametrize("role", ["viewer"])
def test_a_person_who_may_not_read_the_ledger_has_no_link_to_it(
    live_server: ServerFixture, chromium: Chromium, role: str
) -> None:
    enter_console(live_server, chromium, "vito", role)
    chromium.wait_for("nav a")
    assert "Ledger" not in chromium.text("nav")
