"""A payment resource whose policies require an approval, and the people who approve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture, authenticate, own_server
from harness.patience import eventually
from ostiary.agent import Agent
from ostiary.decision.access import Decision
from ostiary.guard import Guard, Verified
from ostiary.keys import save_key
from ostiary.protocol import jose

CEDAR = """
@id("issue") permit (principal is Agent, action == Action::"issue_token", resource);
@id("call") permit (principal is Agent, action == Action::"call", resource);
@id("large") @ask("person") @reason("payments over 100")
forbid (principal, action == Action::"call", resource)
when { context.arguments has amount && context.arguments.amount > 100 };
@id("huge") @ask("two") forbid (principal, action == Action::"call", resource)
when { context.arguments has amount && context.arguments.amount > 10000 };
@id("strange") @ask("person") forbid (principal, action == Action::"call", resource)
when { context.arguments has to && context.arguments.to == "mallory" };
@id("never-eve") forbid (principal, action == Action::"call", resource)
when { context.arguments has to && context.arguments.to == "eve" };
"""


SCHEMA = "type Arguments = { amount?: Long, to?: String };"


FILES = {"a.cedar": CEDAR, "a.cedarschema": SCHEMA}


TOOLS: list[dict[str, Any]] = [
    {
        "name": "pay",
        "effect": "pay",
        "arguments": {
            "type": "object",
            "properties": {
                "amount": {"type": "integer"},
                "to": {"type": "string"},
                "note": {"type": "string"},
                "pin": {"type": "string"},
                "format": {"type": "string"},
            },
        },
        "kinds": {"note": "text", "pin": "secret", "amount": "amount", "to": "account"},
        "presentation": ["format"],
    }
]


CALL = ("pay", {"amount": 500, "to": "ann", "note": "rent", "pin": "4711"})


class People:
    """A bank whose guard asks for approvals, an agent that pays at the bank, and people who answer."""

    def __init__(self, live_server: ServerFixture, uri: str = "") -> None:
        self.live_server = live_server
        self.uri = uri or f"https://{live_server.name('bank')}.example/mcp"
        self.resource, self.guard_key = live_server.resource(self.uri, TOOLS)
        self.team = live_server.name("team")
        live_server.api("POST", "/teams", {"name": self.team, "members": [live_server.owner()]})
        self.agent, self.agent_key = live_server.agent(f"{self.resource}:write", owner=self.team)
        self.everybody: list[Agent] = []

    def person(self) -> Agent:
        return self.person_and_key()[0]

    def person_and_key(self) -> tuple[Agent, Path]:
        key, name = jose.generate("ES256"), self.live_server.name("person")
        made = self.live_server.api("POST", "/persons", {"name": name, "jwk": dict(key.public.jwk)})
        self.live_server.api("PUT", f"/teams/{self.team}/members/{name}")
        path = self.live_server.folder / f"{name}.json"
        save_key(path, key, client_id=made["person_id"], issuer=self.live_server.server.url)
        self.everybody.append(Agent.from_credential(path))
        return self.everybody[-1], path

    def close(self) -> None:
        for one in self.everybody:
            one.close()

    def answer(self, by: Agent, id: str, says: str = "approve", reason: str = "it is due") -> tuple[int, Any]:
        response = by.post(
            f"{self.live_server.server.url}/api/v1/approvals/{id}/{says}",
            resource=f"{by.issuer}/api/v1",
            json={"reason": reason},
        )
        return response.status_code, response.json()

    def about(self, id: str) -> list[dict[str, Any]]:
        """Return the entries that name that approval: first the acts of the server, then the reports of the guard, each
        with the oldest first.
        """
        found = [
            one
            for one in reversed(self.live_server.entries(agent=self.agent_id, limit=200))
            if id in (one.get("object"), one.get("detail", {}).get("approval"))
        ]
        return sorted(found, key=lambda one: one["action"] == "tool.call")

    def called(self, count: int) -> None:
        """Wait until the guard has reported so many calls."""
        eventually(
            lambda: (
                sum(one["action"] == "tool.call" for one in self.live_server.entries(agent=self.agent_id, limit=200))
                == count
            )
        )

    @property
    def agent_id(self) -> str:
        return str(self.live_server.api("GET", f"/agents/{self.agent}")["agent_id"])

    @contextmanager
    def guard(self, folder: Path, task: str | None = None) -> Iterator[tuple[Guard, Verified]]:
        with Guard(self.guard_key, spool_dir=folder) as guard:
            yield guard, authenticate(guard, self.agent_key, self.uri, task=task)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    with own_server(tmp_path_factory.mktemp("asking")) as made:
        made.api("POST", "/policies", {"files": FILES})
        yield made


@pytest.fixture
def people(live_server: ServerFixture) -> Iterator[People]:
    made = People(live_server)
    yield made
    made.close()
