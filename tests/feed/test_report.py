"""Reports: each record becomes one entry, gaps are recorded, and records about other resources are refused."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from harness.registry_fixtures import create_holding, run_act
from ostiary.decision.report import CallRecord, Report, ResultRecord, UndecidedRecord
from ostiary.decision.report import RecordedReason as Why
from ostiary.protocol.errors import Forbidden, NotFound
from ostiary.provenance.noticing import Noticed
from ostiaryd.feed import flows
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource
from tests.support.feed_reports import SPOOL, URI, agent, call, report, resource, told

__all__ = ["agent", "resource"]

NETWORK = "203.0.113.0/24"


async def test_a_record_becomes_a_ledger_entry_with_its_reporter(
    world: World, resource: Resource, agent: Agent
) -> None:
    assert (
        await report(world, resource, 1, call(agent, actors=["ag_2"], reasons=[Why("why", "because")], network=NETWORK))
        == 2
    )
    [entry] = told(world)
    assert (entry.action, entry.outcome) == ("tool.call", "allow")
    assert (entry.agent, entry.owner, entry.task) == (agent.agent_id, agent.owner, "tk_1")
    assert (entry.tool, entry.resource, entry.reporter) == ("files/read_file", URI, resource.resource_id)
    assert (entry.token, entry.key, entry.digest) == ("tok_1", "thumbprint", "d")
    assert (entry.policy, entry.policies, entry.network) == ("h", ["p1"], NETWORK)
    assert entry.reasons[0].message == "because"
    assert entry.detail == {"spool": SPOOL, "number": 1, "at": 5, "actors": ["ag_2"]}
    assert entry.at == world.now()


async def test_findings_of_a_guard_are_in_the_ledger_entry(world: World, resource: Resource, agent: Agent) -> None:
    seen = Noticed(detector="canary", points=95, says="it touched what nobody should")
    await report(world, resource, 1, call(agent, noticed=[seen]), call(agent))
    odd, plain = told(world)
    assert odd.detail is not None
    assert odd.detail["noticed"] == [{"detector": "canary", "points": 95, "says": "it touched what nobody should"}]
    assert "noticed" not in (plain.detail or {})


async def test_an_outcome_is_in_the_entry_of_its_call_or_in_a_later_entry_of_its_own(
    world: World, resource: Resource, agent: Agent
) -> None:
    outcome = ResultRecord(at=6, call=1, status="ok", bytes=10, records=2, data_class="internal")
    await report(world, resource, 1, call(agent), outcome)
    [entry] = told(world)
    assert entry.result is not None
    assert (entry.result.status, entry.result.bytes, entry.result.records) == ("ok", 10, 2)
    assert entry.result.data_class == "internal"
    await report(world, resource, 3, call(agent))
    await report(world, resource, 4, ResultRecord(at=6, call=3, status="error"))
    late = told(world)[-1]
    assert late.action == "tool.result"
    assert late.detail is not None
    assert late.detail["call"] == 3
    assert late.result is not None
    assert late.result.status == "error"


async def test_calls_are_found_by_the_data_classes_of_the_tool_and_of_the_result(
    world: World, resource: Resource, agent: Agent
) -> None:
    await report(world, resource, 1, call(agent, data_classes=["health", "internal"]))
    await report(world, resource, 2, ResultRecord(at=6, call=1, status="ok", data_class="health"), call(agent))

    def found(name: str) -> list[str]:
        entries = ledger.search_entries(world.db.read(), {"data_class": name}, limit=9)
        return [decode_entry(body).action for _, body in entries]

    assert found("health") == ["tool.result", "tool.call"]
    assert found("internal") == ["tool.call"]
    assert found("secret") == []


async def test_an_undecided_call_is_attributed_only_with_the_token_of_the_agent(
    world: World, resource: Resource, agent: Agent
) -> None:
    def undecided(**changed: Any) -> UndecidedRecord:
        right: dict[str, Any] = {"at": 5, "tool": "rm", "outcome": "allow", "agent": agent.agent_id, "token": "tok_1"}
        return UndecidedRecord(**{**right, "reasons": [Why("feed_stale", "too old")], **changed})

    await create_holding(world, agent, "tok_2", audience="https://other.example.org", task="tk_1", jkt="thumbprint")
    foreign = (undecided(token=""), undecided(token="tok_2"), undecided(agent="ag_other"))
    await report(world, resource, 1, undecided(), *foreign, ResultRecord(at=6, call=2, status="ok"))
    found = [
        decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": "tool.undecided"}, limit=9)
    ]
    entries = found[::-1]
    assert [(entry.agent, entry.token) for entry in entries] == [(agent.agent_id, "tok_1"), *[(None, None)] * 3]
    claimed = [(entry.detail or {}).get("claimed_agent") for entry in entries]
    assert claimed == [None, agent.agent_id, agent.agent_id, "ag_other"]
    assert {(entry.tool, entry.outcome, entry.reasons[0].code) for entry in entries} == {
        ("files/rm", "allow", "feed_stale")
    }
    assert entries[1].result is not None


async def test_a_call_allowed_in_watch_mode_is_recorded_with_its_verdict(
    world: World, resource: Resource, agent: Agent
) -> None:
    await report(world, resource, 1, call(agent, verdict="deny", watched=["w1"]))
    [entry] = told(world)
    assert entry.outcome == "allow"
    assert entry.detail is not None
    assert (entry.detail["verdict"], entry.detail["watched"]) == ("deny", ["w1"])


async def test_a_repeated_report_changes_nothing(world: World, resource: Resource, agent: Agent) -> None:
    for _ in range(2):
        assert await report(world, resource, 1, call(agent), call(agent)) == 3
    assert len(told(world)) == 2
    assert await report(world, resource, 2, call(agent), call(agent)) == 4, "the part that is new counts"
    assert [entry.detail["number"] for entry in told(world) if entry.detail] == [1, 2, 3]
    assert await report(world, resource, 1, call(agent)) == 4


async def test_a_missing_record_number_is_recorded_as_a_gap(world: World, resource: Resource, agent: Agent) -> None:
    await report(world, resource, 1, call(agent))
    await report(world, resource, 4, call(agent))
    gap = told(world)[1]
    assert (gap.action, gap.outcome) == ("report.gap", "error")
    assert gap.detail == {"spool": SPOOL, "first": 2, "last": 3}
    assert gap.reporter == resource.resource_id
    await report(world, resource, 5, call(agent))
    assert [entry.action for entry in told(world)].count("report.gap") == 1
    await report(world, resource, 7, call(agent))
    assert told(world)[-2].detail == {"spool": SPOOL, "first": 6, "last": 6}


async def test_missing_records_at_the_start_of_a_spool_are_recorded_as_a_gap(
    world: World, resource: Resource, agent: Agent
) -> None:
    await report(world, resource, 3, call(agent))
    assert told(world)[0].detail == {"spool": SPOOL, "first": 1, "last": 2}


async def test_records_are_numbered_separately_for_each_spool(world: World, resource: Resource, agent: Agent) -> None:
    await report(world, resource, 1, call(agent))
    assert await report(world, resource, 1, call(agent), spool="1" * 32) == 2
    assert [entry.action for entry in told(world)] == ["tool.call", "tool.call"]


async def test_a_record_needs_a_token_of_its_agent_for_the_resource_of_the_reporter(
    world: World, resource: Resource, agent: Agent
) -> None:
    await create_holding(world, agent, "tok_2", audience="https://elsewhere.example.org")
    await create_holding(world, agent, "tok_3")
    wrong = [call(agent, token="tok_2"), call(agent, token="tok_3"), call(agent, token="no such token")]
    await report(world, resource, 1, *wrong, call(agent, agent="ag_of_somebody_else"), call(agent))
    entries = told(world)
    assert [entry.action for entry in entries] == ["report.refused"] * 4 + ["tool.call"]
    assert all(entry.agent is None for entry in entries[:4]), "nobody is blamed"
    assert [entry.reasons[0].message for entry in entries[1:4]] == [
        "the token is not for the resource of the reporter",
        "the token is unknown",
        "the token is not of the reported agent",
    ]
    assert {entry.reasons[0].code for entry in entries[:4]} == {"foreign_token"}


async def test_the_task_of_a_call_comes_from_its_token_and_not_from_the_report(
    world: World, resource: Resource, agent: Agent
) -> None:
    await report(world, resource, 1, call(agent, task="tk_of_another"))
    assert told(world)[0].task == "tk_1"


async def test_a_call_of_a_token_that_ended_afterwards_is_recorded(
    world: World, resource: Resource, agent: Agent
) -> None:
    await run_act(world, lambda a: registry.revoke_agent(a, agent.agent_id))
    await report(world, resource, 1, call(agent))
    assert told(world)[0].action == "tool.call"


async def test_a_report_into_the_spool_of_another_resource_is_refused(
    world: World, resource: Resource, agent: Agent
) -> None:
    other = await run_act(world, lambda a: registry.create_resource(a, name="mail", uri="https://mail.example.org"))
    await report(world, resource, 1, call(agent))
    with pytest.raises(Forbidden):
        await report(world, other, 2, call(agent))
    assert len(told(world)) == 1


async def test_a_report_that_is_refused_leaves_no_record(world: World, resource: Resource, agent: Agent) -> None:
    with pytest.raises(NotFound):
        await run_act(
            world,
            lambda a: flows.take_report(
                a, Report(spool=SPOOL, first=1, records=[call(agent)]), resource_id="rs_" + "0" * 32
            ),
        )
    assert told(world) == []


@pytest.mark.parametrize(
    ("network", "is_one"),
    [
        (NETWORK, True),
        ("2001:db8:1::/48", True),
        ("", True),
        ("::/48", True),
        ("203.0.113.7", False),
        ("203.0.113.0/25", False),
        ("203.0.113.7/24", False),
        ("2001:db8:1::7/48", False),
        ("2001:db8:1:2::/48", False),
        ("203.0.113.0/24\n", False),
        ("x/24", False),
        ("2001:db8:1111:2222:3333:4444:5555:6666:7/48", False),
    ],
)
def test_a_report_contains_a_network_and_not_an_address(network: str, is_one: bool) -> None:
    record = {"kind": "call", "at": 5, "token": "t", "agent": "a", "tool": "x", "outcome": "allow", "verdict": "allow"}
    with nullcontext() if is_one else pytest.raises(msgspec.ValidationError):
        assert msgspec.convert(record | {"network": network}, CallRecord).network == network
