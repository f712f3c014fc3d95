"""A webhook as somebody sets it up: command line, real server, a receiver that verifies with a library of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Library

from tests.feed.house import House
from tests.patience import PATIENCE_S, eventually
from tests.respond.receiver import receiving
from tests.server import running


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server whose operator opens this machine for webhooks."""
    folder = tmp_path_factory.mktemp("house")
    (folder / "ostiary.toml").write_text('private_hosts = "127.0.0.1"\n')
    with running(folder / "server", "--config", str(folder / "ostiary.toml")) as server:
        made = House(server, folder)
        yield made
        made.admin.close()


def ostiary(house: House, *words: str) -> Any:
    command = [str(Path(sys.executable).parent / "ostiary"), "--json", *words]
    environment = os.environ | {"OSTIARY_DATA_DIR": str(house.server.folder)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode in (0, 5), run.stderr
    return json.loads(run.stdout)


def test_a_webhook_from_the_command_line_to_the_receiver(house: House) -> None:
    with receiving() as receiver:
        made = ostiary(house, "webhook", "add", receiver.url, "--event", "agent.create")
        ostiary(house, "webhook", "test")
        name, _ = house.agent()
        eventually(lambda: len(receiver.heard) == 2)
        told = [Library(made["secret"]).verify(body, headers) for headers, body in receiver.heard]
        assert [one["type"] for one in told] == ["webhook.test", "agent.create"]
        assert told[1]["data"]["object"] == house.api("GET", f"/agents/{name}")["agent_id"]
        listed = eventually(lambda: [one for one in ostiary(house, "webhook", "list") if one["delivered"] == 2])
        assert "secret" not in listed[0]
        lines = {line["name"]: line for line in ostiary(house, "doctor")}
        assert lines["webhooks"]["state"] == "ok"
        ostiary(house, "webhook", "remove", made["webhook_id"])
        assert ostiary(house, "webhook", "list") == []


def test_a_chat_from_the_command_line_and_mail_only_where_there_is_a_mail_server(house: House) -> None:
    with receiving() as chat:
        made = ostiary(house, "webhook", "add", chat.url, "--form", "slack", "--event", "agent.create")
        assert "secret" not in made
        house.agent()
        eventually(lambda: chat.heard)
        assert json.loads(chat.heard[0][1])["text"] == "agent.create: admin"
        listed = eventually(lambda: [one for one in ostiary(house, "webhook", "list") if one["delivered"]])
        assert listed[0]["form"] == "slack"
        url, body = f"{house.server.url}/api/v1/webhooks", {"url": "mailto:a@example.org", "form": "mail"}
        refused = house.admin.request("POST", url, resource=f"{house.admin.issuer}/api/v1", json=body)
        assert (refused.status_code, refused.json()["message"]) == (422, "no mail server is configured")
        ostiary(house, "webhook", "remove", made["webhook_id"])
