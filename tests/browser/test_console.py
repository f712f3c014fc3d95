"""The console in Chromium: a person signs in with a passkey, sees what the server knows, decides, and signs out."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from tests.support.chromium import Chromium, chromium
from tests.support.console import enter_console, needs_console
from tests.support.payment_fixtures import People, live_server, people
from tests.support.pictures import examine_page

__all__ = ["chromium", "live_server", "people"]
pytestmark = [needs_console, pytest.mark.slow]
ATTACK = "<img src=x onerror='window.attacked=1'><script>window.attacked=1</script>"
"""A text of a stranger with markup, which every page shows as text."""


def confirm(chromium: Chromium, verb: str, reason: str) -> None:
    """Give the reason that the open dialog asks for, and confirm."""
    chromium.fill("dialog textarea", reason)
    chromium.click(f"dialog button:text-is('{verb}')")
    chromium.wait_for("body:not(:has(dialog))")


def test_a_person_sees_a_denial_live_and_answers_a_request_that_is_spent_once(
    live_server: ServerFixture, chromium: Chromium, people: People, tmp_path: Path
) -> None:
    site = enter_console(live_server, chromium, "olga", "administrator")
    live_server.api("PUT", f"/teams/{people.team}/members/olga")
    eventually(lambda: "Entries in the ledger" in chromium.text())
    examine_page(chromium, "console-overview")

    with people.guard(tmp_path) as (guard, who):
        assert not guard.decide(who, "pay", {"amount": 5, "to": "eve"}).decision.allowed
        chromium.wait_for("text=never-eve")  # the page was not loaded again

        note = f"rent {ATTACK} https://evil.example/a"
        question = ("pay", {"amount": 500, "to": ATTACK, "note": note})
        assert not guard.decide(who, *question).decision.allowed
        chromium.wait_for("nav .pill")
        chromium.click("nav >> text=Approvals")
        chromium.click(f"a:has-text('{people.agent}')")
        chromium.wait_for(".answer-bar")
        assert ATTACK in chromium.text(".arguments")
        assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')")
        examine_page(chromium, "console-approval")
        chromium.click("text=Approve once")
        examine_page(chromium, "console-dialog")
        confirm(chromium, "Approve", "the rent is due")
        chromium.wait_for(".lead .badge.good")
        assert guard.decide(who, *question).decision.allowed
        assert not guard.decide(who, *question).decision.allowed, "a yes is for one call"
    chromium.goto(f"{site}/console/approvals")
    chromium.wait_for(".queue")
    examine_page(chromium, "console-approvals")
    [answered, *_] = live_server.entries(action="approval.approve", limit=5)
    assert answered["person"] == live_server.api("GET", "/persons/olga")["person_id"]
    assert answered.get("outcome", "ok") == "ok"


def test_lists_empty_states_and_the_first_run(live_server: ServerFixture, chromium: Chromium) -> None:
    site = enter_console(live_server, chromium, "otto", "administrator")
    chromium.goto(f"{site}/console/incidents")
    chromium.wait_for("text=No open incidents")
    examine_page(chromium, "console-incidents")
    for n in range(3):
        body = {"name": f"worker-{n}", "owner": "otto", "purpose": f"{ATTACK} {n}"}
        live_server.api("POST", "/agents", body)
    chromium.goto(f"{site}/console/agents?state=pending")
    chromium.wait_for("text=worker-2")
    assert ATTACK in chromium.text("[role=table]")
    examine_page(chromium, "console-agents")
    chromium.check("[aria-label='Select worker-0']")
    chromium.check("[aria-label='Select worker-1']")
    chromium.wait_for("button:text-is('Suspend 2 agents')")
    chromium.fill("input[type=search]", "no such agent")
    chromium.wait_for("text=No agent matches")
    assert "text=no" in chromium.url()
    chromium.goto(f"{site}/console/start")
    chromium.wait_for("text=The first denied call")
    examine_page(chromium, "console-start")
    assert chromium.goto(f"{site}/console/nowhere") == 200
    chromium.wait_for("text=There is no such page")
    assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')")


def test_a_person_sees_what_the_role_permits_and_signs_out(live_server: ServerFixture, chromium: Chromium) -> None:
    site = enter_console(live_server, chromium, "vera", "viewer")
    chromium.wait_for("nav >> text=Agents")
    assert "First run" not in chromium.text("nav")
    chromium.goto(f"{site}/console/agents/admin")
    chromium.wait_for("text=Holdings")
    assert not chromium.evaluate("!!document.querySelector('.page-head button')"), "no button that would be refused"
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login?return_to=*")
    assert live_server.api("GET", "/persons/vera/sessions")["sessions"] == []
    chromium.goto(f"{site}/console/agents?state=active")
    assert chromium.url().endswith("/login?return_to=%2Fconsole%2Fagents%3Fstate%3Dactive")
