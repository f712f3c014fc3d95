"""Decisions at the server, each on its entry: one question, a batch of them, and whether a token may be issued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from ostiary.core.access import Decision, Judgement, Policies
from ostiary.core.access.decide import reasons_of
from ostiary.core.access.facts import resource_entity
from ostiary.core.cedar.extensions import Datetime
from ostiary.core.cedar.values import Entity, Overlay, Record, Uid
from ostiary.core.errors import Forbidden
from ostiary.core.tiles import MAX_ENTRY_BYTES
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry, reason
from ostiaryd.policy.flows.answer import Answers, Asked, entity_of_agent
from ostiaryd.policy.flows.sets import active_policies
from ostiaryd.policy.model import REGISTERED, Question
from ostiaryd.registry.model import Agent, Caller, Resource
from ostiaryd.registry.store import agents

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
ISSUE = Uid("Action", "issue_token")
DELEGATE = Uid("Action", "delegate")
WORD_LIMIT = 256
LINE_LIMIT = 1024
ROOM = MAX_ENTRY_BYTES - 4096
"""bytes of an entry for the decisions of a batch; the rest is for everything else that it says"""

_encode = msgspec.json.Encoder().encode


def decide_one(act: Act, question: Question, *, digest: str, by: Caller | None, asked: Asked | None = None) -> Decision:
    """Answer and note it. `digest` is that of the request, whose properties and context the entry leaves out."""
    answers = Answers(act.tx, active_policies(act.tx), now=act.now, asked=asked)
    decision = answers.spend(act, question, answers.answer(question))
    entry = act.entry
    note_asker(entry, by)
    entry.outcome = "allow" if decision.allowed else "deny"
    entry.digest = digest
    entry.policy = decision.policy_hash
    entry.policies = list(decision.policies)
    entry.reasons = [reason(one.code, one.message) for one in decision.reasons]
    subject, resource = question.subject, question.resource
    words = (subject.type, subject.id, question.action.name, resource.type, resource.id)
    entry.detail = {"asked": [shorten(word) for word in words]} | _beside(decision)
    _note_registered(act, question)
    return decision


def decide_all(
    act: Act,
    questions: Iterable[Question | None],
    *,
    semantic: Semantic,
    digest: str,
    by: Caller | None,
    asked: Asked | None = None,
) -> list[Decision | None]:
    """Answer in order up to the one that settles it, and note all on one entry (or on several, when one is too small).
    Each allowed call is paid for, whatever comes of those after it.

    None stands for an item that is no question; it counts as a denial.
    """
    answers = Answers(act.tx, policies := active_policies(act.tx), now=act.now, asked=asked)
    stop_at = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}[semantic]
    decisions: list[Decision | None] = []
    lines: list[bytes] = []
    is_allowed = True
    for question in questions:
        decision = None if question is None else answers.spend(act, question, answers.answer(question))
        decisions.append(decision)
        allowed = decision is not None and decision.allowed
        is_allowed &= allowed
        lines.append(_line(question, decision))
        if allowed is stop_at:
            break
    note_asker(act.entry, by)
    act.entry.outcome = "allow" if is_allowed else "deny"
    act.entry.digest = digest
    act.entry.policy = policies.hash
    _spread(act, lines, semantic)
    return decisions


def decide_issue(
    act: Act, agent: Agent, *, task: str, resource: Resource | None, uri: str, scopes: frozenset[str]
) -> str:
    """Whether `agent` may have a token for `resource`, or for `uri` that nobody registered; the hash of the policies.

    Raises Forbidden with the code `access_denied`.
    """
    policies = active_policies(act.tx)
    principal = entity_of_agent(agent)
    target = _target(resource, uri)
    context: Record = {"task": task, "scopes": frozenset[object](scopes), "now": Datetime(act.now // 1000)}
    entities = Overlay(policies.known, principal, target)
    return _check(act, policies, policies.judge(principal.uid, ISSUE, target.uid, context, entities))


def check_delegation(act: Act, giver: Agent, receiver: Agent, *, task: str, scopes: frozenset[str], depth: int) -> None:
    """Whether `giver` may hand a part of that task on to `receiver`, `depth` steps from where it began.

    Raises Forbidden with the code `access_denied`.
    """
    policies = active_policies(act.tx)
    principal, resource = entity_of_agent(giver), entity_of_agent(receiver)
    context: Record = {
        "task": task, "scopes": frozenset[object](scopes), "depth": depth, "now": Datetime(act.now // 1000),
    }  # fmt: skip
    entities = Overlay(policies.known, principal, resource)
    _check(act, policies, policies.judge(principal.uid, DELEGATE, resource.uid, context, entities))


def _check(act: Act, policies: Policies, judged: Judgement) -> str:
    """Note what decided; the hash of the policies."""
    act.entry.policy = policies.hash
    act.entry.policies = [*act.entry.policies, *judged.policies]
    if not judged.allowed:
        first = reasons_of(judged, policies)[0]
        raise Forbidden(first.message, hint=first.hint, code="access_denied")
    return policies.hash


def _target(resource: Resource | None, uri: str) -> Entity:
    if resource is None:
        return resource_entity("", uri=uri, segment="")
    return resource_entity(resource.name, uri=resource.uri, segment=resource.segment)


def note_asker(entry: Entry, by: Caller | None) -> None:
    """The entry is about whom the question names; who asked is its reporter."""
    if by is not None:
        entry.reporter, entry.token, entry.key = by.id, by.token, by.jkt


def _note_registered(act: Act, question: Question) -> None:
    """Agents and tools where searches look for them, the agent by its id though it was named."""
    entry, subject, resource = act.entry, question.subject, question.resource
    entry.resource = shorten(resource.id)
    if REGISTERED.get(resource.type) == "Tool":
        entry.resource, _, entry.tool = entry.resource.partition("/")
    if REGISTERED.get(subject.type) == "Agent":
        agent = agents.get(act.tx, subject.id)
        entry.agent = shorten(subject.id) if agent is None else agent.agent_id
        entry.owner = None if agent is None else agent.owner
        task = (question.context or {}).get("task")
        entry.task = shorten(task) if isinstance(task, str) else None


def shorten(word: str) -> str:
    return word[:WORD_LIMIT]


def _beside(decision: Decision) -> dict[str, Any]:
    """What else is to be known of a decision: what only watched, what failed, and what was let pass."""
    beside: dict[str, Any] = {}
    if decision.watched:
        beside["watched"] = decision.watched
    if decision.errors:
        beside["errors"] = [(policy, message[:WORD_LIMIT]) for policy, message in decision.errors[:8]]
    if decision.allowed is not decision.verdict:
        beside["verdict"] = "deny"
    return beside


def _line(question: Question | None, decision: Decision | None) -> bytes:
    """One decision of a batch: allowed, who, what, on what, the policies or else the codes of the reasons."""
    if question is None or decision is None:
        return b"[false]"
    subject, resource = question.subject, question.resource
    asked = (subject.type, subject.id, question.action.name, resource.type, resource.id)
    why = decision.policies or tuple(one.code for one in decision.reasons)
    line = _encode((decision.allowed, *asked, why))
    return line if len(line) < LINE_LIMIT else _encode((decision.allowed, *map(shorten, asked), why[:8]))


def _spread(act: Act, lines: Sequence[bytes], semantic: Semantic) -> None:
    """The decisions on the act's entry; when it is full, on further entries of the same act, each saying its part."""
    parts: list[list[bytes]] = [[]]
    room = ROOM
    for line in lines:
        if len(line) + 1 > room:
            parts.append([])
            room = ROOM
        parts[-1].append(line)
        room -= len(line) + 1
    for number, part in enumerate(parts, 1):
        detail: dict[str, Any] = {"decisions": msgspec.Raw(b"[" + b",".join(part) + b"]"), "semantic": semantic}
        if len(parts) > 1:
            detail["part"] = [number, len(parts)]
        if number == 1:
            act.entry.detail = detail
        else:
            act.tx.defer(ledger.append, msgspec.structs.replace(act.entry, detail=detail))
