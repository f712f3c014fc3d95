"""The overview: its numbers are those of the database, and its next steps are the most urgent ones."""

from __future__ import annotations

import json
import re
from typing import Any

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, SECOND, call_admin_api, new_jwk, register_agent
from ostiary.provenance.noticing import Risk
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.incidents.wire_admin import overview
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from tests.support.sources import ROOT


async def show(world: World) -> dict[str, Any]:
    call = Call(world, "GET", "/api/v1/overview", {}, "", [], b"", "rq_1", ADMIN)
    answer = await overview.show_overview(call)
    assert isinstance(answer.body, bytes)
    shown: dict[str, Any] = json.loads(answer.body)
    return shown


async def decide(world: World, outcome: str, count: int) -> None:
    def record(act: Act) -> None:
        act.entry.outcome = outcome

    for _ in range(count):
        await act(world, "tool.call", record)


async def test_decisions_are_counted_in_the_interval_of_their_time(world: World, clock: Clock) -> None:
    await decide(world, "deny", 5)
    clock.now += 55 * SECOND
    await decide(world, "allow", 3)
    await decide(world, "deny", 1)
    clock.now += 10 * SECOND
    await decide(world, "allow", 2)
    clock.now += SECOND
    shown = (await show(world))["decisions"]
    assert shown["allowed"] == [0, 0, 0, 0, 3, 2]
    assert shown["denied"] == [0, 0, 0, 0, 1, 0], "the denials of 66 seconds ago are gone"
    assert (shown["allowed_per_s"], shown["denied_per_s"]) == (5 / 60, 1 / 60)


async def test_the_overview_counts_agents_and_changes_and_shows_the_checkpoint(world: World, clock: Clock) -> None:
    agents = [await register_agent(world, name) for name in ("a", "b", "c")]
    await call_admin_api(world, "POST", "/agents/a/suspend", {"why": "a test"})
    status, _ = await call_admin_api(world, "POST", "/agents/a/suspend", {"why": "a refused attempt changes nothing"})
    assert status == 409

    def raise_risks(act: Act) -> None:
        for agent, points in zip(agents, (60, 20, 19), strict=True):
            registry.put_risk(act.tx, agent.agent_id, Risk(points * 1000, act.now))

    await act(world, "watch.find", raise_risks)
    clock.now += SECOND
    shown = await show(world)
    assert shown["agents"] == {"total": 3, "state": {"active": 2, "suspended": 1}, "high": 1, "raised": 2}
    assert shown["changes"] == {"agent.suspend": 1}
    assert shown["checkpoint"]["at"] == shown["now"] - 1
    clock.now += overview.DAY - SECOND
    assert (await show(world))["changes"] == {"agent.suspend": 1}
    clock.now += 1
    assert (await show(world))["changes"] == {}


async def test_the_overview_shows_at_most_three_steps_with_the_most_urgent_first(world: World, clock: Clock) -> None:
    steps = (await show(world))["steps"]
    assert [step["kind"] for step in steps] == ["resource", "agent"], "an empty server"
    await register_agent(world, "a", has_key=False)
    await register_agent(world, "b")
    await call_admin_api(world, "POST", "/agents/b/decommission", {"why": "a test"})
    body = {"name": "files", "uri": "https://files.example/mcp", "mode": "watch"}
    status, made = await call_admin_api(world, "POST", "/resources", body)
    assert status == 201, made
    clock.now += 5 * SECOND
    shown = await show(world)
    assert shown["guards"] == {"connected": 0, "behind": 0, "missing": []}, "a resource without a key has no guard"
    assert [(step["kind"], step["count"]) for step in shown["steps"]] == [("watching", 1), ("pending", 1)]
    await call_admin_api(world, "PUT", "/resources/files/key", {"jwk": new_jwk()})
    await act(world, "kill.start", lambda act: registry.stop(act, "everything", "", why="a test", by=None))
    shown = await show(world)
    assert shown["guards"]["missing"] == ["files"]
    assert [(step["kind"], step["count"]) for step in shown["steps"]] == [("guards", 1), ("stops", 1), ("watching", 1)]


def test_the_console_has_a_label_for_each_change_that_the_overview_counts() -> None:
    text = (ROOT / "console/src/pages/overview.tsx").read_text("utf-8")
    words = text.partition("const CHANGES")[2].partition("};")[0]
    assert tuple(re.findall(r'^  "([a-z._]+)": \[', words, re.M)) == overview.CHANGES
