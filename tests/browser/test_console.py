"""The console in Chromium: a person signs in with a passkey, sees what the server knows, decides, and signs out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import run
from harness.live_server import TOOLS, ServerFixture, authenticate, is_allowed, own_server
from harness.patience import eventually
from ostiary.agent import Agent, ApprovalNeeded
from ostiary.guard import Guard
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.payment_fixtures import FILES, People, live_server, people
from tests.support.pictures import examine_page

__all__ = ["live_server", "people"]
pytestmark = [needs_console, pytest.mark.slow]
ATTACK = "<img src=x onerror='window.attacked=1'><script>window.attacked=1</script>"
"""A text of a stranger with markup, which every page shows as text."""

COVERING = """
@id("whom") @ask("person") @covers("counterpart") forbid (principal, action == Action::"call", resource)
when { context.arguments has to && context.arguments.to == "carl" };
"""


def confirm(chromium: Chromium, verb: str, reason: str = "") -> None:
    """Give the reason that the open dialog asks for, and confirm."""
    if reason:
        chromium.fill("dialog textarea", reason)
    chromium.click(f"dialog button:text-is('{verb}')")
    chromium.wait_for("body:not(:has(dialog))")


def test_a_person_sees_a_live_denial_and_approves_a_request_for_one_call(
    live_server: ServerFixture, chromium: Chromium, people: People, tmp_path: Path
) -> None:
    site = enter_console(live_server, chromium, "olga", "administrator")
    live_server.api("PUT", f"/teams/{people.team}/members/olga")
    live_server.api("POST", "/policies", {"files": FILES | {"a.cedar": FILES["a.cedar"] + COVERING}})
    person = live_server.api("GET", "/persons/olga")["person_id"]
    eventually(lambda: "Entries in the ledger" in chromium.text())
    examine_page(chromium, "console-overview")

    with people.guard(tmp_path) as (guard, who):
        assert not guard.decide(who, "pay", {"amount": 5, "to": "eve"}).decision.allowed
        chromium.wait_for("text=never-eve")  # the page was not loaded again

        chromium.set_offline(is_offline=True)
        for amount in (6, 7):
            assert not guard.decide(who, "pay", {"amount": amount, "to": "eve"}).decision.allowed
        people.called(3)
        chromium.set_offline(is_offline=False)
        denials = [f"/console/ledger/{one['index']}" for one in live_server.entries(outcome="deny")]
        rows = "[...document.querySelectorAll('.timeline a')].map((one) => new URL(one.href).pathname)"
        eventually(lambda: chromium.evaluate(rows) == denials, pause_s=0.2)  # no row is missing, none is there twice

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

        task = live_server.api(
            "POST", "/tasks", {"agent": people.agent, "purpose": "rent", "intent": {"words": "Pay the rent"}}
        )["task_id"]
        who = authenticate(guard, people.agent_key, people.uri, task=task)
        similar = ("pay", {"amount": 9, "to": "carl"})
        _open_question(chromium, site, lambda: guard.decide(who, *similar).decision.allowed)
        assert "carl" not in chromium.text("main"), "the person states whom the agent shall pay"
        chromium.click("text=Approve for the task")
        chromium.fill("label:has-text('Value of to') input", "Carl")
        chromium.fill("label:has-text('Further calls') input", "1")
        chromium.fill("label:has-text('Largest amount') input", "4")
        examine_page(chromium, "console-narrower")
        confirm(chromium, "Approve", "carl is known")
        chromium.wait_for(".lead .badge.good")
        for amount, is_allowed in ((9, True), (5, False), (4, True), (3, False)):
            call = ("pay", {"amount": amount, "to": "carl"})
            assert guard.decide(who, *call).decision.allowed is is_allowed, "one further call, up to 4"
        strange = ("pay", {"amount": 5, "to": "mallory"})
        _open_question(chromium, site, lambda: guard.decide(who, *strange).decision.allowed)
        chromium.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: 'd'}))")
        confirm(chromium, "Deny", "nobody knows mallory")
        chromium.wait_for(".lead .badge.bad")
        assert live_server.entries(action="approval.deny")[0]["person"] == person
    scope = f"{people.resource}:audit"
    live_server.api("PUT", f"/agents/{people.agent}/eligible", {"scopes": [scope], "undeclared": True})
    with Agent.from_credential(people.agent_key) as agent:
        _open_question(chromium, site, lambda: _is_elevated(agent, scope))
        chromium.click(".answer-bar button:has-text('Approve')")
        chromium.fill("label:has-text('Minutes') input", "5")
        confirm(chromium, "Approve", "five minutes suffice")
        chromium.wait_for(".lead .badge.good")
        assert _is_elevated(agent, scope)
    elevation = live_server.api("GET", "/elevations")["elevations"][0]
    assert elevation["expires_at"] - elevation["granted_at"] == 300
    chromium.goto(f"{site}/console/approvals")
    chromium.wait_for(".queue")
    examine_page(chromium, "console-approvals")
    answers = live_server.entries(action="approval.approve")
    assert [(one["person"], one.get("outcome", "ok")) for one in answers] == [(person, "ok")] * 3


def test_a_person_registers_an_agent_and_a_guard_and_stops_and_releases_the_agent(
    chromium: Chromium, tmp_path: Path
) -> None:
    uri, agent_key, guard_key = "https://files.example/mcp", tmp_path / "writer.json", tmp_path / "files.json"
    with own_server(tmp_path) as server:
        server.api("POST", "/policies", {"files": FILES})
        enter_console(server, chromium, "rita", "administrator")
        chromium.click("nav >> text=First run")
        chromium.fill("input[name=name]", "writer")
        chromium.fill("input[name=purpose]", f"Writes {ATTACK}")
        _keep(agent_key, chromium.download("text=Register and save its key"))
        chromium.fill("label:has-text('Name of the tool server') input", "files")
        chromium.fill("input[name=uri]", uri)
        _keep(guard_key, chromium.download("text=Register and save the key of its guard"))
        server.api("PUT", "/resources/files/catalogue", {"catalogue": {"resource": "files", "tools": TOOLS}})
        scopes = ["files:read", "other:read"]
        server.api("PATCH", "/agents/writer", {"scopes": scopes, "undeclared": True})
        with Guard(guard_key, spool_dir=tmp_path / "spool") as guard:
            who = authenticate(guard, agent_key, uri)
            eventually(lambda: is_allowed(guard, who))
            chromium.wait_for("text=1 guard connected")
            assert not guard.decide(who, "delete_file", {}).decision.allowed
            chromium.wait_for("text=was denied")
            assert chromium.evaluate("document.querySelectorAll('.step[data-done=true]').length") == 4

            chromium.click("nav >> text=Agents")
            chromium.click("[role=row] a:has-text('writer')")
            chromium.wait_for("h2:has-text('What it did')")
            chromium.click("button:text-is('Quarantine')")
            chromium.wait_for("dialog li:text-is('1 token')")
            examine_page(chromium, "console-stop")
            confirm(chromium, "Quarantine", "it writes to strangers")
            chromium.wait_for(".lead .badge.bad")
            chromium.wait_for("text=The server confirmed the stop")
            chromium.wait_for("li:has-text('ms after the commit')")
            eventually(lambda: not is_allowed(guard, who))
            [entry] = server.entries(action="agent.quarantine")
            assert entry["detail"]["ended"] == {"token": 1}, "what the dialog announced"
            assert f"Writes {ATTACK}" in chromium.text("main")
            examine_page(chromium, "console-agent")
            _act(chromium, "Release", "active")
            who = authenticate(guard, agent_key, uri)
            eventually(lambda: is_allowed(guard, who))
            _act(chromium, "Suspend", "suspended")
            eventually(lambda: not is_allowed(guard, who))
            _act(chromium, "Resume", "active")
            chromium.click("text=Remove 1 unused scope")
            confirm(chromium, "Remove 1 scope")
            chromium.wait_for("body:not(:has-text('other:read'))")
            assert server.api("GET", "/agents/writer")["scopes"] == ["files:read"]
            _act(chromium, "Decommission", "decommissioned")
            assert not chromium.evaluate("!!document.querySelector('.page-head button')")
            assert server.api("GET", "/agents/writer")["state"] == "decommissioned"


def test_a_person_takes_incidents_and_releases_or_decommissions_their_agents(
    live_server: ServerFixture, chromium: Chromium, tmp_path: Path
) -> None:
    site = enter_console(live_server, chromium, "dora", "administrator")
    ends = {"Release the agent": "active", "Release to reading": "active", "Decommission the agent": "decommissioned"}
    for verb, state in ends.items():
        name, _ = live_server.agent("any:read")
        incident = live_server.api("POST", "/kill", {"what": "agent", "name": name, "why": ATTACK})["incident"]
        chromium.goto(f"{site}/console/agents/{name}")
        chromium.wait_for("button:text-is('Decommission')")
        assert "Release" not in chromium.text(".page-head"), "a person decides about the incident"
        if verb == "Release the agent":
            finding = {
                "finding_id": "fi_1",
                "at": 1.0,
                "detector": "rate",
                "points": 60,
                "says": ATTACK,
                "incident": incident,
            }
            chromium.tamper("**/api/v1/findings?*", '"findings":[]', f'"findings":[{json.dumps(finding)}]')
            chromium.tamper(f"**/api/v1/incidents/{incident}", '"findings":[]', f'"findings":[{json.dumps(finding)}]')
            chromium.goto(f"{site}/console/agents/{name}")
            chromium.wait_for("h2:text-is('Findings')")
            assert ATTACK in chromium.text("main")
        chromium.click("text=its incident")
        chromium.wait_for("h2:text-is('What happened')")
        if verb == "Release the agent":
            assert chromium.text("main").count(ATTACK) >= 2, "the finding and the words of the incident"
            examine_page(chromium, "console-incident")
            chromium.be_honest()
            assert json.loads(chromium.download("text=Export JSON"))["incident_id"]
            chromium.click("text=Take it")
            confirm(chromium, "Take it", "I look at it")
            chromium.wait_for("dd:has-text('dora')")
            chromium.fill("[aria-label=Notes] textarea", f"told the owner {ATTACK}")
            chromium.click("text=Add note")
            chromium.wait_for("[aria-label=Notes] li:has-text('dora')")
            chromium.wait_for("[aria-label=Timeline] li:has-text('told the owner') >> text=Note")
            chromium.wait_for("[aria-label=Timeline] a:has-text('incident.take')")
            examine_page(chromium, "console-incident-notes")
            _check_bundle(tmp_path / "bundle.json", chromium.download("text=Export signed bundle"), incident)
        chromium.click(f"text={verb}")
        confirm(chromium, verb, "I know why")
        chromium.wait_for("body:not(:has(.page-head button.danger))")
        assert live_server.api("GET", f"/agents/{name}")["state"] == state
    chromium.goto(f"{site}/console/incidents")
    chromium.wait_for("h2:text-is('Closed')")
    assert ATTACK in chromium.text("main")
    assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')")


def test_a_person_rotates_the_secrets_that_the_agent_of_an_incident_read(chromium: Chromium, tmp_path: Path) -> None:
    with own_server(tmp_path) as server:
        reads = '@id("secrets") permit (principal is Agent, action, resource is Secret);'
        server.api("POST", "/policies", {"files": FILES | {"secrets.cedar": reads}})
        site = enter_console(server, chromium, "rhea", "administrator")
        name, credential = server.agent()
        path = f"secret/agents/{name}/shop"
        server.api("POST", "/secrets/put", {"path": path, "data": {"key": "x"}})
        with Agent.from_credential(credential) as agent:
            assert agent.secret(path).data == {"key": "x"}
        incident = server.api("POST", "/kill", {"what": "agent", "name": name, "why": "it lies"})["incident"]
        certificate = {"serial": "0a1b", "names": [f"shop.example {ATTACK}"], "not_after": 4_000_000_000}
        changed = f'"certificates":[{json.dumps(certificate)}]'
        chromium.tamper(f"**/api/v1/incidents/{incident}", '"certificates":[]', changed)
        chromium.goto(f"{site}/console/incidents/{incident}")
        chromium.wait_for("[aria-label='Secrets, leases and certificates'] li:has-text('0a1b')")
        assert ATTACK in chromium.text("main")
        examine_page(chromium, "console-incident-secrets")
        chromium.be_honest()
        chromium.click("text=Rotate the secrets")
        confirm(chromium, "Rotate the secrets")
        chromium.wait_for(f"[role=status]:has-text('Replace these yourself: {path}')")
        assert server.entries(action="incident.rotate")[0]["detail"]["to_replace"] == [path]


def _open_question(chromium: Chromium, site: str, ask: Callable[[], bool]) -> None:
    """Ask, and open the request that waits then."""
    assert not ask()
    chromium.goto(f"{site}/console/approvals")
    chromium.click("[aria-label=Waiting] a")
    chromium.wait_for(".answer-bar")


def _is_elevated(agent: Agent, scope: str) -> bool:
    """Return whether a request of an hour begins an elevation now; otherwise a person is asked."""
    try:
        with agent.elevate([scope], reason="to look", for_=60):
            return True
    except ApprovalNeeded:
        return False


def _check_bundle(path: Path, text: str, incident: str) -> None:
    """Check that the bundle of an incident proves that it was opened and taken, and the note."""
    path.write_text(text)
    bundle = json.loads(text)
    entries = [json.loads(one["entry"]) for one in bundle["receipts"]]
    assert {"incident.open", "incident.take", "incident.note"} <= {
        one["action"] for one in entries if one["object"] == incident
    }
    checked = run("audit", "check", path, "--key", bundle["key"], "--json").json
    assert checked["indexes"] == [one["index"] for one in bundle["receipts"]]


def _act(chromium: Chromium, verb: str, state: str) -> None:
    chromium.click(f".page-head button:text-is('{verb}')")
    confirm(chromium, verb, "a test")
    chromium.wait_for(f".lead .badge:text-is('{state}')")


def _keep(path: Path, credential: str) -> None:
    path.write_text(credential)
    path.chmod(0o600)


def test_the_console_shows_empty_states_agent_lists_and_saved_views(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    site = enter_console(live_server, chromium, "otto", "administrator")
    chromium.goto(f"{site}/console/incidents")
    chromium.wait_for("text=No open incidents")
    examine_page(chromium, "console-incidents")
    for n in range(3):
        body = {"name": f"worker-{n}", "owner": "otto", "purpose": f"{ATTACK} {n}"}
        live_server.api("POST", "/agents", body)
    live_server.api("POST", "/agents", body | {"name": "worker-that-reconciles-invoices-of-may"})
    chromium.goto(f"{site}/console/agents?state=pending")
    chromium.wait_for("text=worker-2")
    chromium.set_look(dark=False, width=1280)  # a narrow window leaves out the purpose
    chromium.wait_for("[role=table] [role=columnheader]:text-is('Purpose')")
    assert ATTACK in chromium.text("[role=table]")
    examine_page(chromium, "console-agents")
    chromium.check("[aria-label='Select worker-0']")
    chromium.check("[aria-label='Select worker-1']")
    chromium.wait_for("button:text-is('Suspend 2 agents')")
    assert ATTACK in chromium.download("text=Export CSV")
    running = [live_server.agent("any:read", owner="otto")[0] for _ in range(2)]
    chromium.goto(f"{site}/console/agents?state=active&sort=-created")
    chromium.click("text=Save this view")
    chromium.fill("input[name=view]", f"Running {ATTACK}")
    chromium.click("button:text-is('Save')")
    chromium.click("nav >> text=Agents")
    view = "[aria-label='Saved views'] a:has-text('Running')"
    chromium.wait_for(f"{view}:not([aria-current])")
    chromium.goto(f"{site}/console/agents")  # loaded again: the browser kept it
    chromium.click(view)
    assert "sort=-created" in chromium.wait_for_url("**/agents?*state=active*")
    chromium.wait_for(f"{view}[aria-current]")
    assert ATTACK[:40] in chromium.text("[aria-label='Saved views']")
    for name in running:
        chromium.check(f"[aria-label='Select {name}']")
    chromium.click("text=Suspend 2 agents")
    confirm(chromium, "Suspend 2 agents", "a test")
    chromium.goto(f"{site}/console/agents?state=suspended&sort=-created")
    for name in running:
        chromium.check(f"[aria-label='Select {name}']")
    chromium.click("text=Resume 2 agents")
    confirm(chromium, "Resume 2 agents", "a test")
    chromium.wait_for(f"main:not(:has([aria-label='Select {running[0]}']))")
    chromium.goto(f"{site}/console/agents?state=active&sort=-created")
    for name in running:
        chromium.check(f"[aria-label='Select {name}']")
    chromium.click("text=Move to a segment")
    chromium.fill("label:has-text('Segment') input", "sales")
    confirm(chromium, "Move 2 agents")
    assert [live_server.api("GET", f"/agents/{name}")["segment"] for name in running] == ["sales"] * 2
    for name in running:
        chromium.check(f"[aria-label='Select {name}']")
    chromium.click("text=Quarantine 2 agents")
    confirm(chromium, "Quarantine 2 agents", "a test")
    assert [live_server.api("GET", f"/agents/{name}")["state"] for name in running] == ["quarantined"] * 2
    chromium.wait_for(f"main:not(:has([aria-label='Select {running[0]}']))")
    live_server.api("POST", f"/agents/{running[0]}/decommission", {"why": "a test"})
    chromium.goto(f"{site}/console/agents?sort=-created")
    for name in running:
        chromium.check(f"[aria-label='Select {name}']")
    chromium.click("text=Move to a segment")
    chromium.wait_for(f"dialog:has-text('Move 1 agent to a segment'):not(:has-text('{running[0]}'))")
    chromium.click("dialog button:text-is('Cancel')")
    chromium.click("[aria-label^='Remove the view Running']")
    chromium.wait_for("main:not(:has([aria-label^='Remove the view']))")
    chromium.fill("input[type=search]", "no such agent")
    chromium.wait_for("text=No agent matches")
    assert "text=no" in chromium.url()
    chromium.goto(f"{site}/console/start")
    chromium.wait_for("text=The first denied call")
    examine_page(chromium, "console-start")
    assert chromium.goto(f"{site}/console/nowhere") == 200
    chromium.wait_for("text=There is no such page")
    assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')")


def test_a_page_that_is_opened_offline_shows_an_error_and_opens_at_the_next_try(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    enter_console(live_server, chromium, "nora", "viewer")
    chromium.wait_for("nav >> text=Tasks")
    chromium.set_offline(is_offline=True)
    chromium.click("nav >> text=Tasks")
    chromium.wait_for("text=The server does not answer")
    chromium.set_offline(is_offline=False)
    chromium.click("text=Try again")
    chromium.wait_for("h1:text-is('Tasks')")
    assert "The server does not answer" not in chromium.text()


def test_a_list_that_the_role_does_not_permit_is_not_called_empty(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    site = enter_console(live_server, chromium, "petra", "approver")
    chromium.goto(f"{site}/console/people")
    chromium.wait_for("text=None of your roles permits")
    assert "No persons yet" not in chromium.text("main")


def test_a_viewer_sees_only_permitted_controls_and_can_sign_out(live_server: ServerFixture, chromium: Chromium) -> None:
    site = enter_console(live_server, chromium, "vera", "viewer")
    chromium.wait_for("nav >> text=Agents")
    assert "First run" not in chromium.text("nav")
    key = {"access_key_id": "OSTK1", "expires_at": 9_999_999_999}
    chromium.tamper("**/agents/admin/access-keys", '"keys":[]', f'"keys":[{json.dumps(key)}]')
    chromium.tamper("**/agents/admin/holdings", '"ends":{', '"ends":{"access_key":1,')
    chromium.goto(f"{site}/console/agents/admin")
    chromium.wait_for("text=OSTK1")
    chromium.wait_for("p:has-text('A stop ends ')")
    assert "1 access key" not in chromium.text("main"), "the key is listed"
    assert not chromium.evaluate("!!document.querySelector('.page-head button')"), "no button that would be refused"
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login?return_to=*")
    assert live_server.api("GET", "/persons/vera/sessions")["sessions"] == []
    chromium.goto(f"{site}/console/agents?state=active")
    assert chromium.url().endswith("/login?return_to=%2Fconsole%2Fagents%3Fstate%3Dactive")
