"""A client made by others asks a person, who answers with a key of their own: CIBA on a real server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from tests.e2e.approver import approve, create_deputy
from tests.support.api_fixtures import claims_of
from tests.support.node import NODE

RESOURCE = "https://asked.example/mcp"


def test_openid_client_waits_for_a_person_and_acts_for_the_person(live_server: ServerFixture, tmp_path: Path) -> None:
    resource, _ = live_server.resource(RESOURCE)
    name, path = live_server.agent(f"{resource}:read")
    agent = live_server.api("GET", f"/agents/{name}")["agent_id"]
    with create_deputy(live_server, tmp_path, agent=name) as person:
        environment = {
            "PATH": os.environ["PATH"],
            "ISSUER": live_server.server.url,
            "CLIENT_ID": agent,
            "KEY": str(path),
            "RESOURCE": RESOURCE,
            "SCOPE": f"openid {resource}:read",
            "PERSON": person.client_id,
        }
        command = ["node", str(NODE / "ciba.mjs")]
        client = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            waiting = eventually(lambda: live_server.api("GET", "/approvals", state="open")["approvals"])
            assert (waiting[0]["kind"], waiting[0]["agent"]) == ("backchannel", name)
            approve(live_server, person, waiting[0]["approval_id"])
            output, errors = client.communicate(timeout=PATIENCE_S)
        finally:
            client.kill()
    assert client.returncode == 0, errors
    said = json.loads(output)
    claims = said["claims"]
    assert (said["interval"], said["answer"]["token_type"], said["answer"]["scope"]) == (5, "dpop", f"{resource}:read")
    assert (claims["sub"], claims["act"], claims["acr"]) == (person.client_id, {"sub": agent}, "urn:ostiary:acr:person")
    about = claims_of(said["answer"]["id_token"])  # openid-client has verified it
    assert (about["sub"], about["aud"], about["acr"]) == (person.client_id, agent, "urn:ostiary:acr:person")
    assert claims["cnf"] == {"jkt": said["thumbprint"]}
