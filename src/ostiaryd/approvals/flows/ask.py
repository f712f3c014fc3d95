"""Creation of approval requests. A repeated request for the same call returns the same approval request."""

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
    ApprovalState,
    Question,
)
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks.model import Task, standing_id

SECOND = 1_000_000


def ask(act: Act, *, kind: str, task: Task, digest: str, needs: Needs, about: About, config: Config) -> Question:
    """Return the newest approval request with this `digest`. If that request is neither open nor has an unused
    approval, create and return a new request.

    `kind`: the kind of the request: for a call, a plan, an elevation or a backchannel authentication. `digest`: the
    digest of exactly this call or other object, to which the approval is bound. `needs`: one `person` or `two`.
    `about`: the content of a new request. Raises Forbidden as `check_not_again` does; if persons denied this tool to
    the task `MAX_DENIED_OF_TOOL` times (`approval_denied`); and if the agent or the task has too many open requests, or
    the agent made too many within an hour (`too_many_questions`).
    """
    latest = store.find_latest(act.tx, digest)
    if latest is not None:
        registry.fill_entry(act, object=latest.approval_id)
        check_not_again(act, latest)
        if latest.state_at(act.now) is ApprovalState.APPROVED:
            return latest
        if latest.state_at(act.now) is ApprovalState.OPEN:
            store.note_again(act.tx, latest.approval_id)
            # another action than that of a new approval request, so that no second alert is sent
            act.entry.action = "approval.again"
            registry.fill_entry(act, object=latest.approval_id, times=latest.times + 1)
            return latest
    ends = act.now + config.question_lifetime_s * SECOND
    made = Question(
        approval_id=ApprovalId(act.new_id("ap")),
        kind=kind,
        agent=task.agent,
        task=task.task_id,
        digest=digest,
        needs=needs,
        state=ApprovalState.OPEN,
        about=about,
        times=1,
        asked_at=act.now,
        last_at=act.now,
        ends_at=ends if task.expires_at is None else min(ends, task.expires_at),
    )
    _check_room(act, task)
    _check_denied(act, made, task)
    registry.fill_entry(act, object=made.approval_id, kind=kind, needs=needs, ends_at=made.ends_at)
    store.insert(act.tx, made)
    return made


def check_not_again(act: Act, question: Question) -> None:
    """Check that the agent may request an approval again, given the newest approval request about the same call. Raises
    Forbidden if a person denied that request and its time has not passed (`approval_denied`), or if the limit
    `About.max_spent` of used approvals of this call is reached (`approval_spent`); a used approval counts until it
    expires.
    """
    state, id = question.state_at(act.now), question.approval_id
    if state is ApprovalState.DENIED and act.now < question.ends_at:
        raise Forbidden(
            f"a person denied the approval request ({id})",
            hint="continue without the denied action",
            code="approval_denied",
        )
    if state is ApprovalState.SPENT and (
        store.count_spent(act.tx, question.digest, now=act.now) >= question.about.max_spent
    ):
        raise Forbidden(
            f"the approval of this request was already used ({id})",
            hint="an approval can be used once; request another after the used approval has expired",
            code="approval_spent",
        )


def _check_room(act: Act, task: Task) -> None:
    """Check that the agent and the task do not have too many open approval requests, so that persons are not flooded.
    Raises Forbidden otherwise.
    """
    of_agent, of_task = store.count_open(act.tx, agent=task.agent, task=task.task_id, now=act.now)
    hint, code = "wait for the answers", "too_many_questions"
    if of_agent >= MAX_OPEN_OF_AGENT:
        raise Forbidden(f"{MAX_OPEN_OF_AGENT} approval requests of this agent wait for an answer", hint=hint, code=code)
    if of_task >= MAX_OPEN_OF_TASK:
        raise Forbidden(f"{MAX_OPEN_OF_TASK} approval requests of this task wait for an answer", hint=hint, code=code)
    if store.count_since(act.tx, task.agent, act.now - HOUR) >= MAX_ASKED:
        raise Forbidden(
            f"this agent has made {MAX_ASKED} approval requests within an hour",
            hint="send the request again when the oldest of them is more than an hour old",
            code=code,
        )


def _check_denied(act: Act, made: Question, task: Task) -> None:
    """Refuse an approval request about a tool for which persons denied two approval requests of this task. Raises
    Forbidden for such a request.

    Otherwise an agent could tire persons by many requests with slightly different values, or from several parts of a
    task. In a standing task, which has no end, a denial counts until the end of its approval request.
    """
    if made.kind != CALL.id:
        return
    standing = {standing_id(agent) for agent in (made.agent, *(AgentId(link.agent) for link in task.chain))}
    line = [task.task_id, *(link.task for link in task.chain)]
    top = next((id for id in reversed(line) if id not in standing), task.task_id)
    after = act.now if top in standing else 0
    if store.count_denied(act.tx, made.agent, top=top, tool=made.tool, after=after) >= MAX_DENIED_OF_TOOL:
        raise Forbidden(
            f"{MAX_DENIED_OF_TOOL} approval requests about `{made.tool}` were denied in this task",
            hint="continue without the tool, or start a new task in which the person's own words state the values",
            code="approval_denied",
        )
