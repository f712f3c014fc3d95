"""A plan request: one approval request at the start of a task for all calls that would otherwise need one each.

Its lines are calls that people approved in earlier tasks of the agent, if the plan of the task contains their tool, or
the words of the task contain their counterpart. Calls for which no policy asks for approval are left out. With fewer
than two lines there is no plan request.
"""

from __future__ import annotations

from ostiary.decision.access import Policies
from ostiary.protocol import canonical
from ostiary.protocol.errors import Forbidden
from ostiary.provenance.extent import Extent, extent_of, identifying
from ostiary.provenance.origins import Memory, Origin, of_value
from ostiaryd.approvals.flows.ask import ask
from ostiaryd.approvals.flows.past import DAY, Agreed, list_approved_calls
from ostiaryd.approvals.model import PLAN, About, ApprovalLink, Line, Question, Why
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task

MIN_LINES, MAX_LINES = 2, 8
MIN_OCCASIONS = 2
"""Minimum number of earlier tasks (for the standing task: days) in which people approved the calls of a line: a single
approval may be a mistake, from which an attack must not profit.
"""


def ask_plan(act: Act, task_id: str, *, by: Caller, config: Config) -> Question | None:
    """Create the plan request of a task, or return the existing one: one approval request for several calls that the
    task will probably make and that would otherwise need an approval each. Return None if there are fewer than two such
    calls. The caller must be the task's agent or an administrator. Raises NotFound for an unknown task, Forbidden (a
    task of another agent, an ended task, and as `ask` does).
    """
    task = tasks.live(act.tx, task_id, now=act.now)
    registry.fill_entry(act, object=task.task_id)
    act.entry.agent, act.entry.task = task.agent, task.task_id
    if not by.is_admin and by.id != task.agent:
        raise Forbidden(
            "the task belongs to another agent",
            hint="an agent can request the plan only of its own tasks",
            code="not_your_task",
        )
    ours = policy.active_policies(act.tx)
    lines = [] if task.memory is None else _lines(act, task, ours, config)
    if len(lines) < MIN_LINES:
        # another action than that of a new approval request, so that no alert is sent
        act.entry.action = "approval.plan"
        registry.fill_entry(act, object=task.task_id, lines=len(lines))
        return None
    about = About(
        lines=lines,
        policy=ours.hash,
        person=task.person,
        reasons=[Why(PLAN, "people approved each of these calls in earlier tasks of this agent")],
        chain=[ApprovalLink(link.agent, link.task) for link in task.chain],
    )
    digest = act.entry.digest = canonical.digest([PLAN, task.task_id, [line.extent.counterpart for line in lines]])
    return ask(act, kind=PLAN, task=task, digest=digest, needs="person", about=about, config=config)


def _lines(act: Act, task: Task, ours: Policies, config: Config) -> list[Line]:
    memory = tasks.read_memory(act.tx, task, act.tx.keys).memory
    intent = tasks.intent_of(act.tx, task)
    planned = {one.tool for one in (intent.intent.plan or () if intent is not None else ())}
    answers = sorted(name for name in ours.covers if ours.asks[name] == "person" and not ours.approvers[name])
    lines = list[Line]()
    for one in list_approved_calls(act.tx, task.agent, since=act.now - config.replay_days * DAY):
        extent, tool = _extent(task, one, answers), one.ready.tool
        is_often = len(one.occasions) >= MIN_OCCASIONS and one.policies <= set(answers)
        if is_often and extent is not None and _is_likely(memory, one, planned):
            lines.append(
                Line(
                    resource=one.resource,
                    tool=tool.name,
                    effect=tool.effect.value,
                    arguments=one.named,
                    extent=extent,
                    times=len(one.approvals),
                )
            )
    return lines[:MAX_LINES]


def _extent(task: Task, one: Agreed, answers: list[str]) -> Extent | None:
    """Return the extent to which a line of a plan applies. Return None unless each policy that asks accepts the
    approval of one person for the counterpart.
    """
    return extent_of(
        one.ready.tool,
        one.named | one.amounts,
        agent=task.agent,
        task=task.task_id,
        resource=one.resource,
        secrets={},
        policies=answers,
        foreign={},
        warnings=(),
        outside="",
    )


def _is_likely(memory: Memory, one: Agreed, planned: set[str]) -> bool:
    """Return whether the task will probably make a call like `one`: the plan of the task contains the tool, or the
    person's words contain a part of the call.
    """
    origins = {of_value(memory, kind, value) for _, kind, value in identifying(one.ready.tool, one.named)}
    is_planned = one.ready.uid.id in planned
    is_said = Origin.PERSON in origins
    is_settled = is_planned and max(origins) <= Origin.ENDORSED
    return (is_planned or is_said) and not is_settled
