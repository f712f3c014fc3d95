"""Findings, incidents and the people who close them."""

from __future__ import annotations

from typing import Any

from harness.registry_fixtures import create_person, run_act
from ostiary.provenance.noticing import Noticed
from ostiaryd.ground.world import World
from ostiaryd.incidents import store as store
from ostiaryd.incidents.flows import incidents as flows
from ostiaryd.incidents.flows.respond import respond
from ostiaryd.incidents.model.incidents import Incident, Limits, Verb
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry.model import APPROVE, Agent, Caller
from ostiaryd.watch import flows as watch

LIMITS = Limits(acted=10, halted=5)


async def report_finding(
    world: World, agent: Agent, points: int = 95, *, task: str | None = None, limits: Limits = LIMITS, by: str = "rate"
) -> Incident | None:
    """Store a finding of a detector about an agent."""
    saw = Noticed(detector=by, points=points, says="it does what it never did")

    def run(act: Any) -> Incident | None:
        found = watch.record_finding(act, saw, agent=agent.agent_id, task=task, entries=(1, 2))
        return respond(act, found, limits)

    return await run_act(world, run, "watch.find")


async def create_approver(world: World, name: str = "judith") -> Caller:
    """Register a person with a key, and return the person as an authenticated caller."""
    return Caller(
        kind="person", id=await create_person(world, name), name=name, owner=None, scopes=frozenset({APPROVE})
    )


async def close_incident(
    world: World, verb: Verb, incident: Incident, by: Caller, *, why: str = "looked at", **more: Any
) -> Incident:
    return await run_act(
        world, lambda a: flows.close(a, incident.incident_id, verb, why=why, by=by, **more), f"incident.{verb}"
    )


def responses_of(world: World, incident: Incident) -> list[tuple[str, str]]:
    return [(one.response, one.outcome) for one in store.list_responses(world.db.read(), incident.incident_id)]


def entries(world: World) -> list[Entry]:
    """Return all entries of the ledger, the oldest first."""
    found = ledger.search_entries(world.db.read(), {}, limit=1000)
    return [decode_entry(body) for _, body in reversed(found)]


def entries_of(world: World, action: str) -> list[Entry]:
    return [entry for entry in entries(world) if entry.action == action]
