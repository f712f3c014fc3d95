"""What-if: the comparison of recorded verdicts with the verdicts of a candidate policy set on the same requests.
Changed verdicts are reported in groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from ostiary.decision.access import Judgement
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.jose import b64u
from ostiaryd.policy.model.facts import AgentSeen, Posed, ResourceSeen, SecretSeen, ToolSeen, decode_facts
from ostiaryd.policy.model.replay import Lacking, Replay, Unreplayable

MAX_GROUPS = 500
MAX_AGENTS = 1000
"""maximum number of different agents that are counted in one group"""
MAX_NAMED = 16
"""maximum number of policies that one group names"""
MAX_WORD = 256

By = Literal["", "agent", "owner"]
Direction = Literal["allow->deny", "deny->allow"]
Row = tuple[int, bytes, bytes | None]
"""The index of an entry, the entry as JSON, and the facts that are stored beside it (None if there are none)."""


class _Detail(msgspec.Struct, gc=False):
    verdict: str = ""
    errors: list[tuple[str, str]] = []
    watched: list[str] = []
    decisions: list[Any] = []
    cut: Any = None


class _Reason(msgspec.Struct, gc=False):
    code: str


class Recorded(msgspec.Struct, gc=False):
    """The members of a ledger entry that a what-if needs."""

    action: str
    outcome: str = "ok"
    policy: str = ""
    policies: list[str] = []
    reasons: list[_Reason] = []
    facts: str = ""
    detail: _Detail | None = None


class Verdict(NamedTuple):
    """A recorded verdict: whether the request was allowed, the policies that decided it, the policies that failed, with
    their errors, and the policies in watch mode whose conditions held.
    """

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()


_decode_entry = json_decoder(Recorded)
_NO_DETAIL = _Detail()


def verdicts(entry: Recorded, count: int) -> list[Verdict]:
    """Return the recorded verdicts of a ledger entry with `count` decisions, in their order; empty if the entry was too
    long and has lost its details. If one act made several decisions that are not a batch, only the last can be a
    denial.
    """
    detail = entry.detail or _NO_DETAIL
    if detail.cut is not None:
        return []  # the details were cut from the entry, because the entry was too long
    if entry.action == "decide.batch":
        return [_of_line(line) for line in detail.decisions]
    if entry.outcome in ("allow", "deny"):
        allowed = (detail.verdict or entry.outcome) == "allow"
    else:  # an issuance: the policies may have allowed a token that was refused for another reason
        allowed = not any(reason.code == "access_denied" for reason in entry.reasons)
    last = _verdict(allowed, entry.policies, detail)
    return [last._replace(allowed=True)] * (count - 1) + [last]


def _named_policies(entry: Recorded) -> bool:
    """Return whether policies decided a request whose entry has no facts: the entry names a policy, or contains an
    allowed decision of a batch. A request that was denied before policies were asked names no policy.
    """
    lines = entry.detail.decisions if entry.detail is not None else []
    return bool(entry.policies) or any(line[0] for line in lines)


def _of_line(line: list[Any]) -> Verdict:
    """Return the verdict in the record of one decision of a batch: `[allowed, subject type, subject id, action,
    resource type, resource id, policies or reason codes]`, optionally with details at the end.
    """
    if len(line) < 7:
        return Verdict(False, ())
    detail = convert(line[7], _Detail) if len(line) > 7 else _NO_DETAIL
    return _verdict(line[0] and detail.verdict != "deny", line[6], detail)


def _verdict(allowed: bool, policies: list[str], detail: _Detail) -> Verdict:
    return Verdict(allowed, tuple(policies), tuple(map(tuple, detail.errors)), tuple(detail.watched))  # type: ignore[arg-type]


class Change(msgspec.Struct, kw_only=True):
    """A group of recorded verdicts that the candidate set would change in the same way.

    `subject`: an agent, an owner or a type of subjects, as the caller chose. `before`, `after`: the policies that
    decided, and that would decide. `because`: the reason code of the new verdict, or empty. `count`: the number of
    changed verdicts. `agents`: the number of different agents. `example`: the index of a ledger entry in the group;
    `agent`: the agent of that entry.
    """

    direction: Direction
    subject: str = msgspec.field(name="who")
    target: str = msgspec.field(name="what")
    before: list[str]
    after: list[str]
    because: str
    count: int = 0
    agents: int = 0
    example: int
    agent: str


class Report(msgspec.Struct, kw_only=True):
    """The result of a what-if. `replayed`: the number of decisions that could be replayed. `unknown`: the number of
    other decisions, by the reason why they could not. `ungrouped`: the number of changed verdicts that `changes` does
    not show, because there are too many groups.
    """

    policy: str
    replayed: int
    changed: int
    to_deny: int
    to_allow: int
    unknown: dict[str, int]
    altered: list[int]
    """indexes of the entries whose stored facts do not match the digest in the entry"""
    changes: list[Change]
    ungrouped: int

    @property
    def not_known(self) -> int:
        """Return the number of decisions that could not be replayed; an entry without facts counts once."""
        return sum(self.unknown.values())


class Comparison:
    """A running comparison of recorded verdicts with those of a candidate policy set. Its use of memory does not grow
    with the number of entries.
    """

    def __init__(self, replay: Replay, *, policy: str, by: By) -> None:
        self._replay, self._policy, self._by = replay, policy, by
        self._groups: dict[tuple[Any, ...], Change] = {}
        self._agents: dict[tuple[Any, ...], set[str]] = {}
        self._counts: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._altered: list[int] = []

    def compare(self, rows: Iterable[Row]) -> Iterator[str]:
        """Compare the decisions of these ledger entries. If the text of a catalogue is missing, yield its digest; the
        caller must load the text before it continues the iteration.
        """
        replayed = 0
        for index, body, facts in rows:
            for entry, posed, was, at in self._decisions(index, body, facts):
                try:
                    now = yield from self._judge(posed, at)
                except Unreplayable as error:
                    self._unknown[error.message] += 1
                    continue
                replayed += 1
                if was.allowed is not now.allowed:
                    self._note(index, entry, posed, was, now)
        self._counts["replayed"] += replayed

    def _judge(self, posed: Posed, at: int) -> Generator[str, None, Judgement]:
        """Return the verdict of the candidate on a request; yield the digest of each missing text of a catalogue.
        Raises Unreplayable if a fact was not stored.
        """
        while True:
            try:
                return self._replay.judge(posed, at=at)
            except Lacking as lacking:
                yield lacking.digest

    def _decisions(self, index: int, body: bytes, facts: bytes | None) -> list[tuple[Recorded, Posed, Verdict, int]]:
        """Return (entry, request, recorded verdict, time in microseconds) of each decision of an entry that can be
        replayed. The other decisions are counted as unknown.
        """
        try:
            entry = _decode_entry(body)
            if not entry.facts:
                self._unknown["no facts of the decision were stored"] += _named_policies(entry)
                return []
            if facts is None:
                self._unknown["the facts were deleted"] += 1
                return []
            if b64u(sha256(facts).digest()) != entry.facts:
                self._unknown["the facts were altered"] += 1
                if len(self._altered) < MAX_GROUPS:
                    self._altered.append(index)
                return []
            facts_kept = decode_facts(facts)
            was = verdicts(entry, len(facts_kept.posed))
        except msgspec.DecodeError:
            self._unknown["the stored facts of the decision cannot be parsed"] += 1
            return []
        if len(was) != len(facts_kept.posed):
            self._unknown["the entry does not have the decisions"] += len(facts_kept.posed)
            return []
        return [
            (entry, posed, one, facts_kept.at)
            for posed, one in zip(facts_kept.posed, was, strict=True)
            if posed is not None
        ]

    def _note(self, index: int, entry: Recorded, posed: Posed, was: Verdict, now: Judgement) -> None:
        direction: Direction = "deny->allow" if now.allowed else "allow->deny"
        self._counts[direction] += 1
        agent, target, group = (
            subject_of(posed)[:MAX_WORD],
            target_of(posed)[:MAX_WORD],
            self._group_of(posed)[:MAX_WORD],
        )
        before, after = was.policies[:MAX_NAMED], now.policies[:MAX_NAMED]
        key = (direction, group, target, now.because, after, before)
        change = self._groups.get(key)
        if change is None:
            if len(self._groups) == MAX_GROUPS:
                self._counts["ungrouped"] += 1
                return
            change = self._groups[key] = Change(
                direction=direction,
                subject=group,
                target=target,
                because=now.because,
                example=index,
                agent=agent,
                before=list(before),
                after=list(after),
            )
            self._agents[key] = set()
        change.count += 1
        if len(agents := self._agents[key]) < MAX_AGENTS:
            agents.add(agent)
            change.agents = len(agents)

    def _group_of(self, posed: Posed) -> str:
        principal = posed.principal
        if not isinstance(principal, AgentSeen):
            return posed.question.subject.type if posed.question else ""
        return {"": "agent", "agent": principal.id, "owner": principal.owner}[self._by]

    def report(self) -> Report:
        """Return the report of all entries compared so far, with the largest groups first."""
        counts = self._counts
        return Report(
            policy=self._policy,
            replayed=counts["replayed"],
            changed=counts["allow->deny"] + counts["deny->allow"],
            to_deny=counts["allow->deny"],
            to_allow=counts["deny->allow"],
            unknown=dict(+self._unknown),
            altered=self._altered,
            changes=sorted(self._groups.values(), key=lambda change: (-change.count, change.example)),
            ungrouped=counts["ungrouped"],
        )


def subject_of(posed: Posed) -> str:
    """Return the id of the subject of a request."""
    if isinstance(posed.principal, AgentSeen):
        return posed.principal.id
    return posed.question.subject.id if posed.question else ""


def target_of(posed: Posed) -> str:
    """Return the target of a request as text: for a call `RESOURCE/TOOL`, otherwise the action and its resource (the
    type alone, if the resource is not registered).
    """
    match posed:
        case Posed(question=None, resource=ToolSeen(name=name, tool=tool)):
            return f"{name}/{tool}"
        case Posed(question=None, resource=AgentSeen(id=id), action=action):
            return f"{action} {id}"
        case Posed(question=None, resource=SecretSeen(mount=mount, path=path), action=action):
            return f"{action} {mount}/{path}"
        case Posed(question=None, resource=ResourceSeen(name=name, uri=uri), action=action):
            return f"{action} {name or uri}"
        case Posed(question=question) if question is not None:
            kind = question.resource.type
            return f"{question.action.name} {question.resource.id if posed.resource is not None else kind}"
    return ""
