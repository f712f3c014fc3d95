"""Rules of the feed: the fact that each change becomes, and the entry that each reported record becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from ostiary.decision.access import Kept
from ostiary.decision.feed import (
    AgentFact,
    Fact,
    KeyFact,
    RestrictionFact,
    RiskFact,
    SecretUseFact,
    StopFact,
    TaskFact,
    TokenFact,
)
from ostiary.decision.report import CallRecord, ResultRecord, UndecidedRecord
from ostiary.protocol.decoding import json_decoder
from ostiary.provenance.noticing import Event
from ostiaryd.ledger.model import Entry, Result, reason
from ostiaryd.policy.model import AgentSeen, PolicyDelta, Posed, ToolSeen, call_seen
from ostiaryd.registry.model import (
    LONGEST_TOKEN,
    AgentDelta,
    Holding,
    KeyDelta,
    ProfileDelta,
    ResourceDelta,
    RestrictionDelta,
    RiskDelta,
    SecretUseDelta,
    StopDelta,
    ThreatDelta,
    TokenDelta,
)
from ostiaryd.tasks.model import TaskDelta
from ostiaryd.tokens.model import KeysDelta

PlainDelta = AgentDelta | TaskDelta | TokenDelta | KeyDelta | RiskDelta | RestrictionDelta | SecretUseDelta | StopDelta
"""Changes whose facts follow from the stored change alone, without a read of the database."""
Delta = PlainDelta | ThreatDelta | ProfileDelta | ResourceDelta | PolicyDelta | KeysDelta
_decode = json_decoder(Delta)


def parse_delta(body: bytes) -> Delta:
    """Return the change that a message of the outbox's topic `feed` contains."""
    delta: Delta = _decode(body)
    return delta


def agent_fact(agent: str, state: str, epoch: int, *, at: int) -> AgentFact:
    """Return the fact about an agent that changed at `at` (microseconds). The fact expires after `LONGEST_TOKEN`, one
    hour, because none of the agent's earlier tokens is live then.
    """
    return AgentFact(agent, state, epoch, at + LONGEST_TOKEN)


