"""Answers of persons: a person approves or denies an approval request. After the last needed approval, the call may
pass once.
"""

from __future__ import annotations

from typing import Any

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.approvals import store
from ostiaryd.approvals.flows.ask import SECOND
from ostiaryd.approvals.flows.calls import find_question
from ostiaryd.approvals.flows.cover import begin_covers, read_covers
from ostiaryd.approvals.flows.responsible import check_responsible
from ostiaryd.approvals.model import (
    Answer,
    ApprovalState,
    Narrowing,
    Question,
    Says,
    check_alone,
    check_may_answer,
    check_open,
    check_reason,
    check_stated,
    narrow,
    state_after,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tokens import flows as tokens

DAY = 86_400_000_000
LONGEST_YES_DAYS = 2
"""Days after the end of an approval request after which no approval of the request is valid any more: the maximum of
`approval_lifetime_s` is a day, and one day is a reserve.
"""
FORGOTTEN_AT_ONCE = 1000
WHOLE = Narrowing()
"""The narrowing of an answer that leaves nothing out: the approval covers the whole approval request."""


def answer(
    act: Act,
    id: str,
    says: Says,
    *,
    reason: str,
    by: Caller,
    config: Config,
    covers: str | None = None,
    narrowing: Narrowing = WHOLE,
    value: str | None = None,
    is_listed: bool = False,
) -> Question:
    """Record a person's answer `says` (approve or deny) to the approval request `id`, and return the request with its
    new state.

    `covers`: `call` approves this call alone, `task` also similar calls of the task; None: similar calls too, if the
    policies allow that and the call does not pay, destroy or administer. `narrowing`: parts of the request that the
    person does not approve; if two persons must approve, the second person gets the narrower request. `value`: the
    person's own statement of the value of the argument `must_state`, if the request has that argument. `is_listed`: the
    person approves several requests at the same time.

    1. The caller must be a person who is not in the delegation chain of the request. 2. The person must be permitted to
    answer, as `check_responsible` says. 3. The request must be open, and its task and agent active. 4. Each person
    answers once. 5. One denial settles the request, and ends earlier approvals that cover similar calls. 6. Once enough
    persons have approved, the approval is valid for one call, until its end and while the keys that signed the answers
    are valid.

    Raises NotFound for an unknown request, Forbidden (`own_chain`, `no_person`, `another_person`, `not_your_agent`,
    `approve_alone`, `value_needed`, `value_differs`, and for a task or an agent that has ended), Conflict
    (`question_settled`, `answered_already`), Invalid for `reason`, `covers` or `narrowing` that do not fit the request.
    """
    question = find_question(act, id)
    _note(act, question, says=says.value)
    person = check_may_answer(question, by)
    check_responsible(act.tx, question, person, everything=config.approvers_of_all, now=act.now)
    text = check_reason(reason)
    check_open(question, now=act.now)
    task = tasks.live(act.tx, question.task, now=act.now)
    if says is Says.DENY and narrowing != WHOLE:
        raise Invalid(
            "`strike`, `uses` and `at_most` cannot be used in a denial, which is for the whole request",
            hint="approve, and leave out the parts that must not run",
        )
    if says is Says.APPROVE:
        if is_listed:
            check_alone(question)
        check_stated(question, value)
    covering = says is Says.APPROVE and read_covers(question.about, covers)
    new_answer = Answer(person=person, says=says, reason=text, jkt=by.jkt, at=act.now, covers=covering)
    before = store.answers(act.tx, id)
    if any(one.person == person for one in before):
        raise Conflict(
            "you have already answered this approval request",
            hint="if a second approval is needed, another person must give it",
            code="answered_already",
        )
    if narrowing != WHOLE:
        question = narrow(question, narrowing, covers=covering)
        store.replace_about(act.tx, id, question.about)
        registry.fill_entry(
            act, object=id, strike=sorted(narrowing.strike), uses=narrowing.uses, at_most=narrowing.at_most
        )
    store.insert_answer(act.tx, id, new_answer)
    before = [one for one in before if not registry.is_revoked_key(act.tx, one.jkt)]
    state = state_after(question, before, new_answer)
    registry.fill_entry(act, object=id, reason=text, state=state.value, digest=question.digest)
    if state is ApprovalState.OPEN:
        return question
    store.settle(act.tx, id, state)
    tokens.settle_backchannel(act.tx, id, is_approved=state is ApprovalState.APPROVED)
    if state is ApprovalState.APPROVED:
        until = act.now + config.approval_lifetime_s * SECOND
        until = until if task.expires_at is None else min(until, task.expires_at)
        _hold(act, question, [*before, new_answer], until=until, narrowing=narrowing)
    elif question.about.counterpart:  # a denial that is newer than the approval of similar calls
        store.end_covers(act.tx, task=question.task, counterpart=question.about.counterpart)
    return find_question(act, id)


def _hold(act: Act, question: Question, answers: list[Answer], *, until: int, narrowing: Narrowing) -> None:
    """Store the approval with its end, for one call or, as the answers say, for similar calls during the task."""
    id = question.approval_id
    policy.hold_approval(
        act,
        id,
        agent=question.agent,
        task=question.task,
        digest=question.digest,
        policies=question.about.policies,
        until=until,
        keys=[one.jkt for one in answers if one.jkt],
    )
    has_covers = begin_covers(act, question, answers, narrowing.strike)
    registry.fill_entry(act, object=id, until=until, covers="task" if has_covers else "call")


def expire(act: Act, id: str) -> None:
    """Mark an open approval request whose time has passed as expired. Raises NotFound for an unknown approval request,
    and Conflict if the request is settled already or its time has not passed.
    """
    question = find_question(act, id)
    _note(act, question)
    if question.state is not ApprovalState.OPEN:
        raise Conflict(f"the approval request is already {question.state}")
    if act.now < question.ends_at:
        raise Conflict("the time of the approval request has not passed yet")
    store.settle(act.tx, id, ApprovalState.EXPIRED)


def cancel(act: Act, id: str) -> Question:
    """Cancel an open approval request, so that no person can answer it, and return the request. Raises NotFound for an
    unknown approval request, and Conflict if the request is not open.
    """
    question = find_question(act, id)
    _note(act, question)
    check_open(question, now=act.now)
    store.settle(act.tx, id, ApprovalState.CANCELLED)
    return find_question(act, id)


async def expire_due(world: World, *, limit: int = 100) -> int:
    """Mark at most `limit` open approval requests whose time has passed as expired, each in a transaction and a ledger
    entry of its own; return the number of these requests.
    """
    now = world.now()
    due = await world.db.scan(lambda reader: store.due(reader, now=now, limit=limit))
    return await registry.act_on_each(world, "approval.expire", expire, due)


async def forget(world: World) -> int:
    """Delete at most `FORGOTTEN_AT_ONCE` settled approval requests whose time ended more than `replay_days` days ago
    (at least two days, so that no approval of them is still valid); return the number of deleted requests. The ledger
    keeps the digest of each request, and the person who answered.
    """
    before = world.now() - max(world.config.replay_days, LONGEST_YES_DAYS) * DAY
    return await world.writer.submit(lambda tx: store.forget(tx, before=before, limit=FORGOTTEN_AT_ONCE))


def _note(act: Act, question: Question, **detail: Any) -> None:
    """Record in the entry the agent of an approval request and the person who answered."""
    entry = act.entry
    if entry.agent is None:
        entry.agent, entry.task = question.agent, question.task
    entry.tool = question.tool or None
    registry.fill_entry(act, object=question.approval_id, **detail)
