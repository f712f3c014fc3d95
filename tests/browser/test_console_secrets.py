"""Secrets and connected accounts in the console: what was never read, rotation, deletion, and the end of an account."""

from __future__ import annotations

from pathlib import Path

from harness.live_server import own_server
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console
from tests.support.pictures import examine_page
from tests.support.token_provider import CLIENT, SECRET, token_provider
from tests.support.webhook_receiver import receiving

pytestmark = needs_console


def test_a_person_finds_unread_secrets_rotates_and_deletes_secrets_and_disconnects_accounts(
    chromium: Chromium, tmp_path: Path
) -> None:
    (tmp_path / "ostiary.toml").write_text('private_hosts = "127.0.0.1"\n')
    with (
        own_server(tmp_path, "--config", str(tmp_path / "ostiary.toml")) as server,
        receiving() as service,
        token_provider() as upstream,
    ):
        site = enter_console(server, chromium, "sela", "administrator")
        chromium.goto(f"{site}/console/secrets")
        for words in ("No value is stored in this folder", "No value rotates", "No lease is in force", "open"):
            chromium.wait_for(f"main >> text={words}")
        person = server.api("GET", "/persons/sela")["person_id"]
        for name in ("db", "mail"):
            server.api("POST", "/secrets/put", {"path": f"secret/app/{name}", "data": {"password": "first"}})
        server.api("POST", "/secrets/get", {"path": "secret/app/db"})
        rotation = {"path": "secret/app/db", "member": "password", "url": service.url, "period": 86_400, "grace": 600}
        server.api("POST", "/secrets/rotations", rotation)

        chromium.goto(f"{site}/console/secrets?only=unread")
        chromium.wait_for("#values li:has-text('secret/app/mail') >> text=never read")
        assert "secret/app/db" not in chromium.text("#values")
        chromium.select("#values select", "")
        chromium.wait_for("#values li:has-text('secret/app/db') >> text=last read by admin")
        examine_page(chromium, "console-secrets")
        chromium.click("#rotations >> text=Rotate now")
        chromium.wait_for("dialog >> text=stays in force at the service for 10 minutes")
        chromium.click("dialog button:text-is('Rotate now')")
        chromium.wait_for("#rotations >> text=old value in force")
        assert len(service.heard) == 1
        [entry] = server.entries(action="rotation.request")
        assert entry["person"] == person
        chromium.click("[aria-label='Delete secret/app/mail']")
        chromium.wait_for("dialog >> text=Its value was never read")
        chromium.click("dialog button:text-is('Delete the secret')")
        chromium.wait_for("#values:not(:has-text('secret/app/mail'))")
        assert server.api("GET", "/secrets", folder="secret/app/")["names"] == ["db"]

        provider = {
            "name": "code",
            "label": "Code",
            "client_id": CLIENT,
            "client_secret": SECRET,
            "scopes": ["notes:read"],
            "authentication": "client_secret_basic",
            "authorization_endpoint": f"{upstream.issuer}/authorize",
            "token_endpoint": f"{upstream.issuer}/token",
            "revocation_endpoint": f"{upstream.issuer}/revoke",
        }
        server.api("POST", "/account-providers", provider)
        chromium.click("nav >> text=Accounts")
        chromium.wait_for("text=No account is connected")
        chromium.click("[aria-label='Connect your account at Code']")
        chromium.click("text=Go on to Code")
        location = chromium.wait_for_url(f"{upstream.issuer}/authorize*")
        answer = upstream.grant(location)
        chromium.goto(f"{site}/accounts/code/callback?code={answer['code']}&state={answer['state']}")
        chromium.wait_for("text=Agents with access now")
        chromium.goto(f"{site}/console/accounts")
        chromium.wait_for("#accounts li:has-text('sela') >> text=No agent has access now")
        examine_page(chromium, "console-accounts")
        chromium.click("[aria-label='Disconnect code of sela']")
        chromium.wait_for("dialog >> text=1 account ends, with the access of 0 agents")
        chromium.click("dialog button:text-is('Disconnect the account')")
        chromium.wait_for("text=No account is connected")
        assert upstream.live == {}, "the refresh token was revoked at the provider"
        assert server.entries(action="account.end")[0]["person"] == person
