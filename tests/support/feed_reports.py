"""Reports that a guard delivers."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import create_holding, register_agent, run_act
from ostiary.decision.report import CallRecord, Report, ResultRecord, UndecidedRecord
from ostiaryd.feed import flows
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource

SPOOL = "0" * 32


URI = "https://files.example.org/mcp"


@pytest.fixture
async def resource(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI))


@pytest.fixture
async def agent(world: World, resource: Resource) -> Agent:
    """Return an agent with a token for the resource."""
    agent = await register_agent(world)
    await create_holding(world, agent, "tok_1", audience=URI, task="tk_1", jkt="thumbprint")
    return agent


def call(caller: Agent, **changed: Any) -> CallRecord:
    right: dict[str, Any] = {
        "at": 5,
        "token": "tok_1",
        "agent": caller.agent_id,
        "task": "tk_1",
        "tool": "read_file",
        "outcome": "allow",
        "verdict": "allow",
        "digest": "d",
        "policy": "h",
        "policies": ["p1"],
    }
    return CallRecord(**{**right, **changed})


async def report(
    world: World,
    resource: Resource,
    first: int,
    *records: CallRecord | UndecidedRecord | ResultRecord,
    spool: str = SPOOL,
) -> int:
    told = Report(spool=spool, first=first, records=list(records))
    return await run_act(world, lambda a: flows.take_report(a, told, resource_id=resource.resource_id), "feed.report")


def told(world: World) -> list[Entry]:
    """Return the entries that the reports of guards caused, the oldest first."""
    found = [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {}, limit=100)]
    kinds = ("tool.call", "tool.result", "report.gap", "report.refused")
    return [entry for entry in reversed(found) if entry.action in kinds]
