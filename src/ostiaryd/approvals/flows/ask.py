"""Asking, for whatever needs a person's yes. Who asks the same again waits for the same answer."""

from __future__ import annotations

from ostiary.decision.access import CALL, Needs
from ostiary.protocol.errors import Forbidden
from ostiaryd.approvals import store
from ostiaryd.approvals.model import (
    HOUR,
    MAX_ASKED,
    MAX_DENIED_OF_TOOL,
    MAX_OPEN_OF_AGENT,
    MAX_OPEN_OF_TASK,
    About,
    ApprovalId,
    Question,
    State,
)
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks.model import Task, standing_id

SECOND = 1_000_000


def ask(act: Act, *, kind: str, task: Task, digest: str, needs: Needs, about: About, config: Config) -> Question:
    """The question about just this: the one that waits, the yes that is good still, or a new one.

    `digest` is what a yes is bound to. Raises Forbidden where it was answered with no (`approval_denied`), where the
    yes was spent (`approval_spent`), both until their date, where people have denied this tool to the task
    (`approval_denied`), and where too much is asked (`too_many_questions`).
    """
    found = store.latest(act.tx, digest)
    if found is not None:
        registry.note(act, object=found.approval_id)
        check_not_again(found, now=act.now)
        if found.state_at(act.now) is State.APPROVED:
            return found
        if found.state_at(act.now) is State.OPEN:
            store.note_again(act.tx, found.approval_id)
            act.entry.action = "approval.again"  # another than that of a new question, so that nobody is told twice
            registry.note(act, object=found.approval_id, times=found.times + 1)
            return found
    ends = act.now + config.question_lifetime_s * SECOND
    made = Question(
        approval_id=ApprovalId(act.new_id("ap")),
        kind=kind,
        agent=task.agent,
        task=task.task_id,
        digest=digest,
        needs=needs,
        state=State.OPEN,
        about=about,
        times=1,
        asked_at=act.now,
        last_at=act.now,
        ends_at=ends if task.expires_at is None else min(ends, task.expires_at),
    )
    _check_room(act, task)
    _check_denied(act, made, task)
    registry.note(act, object=made.approval_id, kind=kind, needs=needs, ends_at=made.ends_at)
    store.insert(act.tx, made)
    return made


def check_not_again(found: Question, *, now: int) -> None:
    """A no holds until the question's date, and a yes is good for one call until its own: what comes again meanwhile is
    a retry, and bothers nobody. Raises Forbidden.
    """
    state, id = found.state_at(now), found.approval_id
    if state is State.DENIED and now < found.ends_at:
        raise Forbidden(f"a person has said no to it ({id})", hint="do something else", code="approval_denied")
    if state is State.SPENT and found.until is not None and now < found.until:
        raise Forbidden(
            f"the yes to it was spent already ({id})", hint="it was good for one call", code="approval_spent"
        )


def _check_room(act: Act, task: Task) -> None:
    """Raises Forbidden where a person would be flooded."""
    of_agent, of_task = store.count_open(act.tx, agent=task.agent, task=task.task_id, now=act.now)
    hint, code = "wait for the answers", "too_many_questions"
    if of_agent >= MAX_OPEN_OF_AGENT:
        raise Forbidden(f"{MAX_OPEN_OF_AGENT} questions of this agent wait for an answer", hint=hint, code=code)
    if of_task >= MAX_OPEN_OF_TASK:
        raise Forbidden(f"{MAX_OPEN_OF_TASK} questions of this task wait for an answer", hint=hint, code=code)
    if store.count_since(act.tx, task.agent, act.now - HOUR) >= MAX_ASKED:
        raise Forbidden(f"this agent has asked {MAX_ASKED} questions within an hour", hint="ask later", code=code)


def _check_denied(act: Act, made: Question, task: Task) -> None:
    """Two denied questions about a tool are the answer to all that follow in the task: to vary a value until somebody
    is tired helps nobody, nor does it to ask in one part of the task after the other. In a standing task, which has no
    end, it holds until the dates of these questions. Raises Forbidden.
    """
    if made.kind != CALL.id:
        return
    standing = {standing_id(agent) for agent in (made.agent, *(AgentId(link.agent) for link in task.chain))}
    line = [task.task_id, *(link.task for link in task.chain)]
    top = next((id for id in reversed(line) if id not in standing), task.task_id)
    after = act.now if top in standing else 0
    if store.count_denied(act.tx, made.agent, top=top, tool=made.tool, after=after) >= MAX_DENIED_OF_TOOL:
        raise Forbidden(
            f"{MAX_DENIED_OF_TOOL} questions about `{made.tool}` were denied in this task, so no more are asked",
            hint="do without the tool, or start a task that a person has said more about",
            code="approval_denied",
        )
