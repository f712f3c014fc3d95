"""A person who approves the requests of an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.live_server import ServerFixture
from ostiary.agent import Agent
from ostiary.keys import save_key
from ostiary.protocol import jose


def create_deputy(live_server: ServerFixture, folder: Path, *, agent: str) -> Agent:
    """Create the deputy of the owner of an agent, with a key, and return the identity of the deputy."""
    name, key = live_server.name("person"), jose.generate("ES256")
    body = {"name": name, "email": f"{name}@example.org", "jwk": dict(key.public.jwk)}
    made = live_server.api("POST", "/persons", body)
    owner = live_server.api("GET", f"/agents/{agent}")["owner"]
    live_server.api("PUT", f"/persons/{owner}/deputy", {"deputy": name})
    save_key(folder / f"{name}.json", key, client_id=made["person_id"], issuer=live_server.server.url)
    return Agent.from_credential(folder / f"{name}.json", url=live_server.server.url)


def approve(live_server: ServerFixture, person: Agent, approval: str) -> Any:
    api = f"{person.issuer}/api/v1"
    response = person.post(f"{api}/approvals/{approval}/approve", resource=api, json={"reason": "it is due"})
    assert response.status_code == 200, response.text
    return response.json()
