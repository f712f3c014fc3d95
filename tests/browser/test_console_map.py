"""The map in the console: relations in words and in a drawing, clusters, filters, and at most 300 nodes."""

from __future__ import annotations

import json
from typing import Any

from harness.live_server import ServerFixture
from harness.page_timing import FRAMES, OPENING
from ostiary.agent import Agent
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page
from tests.support.servers import live_server

__all__ = ["live_server"]
pytestmark = needs_console
ATTACK = "<img src=x onerror='window.attacked=1'>"
TOOLS: list[dict[str, Any]] = [
    {"name": "read_file", "effect": "read", "data_classes": ["personal"]},
    {"name": "write_file", "effect": "write"},
]
SHOWN, TOTAL, MAX_NODES = ".map .node", 400, 300


def test_the_map_shows_principals_reachable_tools_and_the_effect_of_a_stop(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    site = enter_console(live_server, chromium, "mia", "viewer")
    resource, _ = live_server.resource("https://files.example/mcp", TOOLS)
    reader, key = live_server.agent(f"{resource}:read", owner="mia")
    with Agent.from_credential(key) as agent:
        agent.token(resource="https://files.example/mcp")
    writer, _ = live_server.agent(f"{resource}:write", owner=live_server.owner())
    for name in (reader, writer):
        live_server.api("POST", "/tasks", {"agent": name, "purpose": "a report", "on_behalf_of": "mia"})
    chromium.click("nav >> text=Map")
    row = f".map-list li:has(button:has-text('{reader}'))"
    chromium.wait_for(f"{row} >> text=acts for mia")
    chromium.wait_for(f"{row} >> text=may call {resource}/read_file")
    chromium.wait_for(f".map-list li:has-text('{resource}/read_file') >> text=touches personal")
    examine_page(chromium, "console-map")
    chromium.click(f".map .node:has-text('{reader}')")
    chromium.wait_for_url("**/map?*node=agent*")
    chosen = "[aria-label='Chosen node']"
    chromium.wait_for(f"{chosen} >> text=A stop ends 1 token")
    words = chromium.text(chosen)
    assert f"{resource}/read_file" in words
    assert "personal" in words
    assert "write_file" not in words
    examine_page(chromium, "console-map-chosen")
    chromium.goto(chromium.url())
    chromium.wait_for(chosen)  # a link leads there

    chromium.click(".map-list button:has-text('personal')")
    chromium.wait_for(f"{chosen} >> text=Reached by")
    assert writer not in chromium.text(chosen)
    live_server.api("POST", "/agents", {"name": "nightly", "owner": "mia", "purpose": "a test", "segment": "night"})
    chromium.goto(f"{site}/console/map")
    chromium.select("label:has-text('Segment') select", "night")
    chromium.wait_for("[aria-label='List of the map'] button:has-text('nightly')")
    assert reader not in chromium.text("[aria-label='List of the map']")
    assert "mia" in chromium.text("[aria-label='List of the map']"), "who answers for it"
    chromium.wait_for_url("**/map?*segment=night*")
    chromium.goto(chromium.url())
    chromium.wait_for("[aria-label='List of the map'] button:has-text('nightly')")
    chromium.select("label:has-text('Segment') select", "default")
    chromium.wait_for("[aria-label='List of the map']:not(:has-text('nightly'))")
    chromium.select("label:has-text('Reaches data of class') select", "personal")
    chromium.wait_for(f"[aria-label='List of the map']:not(:has-text('{writer}'))")
    assert reader in chromium.text("[aria-label='List of the map']")
    chromium.fill("input[type=search]", "no such name")
    chromium.wait_for("text=Nothing matches")
    chromium.goto(f"{site}/console/map")
    chromium.click(".map-list button[aria-expanded=true]:has-text('default')")
    chromium.wait_for(f"[aria-label='List of the map']:not(:has-text('{reader}'))")
    chromium.wait_for(".map .node.segment:has-text('+ default')")
    chromium.fill("input[type=search]", reader)
    chromium.click(f"[aria-label='In closed segments'] button:has-text('{reader}')")
    chromium.wait_for(f".map-selected:has-text('{reader}')")
    chromium.wait_for("main:not(:has([aria-label='In closed segments']))")


def test_the_map_draws_at_most_the_maximum_number_of_nodes_and_shows_names_as_text(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    site = enter_console(live_server, chromium, "max", "viewer")
    rows = [
        {
            "agent_id": f"ag_{number}",
            "name": f"{ATTACK} {number}",
            "state": "active",
            "owner": ATTACK,
            "owner_id": "pe_1",
            "risk_tier": "high",
            "segment": "default",
            "scopes": [],
        }
        for number in range(TOTAL)
    ]
    chromium.tamper("**/api/v1/agents?*", '"agents":[', f'"agents":[{json.dumps(rows)[1:-1]},')
    chromium.goto(f"{site}/console/map?open=segment:default")
    chromium.wait_for("text=nodes are drawn")
    assert chromium.evaluate(f"document.querySelectorAll('{SHOWN}').length") == MAX_NODES
    assert ATTACK in chromium.text("[aria-label='List of the map']")
    assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')")
    (frames, _), _, opened_ms = (chromium.evaluate(script) for script in (FRAMES % "'.map'", OPENING, OPENING))
    print(f"map of {MAX_NODES} nodes: {frames:.0f} frames/s while panning, a cluster opens in {opened_ms:.0f} ms")
    assert chromium.evaluate(f"document.querySelectorAll('{SHOWN}').length") == MAX_NODES, "it is open again"
    chromium.fill("input[type=search]", f"{ATTACK} 39")
    chromium.wait_for("[aria-label='List of the map'] summary:has-text('Agents (11)')")
    chromium.be_honest()
    assert chromium.get_problems() == []
