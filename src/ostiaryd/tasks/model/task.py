"""A task and its states: `live`, ended by a caller (`done`, `failed`, `cancelled`), by its date (`expired`), or by the
silence of all holders (`lost`).

Every agent has a *standing task* for undeclared work. Its id is the id of the agent with another prefix, and its scopes
are the agent's scopes. A standing task has no row in the database, and ends with the agent.

A task may be *under* another one, of the same agent or of a delegating agent. Its access is never wider than that of
the task above, and it never ends later.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NewType

import msgspec

from ostiary.authorization.bounds import ToolDetail, render_details
from ostiary.authorization.budget import Limit
from ostiary.authorization.claims import Link
from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Invalid
from ostiary.protocol.jose import MAX_TOKEN_BYTES
from ostiary.provenance.intent import Intent
from ostiaryd.ground.process import ids
from ostiaryd.registry.model import Agent, AgentId, Caller, PersonId

TaskId = NewType("TaskId", str)
SECOND = 1_000_000
DEFAULT_TTL_S = 3600
MAX_TTL_S = 30 * 86_400
MAX_HEARTBEAT_S = 86_400
MAX_TASK_BYTES = MAX_TOKEN_BYTES
"""Maximum total size of purpose, bounds, budget and intent (without its plan) of a task, in bytes of canonical JSON,
because no token can contain more.
"""


class TaskTooLarge(Invalid):
    """The purpose, bounds, budget and intent (without its plan) of a task are together larger than `MAX_TASK_BYTES`."""

    code = "task_too_large"


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The declaration of a task."""

    agent: str
    """Name or id of the agent."""
    purpose: str
    bounds: Sequence[ToolDetail] = ()
    data_classes: Sequence[str] | None = None
    """Data classes: only tools whose classes are all in the list may be called. None for no limit."""
    budget: Sequence[Limit] = ()
    intent: Intent | None = None
    """The person's request: words, own values and endorsed documents. The intent can never change."""
    scopes: list[str] | None = None
    """Scopes of the task. None for all scopes of the agent, or of the parent."""
    on_behalf_of: str | None = None
    """Name or id of the person on whose behalf the task runs; None for no person."""
    ttl_s: int = DEFAULT_TTL_S
    heartbeat_s: int | None = None
    """Number of seconds without a heartbeat of any holder after which the task is lost; None for no heartbeat."""
    ends_with_last: bool = False
    """True if the task ends when its last holder leaves."""
    parent: str | None = None
    """Id of the parent, the task of which this is a part; None for none. An agent may give a part of its task to itself
    or to another agent.
    """
    unregistered: bool = True
    """True if the bounds may name https resources that are not registered."""
    is_counted: bool = True
    """True if the task counts towards the maximum number of the agent's tasks for a person. False if the caller limits
    their number in another way.
    """
    by: Caller | None = None
    """The caller that declares the task; None for the server itself."""


class TaskState(StrEnum):
    LIVE = "live"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"


OUTCOMES = (TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED)
"""States that a caller may give a task at its end; all others are caused by time or by missing heartbeats."""


