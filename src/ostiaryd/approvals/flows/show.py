"""The views of an approval request: complete for persons who may answer, only the state for the requester."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypedDict

import msgspec
from msgspec.structs import replace

from ostiary.protocol.errors import NotFound
from ostiaryd.approvals import store
from ostiaryd.approvals.flows.wording import describe_question, hold_back, word_line
from ostiaryd.approvals.model import HOUR, About, ApprovalState, Question, find_limits
from ostiaryd.ground.database import Reader
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import standing_id

SECOND = 1_000_000
BEFORE = 20
"""Number of earlier entries of the agent that are shown with an approval request."""


def may_see_all(by: Caller) -> bool:
    """Return whether the caller may see every approval request: a person with the scope to answer requests, or a caller
    that may read everything.
    """
    return by.may_read or (by.kind == "person" and APPROVE in by.scopes)


def find_visible(reader: Reader, id: str, *, by: Caller) -> Question:
    """Return the approval request with this id, if the caller may see all requests or is an agent in the delegation
    chain of this request. Raises NotFound otherwise.
    """
    question = store.get_question(reader, id)
    if question is None or not (may_see_all(by) or by.id in question.requesters):
        raise NotFound(
            "approval not found", hint="list the approvals: ostiary approvals list --all", code="unknown_approval"
        )
    return question


class ApprovalBody(TypedDict):
    """An approval request in brief. Times are in seconds since the epoch."""

    approval_id: str
    state: str
    kind: str
    agent: str
    task: str
    tool: str
    needs: Literal["person", "two"]
    dangerous: bool
    must_state: str
    said_yes: int
    times: int
    asked_at: int
    ends_at: int
    answered_at: int | None
    until: int | None
    reason: str


class ApprovalDetail(ApprovalBody):
    """An approval request with all facts that a person needs to answer it. In an answer, the person can lower `uses`
    and `at_most`, and strike lines of a plan.
    """

    words: list[str]
    covers: str
    may_cover: list[str]
    uses: int
    at_most: dict[str, str]
    lines: list[str]
    warnings: list[str]
    arguments: dict[str, Any]
    hidden: list[str]
    outgoing: dict[str, Any]
    foreign: dict[str, Any]
    origins: dict[str, Any]
    policy: str
    reasons: list[Any]
    digest: str
    asks: dict[str, Any]
    answers: list[dict[str, Any]]
    flood: dict[str, int]
    before: list[Any]


class WaitingBody(TypedDict):
    """All open approval requests of a task."""

    task: str
    words: list[str]
    approvals: list[ApprovalDetail]


def show_briefly(reader: Reader, question: Question, *, now: int) -> ApprovalBody:
    """Return the state of an approval request."""
    agent = registry.get_agent(reader, question.agent)
    all_answers = store.answers(reader, question.approval_id)
    return {
        "approval_id": question.approval_id,
        "state": question.state_at(now),
        "kind": question.kind,
        "agent": agent.name if agent is not None else question.agent,
        "task": question.task,
        "tool": question.tool,
        "needs": question.needs,
        "dangerous": question.about.is_dangerous,
        "must_state": question.about.must_state,
        "said_yes": sum(one.says == "approve" for one in all_answers),
        "times": question.times,
        "asked_at": question.asked_at // SECOND,
        "ends_at": question.ends_at // SECOND,
        "answered_at": None if question.answered_at is None else question.answered_at // SECOND,
        "until": None if question.until is None else question.until // SECOND,
        "reason": _holding(question, now=now)(next((one.reason for one in reversed(all_answers)), "")),
    }


def show(reader: Reader, question: Question, *, now: int) -> ApprovalDetail:
    """Return an approval request: the exact arguments, their origins, outgoing text, the reasons of policies, the
    requester, and the history. While the request is open, the value that a person must state is left out.
    """
    hold, agent = _holding(question, now=now), registry.find_agent(reader, question.agent)
    outgoing = {name: question.about.arguments[name] for name in question.about.outgoing}
    about = _hold_back(question.about, hold)
    shown = replace(question, about=about)
    return {
        **show_briefly(reader, question, now=now),
        "words": describe_question(shown, agent=agent.name, owner=_name(reader, agent.owner)),
        "covers": "task" if about.covers_task else "call",
        "may_cover": ["call"] if about.extent is None else ["call", "task"],
        "uses": 0 if about.extent is None and not about.lines else about.uses,
        "at_most": find_limits(shown),
        "lines": [word_line(line) for line in about.lines],
        "warnings": about.warnings,
        "arguments": about.arguments,
        "hidden": about.hidden,
        "outgoing": hold(outgoing),
        "foreign": about.foreign,
        "origins": about.origins,
        "policy": about.policy,
        "reasons": msgspec.to_builtins(about.reasons),
        "digest": question.digest,
        "asks": _requester(reader, question, hold),
        "answers": [
            {"person": _name(reader, one.person), "says": one.says, "reason": hold(one.reason), "at": one.at // SECOND}
            for one in store.answers(reader, question.approval_id)
        ],
        "flood": _flood(reader, question, now=now),
        "before": [entry | {"tool": hold(entry["tool"])} for entry in _before(reader, question)],
    }


def _holding(question: Question, *, now: int) -> Callable[[Any], Any]:
    """Return a function that removes, from any value, the part that a person must state. Without such a part, or once
    the request is settled, the function changes nothing.
    """
    stated = question.about.stated
    return (
        _whole
        if stated is None or question.state_at(now) is not ApprovalState.OPEN
        else partial(hold_back, stated=stated)
    )


def _whole(value: Any) -> Any:
    return value


def _hold_back(about: About, hold: Callable[[Any], Any]) -> About:
    """Return a description in which `hold` was applied to each part that an agent can influence, including names of
    arguments.
    """
    extent = about.extent
    return replace(
        about,
        arguments=hold(about.arguments),
        hidden=hold(about.hidden),
        outgoing=hold(about.outgoing),
        foreign=hold(about.foreign),
        origins={hold(path): origin for path, origin in about.origins.items()},
        extent=None if extent is None else replace(extent, amounts=hold(extent.amounts)),
    )


def show_waiting(reader: Reader, task: str, *, now: int) -> WaitingBody:
    """Return the open approval requests of a task, the oldest first, and one text that describes all of them."""
    questions = store.list_open(reader, task, now=now)
    shown = [show(reader, question, now=now) for question in questions]
    words = [f"{len(shown)} questions of one task wait." if len(shown) != 1 else "1 question of the task waits."]
    for at, one in enumerate(shown, 1):
        first, *rest = one["words"]
        words += [f"[{at}] {one['approval_id']}: {first}", *(f"    {line}" for line in rest)]
    return {"task": task, "words": words, "approvals": shown}


def _requester(reader: Reader, question: Question, hold: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the requesting agent, the party on whose behalf it acts, and the purpose. `hold` is applied
    to the texts.
    """
    agent = registry.find_agent(reader, question.agent)
    return {
        "agent": agent.name,
        "agent_id": agent.agent_id,
        "state": agent.state,
        "owner": _name(reader, agent.owner),
        "purpose": hold(agent.purpose),
        "task": question.task,
        "task_purpose": hold(_purpose(reader, question.task)),
        "on_behalf_of": _name(reader, question.about.person),
        "chain": [
            {
                "agent": row.name if (row := registry.get_agent(reader, link.agent)) else link.agent,
                "task": link.task,
            }
            for link in question.about.chain
        ],
    }


