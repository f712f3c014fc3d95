"""Certificates and authorities in the console: what is in force, a revocation, and the rotation of the authorities."""

from __future__ import annotations

from pathlib import Path

from harness.live_server import own_server
from ostiary.agent import Agent
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page

pytestmark = needs_console


def test_a_person_revokes_a_certificate_and_replaces_the_authorities(chromium: Chromium, tmp_path: Path) -> None:
    with own_server(tmp_path) as server:
        site = enter_console(server, chromium, "sela", "administrator")
        chromium.goto(f"{site}/console")
        chromium.click("nav >> text=Certificates")
        for words in ("No certificate is issued", "No authority exists yet"):
            chromium.wait_for(f"main >> text={words}")
        person = server.api("GET", "/persons/sela")["person_id"]
        name, credential = server.agent()
        with Agent.from_credential(credential) as agent:
            first, second = agent.certificate(), agent.certificate()

        chromium.goto(f"{site}/console/certificates")
        chromium.wait_for(f"#certificates li:has-text('spiffe://localhost/agent/{name}') >> text=live")
        examine_page(chromium, "console-certificates")
        chromium.click(f"[aria-label='Revoke {first.serial}']")
        chromium.wait_for(f"dialog >> text=1 certificate of {name} ends for good")
        chromium.click("dialog button:text-is('Revoke the certificate')")
        chromium.wait_for("#certificates li >> text=revoked")
        assert server.api("GET", f"/certificates/{first.serial}")["state"] == "revoked"
        [entry] = server.entries(action="cert.revoke")
        assert entry["person"] == person

        other, other_credential = server.agent()
        with Agent.from_credential(other_credential) as agent:
            for _ in range(51):
                agent.certificate()
        chromium.goto(f"{site}/console/certificates")
        chromium.wait_for("#certificates li:nth-of-type(50)")
        chromium.wait_for(f"#certificates:not(:has([aria-label='Revoke {second.serial}']))")
        chromium.click("text=Show older certificates")
        chromium.wait_for(f"[aria-label='Revoke {second.serial}']")
        chromium.wait_for("#certificates:not(:has-text('Show older certificates'))")
        chromium.goto(f"{site}/console/agents/{other}")
        chromium.click("text=All certificates")
        chromium.wait_for("#certificates li:nth-of-type(50)")
        chromium.goto(f"{site}/console/certificates?holder={name}")
        chromium.wait_for(f"#certificates:not(:has(li:nth-of-type(3))) [aria-label='Revoke {second.serial}']")
        chromium.fill("#certificates input", "sela")
        chromium.press("Enter")
        chromium.wait_for("#certificates >> text=No certificate of this holder")

        for kind in ("intermediate", "root"):
            chromium.click(f"text=Replace the {kind}")
            chromium.click(f"dialog button:text-is('Replace the {kind}')")
            chromium.wait_for("body:not(:has(dialog))")
        kinds = [one["kind"] for one in server.api("GET", "/authorities")["authorities"]]
        assert kinds.count("root") == 2
        assert kinds.count("intermediate") >= 2
        old = server.api("GET", f"/certificates/{second.serial}")["authority"]
        [subject] = [
            one["subject"] for one in server.api("GET", "/authorities")["authorities"] if one["authority_id"] == old
        ]
        chromium.click(f"[aria-label='Revoke {subject}']")
        chromium.click("dialog button:text-is('Revoke the intermediate')")
        chromium.wait_for(f"#authorities li:has-text('{subject}') >> text=revoked")
        assert server.api("GET", f"/certificates/{second.serial}")["state"] == "revoked"