def end_state(state: TaskState, outcome: TaskState) -> TaskState:
    """Return the state of a task that a caller ends with `outcome`. Raises Conflict if the task has already ended, and
    Invalid for an outcome that is not permitted.
    """
    if outcome not in OUTCOMES:
        raise Invalid(f"the outcome of a task must be one of {', '.join(OUTCOMES)}")
    if state is not TaskState.LIVE:
        raise Conflict(f"the task has already ended: {state}", code="task_ended")
    return outcome


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task. Times are in microseconds. A call must be within both `scopes` and `bounds` (conditions on arguments).
    Without bounds, only the scopes limit the calls.
    """

    task_id: TaskId
    agent: AgentId
    person: PersonId | None
    purpose: str
    scopes: frozenset[str]
    bounds: tuple[ToolDetail, ...]
    state: TaskState
    created_at: int
    expires_at: int | None
    """Time at which the task ends, in microseconds; None for a standing task."""
    ended_at: int | None = None
    parent: TaskId | None = None
    depth: int = 0
    """Number of tasks above this task, up to the task that is not a part of another."""
    chain: tuple[Link, ...] = ()
    """The tasks above this task with their agents, the nearest first. Empty unless the task was read with its chain
    (`with_chain`), because a decision needs the delegation chain.
    """

    restricted: tuple[str, ...] = ()
    """Ids of the agents of the delegation chain that are under a restriction (`registry.store.restrictions`). Empty
    unless the task was read with its chain (`with_chain`).
    """

    intent: str | None = None
    """Digest of the intent of the task, or of the task above; None for no intent."""
    memory: TaskId | None = None
    """Id of the task whose memory this task uses: its own, or a task above; None for no memory."""

    elevated: frozenset[str] = frozenset()
    """Scopes that the agent has only under this task, which is then an elevation."""

    heartbeat: int | None = None
    """Time without a heartbeat of any holder after which the task is lost, in microseconds; None for no heartbeat."""
    beat_until: int | None = None
    ends_with_last: bool = False

    def is_live(self, now: int) -> bool:
        """Return whether the task is live at `now` (microseconds), by its state, its end and the heartbeats of its
        holders.
        """
        return (
            self.state is TaskState.LIVE
            and (self.expires_at is None or now < self.expires_at)
            and (self.beat_until is None or now < self.beat_until)
        )

    def state_at(self, now: int) -> TaskState:
        """Return the state at `now` (microseconds)."""
        if self.state is not TaskState.LIVE or self.is_live(now):
            return self.state
        return TaskState.LOST if self.expires_at is None or now < self.expires_at else TaskState.EXPIRED


class Holder(msgspec.Struct, frozen=True):
    """A running copy of an agent that works on a task, under a name that the copy chose. Times are in microseconds."""

    holder: str
    since: int
    beat_at: int


class TaskDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="task"):
    """The message to guards that a task has ended. Guards can forget the message at the time `until` (microseconds),
    because all tokens of the task have expired by then.
    """

    task: TaskId
    until: int


def standing_id(agent: AgentId) -> TaskId:
    """Return the id of the standing task of an agent (for its work without a declared task): the agent's id with the
    prefix of tasks.
    """
    return TaskId(ids.standing_task(agent))


def standing_agent(task: str) -> AgentId:
    """Return the id of the agent whose standing task has the id `task`."""
    return AgentId(ids.standing_agent(task))


def standing_task(agent: Agent) -> Task:
    """Return the standing task of an agent, which exists for its work without a declared task. A standing task has no
    row in the database, so this function makes it from the agent's scopes.
    """
    return Task(
        task_id=standing_id(agent.agent_id),
        agent=agent.agent_id,
        person=None,
        purpose=agent.purpose,
        scopes=agent.scopes,
        bounds=(),
        state=TaskState.LIVE,
        created_at=agent.created_at,
        expires_at=None,
    )


def check_heartbeat(seconds: int | None, *, ends_with_last: bool) -> int | None:
    """Return a heartbeat interval in microseconds after checking that it is 1 second to 1 day (None for no heartbeat).
    Raises Invalid for another length, and for None together with `ends_with_last`.
    """
    if seconds is None:
        if ends_with_last:
            raise Invalid(
                "`end_with_last` needs a `heartbeat`, by which the server knows the last holder",
                hint="send a `heartbeat` too",
            )
        return None
    if not 1 <= seconds <= MAX_HEARTBEAT_S:
        raise Invalid(f"the heartbeat must be 1 to {MAX_HEARTBEAT_S} seconds")
    return seconds * SECOND


def check_size(
    *, purpose: str, bounds: Sequence[ToolDetail] = (), intent: Intent | None = None, budget: Sequence[Limit] = ()
) -> None:
    """Check that the purpose, bounds, budget and intent (without its plan) of a task have at most `MAX_TASK_BYTES`
    together. Raises TaskTooLarge otherwise.
    """
    without_plan = None if intent is None else msgspec.structs.replace(intent, plan=None)
    intent_bytes = 0 if without_plan is None else len(canonical.encode(msgspec.to_builtins(without_plan)))
    size = len(purpose.encode()) + len(canonical.encode(render_details(bounds))) + intent_bytes
    size += len(canonical.encode(msgspec.to_builtins(list(budget))))
    if size > MAX_TASK_BYTES:
        raise TaskTooLarge(
            f"purpose, bounds, intent and budget of the task have {size} bytes; the limit is {MAX_TASK_BYTES}",
            hint="name fewer tools, values or words, or divide the work into several tasks",
        )


def check_ttl(seconds: int) -> int:
    """Return a task's lifetime in microseconds after checking that it is 1 second to 30 days. Raises Invalid
    otherwise.
    """
    if not 1 <= seconds <= MAX_TTL_S:
        raise Invalid(f"the ttl must be 1 to {MAX_TTL_S} seconds")
    return seconds * SECOND


class Elevation(msgspec.Struct, frozen=True):
    """The record of an elevation: its task, whether it is break-glass access, the id of its approval (None if no
    approval was needed), and the time of its grant in microseconds.
    """

    task: TaskId
    is_break_glass: bool
    approval: str | None
    granted_at: int
