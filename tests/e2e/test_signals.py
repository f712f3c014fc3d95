"""Signals through a real server: a provider reports a person, and a third-party receiver gets our events.

The provider's tokens are signed by joserfc, the receiver (`tests/node/ssf.mjs`) is made of oauth4webapi and jose.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import COMMAND, Server
from ostiary import Agent
from ostiary.client.target import TokenRefused
from ostiary.keys import save_key
from ostiary.protocol import jose
from tests.support.identity_provider import CAEP, RISC, providing

NODE = Path(__file__).parents[1] / "node"
RESOURCE = "https://files.example.org/mcp"


def enrol(server: Server, folder: Path, name: str, owner: str, *scopes: str) -> Path:
    """A new agent: its credential."""
    key, path = jose.generate("ES256"), folder / f"{name}.json"
    public = folder / f"{name}.jwk"
    public.write_text(json.dumps(dict(key.public.jwk)))
    words = [word for scope in scopes for word in ("--scope", scope)]
    made = server.ostiary(
        "agent", "create", name, "--owner", owner, "--purpose", "a test", "--jwk", str(public), *words
    )
    save_key(path, key, client_id=made["agent_id"], issuer=server.url)
    return path


def get_token(credential: Path) -> None:
    """Get a token with a new agent object, which has no stored token."""
    with Agent.from_credential(credential) as agent:
        agent.token(resource=RESOURCE)


def examined(server: Server) -> dict[str, str]:
    """Return the state of each line of `ostiary doctor`."""
    command: list[str | Path] = [COMMAND, "--data-dir", server.folder, "--json", "doctor"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return {line["name"]: line["state"] for line in json.loads(run.stdout)}


def push(made: dict[str, Any], token: str) -> int:
    headers = {"content-type": "application/secevent+jwt", "authorization": made["authorization_header"]}
    return httpx2.post(made["endpoint_url"], content=token, headers=headers).status_code


def test_a_credential_compromise_signal_stops_the_agents_of_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTIARY_PRIVATE_HOSTS", "127.0.0.1")
    with providing() as idp, PreparedServer(tmp_path / "data") as server:
        idp.now()
        server.ostiary("person", "create", "olga", "--email", "olga@example.org")
        server.ostiary("person", "create", "paul", "--email", "paul@example.org")
        server.ostiary("resource", "create", "files", "--uri", RESOURCE)
        writer = enrol(server, tmp_path, "writer", "olga", "files:read")
        siem = enrol(server, tmp_path, "siem", "paul", "ostiary:ssf.read", "ostiary:ssf.manage")
        environment = {
            "PATH": os.environ["PATH"],
            "ISSUER": server.url,
            "CLIENT_ID": json.loads(siem.read_text())["client_id"],
            "KEY": str(siem),
        }
        with subprocess.Popen(
            ["node", NODE / "ssf.mjs"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as receiver:
            assert receiver.stdout is not None
            assert receiver.stderr is not None
            first = receiver.stdout.readline()
            assert first, receiver.stderr.read()
            stands = json.loads(first)
            assert (stands["made"], stands["asked"]) == (201, 204)
            uri = "https://schemas.openid.net/secevent/ssf/event-type/verification"
            assert stands["verified"]["events"][uri] == {"state": "a state of our own"}

            made = server.ostiary("signal", "trust", idp.issuer, "--domain", "example.org", "--audience", server.url)
            subject = {"format": "email", "email": "olga@example.org"}
            assert push(made, idp.token(f"{CAEP}session-established", subject, aud=server.url)) == 202
            get_token(writer)
            told = idp.token(f"{RISC}credential-compromise", subject, {"credential_type": "password"}, aud=server.url)
            assert push(made, told) == 202
            assert push(made, told) == 202, "it may come again"
            assert push(made, told[:-9] + "A" * 9) == 400
            with pytest.raises(TokenRefused):
                get_token(writer)

            said, errors = receiver.communicate(timeout=PATIENCE_S)
            assert receiver.returncode == 0, errors
        heard = json.loads(said)
        revoked = [one["payload"] for one in heard["heard"] if f"{CAEP}session-revoked" in one["payload"]["events"]]
        assert heard["ended"] == 204
        olga = server.ostiary("person", "show", "olga")["person_id"]
        writers = json.loads(writer.read_text())["client_id"]
        assert {one["sub_id"]["sub"] for one in revoked} == {olga, writers}
        assert all(one["txn"].isdecimal() for one in revoked)
        (issuer,) = server.ostiary("signal", "issuers")
        assert (issuer["issuer"], issuer["heard"], issuer["trouble"]) == (idp.issuer, 2, "")
        (stop,) = server.ostiary("kill", "list")
        assert (stop["what"], stop["name"]) == ("owner", olga)
        assert stop["why"] == f"credential-compromise, according to {idp.issuer}"
        refused = server.ostiary("audit", "search", "--outcome", "refused", "--action", "signal.receive")
        assert refused[0]["reasons"][0]["code"] == "authentication_failed"
        assert examined(server)["signals"] == "ok"
        assert server.ostiary("signal", "streams") == []
