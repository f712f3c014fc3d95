"""Policies in the console: differences, an editor that completes from the schema, tests, what-if, and a patch."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

from harness.live_server import ServerFixture, authenticate, own_server
from harness.patience import eventually
from ostiary.guard import Guard
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.payment_fixtures import CEDAR, SCHEMA
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["live_server"]
pytestmark = needs_console
ATTACK = "<img src=x onerror='window.attacked=1'>"
CASE = """[[case]]
name = "nobody pays eve"
subject = { type = "agent", id = "ag_1" }
action = "call"
resource = { type = "tool", id = "bank/pay" }
context = { subject = "ag_1", arguments = { to = "eve" } }
expect = "deny"
"""

WRITTEN = """@id("c") forbid (principal, action == Action::"call", resource)
when { resource.effect == "read" };
"""
CHANGED, REPLAY = "[aria-label='Verdicts that change']", "[aria-label='What if']"


def _replay(chromium: Chromium) -> bool:
    """Replay; return whether there is a report. The process of a replay gives way to others, and may be too slow."""
    chromium.click("button:text-is('Replay')")
    chromium.wait_for(f"{REPLAY} :is({CHANGED}, .problem)")
    return bool(chromium.evaluate(f'!!document.querySelector("{CHANGED}")'))


def test_a_policy_change_can_be_written_tested_replayed_and_exported_as_a_patch(
    chromium: Chromium, tmp_path: Path
) -> None:
    first = {"a.cedar": f"// {ATTACK}{CEDAR}", "a.cedarschema": SCHEMA}
    second = first | {"b.cedar": '@id("b") forbid (principal, action == Action::"delegate", resource);\n'}
    uri = "https://files.example/mcp"
    with own_server(tmp_path) as server:
        old, new = (server.api("POST", "/policies", {"files": files})["hash"] for files in (first, second))
        resource, guard_key = server.resource(uri)
        _, agent_key = server.agent(f"{resource}:read")
        with Guard(guard_key, spool_dir=tmp_path / "spool") as guard:
            who = authenticate(guard, agent_key, uri)
            with guard.call(who, "read_file", {"path": "/a"}):
                pass
            eventually(lambda: server.entries(action="tool.call"))

        enter_console(server, chromium, "paula", "administrator")
        chromium.click("nav >> text=Policies")
        chromium.wait_for("text=decides")
        examine_page(chromium, "console-policies")
        chromium.click(f"text={new[:12]}")
        chromium.wait_for("h2:has-text('b.cedar')")
        assert ATTACK in chromium.text("[aria-label='a.cedar']")
        chromium.select("label:has-text('Compare with') select", old)
        chromium.wait_for_url(f"**/policies/{new}?against={old}")
        chromium.wait_for("[aria-label='Changes of b.cedar'] .line.added")
        assert "a.cedar" not in chromium.text("main"), "a file that stays the same is not shown"
        examine_page(chromium, "console-policy-difference")

        chromium.click("text=Propose a change")
        chromium.click("[aria-label='Files of the set'] >> text=b.cedar")
        text = "[aria-label='Text of b.cedar']"
        chromium.write(text, '@id("c") forbid (principal, action == Action::"call", resource)\nwhen { resource.')
        chromium.wait_for("[role=option] >> text=data_classes")
        examine_page(chromium, "console-policy-editor")
        chromium.write(text, "eff")
        chromium.wait_for("[role=option][aria-selected=true] >> text=effect")
        chromium.press("Tab")
        chromium.write(text, ' == "read" };\n')
        chromium.press("Escape")

        chromium.fill("[aria-label='Name of a new file']", "bank.test.toml")
        chromium.click("text=Add a file")
        chromium.wait_for("[aria-label='Text of bank.test.toml']")
        chromium.fill("[aria-label='Text of bank.test.toml']", CASE.replace('"deny"', '"allow"'))
        chromium.click("text=Validate and test")
        chromium.wait_for("[aria-label=Tests] .problem >> text=nobody pays eve")
        chromium.fill("[aria-label='Text of bank.test.toml']", CASE)
        chromium.click("text=Validate and test")
        chromium.wait_for("[aria-label=Tests] >> text=1 test passed")
        chromium.wait_for("[aria-label='Changes against the set that decides now'] >> text=c")
        eventually(partial(_replay, chromium))
        assert "would deny" in chromium.text(CHANGED)
        assert f"{resource}/read_file" in chromium.text(CHANGED)
        examine_page(chromium, "console-policy-tested")

        patch = chromium.download("[aria-label=Patch] >> text=Save")
        folder = tmp_path / "set"
        folder.mkdir()
        for name, content in second.items():
            (folder / name).write_text(content)
        subprocess.run(("git", "apply", "-"), input=patch, text=True, cwd=folder, check=True)
        files = {path.name: path.read_text() for path in folder.iterdir()}
        assert files["bank.test.toml"] == CASE
        written = (
            '@id("c") forbid (principal, action == Action::"call", resource)\nwhen { resource.effect == "read" };\n'
        )
        assert files == first | {"b.cedar": second["b.cedar"] + written, "bank.test.toml": CASE}
        [one] = [one for one in server.api("GET", "/policies")["policies"] if one["active"]]
        assert one["hash"] == new, "nothing was switched on"
        assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')")


def test_a_viewer_can_read_policies_and_cannot_propose_a_change(live_server: ServerFixture, chromium: Chromium) -> None:
    site = enter_console(live_server, chromium, "vida", "viewer")
    chromium.goto(f"{site}/console/policies")
    chromium.wait_for("text=part of the server")
    hash = live_server.api("POST", "/policies", {"files": {"a.cedar": CEDAR, "a.cedarschema": SCHEMA}})["hash"]
    chromium.goto(f"{site}/console/policies/{hash}")
    chromium.wait_for("h2:has-text('a.cedar')")
    assert "Propose a change" not in chromium.text("main")
    chromium.goto(f"{site}/console/policies/{hash}/edit")
    chromium.wait_for("[aria-label=Patch]")
    buttons = chromium.evaluate("[...document.querySelectorAll('main button')].map((one) => one.textContent)")
    assert not {"Validate and test", "Replay"} & set(buttons), "no button that would be refused"
