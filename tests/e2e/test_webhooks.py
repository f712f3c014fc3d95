"""A webhook as somebody sets it up: command line, real server, a receiver that verifies with a library of others."""

from __future__ import annotations

import json

from standardwebhooks import Webhook as Library

from harness.live_server import ServerFixture
from harness.patience import eventually
from tests.e2e.command_line import live_server, ostiary
from tests.support.webhook_receiver import receiving

__all__ = ["live_server"]


def test_a_webhook_is_added_tested_delivered_and_removed_by_commands(live_server: ServerFixture) -> None:
    with receiving() as receiver:
        made = ostiary(live_server, "webhook", "add", receiver.url, "--event", "agent.create")
        ostiary(live_server, "webhook", "test")
        name, _ = live_server.agent()
        eventually(lambda: len(receiver.heard) == 2)
        told = [Library(made["secret"]).verify(body, headers) for headers, body in receiver.heard]
        assert [one["type"] for one in told] == ["webhook.test", "agent.create"]
        assert told[1]["data"]["object"] == live_server.api("GET", f"/agents/{name}")["agent_id"]
        listed = eventually(lambda: [one for one in ostiary(live_server, "webhook", "list") if one["delivered"] == 2])
        assert "secret" not in listed[0]
        lines = {line["name"]: line for line in ostiary(live_server, "doctor")}
        assert lines["webhooks"]["state"] == "ok"
        ostiary(live_server, "webhook", "remove", made["webhook_id"])
        assert ostiary(live_server, "webhook", "list") == []


def test_a_chat_webhook_delivers_and_a_mail_webhook_needs_a_mail_server(live_server: ServerFixture) -> None:
    with receiving() as chat:
        made = ostiary(live_server, "webhook", "add", chat.url, "--form", "slack", "--event", "agent.create")
        assert "secret" not in made
        live_server.agent()
        eventually(lambda: chat.heard)
        assert json.loads(chat.heard[0][1])["text"] == "agent.create: admin"
        listed = eventually(lambda: [one for one in ostiary(live_server, "webhook", "list") if one["delivered"]])
        assert listed[0]["form"] == "slack"
        url, body = f"{live_server.server.url}/api/v1/webhooks", {"url": "mailto:a@example.org", "form": "mail"}
        refused = live_server.admin.request("POST", url, resource=f"{live_server.admin.issuer}/api/v1", json=body)
        assert (refused.status_code, refused.json()["message"]) == (422, "no mail server is configured")
        ostiary(live_server, "webhook", "remove", made["webhook_id"])