def plain_fact(delta: PlainDelta, *, at: int) -> Fact:
    """Return the fact (the statement of the feed to guards) of a change that needs no read of the database. `at`: the
    time of the change, in microseconds.
    """
    match delta:
        case AgentDelta():
            return agent_fact(delta.agent, delta.state.value, delta.epoch, at=at)
        case TaskDelta():
            return TaskFact(delta.task, delta.until)
        case TokenDelta():
            return TokenFact(delta.jti, delta.until)
        case KeyDelta():
            return KeyFact(delta.jkt, delta.until)
        case RiskDelta():
            return RiskFact(delta.subject, delta.millis, delta.at)
        case RestrictionDelta():
            return RestrictionFact(delta.agent, delta.hold, delta.limit, delta.since, delta.until)
        case SecretUseDelta():
            return SecretUseFact(delta.agent, delta.until)
        case StopDelta():
            return StopFact(delta.target_kind, delta.value, delta.is_lifted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """The reporter of records: a resource (id, name, URI), and the spool of one of its guards."""

    resource_id: str
    name: str
    uri: str
    spool: str


@dataclass(slots=True)
class ReportEntries:
    """The entries that a report becomes. `by` is the reporter, `at` the server's time of the report in microseconds."""

    by: Reporter
    at: int
    entries: list[Entry] = field(default_factory=list)
    calls: dict[int, Entry] = field(default_factory=dict)
    """entries of decisions and of undecided calls, by the number of their record in the spool"""

    def add(self, action: str, number: int, *, at: int, **fields: Any) -> Entry:
        """Append the entry of a record, and return the entry. `number`: number of the record in its spool; `at`: time
        of the event by the guard's clock, in microseconds.
        """
        where = {"spool": self.by.spool, "number": number, "at": at}
        detail = where | fields.pop("detail", {})
        entry = Entry(
            at=self.at, action=action, resource=self.by.uri, reporter=self.by.resource_id, detail=detail, **fields
        )
        self.entries.append(entry)
        return entry

    def gap(self, first: int, last: int) -> None:
        """Append an entry which says that the records with the numbers `first` to `last` of the spool never arrived."""
        self.entries.append(
            Entry(
                at=self.at,
                action="report.gap",
                outcome="error",
                resource=self.by.uri,
                reporter=self.by.resource_id,
                reasons=[reason("missing_records", f"records {first} to {last} are missing")],
                detail={"spool": self.by.spool, "first": first, "last": last},
            )
        )


def tell_call(
    entries: ReportEntries, number: int, record: CallRecord, holding: Holding | None, *, owner: str | None
) -> None:
    """Append the entry of a decision that a guard reports. If the token is unknown, for another resource or of another
    agent, the entry is `report.refused`.

    The agent and the task come from the server's record of the token (`holding`), not from the guard. The guard's other
    statements are kept as detail.
    """
    if holding is None or holding.audience != entries.by.uri or holding.agent != record.agent:
        if holding is None:
            problem = "the token is unknown"
        elif holding.audience != entries.by.uri:
            problem = "the token is not for the resource of the reporter"
        else:
            problem = "the token is not of the reported agent"
        entries.add(
            "report.refused",
            number,
            at=record.at,
            outcome="refused",
            token=record.token,
            tool=record.tool,
            reasons=[reason("foreign_token", problem)],
        )
        return
    entries.calls[number] = entries.add(
        "tool.call",
        number,
        at=record.at,
        outcome=record.outcome,
        agent=holding.agent,
        owner=owner,
        task=holding.task,
        token=holding.id,
        key=holding.jkt,
        network=record.network or None,
        tool=f"{entries.by.name}/{record.tool}",
        data_classes=record.data_classes,
        digest=record.digest or None,
        arguments=record.arguments,
        reasons=[reason(why.code, why.message) for why in record.reasons],
        policy=record.policy or None,
        policies=record.policies,
        detail=({"verdict": record.verdict} if record.verdict != record.outcome else {})
        | ({"bearer": True} if holding.jkt is None else {})
        | ({"watched": record.watched} if record.watched else {})
        | ({"errors": record.errors} if record.errors else {})
        | ({"actors": record.actors} if record.actors else {})
        | ({"spent": record.spent} if record.spent else {})
        | ({"approval": record.approval} if record.approval else {})
        | ({"origins": record.facts.call_context} if record.facts is not None and record.facts.call_context else {})
        | ({"noticed": msgspec.to_builtins(record.noticed)} if record.noticed else {})
        | ({"elsewhere": msgspec.to_builtins(record.remote)} if record.remote is not None else {}),
        evidence=record.proof or None,
    )


def event_of(entries: ReportEntries, number: int, record: CallRecord) -> Event:
    """Return a reported call as an event from which the agent's profile is learned."""
    entry, context = entries.calls[number], {} if record.facts is None else record.facts.call_context
    return Event(
        at=record.at,
        action=entry.action,
        outcome=entry.outcome,
        agent=entry.agent or "",
        task=entry.task or "",
        tool=entry.tool or "",
        worst=str(context.get("origin_worst", "")),
        links=str(context.get("links_worst", "")),
        noticed=tuple(record.noticed),
    )


def tell_undecided(
    entries: ReportEntries, number: int, record: UndecidedRecord, holding: Holding | None, *, owner: str | None
) -> None:
    """Append the entry of a call for which the guard could not compute a decision.

    The entry names the agent only if the server knows the reported token as a token of that agent for this resource.
    """
    detail: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    if holding is not None and holding.audience == entries.by.uri and holding.agent == record.agent:
        fields = {"agent": holding.agent, "owner": owner, "task": holding.task, "token": holding.id, "key": holding.jkt}
    elif record.agent:
        detail = {"claimed_agent": record.agent}
    entries.calls[number] = entries.add(
        "tool.undecided",
        number,
        at=record.at,
        outcome=record.outcome,
        tool=f"{entries.by.name}/{record.tool}",
        digest=record.digest or None,
        arguments=record.arguments,
        reasons=[reason(why.code, why.message) for why in record.reasons],
        detail=detail,
        **fields,
    )


def question_of(entries: ReportEntries, record: CallRecord, holding: Holding) -> Posed | None:
    """Return the policy question of a reported call, for a later evaluation under other policies; None if the guard
    reported no facts.

    The agent's id and the resource come from the server's own records.
    """
    facts = record.facts
    if facts is None:
        return None
    agent = AgentSeen(holding.agent, facts.owner, facts.segment, facts.model, facts.risk_tier)
    tool = ToolSeen(entries.by.name, entries.by.uri, facts.resource_segment, facts.catalogue, record.tool)
    assert isinstance(facts.context, dict)
    context, kept = facts.context | facts.call_context, Kept(facts.arguments, facts.hidden)
    return call_seen(agent, tool, context, kept, approved=facts.approved)


def tell_result(entries: ReportEntries, number: int, record: ResultRecord) -> None:
    """Store the result of a call: in the call's entry if the same report contains the call, otherwise in a separate
    entry.
    """
    result = Result(record.status, record.bytes, record.records, record.data_class)
    if (call := entries.calls.get(record.call)) is not None:
        call.result = result
    else:
        entries.add("tool.result", number, at=record.at, result=result, detail={"call": record.call})
