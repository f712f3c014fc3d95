"""The blast radius of an incident: the tools that the agent called, the resources within its reach, its secrets and
certificates, the agents to and from which it delegated, and similar agents.

Computed on demand from the newest entries of the ledger, the registry and the tasks. Each list has a maximum length;
`is_cut` says whether the entries were cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from typing import Any

from ostiary.protocol.errors import NotFound
from ostiaryd.certs import flows as certs
from ostiaryd.certs.model import Certificate
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.incidents.flows import exposure
from ostiaryd.incidents.model.incidents import HOUR, SECOND, Incident
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentId
from ostiaryd.secrets import flows as secrets
from ostiaryd.secrets.model.pki import PkiCertificate
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, standing_id
from ostiaryd.watch import flows as watch

BEFORE = 24 * HOUR
"""Microseconds before the opening of the incident that the blast radius includes."""
MAX_ENTRIES = 1000
MAX_TASKS = 200
MAX_LIKE = 20
MAX_RESOURCES = 3
"""Number of resources, the most called first, whose other callers are listed."""


def blast(reader: Reader, incident: Incident, *, now: int) -> dict[str, Any]:
    """Return the blast radius of an incident as JSON: the objects to which its agent had access. Each list is cut to
    its maximum length. Certificates are listed if they are valid at `now` (microseconds).
    """
    agent = registry.find_agent(reader, incident.agent)
    since = incident.opened_at - BEFORE
    entries = find_entries(reader, incident)
    delegates, through = find_delegations(reader, incident, entries)
    certificates: list[Certificate | PkiCertificate] = [
        *certs.list_live(reader, agent.agent_id, now=now, limit=MAX_LIKE),
        *secrets.list_certificates(reader, agent.agent_id, now=now, limit=MAX_LIKE),
    ]
    return {
        "touched": _touched(entries),
        "is_cut": len(entries) == MAX_ENTRIES,
        "reachable": {
            "scopes": sorted(agent.scopes),
            "data_classes": sorted(registry.classes_within(reader, agent.scopes)),
        },
        "secrets": exposure.render(reader, agent.agent_id, limit=MAX_LIKE),
        "certificates": [
            {"serial": one.serial, "names": [str(name) for name in one.names], "not_after": one.not_after // SECOND}
            for one in certificates
        ],
        "delegated_to": _names(reader, delegates),
        "acted_for": _names(reader, through),
        "alike": _alike(reader, agent, entries, since=since),
    }


def find_entries(reader: Reader, incident: Incident) -> list[Entry]:
    """Return the newest ledger entries of the incident's agent in the span of the incident (`span`), at most
    `MAX_ENTRIES`.
    """
    since, until = span(incident)
    return _entries(reader, {"agent": incident.agent, "since": since, "until": until}, limit=MAX_ENTRIES)


def span(incident: Incident) -> tuple[int, int]:
    """Return the span of time that an incident covers, as (start, end) in microseconds since the epoch: from 24 hours
    before its opening to an hour after its end, without an end while the incident is open.
    """
    return incident.opened_at - BEFORE, (incident.closed_at or 1 << 62) + HOUR


def _entries(reader: Reader, where: dict[str, str | int], *, limit: int) -> list[Entry]:
    return [decode_entry(body) for _, body in ledger.search_entries(reader, where, limit=limit)]


def _touched(entries: list[Entry]) -> list[dict[str, Any]]:
    """Return the tools that the agent called, the most called first, each with the numbers of allowed and
    denied calls.
    """
    decided = [entry for entry in entries if entry.tool and entry.outcome in ("allow", "deny")]
    calls = Counter((entry.resource or "", entry.tool or "", entry.outcome) for entry in decided)
    classes: dict[tuple[str, str], set[str]] = {}
    for entry in decided:
        if entry.tool and entry.outcome == "allow":
            classes.setdefault((entry.resource or "", entry.tool), set()).update(entry.data_classes)
    tools = Counter[tuple[str, str]]()
    for (resource, tool, _), count in calls.items():
        tools[resource, tool] += count
    return [
        {
            "resource": resource,
            "tool": tool,
            "allowed": calls[resource, tool, "allow"],
            "denied": calls[resource, tool, "deny"],
            "data_classes": sorted(classes.get((resource, tool), ())),
        }
        for (resource, tool), _ in tools.most_common(MAX_LIKE)
    ]


def find_delegations(reader: Reader, incident: Incident, entries: list[Entry]) -> tuple[set[AgentId], set[AgentId]]:
    """Return two sets of agent ids: the agents to which the incident's agent delegated parts of its tasks, and the
    agents that delegated parts of their tasks to the incident's agent.

    Considered are the agent's live tasks, and the tasks of `entries` and of the incident's findings, which may have
    ended.
    """
    agent = AgentId(incident.agent)
    named = {entry.task for entry in entries if entry.task} | {
        one.task_id for one in tasks.list_live_tasks(reader, agent)
    }
    named |= set(watch.list_tasks_of_incident(reader, incident.incident_id))
    under: list[Task] = []
    over: list[Task] = []
    for id in (standing_id(agent), *sorted(named, reverse=True)[:MAX_TASKS]):
        try:
            task = tasks.find_task(reader, id)
        except NotFound:  # the task was deleted long after its end, or a reporter named a task that never existed
            continue
        if task.agent != agent:
            continue
        over += tasks.above(reader, task)
        if len(under) < MAX_TASKS:
            under += tasks.tree(reader, task, Page(MAX_TASKS, ""))
    return {one.agent for one in under} - {agent}, {one.agent for one in over} - {agent}


def _alike(reader: Reader, agent: Agent, entries: list[Entry], *, since: int) -> dict[str, list[str]]:
    """Return the names of agents that may have the same defect, in three lists: `owner` and `model` (agents of the same
    owner or model) and `tool` (agents that called the same resources since `since`).
    """
    touched = Counter(entry.resource for entry in entries if entry.tool and entry.resource)
    callers = {
        entry.agent
        for resource, _ in touched.most_common(MAX_RESOURCES)
        for entry in _entries(reader, {"resource": str(resource), "since": since}, limit=MAX_ENTRIES)
        if entry.agent is not None
    }
    return {
        "owner": _but(agent, registry.list_agents_of_owner(reader, agent.owner, limit=MAX_LIKE + 1)),
        "model": _but(agent, registry.list_agents_of_model(reader, agent.model, limit=MAX_LIKE + 1)),
        "tool": _names(reader, callers - {agent.agent_id}),
    }


def _but(agent: Agent, others: list[Agent]) -> list[str]:
    return [one.name for one in others if one.agent_id != agent.agent_id][:MAX_LIKE]


def _names(reader: Reader, ids: AbstractSet[str]) -> list[str]:
    similar = (registry.get_agent(reader, id) for id in sorted(ids)[:MAX_LIKE])
    return [one.name for one in similar if one is not None]
