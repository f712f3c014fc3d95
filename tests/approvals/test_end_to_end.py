"""A person is asked about a call at a guard of a real server, answers, and the call passes once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ostiary.agent import Agent
from ostiary.core import jose
from ostiary.core.access import Decision
from ostiary.guard import Guard, Verified
from ostiary.keys import save_key
from tests.feed.house import House
from tests.feed.test_fail_closed_end_to_end import enter
from tests.patience import eventually
from tests.server import running

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
                "amount": {"type": "integer"}, "to": {"type": "string"}, "note": {"type": "string"},
                "pin": {"type": "string"}, "format": {"type": "string"},
            },
        },
        "kinds": {"note": "text", "pin": "secret", "amount": "amount", "to": "account"},
        "presentation": ["format"],
    }
]  # fmt: skip
CALL = ("pay", {"amount": 500, "to": "ann", "note": "rent", "pin": "4711"})


class People:
    """A bank whose guard asks, an agent that pays there, and people who answer."""

    def __init__(self, house: House, uri: str = "") -> None:
        self.house = house
        self.uri = uri or f"https://{house.name('bank')}.example/mcp"
        self.resource, self.guard_key = house.resource(self.uri, TOOLS)
        self.team = house.name("team")
        house.api("POST", "/teams", {"name": self.team, "members": [house.owner()]})
        self.agent, self.agent_key = house.agent(f"{self.resource}:write", owner=self.team)
        self.everybody: list[Agent] = []

    def person(self) -> Agent:
        return self.person_and_key()[0]

    def person_and_key(self) -> tuple[Agent, Path]:
        key, name = jose.generate("ES256"), self.house.name("person")
        made = self.house.api("POST", "/persons", {"name": name, "jwk": dict(key.public.jwk)})
        self.house.api("PUT", f"/teams/{self.team}/members/{name}")
        path = self.house.folder / f"{name}.json"
        save_key(path, key, client_id=made["person_id"], issuer=self.house.server.url)
        self.everybody.append(Agent.from_credential(path))
        return self.everybody[-1], path

    def close(self) -> None:
        for one in self.everybody:
            one.close()

    def answer(self, by: Agent, id: str, says: str = "approve", reason: str = "it is due") -> tuple[int, Any]:
        response = by.post(
            f"{self.house.server.url}/api/v1/approvals/{id}/{says}", resource=f"{by.issuer}/api/v1",
            json={"reason": reason},
        )  # fmt: skip
        return response.status_code, response.json()

    def about(self, id: str) -> list[dict[str, Any]]:
        """The entries that name that approval: first the acts, then what the guard reported; each oldest first."""
        found = [
            one
            for one in reversed(self.house.entries(agent=self.agent_id, limit=200))
            if id in (one.get("object"), one.get("detail", {}).get("approval"))
        ]
        return sorted(found, key=lambda one: one["action"] == "tool.call")

    def called(self, count: int) -> None:
        """Wait until the guard has reported so many calls."""
        eventually(
            lambda: (
                sum(one["action"] == "tool.call" for one in self.house.entries(agent=self.agent_id, limit=200)) == count
            )
        )

    @property
    def agent_id(self) -> str:
        return str(self.house.api("GET", f"/agents/{self.agent}")["agent_id"])

    @contextmanager
    def guard(self, folder: Path, task: str | None = None) -> Iterator[tuple[Guard, Verified]]:
        with Guard(self.guard_key, spool_dir=folder) as guard:
            yield guard, enter(guard, self.agent_key, self.uri, task=task)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("asking")
    with running(folder / "server") as server:
        made = House(server, folder)
        made.api("POST", "/policies", {"files": FILES})
        yield made
        made.admin.close()


@pytest.fixture
def people(house: House) -> Iterator[People]:
    made = People(house)
    yield made
    made.close()


def test_a_call_that_needs_a_yes_is_asked_approved_spent_once_and_refused_after(people: People, tmp_path: Path) -> None:
    alice = people.person()
    with people.guard(tmp_path) as (guard, who):
        asked = guard.decide(who, *CALL).decision
        assert (asked.allowed, codes(asked), asked.policies) == (False, ["approval_needed"], ("large",))
        assert asked.reasons[0].message == "payments over 100"
        again = guard.decide(who, *CALL).decision
        assert (again.approval, codes(again)) == (asked.approval, ["approval_needed"])

        shown = people.house.api("GET", f"/approvals/{asked.approval}")
        assert shown["arguments"] == {"amount": 500, "to": "ann", "note": "rent"}
        assert (shown["hidden"], shown["outgoing"], shown["times"]) == (["pin"], {"note": "rent"}, 2)
        assert shown["reasons"] == [{"policy": "large", "message": "payments over 100"}]

        status, said = people.answer(alice, asked.approval)
        assert (status, said["state"]) == (200, "approved"), said
        spent = guard.decide(who, *CALL).decision
        assert (spent.allowed, spent.approval) == (True, asked.approval)
        after = guard.decide(who, *CALL).decision
        assert (after.allowed, codes(after)) == (False, ["approval_spent"])
        people.called(4)
    assert [(one["action"], one.get("outcome", "ok")) for one in people.about(asked.approval)] == [
        ("approval.ask", "ok"), ("approval.again", "ok"), ("approval.approve", "ok"), ("approval.spend", "ok"),
        ("approval.ask", "refused"), ("tool.call", "deny"), ("tool.call", "deny"), ("tool.call", "allow"),
    ]  # fmt: skip
