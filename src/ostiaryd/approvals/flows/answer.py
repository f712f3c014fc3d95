"""Answering: a person says yes or no, and the last yes that is needed is held until it is spent."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ostiary.protocol.errors import Conflict
from ostiaryd.approvals import store
from ostiaryd.approvals.flows.ask import SECOND
from ostiaryd.approvals.flows.calls import find_question
from ostiaryd.approvals.flows.cover import begin_covers, check_strike, read_covers
from ostiaryd.approvals.flows.responsible import check_responsible
from ostiaryd.approvals.model import (
    Answer,
    Question,
    Says,
    State,
    check_may_answer,
    check_open,
    check_reason,
    settled,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policies
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tokens import flows as tokens

DAY = 86_400_000_000
LONGEST_YES_DAYS = 2
"""No yes is good for longer after the end of its question (the upper limit of `approval_lifetime_s` is a day)."""
FORGOTTEN_AT_ONCE = 1000


def answer(
    act: Act,
    id: str,
    says: Says,
    *,
    reason: str,
    by: Caller,
    config: Config,
    covers: str | None = None,
    strike: Collection[int] = (),
) -> Question:
    """Say yes or no to a question. `covers`: whether a yes is to the `call` alone, or to calls like it for the rest of
    the `task`; left out: to the call alone if it pays, destroys or administers. `strike`: lines of a plan, from 1, to
    which the yes is not.

    1. Who answers is a person, nobody through whom it came, and one whom each policy that asks lets: whom it names, or
    else who answers for the agent, for whom it acts, or who may answer everything. 2. It waits still, and who asks may
    still act. 3. Each person answers once. 4. One no settles it; as many yes as it needs are good for one call until
    their date, and while the keys are good with which they were said. A no ends what an earlier yes covers of calls
    like it.

    Raises NotFound, Forbidden (`own_chain`, `no_person`, `not_your_agent`, and for a task or an agent that has ended),
    Conflict (`question_settled`, `answered_already`), Invalid.
    """
    question = find_question(act, id)
    _note(act, question, says=says.value)
    person = check_may_answer(question, by)
    check_responsible(act.tx, question, person, everything=config.all_approvers)
    text = check_reason(reason)
    check_open(question, now=act.now)
    task = tasks.live(act.tx, question.task, now=act.now)
    check_strike(question.about, says, strike)
    covering = says is Says.APPROVE and read_covers(question.about, covers)
    given = Answer(person=person, says=says, reason=text, jkt=by.jkt, at=act.now, covers=covering)
    before = store.answers(act.tx, id)
    if any(one.person == person for one in before):
        raise Conflict("you have answered it already", hint="another person must", code="answered_already")
    store.insert_answer(act.tx, id, given)
    before = [one for one in before if not registry.is_revoked_key(act.tx, one.jkt)]
    state = settled(question, before, given)
    registry.note(act, object=id, reason=text, state=state.value, digest=question.digest)
    if state is State.OPEN:
        return question
    store.settle(act.tx, id, state)
    tokens.settle_backchannel(act, id, approved=state is State.APPROVED)
    if state is State.APPROVED:
        until = act.now + config.approval_lifetime_s * SECOND
        until = until if task.expires_at is None else min(until, task.expires_at)
        policies.hold_approval(
            act,
            id,
            agent=question.agent,
            task=question.task,
            digest=question.digest,
            policies=question.about.policies,
            until=until,
            keys=[one.jkt for one in (*before, given) if one.jkt],
        )
        begun = begin_covers(act, question, [*before, given], strike)
        registry.note(act, object=id, until=until, covers="task" if begun else "call")
    elif question.about.extent is not None:  # the person knows more now than when somebody said yes to calls like it
        store.end_covers(act.tx, task=question.task, counterpart=question.about.extent.counterpart)
    return find_question(act, id)


def expire(act: Act, id: str) -> None:
    """What the date of a question does. Raises NotFound, Conflict before that."""
    question = find_question(act, id)
    _note(act, question)
    if question.state is not State.OPEN or act.now < question.ends_at:
        raise Conflict("the end of this question has not come, or is past")
    store.settle(act.tx, id, State.EXPIRED)


def cancel(act: Act, id: str) -> Question:
    """Nobody need answer any more. Raises NotFound, Conflict for what is settled."""
    question = find_question(act, id)
    _note(act, question)
    check_open(question, now=act.now)
    store.settle(act.tx, id, State.CANCELLED)
    return find_question(act, id)


async def expire_due(world: World, *, limit: int = 100) -> int:
    """Settle questions whose date has come, each in its own act; how many."""
    now = world.now()
    due = await world.db.scan(lambda reader: store.due(reader, now=now, limit=limit))
    return await registry.act_on_each(world, "approval.expire", expire, due)


async def forget(world: World) -> int:
    """Forget questions as long after their end as what decisions rest on is kept, and no yes to them is good any more;
    how many. The ledger keeps what was asked by its digest, and who answered.
    """
    before = world.now() - max(world.config.replay_days, LONGEST_YES_DAYS) * DAY
    return await world.writer.submit(lambda tx: store.forget(tx, before=before, limit=FORGOTTEN_AT_ONCE))


def _note(act: Act, question: Question, **detail: Any) -> None:
    """The entry is about whose question it is, and says who tried to answer."""
    entry = act.entry
    if entry.agent is None:
        entry.agent, entry.task = question.agent, question.task
    entry.tool = question.tool or None
    registry.note(act, object=question.approval_id, **detail)
