"""Tasks as JSON: a summary for lists, and the details of one task."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import msgspec

from ostiary.authorization.bounds import datatypes, render_details
from ostiaryd.ground.database import Reader
from ostiaryd.registry import flows as registry
from ostiaryd.tasks.flows.budgets import balances_of
from ostiaryd.tasks.flows.holding import holders
from ostiaryd.tasks.flows.intents import intent_of
from ostiaryd.tasks.model import SECOND, Task
from ostiaryd.tasks.model.budget import Balance


class TaskBody(TypedDict):
    """The summary of a task, which lists show. Times are in seconds since the epoch."""

    task_id: str
    agent: str
    agent_id: str
    parent: str | None
    depth: int
    purpose: str
    state: str
    on_behalf_of: str | None
    scopes: list[str]
    created_at: int
    expires_at: int | None
    ended_at: int | None
    elevated: NotRequired[list[str]]


class HolderBody(TypedDict):
    """A running copy of an agent that holds a task."""

    holder: str
    since: int
    heard_at: int


class TaskDetail(TaskBody):
    """A task with its bounds, budgets, intent and holders."""

    data_classes: list[str] | None
    bounds: list[dict[str, Any]]
    budgets: list[Balance]
    intent: NotRequired[dict[str, Any]]
    heartbeat: NotRequired[int]
    end_with_last: NotRequired[bool]
    holders: NotRequired[list[HolderBody]]


def show(reader: Reader, task: Task, *, now: int) -> TaskDetail:
    """Return the details of a task: its summary, bounds, remaining budgets, intent and holders.

    `data_classes` are all data classes to which the bounds are limited.
    """
    classes = datatypes(task.bounds) if task.bounds else None
    shown: TaskDetail = {
        **show_briefly(reader, task, now=now),  # type: ignore[typeddict-item]  # optional members follow
        "data_classes": None if classes is None else sorted(classes),
        "bounds": render_details(task.bounds),
        "budgets": balances_of(reader, task, now=now),
    }
    if (recorded := intent_of(reader, task)) is not None:
        statement = {"said_by": recorded.said_by.value, "who": recorded.stated_by, "digest": task.intent}
        shown["intent"] = msgspec.to_builtins(recorded.intent) | statement
    if task.heartbeat is None:
        return shown
    holder_rows: list[HolderBody] = [
        {"holder": one.holder, "since": one.since // SECOND, "heard_at": one.beat_at // SECOND}
        for one in holders(reader, task, now=now)
    ]
    shown["heartbeat"] = task.heartbeat // SECOND
    shown["end_with_last"] = task.ends_with_last
    shown["holders"] = holder_rows if task.is_live(now) else []
    return shown


def show_briefly(reader: Reader, task: Task, *, now: int) -> TaskBody:
    """Return the summary of a task, in the JSON form of the API."""
    shown: TaskBody = {
        "task_id": task.task_id,
        "agent": registry.find_agent(reader, task.agent).name,
        "agent_id": task.agent,
        "parent": task.parent,
        "depth": task.depth,
        "purpose": task.purpose,
        "state": task.state_at(now),
        "on_behalf_of": None if task.person is None else registry.find_person(reader, task.person).name,
        "scopes": sorted(task.scopes),
        "created_at": task.created_at // SECOND,
        "expires_at": None if task.expires_at is None else task.expires_at // SECOND,
        "ended_at": None if task.ended_at is None else task.ended_at // SECOND,
    }
    if task.elevated:
        shown["elevated"] = sorted(task.elevated)
    return shown
