"""The ledger in the console: the browser verifies each answer itself, and shows no answer that is not proved."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from harness.cli import run
from harness.live_server import ServerFixture
from harness.patience import eventually
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["live_server"]
pytestmark = needs_console

ONE, OTHER = ".compare select[name=one]", ".compare select[name=other]"
VERIFY, CONSISTENT = ".compare button:text-is('Verify')", ".compare .notice >> text=Consistent"
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
    assert "bot" in chromium.text(".rows li >> nth=0"), "names stand in place of ids"
    for name, known in (("agent", "admin"), ("person", "aria"), ("resource", "ostiary")):
        chromium.goto(f"{site}/console/ledger?{name}={known}")
        chromium.wait_for(".rows li")
        chromium.goto(f"{site}/console/ledger?{name}=nosuch")
        chromium.wait_for(f"text=There is no {name}")
    chromium.goto(f"{site}/console/ledger?action=agent.create")
    chromium.wait_for(".rows li")
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


def test_a_person_compares_two_checkpoints_and_downloads_a_bundle(
    live_server: ServerFixture, chromium: Chromium, tmp_path: Path
) -> None:
    site = enter_console(live_server, chromium, "aude", "auditor")
    kept = eventually(lambda: live_server.api("GET", "/audit/checkpoints")["checkpoints"])
    exported = httpx2.get(f"{live_server.server.url}/ledger/v1/checkpoint").text
    live_server.owner()
    chromium.goto(f"{site}/console/ledger")
    chromium.click("summary:text-is('Compare two checkpoints')")
    chromium.wait_for(f"select:has(option[value^='{exported.splitlines()[0]}'])")
    chromium.click(VERIFY)
    chromium.wait_for(CONSISTENT)
    chromium.select(ONE, "pasted")
    examine_page(chromium, "console-checkpoints")
    for chosen in ("newest", kept[-1]["note"]):
        chromium.select(OTHER, chosen)
        chromium.fill("textarea[name=one-note]", exported)
        chromium.click(VERIFY)
        chromium.wait_for(CONSISTENT)
        size = exported.splitlines()[1]
        assert f"{int(size):,}" in chromium.text(".compare")
    size, root, *_ = exported.splitlines()[1:]
    for false, message in (
        (exported.replace(f"\n{size}\n", f"\n{int(size) - 1}\n"), "has not signed"),
        (exported.replace(root, "A" * 43 + "="), "has not signed"),
        ("no checkpoint", "has no signature"),
    ):
        chromium.fill("textarea[name=one-note]", false)
        chromium.wait_for(".compare:not(:has(.notice))")
        chromium.click(VERIFY)
        chromium.wait_for(f".compare >> {REFUSED}")
        assert message in chromium.text(".compare")
        assert "Consistent" not in chromium.text(".compare")
    chromium.select(OTHER, "newest")
    chromium.fill("textarea[name=one-note]", exported)
    chromium.tamper("**/ledger/v1/tile/**", "", "")
    chromium.click(VERIFY)
    chromium.wait_for(f".compare >> {REFUSED}")
    chromium.be_honest()

    chromium.goto(f"{site}/console/ledger?action=person.create")
    bundle = tmp_path / "bundle.json"
    bundle.write_text(chromium.download("text=Download a bundle"))
    chromium.wait_for("text=This browser verified")
    content = json.loads(bundle.read_text())
    found = live_server.api("GET", "/audit", action="person.create")["entries"]
    assert [one["index"] for one in content["receipts"]] == [one["index"] for one in found]
    checked = run("audit", "check", bundle, "--key", content["key"], "--json").json
    assert checked["indexes"] == [one["index"] for one in found]
    chromium.tamper("**/audit/receipts?*", "person.create", "person.delete")
    chromium.click("text=Download a bundle")
    chromium.wait_for(REFUSED)
    chromium.be_honest()


@pytest.mark.parametrize("role", ["viewer"])
def test_a_person_who_may_not_read_the_ledger_has_no_link_to_it(
    live_server: ServerFixture, chromium: Chromium, role: str
) -> None:
    enter_console(live_server, chromium, "vito", role)
    chromium.wait_for("nav a")
    assert "Ledger" not in chromium.text("nav")