def _purpose(reader: Reader, task: str) -> str:
    try:
        return tasks.find_task(reader, task).purpose
    except NotFound:  # it ended long ago
        return ""


def _flood(reader: Reader, question: Question, *, now: int) -> dict[str, int]:
    """Return the numbers by which a person can recognise a flood of requests, which tires persons and may be an attack:
    how often this request was sent, the open requests of its agent and of its task, and the requests of its agent
    within the last hour.
    """
    of_agent, of_task = store.count_open(reader, agent=question.agent, task=question.task, now=now)
    count = store.count_since(reader, question.agent, now - HOUR)
    return {"times": question.times, "open_of_agent": of_agent, "open_of_task": of_task, "within_an_hour": count}


def _before(reader: Reader, question: Question) -> list[dict[str, Any]]:
    """Return the latest acts of the agent in the task, the newest first."""
    where: dict[str, str] = {"agent": question.agent}
    if question.task != standing_id(question.agent):
        where["task"] = question.task
    entries = [decode_entry(body) for _, body in ledger.search_entries(reader, where, limit=BEFORE)]
    return [_line(entry) for entry in entries]


def _line(entry: Entry) -> dict[str, Any]:
    return {
        "at": entry.at // SECOND,
        "action": entry.action,
        "outcome": entry.outcome,
        "tool": entry.tool or entry.resource or entry.object or "",
        "reasons": [one.code for one in entry.reasons],
    }


def _name(reader: Reader, id: str | None) -> str | None:
    owner = None if id is None else registry.get_owner(reader, id)
    return id if owner is None else owner.name
