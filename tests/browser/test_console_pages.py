"""Every page of the console with texts of strangers on it: its approved ARIA snapshot, axe, the keyboard, the looks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture, authenticate
from harness.patience import eventually
from ostiary.guard import Guard
from ostiary.guard.call import Denied
from tests.support.approved import check_approved
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.payment_fixtures import CEDAR, SCHEMA
from tests.support.pictures import examine_page
from tests.support.servers import live_server
from tests.support.sources import ROOT

__all__ = ["live_server"]
pytestmark = [needs_console, pytest.mark.slow]
ATTACK = "<img src=x onerror='window.attacked=1'><script>window.attacked=1</script>{{7*7}}"
TOOLS: list[dict[str, Any]] = [
    {
        "name": "pay",
        "effect": "pay",
        "data_classes": ["payment"],
        "arguments": {
            "type": "object",
            "properties": {"amount": {"type": "integer"}, "to": {"type": "string"}, "note": {"type": "string"}},
        },
        "kinds": {"note": "text", "amount": "amount", "to": "account"},
    },
    {"name": "list_payments", "effect": "read"},
]
SIGNED_IN = "paige"


def fill_server(server: ServerFixture, folder: Path) -> dict[str, str]:
    """Let agents work, ask and be stopped; return the path of each page below `/console`, by name."""
    policies = {"a.cedar": f"// {ATTACK}{CEDAR}", "a.cedarschema": SCHEMA}
    hash = server.api("POST", "/policies", {"files": policies})["hash"]
    uri = "https://bank.example/mcp"
    bank, guard_key = server.resource(uri, TOOLS)
    payer, payer_key = server.agent(f"{bank}:write", f"{bank}:read", owner=SIGNED_IN)
    pending = server.name("agent")
    server.api("POST", "/agents", {"name": pending, "owner": SIGNED_IN, "purpose": f"Reads {ATTACK}"})
    bounds = [{"type": "tool", "locations": [uri], "actions": ["pay"], "arguments": {"amount": {"max": 900}}}]
    budget = [{"kind": "calls", "limit": 9}]
    body = {"agent": payer, "purpose": f"Pays {ATTACK}", "bounds": bounds, "budget": budget}
    task = server.api("POST", "/tasks", body | {"intent": {"words": "Pay 5 to ann"}})["task_id"]
    server.api("POST", "/tasks", {"agent": payer, "purpose": f"Pays a part {ATTACK}", "parent": task})
    with Guard(guard_key, spool_dir=folder / "spool", record_arguments=True, notices=False) as guard:
        who = authenticate(guard, payer_key, uri, task=task)
        with guard.call(who, "pay", {"amount": 5, "to": "ann", "note": ATTACK}):
            pass
        with pytest.raises(Denied), guard.call(who, "pay", {"amount": 5, "to": "eve", "note": ATTACK}):
            pass
        eventually(lambda: len(server.entries(task=task, action="tool.call")) == 2, pause_s=0.2)
        assert not guard.decide(who, "pay", {"amount": 500, "to": "ann", "note": ATTACK}).decision.allowed
        eventually(lambda: len(server.entries(task=task, action="tool.call")) >= 3, pause_s=0.2)
    [question] = server.api("GET", "/approvals", state="open")["approvals"]
    server.api("POST", "/secrets/put", {"path": "secret/app/db", "data": {"password": "x"}})
    server.api("POST", "/secrets/put", {"path": "secret/app/mail", "data": {"password": "x"}})
    server.api("POST", "/secrets/get", {"path": "secret/app/db"})
    rotation = {"path": "secret/app/db", "member": "password", "url": "https://db.example/", "period": 86_400}
    server.api("POST", "/secrets/rotations", rotation)
    provider = {
        "name": "notes",
        "label": ATTACK[:40],
        "client_id": "ostiary",
        "client_secret": "x",
        "authorization_endpoint": "https://notes.example/authorize",
        "token_endpoint": "https://notes.example/token",
    }
    server.api("POST", "/account-providers", provider)
    stopped, _ = server.agent(f"{bank}:read", owner=SIGNED_IN)
    incident = server.api("POST", "/kill", {"what": "agent", "name": stopped, "why": ATTACK})["incident"]
    eventually(lambda: server.api("GET", "/agent-table/counts")["state"].get("quarantined"), pause_s=0.2)
    [created] = server.api("GET", "/audit", action="agent.quarantine", limit=1)["entries"]
    return {
        "overview": "",
        "agents": "/agents",
        "agent": f"/agents/{payer}",
        "agent-stopped": f"/agents/{stopped}",
        "agent-pending": f"/agents/{pending}",
        "map": "/map",
        "approvals": "/approvals",
        "approval": f"/approvals/{question['approval_id']}",
        "incidents": "/incidents",
        "incident": f"/incidents/{incident}",
        "tasks": "/tasks",
        "task": f"/tasks/{task}",
        "ledger": "/ledger?action=incident.open",
        "entry": f"/ledger/{created['index']}",
        "policies": "/policies",
        "policy-set": f"/policies/{hash}",
        "policy-editor": f"/policies/{hash}/edit",
        "secrets": "/secrets",
        "certificates": "/certificates",
        "accounts": "/accounts",
        "connections": "/connections",
        "people": "/people",
        "start": "/start",
    }


def find_unvisited(paths: Iterable[str]) -> list[str]:
    """Return the paths of the router of the console that no path in `paths` leads to."""
    routes = re.findall(r"\b(?:at\(|path: )\"(/[^\"]*)\"", (ROOT / "console/src/router.tsx").read_text("utf-8"))
    visited = [path.partition("?")[0] or "/" for path in paths]
    patterns = {route: re.compile(re.sub(r"\$\w+", "[^/]+", route)) for route in routes}
    assert len(patterns) > 20
    return [route for route, pattern in patterns.items() if not any(pattern.fullmatch(path) for path in visited)]


SHOWN = {"agents", "agent-pending", "approval", "incidents", "incident", "tasks", "task", "policy-set"}
"""Pages on which the text of a stranger is visible at once."""


def test_every_page_matches_its_snapshot_is_accessible_and_shows_third_party_text_as_text(
    live_server: ServerFixture, chromium: Chromium, tmp_path: Path
) -> None:
    site = enter_console(live_server, chromium, SIGNED_IN, "administrator")
    pages = fill_server(live_server, tmp_path)
    assert find_unvisited(pages.values()) == []
    for name, path in pages.items():
        chromium.goto(f"{site}/console{path}")
        chromium.wait_for("main h1")
        check_approved(chromium, name)
        if name in SHOWN:
            chromium.set_look(dark=False, width=1280)  # a narrow window leaves out the purpose in the list of agents
            assert ATTACK in chromium.text("main"), name
        examine_page(chromium, f"page-{name}")
        assert chromium.find_unreachable() == [], name
        assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')"), name
    check_approved(chromium, "frame", "aside")
