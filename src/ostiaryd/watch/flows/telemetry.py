"""Telemetry of agents: writes one entry for each kind of act in an export, marked as the agent's own report."""

from __future__ import annotations

from typing import Any

from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.registry.model import Caller
from ostiaryd.watch.model.telemetry import Activity, Done


def record_activities(act: Act, caller: Caller, done: dict[Activity, Done], *, records: int, rejected: int) -> None:
    """Record an agent's export of telemetry in the ledger: one entry per kind of act (such as calls of one tool).
    `records` is the number of sent spans or log records, including the `rejected` ones.
    """
    act.entry.detail = {"records": records} | ({"rejected": rejected} if rejected else {})
    act.further_entries = [_entry(act, caller, activity, counted) for activity, counted in done.items()]


def _entry(act: Act, caller: Caller, activity: Activity, done: Done) -> Entry:
    detail: dict[str, Any] = {"count": done.count, "at": min(done.at or act.now, act.now)}
    detail |= {"tokens": done.tokens} if done.tokens else {}
    detail |= {"model": activity.model} if activity.model else {}
    detail |= {"threat": activity.threat} if activity.threat else {}
    return Entry(
        at=act.now,
        action=activity.action,
        outcome=activity.outcome,
        agent=caller.id,
        owner=caller.owner,
        task=caller.task,
        tool=activity.tool or None,
        reporter=caller.id,
        detail=detail,
    )


def record_flood(act: Act, *, refused: int) -> None:
    """Record in the ledger that an agent sends too much telemetry. `refused` is the number of refused exports. The
    detector `flood` makes a finding of the entry.
    """
    act.entry.detail = {"refused": refused}
