"""Learned argument kinds: the record fields from which arguments take their values, counted in the reports of guards.

For each pair of argument and source field, the server counts the different tasks and the different agents, each up to
64. After 5 tasks, the guards of the resource get the fact (`ResourceFact.learned`), and then ask people more questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple, TypedDict

from ostiary.provenance.sources import Source
from ostiaryd.feed import store
from ostiaryd.feed.store import ArgumentSource
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.registry.flows import queue_for_guards
from ostiaryd.registry.model import Resource, ResourceDelta

MAX_ROWS = 1024
"""maximum number of pairs (argument, source field) of a resource; further pairs are not counted"""
MAX_COUNTED = 64
"""number at which the counts of tasks and agents stop; 64 stands for 64 or more"""
WIDTH = 6
"""number of bytes of the stored digest of a task's or an agent's id"""
LEARNED = 5
"""number of different tasks after which the kind of an argument counts as learned"""


class ObservedSource(NamedTuple):
    """An observation in a report: the called tool, the argument and the source field of its value, the agent and the
    task.
    """

    tool: str
    source: Source
    agent: str
    task: str


def learn_sources(act: Act, resource: Resource, observed: Iterable[ObservedSource]) -> None:
    """Count the sources of the arguments in the calls of one report. Tools that the catalogue does not list are
    skipped.
    """
    changed: dict[tuple[str, Source], tuple[ArgumentSource, int]] = {}
    for one in observed:
        name = one.tool, one.source
        row, before = changed.get(name) or _source_row(act, resource, *name)
        changed[name] = row._replace(tasks=_with(row.tasks, one.task), agents=_with(row.agents, one.agent)), before
    if not changed:
        return
    tools, room = (
        prepared_resource(act.tx, resource).tools,
        MAX_ROWS - store.count_sources(act.tx, resource.resource_id),
    )
    for row, before in changed.values():
        if row.tool not in tools or row.source_tool not in tools or (before == 0 and room <= 0):
            continue
        room -= before == 0
        store.put_source(act.tx, resource.resource_id, row)
        if before < LEARNED * WIDTH <= len(row.tasks):
            queue_for_guards(act, ResourceDelta(resource.resource_id))


def _source_row(act: Act, resource: Resource, tool: str, source: Source) -> tuple[ArgumentSource, int]:
    """Return the stored row of a source, or a new row, and the number of bytes of the digests of its tasks."""
    fresh = ArgumentSource(tool, source.argument, source.tool, source.field, b"", b"")
    row = store.source(act.tx, resource.resource_id, fresh) or fresh
    return row, len(row.tasks)


def _with(digests: bytes, name: str) -> bytes:
    mark = sha256(name.encode()).digest()[:WIDTH]
    counted = {digests[at : at + WIDTH] for at in range(0, len(digests), WIDTH)}
    return digests if mark in counted or len(counted) >= MAX_COUNTED else digests + mark


class SourceOfArgument(TypedDict):
    """An argument of a tool, a field of tool results (`source_tool`, `source_field`) from which the argument took
    values, and the numbers of tasks and agents with such a call, each at most 64.
    """

    tool: str
    argument: str
    source_tool: str
    source_field: str
    tasks: int
    agents: int


def argument_sources(reader: Reader, resource_id: str) -> list[SourceOfArgument]:
    """Return the sources of all arguments at a resource, those with the most tasks first."""
    rows = sorted(store.sources(reader, resource_id), key=lambda row: (-len(row.tasks), row))
    return [
        {
            "tool": row.tool,
            "argument": row.argument,
            "source_tool": row.source_tool,
            "source_field": row.source_field,
            "tasks": len(row.tasks) // WIDTH,
            "agents": len(row.agents) // WIDTH,
        }
        for row in rows
    ]


def learned(reader: Reader, resource_id: str) -> list[tuple[str, str]]:
    """Return the arguments of tools, as (tool, path in the arguments), that took values from one field of results in at
    least `LEARNED` tasks.
    """
    rows = store.sources(reader, resource_id)
    return sorted({(row.tool, row.argument) for row in rows if len(row.tasks) >= LEARNED * WIDTH})
