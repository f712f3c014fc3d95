"""Telemetry of agents: an entry for each kind of act, marked as the agent's own report."""

from __future__ import annotations

from typing import Any

from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.registry.model import Caller
from ostiaryd.watch.model.telemetry import Done, Said


def take(act: Act, caller: Caller, done: dict[Said, Done], *, records: int, rejected: int) -> None:
    """`records`: how many were sent, the rejected ones among them."""
    act.entry.detail = {"records": records} | ({"rejected": rejected} if rejected else {})
    act.further_entries = [_entry(act, caller, said, counted) for said, counted in done.items()]


def _entry(act: Act, caller: Caller, said: Said, done: Done) -> Entry:
    detail: dict[str, Any] = {"count": done.count, "at": min(done.at or act.now, act.now)}
    detail |= {"tokens": done.tokens} if done.tokens else {}
    detail |= {"model": said.model} if said.model else {}
    detail |= {"threat": said.threat} if said.threat else {}
    return Entry(
        at=act.now,
        action=said.action,
        outcome=said.outcome,
        agent=caller.id,
        owner=caller.owner,
        task=caller.task,
        tool=said.tool or None,
        reporter=caller.id,
        detail=detail,
    )


def flood(act: Act, *, refused: int) -> None:
    """Record a flood of telemetry at a bounded rate, so that the detectors see it."""
    act.entry.detail = {"refused": refused}
