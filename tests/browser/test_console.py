"""The console in Chromium: a person signs in with a passkey, sees what the server knows, decides, and signs out."""

from __future__ import annotations

from harness.live_server import ServerFixture
from tests.support.chromium import Chromium, chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["chromium", "live_server"]
pytestmark = needs_console


def test_a_person_signs_in_sees_the_overview_and_signs_out(live_server: ServerFixture, chromium: Chromium) -> None:
    site = enter_console(live_server, chromium, "olga", "administrator")
    chromium.wait_for("text=Entries in the ledger")
    examine_page(chromium, "console-overview")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login?return_to=*")
    assert live_server.api("GET", "/persons/olga/sessions")["sessions"] == []
    chromium.goto(f"{site}/console/agents?state=active")
    assert chromium.url().endswith("/login?return_to=%2Fconsole%2Fagents%3Fstate%3Dactive")
    assert live_server.api("GET", "/audit", action="person.logout")["entries"]
