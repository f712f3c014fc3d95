"""The behaviour of an agent for people: scopes that its calls used, and its tools against those of its peers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.registry_fixtures import create_holding, new_jwk, register_agent, run_act
from ostiary.authorization.catalogue import Catalogue
from ostiaryd.feed.flows import behaviour, describe_behaviour
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Kind, Resource
from tests.support.feed_reports import URI, call, report

TOOLS = [{"name": "read_file", "effect": "read"}, {"name": "write_file", "effect": "write"}]
SCOPES = ["files:read", "files:write", "gone:read", "mail:read"]


@pytest.fixture
async def resource(world: World) -> Resource:
    catalogue = Catalogue.parse(msgspec.json.encode({"resource": "files", "tools": TOOLS}))
    made = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))
    await run_act(world, lambda a: registry.create_resource(a, name="mail", uri="https://mail.example/mcp"))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue))
    return made


async def _agent(world: World, name: str, **more: Any) -> Agent:
    agent = await register_agent(world, name, scopes=SCOPES, **more)
    for number in range(2):
        await create_holding(world, agent, f"{name}_{number}", audience=URI, task=f"tk_{name}_{number}", seconds=3600)
    return agent


async def test_a_scope_without_calls_is_unused_only_where_calls_are_reported(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, peer = await _agent(world, "reader"), await _agent(world, "peer")
    other_kind = await _agent(world, "service", kind=Kind.SERVICE)

    def describe() -> behaviour.BehaviourBody:
        return describe_behaviour(world.db.read(), agent, now=world.now())

    assert {one["use"] for one in describe()["scopes"]} == {"unknown"}, "an agent that did nothing shows no needs"
    await report(world, resource, 1, call(agent, token="reader_0"), call(agent, token="reader_1"))
    await report(world, resource, 3, call(peer, token="peer_0"), call(other_kind, token="service_0"))
    await report(world, resource, 5, call(agent, token="reader_0", tool="write_file", outcome="deny", verdict="deny"))
    shown = describe()
    assert {one["scope"]: one["use"] for one in shown["scopes"]} == {
        "files:read": "used",
        "files:write": "unused",
        "gone:read": "unused",
        "mail:read": "unknown",
    }
    [files] = shown["resources"]
    assert (files["resource"], files["tasks"], files["peers"]) == ("files", 2, 1)
    assert files["tools"] == [
        {"tool": "read_file", "scope": "files:read", "tasks": 2, "untrusted": 0, "peers": 1},
        {"tool": "write_file", "scope": "files:write", "tasks": 0, "untrusted": 0, "peers": 0},
    ]
    monkeypatch.setattr(behaviour, "MAX_RESOURCES", 1)
    limited = {one["scope"]: one["use"] for one in describe()["scopes"]}
    assert (limited["files:write"], limited["mail:read"]) == ("unused", "unknown"), "unread resources are no evidence"
    assert len(shown["days"]) == behaviour.DAYS
    assert shown["days"][-1] == 3


async def test_acts_of_a_day_are_counted_to_the_limit(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await _agent(world, "busy")
    await report(world, resource, 1, *(call(agent, token="busy_0") for _ in range(4)))
    for most, counted in ((3, 3), (4, 4), (5, 4)):
        monkeypatch.setattr(behaviour, "MAX_ACTS", most)
        assert describe_behaviour(world.db.read(), agent, now=world.now())["days"][-1] == counted
