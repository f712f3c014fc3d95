"""The persons who may answer an approval request: the approvers that each policy names, or, if a policy names none, the
persons accountable for the agent; and persons whom role policies permit to answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.protocol.errors import Forbidden
from ostiaryd.approvals import store
from ostiaryd.approvals.model import ApprovalState, Question, Why
from ostiaryd.ground.database import Reader
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import PersonId


def list_answerable(
    reader: Reader, ids: Iterable[str], person: PersonId, *, everything: tuple[str, ...], now: int
) -> list[Question]:
    """Return those of the approval requests with these `ids` that are open and that the person may answer. `everything`
    names the persons and teams that may answer all approval requests.
    """
    questions = (store.get_question(reader, id) for id in ids)
    return [
        one
        for one in questions
        if one is not None
        and one.state_at(now) is ApprovalState.OPEN
        and is_responsible(reader, one, person, everything=everything, now=now)
    ]


def is_responsible(
    reader: Reader, question: Question, person: PersonId, *, everything: tuple[str, ...], now: int
) -> bool:
    """Return whether a person may still answer an approval request, as `check_responsible` says."""
    try:
        check_responsible(reader, question, person, everything=everything, now=now)
    except Forbidden:
        return False
    return True


def check_responsible(
    reader: Reader, question: Question, person: PersonId, *, everything: tuple[str, ...], now: int
) -> None:
    """Check that a person may answer an approval request. Raises Forbidden (`not_your_agent`) otherwise.

    Permitted are: the only person whom the request names (`sole`); the persons and teams in `everything`; a person whom
    a role policy permits to answer; and a person who satisfies every policy that asks. A policy that names approvers is
    satisfied by an approver, any other by the person on whose behalf the agent acts and by the persons accountable for
    the agent.
    """
    about = question.about
    if person == about.sole or _is_among(reader, person, everything):
        return
    agent = registry.find_agent(reader, question.agent)
    is_theirs = person == about.person or registry.answers_for(reader, person, agent, deputies=True)
    for why in about.reasons or (Why(""),):
        if not (_is_among(reader, person, why.approvers) if why.approvers else is_theirs):
            if policy.may_answer(reader, person, agent, now=now):
                return
            may = ", ".join(why.approvers) or (
                f"the persons who are accountable for `{agent.name}`, and the person on whose behalf it acts"
            )
            raise Forbidden(
                "you may not answer this approval request",
                hint=f"the persons who may answer: {may}",
                code="not_your_agent",
            )


def _is_among(reader: Reader, person: PersonId, names: Iterable[str]) -> bool:
    """Return whether the person is named in `names`, or is a member of a team that is."""
    approvers = (registry.get_owner(reader, name) for name in names)
    return any(
        one is not None and (one.id == person or registry.is_member(reader, one.id, person)) for one in approvers
    )
