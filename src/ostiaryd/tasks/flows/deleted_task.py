"""The description of a deleted task, from the ledger."""

from __future__ import annotations

from typing import Literal, TypedDict

from ostiary.protocol.errors import Forbidden, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.tasks.model import SECOND

SHOWN = 100
"""Maximum number of ledger entries that are shown about a deleted task; the newest are shown."""
STARTED = ("task.start", "elevation.grant", "elevation.break_glass", "token.backchannel")


class TaskEvent(TypedDict):
    """A short form of an entry of the ledger about a task."""

    index: int
    at: int
    action: str
    outcome: str


class PrunedTask(TypedDict):
    """The description of a deleted task, from its entries in the ledger."""

    task_id: str
    state: Literal["pruned"]
    agent: str | None
    agent_id: str | None
    purpose: str
    parent: str | None
    outcome: str | None
    created_at: int
    ended_at: int | None
    history: list[TaskEvent]


def show_pruned(reader: Reader, id: str, *, by: Caller) -> PrunedTask:
    """Return the ledger's description of a deleted task: `state` is `pruned`. Times are seconds since the epoch.

    The task's agent, the agent's owner, and callers that may read everything may see it. Raises NotFound for an unknown
    task, Forbidden for any other caller.
    """
    begun = _start_entry(reader, id)
    detail = begun.detail or {}
    agent = registry.get_agent(reader, str(detail.get("agent") or begun.agent or ""))
    if not (by.may_read or (agent is not None and (by.id == agent.agent_id or _answers(reader, by, agent.agent_id)))):
        raise Forbidden("the task belongs to another agent", hint="an agent sees only its own tasks")
    entries = [(index, decode_entry(body)) for index, body in ledger.search_entries(reader, {"task": id}, limit=SHOWN)]
    ended = next((one for _, one in entries if one.action in ("task.end", "task.expire", "task.revoke")), None)
    return {
        "task_id": id,
        "state": "pruned",
        "agent": None if agent is None else agent.name,
        "agent_id": None if agent is None else agent.agent_id,
        "purpose": detail.get("purpose", ""),
        "parent": detail.get("parent") or None,
        "outcome": None if ended is None else (ended.detail or {}).get("outcome"),
        "created_at": begun.at // SECOND,
        "ended_at": None if ended is None else ended.at // SECOND,
        "history": [_line(index, entry) for index, entry in entries],
    }


def _start_entry(reader: Reader, id: str) -> Entry:
    """Return the entry that recorded the start of a task. Raises NotFound if there is none."""
    for action in STARTED if id.startswith("tk_") else ():
        for _, body in ledger.search_entries(reader, {"task": id, "action": action, "outcome": "ok"}, limit=SHOWN):
            if (entry := decode_entry(body)).object == id or entry.task == id:
                return entry
    raise NotFound(f"there is no task {id[:70]!a}", hint="`ostiary task list` lists the declared tasks")


def _answers(reader: Reader, by: Caller, agent: str) -> bool:
    return registry.answers_for(reader, by.id, registry.find_agent(reader, agent))


def _line(index: int, entry: Entry) -> TaskEvent:
    return {"index": index, "at": entry.at // SECOND, "action": entry.action, "outcome": entry.outcome}
