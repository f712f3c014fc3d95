"""Decisions at the server, for a single request or a batch, each recorded in its entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import msgspec

from ostiary.decision.access import Decision, Judgement, MemberSizes, RemoteAnswers
from ostiary.protocol.errors import Forbidden, NotFound
from ostiary.protocol.jose import b64u
from ostiary.protocol.secret_forms import SecretSent
from ostiary.protocol.tiles import MAX_ENTRY_BYTES
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry, reason
from ostiaryd.policy import store
from ostiaryd.policy.flows.approvals import decide_approved, ready_tool
from ostiaryd.policy.flows.evaluator import Evaluator, ToolCall
from ostiaryd.policy.flows.resource_cache import data_classes_of_tool
from ostiaryd.policy.flows.sets import active_policies
from ostiaryd.policy.flows.watching import note_candidate
from ostiaryd.policy.model import (
    REGISTERED,
    EvaluationRequest,
    Facts,
    Posed,
    ToolSeen,
    Unanswerable,
    actors_of,
    add_asked,
    encode_facts,
    question_to_store,
)
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
WORD_LIMIT = 256
LINE_LIMIT = 1024
ROOM = MAX_ENTRY_BYTES - 4096
"""Maximum size of the decisions of a batch in one entry, in bytes. The rest of the entry is for its other members."""

_Why: TypeAlias = tuple[tuple[str, ...]] | tuple[tuple[str, ...], dict[str, Any]]
_Line: TypeAlias = tuple[Any, ...]
"""A decision of a batch; see `_line`."""
WHY_AT = 7
"""Position after the deciding policies in a line."""
_encode, _encode_lines = msgspec.json.Encoder().encode, msgspec.json.Encoder().encode_lines


def decide_one(
    act: Act, question: EvaluationRequest, *, digest: str, by: Caller | None, remote: RemoteAnswers | None = None
) -> Decision:
    """Decide one access request, record the decision in the act's ledger entry, and return the decision. `digest`: the
    digest of the request, which is recorded instead of its properties and its context. `by`: the caller, for example a
    gateway.
    """
    evaluator = Evaluator(act.tx, active_policies(act.tx), now=act.now, remote=remote, keys=act.tx.keys)
    decision, posed = _decide(act, evaluator, question)
    entry = act.entry
    note_asker(entry, by)
    entry.outcome = "allow" if decision.allowed else "deny"
    entry.digest = digest
    entry.policy = decision.policy_hash
    entry.policies = list(decision.policies)
    entry.reasons = [reason(one.code, one.message) for one in decision.reasons]
    subject, resource = question.subject, question.resource
    words = (subject.type, subject.id, question.action.name, resource.type, resource.id)
    entry.detail = {"asked": [word[:WORD_LIMIT] for word in words], **other_details(decision)}
    if actors := actors_of(posed):
        entry.actors = actors
    keep_facts(act, entry, _to_store(act, [posed]), at=evaluator.at)
    _note_registered(act, question)
    return decision


def decide_all(
    act: Act,
    questions: Iterable[EvaluationRequest | None],
    *,
    semantic: Semantic,
    digest: str,
    by: Caller | None,
    remote: RemoteAnswers | None = None,
) -> list[Decision | None]:
    """Decide the requests of a batch in order, and return the decisions. All are recorded in one ledger entry, or in
    several if they do not fit into one. `semantic` determines after which decision the rest of the batch is left out
    (AuthZEN section 7.1.2).

    Each allowed call is charged to the budgets of its task, even if a later decision is a denial. None stands for an
    item that is not well-formed; its decision is None, and counts as a denial.
    """
    evaluator = Evaluator(act.tx, policies := active_policies(act.tx), now=act.now, remote=remote, keys=act.tx.keys)
    stop_at = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}[semantic]
    decisions: list[Decision | None] = []
    lines: list[_Line] = []
    facts: list[Posed | None] = []
    is_allowed, last, why = True, None, _why(None)
    for question in questions:
        decision, posed = (None, None) if question is None else _decide(act, evaluator, question)
        decisions.append(decision)
        if decision is not last:  # permits by the same policies are one object
            last, why = decision, _why(decision)
        allowed = decision is not None and decision.allowed
        is_allowed &= allowed
        lines.append(_line(question, decision, why))
        facts.append(posed)
        if allowed is stop_at:
            break
    note_asker(act.entry, by)
    act.entry.outcome = "allow" if is_allowed else "deny"
    act.entry.digest = digest
    act.entry.policy = policies.hash
    _spread(act, lines, _to_store(act, facts), semantic, at=evaluator.at)
    return decisions


def _decide(act: Act, evaluator: Evaluator, question: EvaluationRequest) -> tuple[Decision, Posed | None]:
    """Resolve, decide and settle a request; return the decision, and the question that the policies answered (None if
    they were not asked).

    1. The request is resolved, or denied. 2. `access.decide` decides on a call of a tool; the policies alone decide on
    any other request, and steps 3 to 7 do not apply to it. 3. Secrets. A call with a secret that a proxy used for an
    agent in its chain is denied. 4. Approval. If only an approval is missing, the call spends the approval that the
    request shows. 5. Rate. A call beyond the rate of a throttled agent is denied. 6. Budget. The call is charged to the
    budgets of its task, or denied. 7. History. The call is added to the history of its task, if a policy reads
    histories.
    """
    try:
        resolved = evaluator.resolve(question)  # 1
    except (Unanswerable, Forbidden, NotFound) as error:
        return evaluator.refuse(error), None
    decision, posed = evaluator.decide(resolved)  # 2
    if not isinstance(resolved, ToolCall):
        return decision, posed
    if decision.allowed or decision.asks:  # 3
        try:
            evaluator.check_secrets(resolved)
        except SecretSent as refusal:
            return evaluator.refuse(refusal), None
    if decision.asks and not decision.allowed and (id := question.approval):  # 4
        decision, posed = decide_approved(act, evaluator, resolved, decision, id)
    settled = evaluator.settle(act, resolved, decision)  # 5 to 7
    return settled, posed if settled is decision else None


def _to_store(act: Act, posed: list[Posed | None]) -> list[Posed | None]:
    """Return the questions that policies answered, with the stored members of AuthZEN requests. All are None if the
    server stores no facts and no set is in watch mode.
    """
    if not act.keeps_facts and store.watched(act.tx) is None:
        return [None] * len(posed)
    sizes = MemberSizes()
    return [
        one if one is None or one.question is None else question_to_store(one, secrets=_secrets(act, one), sizes=sizes)
        for one in posed
    ]


def _secrets(act: Act, posed: Posed) -> frozenset[str] | None:
    """Return the names of the secret arguments of the tool that an AuthZEN request is about; None if all are secret."""
    assert posed.question is not None
    tool = posed.resource
    if not isinstance(tool, ToolSeen) or not (posed.question.context or {}).get("arguments"):
        return frozenset()
    return ready_tool(act.tx, registry.find_resource(act.tx, tool.name), tool.tool).secrets


def keep_facts(act: Act, entry: Entry, posed: list[Posed | None], *, at: int) -> None:
    """Store the questions that the policies answered at `at` (microseconds), with the facts about them, beside `entry`,
    so that the decision can be replayed later. If a set is in watch mode, record its verdict in the entry too. Do
    nothing if the policies were not asked (all None).
    """
    if any(posed):
        if entry.kept_facts is None:
            entry.attach_facts(encode_facts(Facts(salt=b64u(act.tx.random(16)), at=at, posed=posed)))
        else:
            entry.attach_facts(add_asked(entry.kept_facts, posed))
        note_candidate(act.tx, entry, at=at)


def note_asker(entry: Entry, by: Caller | None) -> None:
    """Record the caller `by` as the reporter of the entry. The agent of the entry is the subject of the request, not
    the caller.
    """
    if by is not None:
        entry.reporter, entry.token, entry.key = by.id, by.token, by.jkt


def _note_registered(act: Act, question: EvaluationRequest) -> None:
    """Record the agent (by its id), the resource and the tool of the request in the entry, so that searches of the
    ledger find it.
    """
    entry, subject, resource = act.entry, question.subject, question.resource
    entry.resource = shorten(resource.id)
    if REGISTERED.get(resource.type) == "Tool":
        entry.resource, _, entry.tool = entry.resource.partition("/")
        entry.data_classes = data_classes_of_tool(act.tx, resource.id)
    if REGISTERED.get(subject.type) == "Agent":
        agent = registry.get_agent(act.tx, subject.id)
        entry.agent = shorten(subject.id) if agent is None else agent.agent_id
        entry.owner = None if agent is None else agent.owner
        task = (question.context or {}).get("task")
        entry.task = shorten(task) if isinstance(task, str) else None


def shorten(word: str) -> str:
    """Return `word`, cut to the maximum length of a word in a ledger entry."""
    return word[:WORD_LIMIT]


def other_details(decision: Decision | Judgement) -> dict[str, Any]:
    """Return the details of a decision that its ledger entry records besides the verdict: policies in watch mode,
    errors of policies, the used approval, and for a denial that was not enforced, `verdict`.
    """
    details: dict[str, Any] = {}
    if decision.watched:
        details["watched"] = decision.watched
    if isinstance(decision, Decision) and decision.approval:
        details["approval"] = decision.approval
    if decision.errors:
        details["errors"] = [(policy, message[:WORD_LIMIT]) for policy, message in decision.errors[:8]]
    if isinstance(decision, Decision) and decision.allowed is not decision.verdict:
        details["verdict"] = "deny"
    return details


def _line(question: EvaluationRequest | None, decision: Decision | None, why: _Why) -> _Line:
    """Return one decision of a batch in the form for an entry: allowed, subject, action, resource, and `why`."""
    if question is None or decision is None:
        return (False,)
    subject, resource = question.subject, question.resource
    return decision.allowed, subject.type, subject.id, question.action.name, resource.type, resource.id, *why


def _shorten_line(line: _Line) -> _Line:
    """Return a decision of a batch with its words and its deciding policies cut to their maximum length and number."""
    allowed, *named, policies = line[:WHY_AT]
    return allowed, *map(shorten, named), policies[:8], *line[WHY_AT:]


def _why(decision: Decision | None) -> _Why:
    """Return the end of a line: the deciding policies or, if there are none, the codes of the reasons; then further
    details, if there are any.
    """
    if decision is None:
        return ((),)
    names = decision.policies or tuple(one.code for one in decision.reasons)
    details = other_details(decision)
    return (names, details) if details else (names,)


def _spread(act: Act, lines: Sequence[_Line], facts: list[Posed | None], semantic: Semantic, *, at: int) -> None:
    """Write the decisions of a batch into the entry of the act. If they do not fit, add further entries, each with its
    part number. `facts`: the questions that the policies answered, in the order of `lines`.
    """
    encoded = _encode_lines(lines).split(b"\n")[:-1]  # a line of JSON has no line break
    for number, line in enumerate(encoded):
        if len(line) >= LINE_LIMIT:
            encoded[number] = _encode(_shorten_line(lines[number]))
    starts, room = [0], ROOM
    for number, line in enumerate(encoded):
        if len(line) + 1 > room:
            starts.append(number)
            room = ROOM
        room -= len(line) + 1
    for number, (start, end) in enumerate(pairwise((*starts, len(encoded))), 1):
        joined = b",".join(encoded[start:end])
        detail: dict[str, Any] = {"decisions": msgspec.Raw(b"[" + joined + b"]"), "semantic": semantic}
        if len(starts) > 1:
            detail["part"] = [number, len(starts)]
        entry = act.entry
        if number > 1:
            entry = msgspec.structs.replace(act.entry)
            act.further_entries.append(entry)
        entry.detail = detail
        entry.remove_facts()
        keep_facts(act, entry, facts[start:end], at=at)
