"""Connections and people in the console: states, what to do next, and tests that reach the other end."""

from __future__ import annotations

import json
from pathlib import Path

from harness.client_certificates import TestAuthority
from harness.live_server import ServerFixture, own_server
from harness.patience import eventually
from ostiary.agent import Agent
from ostiary.guard import Guard
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page
from tests.support.servers import live_server
from tests.support.webhook_receiver import receiving

__all__ = ["live_server"]
pytestmark = needs_console
ATTACK = "<img src=x onerror='window.attacked=1'>"


def test_the_console_tests_each_connection_against_its_remote_end(chromium: Chromium, tmp_path: Path) -> None:
    (tmp_path / "ostiary.toml").write_text('private_hosts = "127.0.0.1"\n')
    with own_server(tmp_path, "--config", str(tmp_path / "ostiary.toml")) as server, receiving() as hook:
        site = enter_console(server, chromium, "cora", "administrator")
        chromium.goto(f"{site}/console/connections")
        for words in ("Nobody is alerted yet", "No system receives signals", "No threat list", "No issuer is trusted"):
            chromium.wait_for(f"text={words}")
        examine_page(chromium, "console-connections-empty")

        uri = "https://files.example/mcp"
        resource, guard_key = server.resource(uri)
        with Guard(guard_key, spool_dir=tmp_path / "spool"):
            eventually(lambda: server.api("GET", "/feeds")["guards"])
            chromium.goto(f"{site}/console/connections")
            chromium.wait_for(f"#guards li:has-text('{resource}') >> text=1 guard")
            chromium.click("text=Test the guards now")
            chromium.wait_for("#guards >> text=in force after")
        [entry] = server.entries(action="feed.test")
        assert entry["person"] == server.api("GET", "/persons/cora")["person_id"]

        chromium.click("summary")
        chromium.fill("#webhooks input[name=url]", hook.url)
        chromium.click("#webhooks button:text-is('Add')")
        chromium.wait_for("text=shown only now")
        hook.answers = [(503, {"retry-after": "1"})]
        chromium.click("text=Send a test event")
        chromium.wait_for("#webhooks >> text=test arrived")
        assert [json.loads(body)["type"] for _, body in hook.heard] == ["webhook.test"] * 2, "the second try"

        _, key = server.agent("ostiary:ssf.read", "ostiary:ssf.manage")
        with Agent.from_credential(key) as receiver:
            api = f"{receiver.issuer}/api/v1"
            made = receiver.request("POST", f"{api}/ssf/streams", resource=api, json={}).json()
            chromium.goto(f"{site}/console/connections")
            chromium.click("text=Send a verification")
            chromium.wait_for("#streams >> text=waiting")

            def poll(**said: object) -> list[str]:
                body = {"returnImmediately": True} | said
                answer = receiver.request("POST", made["delivery"]["endpoint_url"], resource=api, json=body)
                return list(answer.json()["sets"])

            poll(ack=eventually(poll))
        chromium.wait_for("#streams >> text=test arrived")
        chromium.click("text=Send a verification")
        chromium.wait_for("text=a stream can be verified at most once in 60 seconds")

        hook.page, authority = b"evil.example\n", TestAuthority()
        server.api("POST", "/threat-lists", {"name": "evil", "url": hook.url, "form": "plain"})
        server.api("POST", "/trust-anchors", {"name": "partner", "certificate": authority.pem})
        chromium.goto(f"{site}/console/connections")
        hook.page += b"worse.example\n"
        chromium.click("#threats >> text=Test it now")
        chromium.wait_for("#threats >> text=1 new, 0 would go")
        hook.page = b""
        chromium.click("#threats >> text=Test it now")
        chromium.wait_for("#threats >> text=test failed")
        assert server.api("GET", "/threat-lists")["lists"][0]["count"] == 1
        chromium.click("#trust >> text=Test it now")
        chromium.wait_for("#trust >> text=accepted now")
        chromium.click("#trust >> text=Try a certificate")
        chromium.fill("dialog textarea", TestAuthority("CN=other").issue().pem)
        chromium.click("dialog button:text-is('Try')")
        chromium.wait_for("dialog >> text=leads to no trust anchor")
        examine_page(chromium, "console-trial")
        chromium.fill("dialog textarea", authority.issue().pem)
        chromium.click("dialog button:text-is('Try')")
        chromium.wait_for("dialog >> text=accepted")
        chromium.click("dialog button:text-is('Close')")

        chromium.click("text=Check everything now")
        chromium.wait_for("[aria-label=Experiments] >> text=webhooks")
        chromium.wait_for("[aria-label=Experiments] >> text=no guard is connected")
        examine_page(chromium, "console-connections")
        chromium.click("#webhooks >> text=Remove")
        chromium.click("dialog button:text-is('Remove')")
        chromium.wait_for("text=Nobody is alerted yet")
        assert server.api("GET", "/webhooks")["webhooks"] == []


def test_third_party_text_is_shown_as_text_and_a_viewer_sees_no_button_for_changes(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    site = enter_console(live_server, chromium, "vicky", "viewer")
    issuer = {
        "issuer_id": "is_1",
        "issuer": f"https://idp.example/{ATTACK}",
        "method": "push",
        "heard": 0,
        "heard_at": None,
        "verified_at": None,
        "trouble": ATTACK,
    }
    chromium.tamper("**/api/v1/issuers?*", '"issuers":[]', f'"issuers":[{json.dumps(issuer)}]')
    chromium.goto(f"{site}/console/connections")
    chromium.wait_for("#signals >> text=failing")
    assert chromium.text("#signals").count(ATTACK) == 2
    chromium.wait_for("#threats")
    assert "Webhooks" not in chromium.text("main"), "only administrators and auditors read webhooks"
    buttons = chromium.evaluate("[...document.querySelectorAll('main button')].map((one) => one.textContent)")
    assert buttons == ["Check everything now"]
    assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img[src=x]')")
    chromium.be_honest()


def test_an_administrator_adds_and_invites_a_person_and_grants_and_revokes_roles(
    live_server: ServerFixture, chromium: Chromium
) -> None:
    enter_console(live_server, chromium, "anna", "administrator")
    chromium.click("nav >> text=People")
    chromium.fill("input[name=name]", "nora")
    chromium.click("button:text-is('Add')")
    chromium.wait_for("text=was added")
    row = "li:has(> span:first-child bdi:text-is('nora'))"
    chromium.wait_for(row)
    chromium.select("[aria-label='Grant a role to nora']", "auditor")
    chromium.wait_for(f"{row} >> text=auditor")
    chromium.select("[aria-label='Grant a role to nora']", "viewer")
    chromium.wait_for(f"{row} >> [aria-label='Revoke viewer from nora']")
    chromium.click(f"{row} >> text=Invite")
    chromium.wait_for(f"{row} >> text=works once")
    examine_page(chromium, "console-people")
    chromium.click(f"{row} >> [aria-label='Revoke auditor from nora']")
    chromium.click("dialog button:text-is('Revoke the role')")
    chromium.wait_for("body:not(:has(dialog))")
    chromium.wait_for(f"{row}:not(:has([aria-label='Revoke auditor from nora']))")
    roles = [one["role"] for one in live_server.api("GET", "/roles")["roles"] if one["name"] == "nora"]
    assert roles == ["viewer"]
