"""What another policy set would have said: the verdicts of the ledger, compared with those of a replay, and grouped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from ostiary.decision.access import Judgement
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.jose import b64u
from ostiaryd.policy.model.facts import AgentSeen, Posed, ResourceSeen, ToolSeen, decode_facts
from ostiaryd.policy.model.replay import Lacking, Replay, Unreplayable

MAX_GROUPS = 500
MAX_AGENTS = 1000
"""agents that a group counts"""
MAX_NAMED = 16
"""policies that a group names"""
MAX_WORD = 256

By = Literal["", "agent", "owner"]
Direction = Literal["allow->deny", "deny->allow"]
Row = tuple[int, bytes, bytes | None]
"""The index of an entry, the entry, and the facts beside it."""


class _Detail(msgspec.Struct, gc=False):
    verdict: str = ""
    errors: list[tuple[str, str]] = []
    watched: list[str] = []
    decisions: list[Any] = []
    cut: Any = None


class _Reason(msgspec.Struct, gc=False):
    code: str


class Recorded(msgspec.Struct, gc=False):
    """Of an entry what a comparison needs."""

    action: str
    outcome: str = "ok"
    policy: str = ""
    policies: list[str] = []
    reasons: list[_Reason] = []
    facts: str = ""
    detail: _Detail | None = None


class Verdict(NamedTuple):
    """What the rules said, and which policies settled it."""

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()


_decode_entry = json_decoder(Recorded)
_NO_DETAIL = _Detail()


def verdicts(entry: Recorded, count: int) -> list[Verdict]:
    """The `count` decisions of an entry, in their order; none where it does not say them. Of those that one act needs,
    only the last can be a denial.
    """
    detail = entry.detail or _NO_DETAIL
    if detail.cut is not None:
        return []  # it was too long, and all but who and how is gone
    if entry.action == "decide.batch":
        return [_of_line(line) for line in detail.decisions]
    if entry.outcome in ("allow", "deny"):
        allowed = (detail.verdict or entry.outcome) == "allow"
    else:  # a token: it may have been refused for another reason, after the policies allowed it
        allowed = not any(reason.code == "access_denied" for reason in entry.reasons)
    last = _verdict(allowed, entry.policies, detail)
    return [last._replace(allowed=True)] * (count - 1) + [last]


def _named_policies(entry: Recorded) -> bool:
    """Whether policies decided, of which no facts were kept. What was denied before they were asked names none."""
    lines = entry.detail.decisions if entry.detail is not None else []
    return bool(entry.policies) or any(line[0] for line in lines)


def _of_line(line: list[Any]) -> Verdict:
    """A line of a batch: [allowed, who, what, .., policies or the codes of the reasons, perhaps more]."""
    if len(line) < 7:
        return Verdict(False, ())
    detail = convert(line[7], _Detail) if len(line) > 7 else _NO_DETAIL
    return _verdict(line[0] and detail.verdict != "deny", line[6], detail)


def _verdict(allowed: bool, policies: list[str], detail: _Detail) -> Verdict:
    return Verdict(allowed, tuple(policies), tuple(map(tuple, detail.errors)), tuple(detail.watched))  # type: ignore[arg-type]


class Change(msgspec.Struct, kw_only=True):
    """Verdicts that would change alike. `who` is an agent, an owner or a type of subjects; `before` and `after` are the
    policies that settled it, or else `because` says why not; `example` is an entry, `agent` its agent.
    """

    direction: Direction
    who: str
    what: str
    before: list[str]
    after: list[str]
    because: str
    count: int = 0
    agents: int = 0
    example: int
    agent: str


class Report(msgspec.Struct, kw_only=True):
    """`replayed` decisions gave a verdict, `unknown` are others, by why. `ungrouped` changes are of groups that did not
    fit.
    """

    policy: str
    replayed: int
    changed: int
    to_deny: int
    to_allow: int
    unknown: dict[str, int]
    altered: list[int]
    """entries whose facts are not those that their digest names"""
    changes: list[Change]
    ungrouped: int

    @property
    def not_known(self) -> int:
        """Of how many decisions, at least, nobody knows whether they would change."""
        return sum(self.unknown.values())


class Comparison:
    """Takes entries with their facts; its memory does not grow with them."""

    def __init__(self, replay: Replay, *, policy: str, by: By) -> None:
        self._replay, self._policy, self._by = replay, policy, by
        self._groups: dict[tuple[Any, ...], Change] = {}
        self._agents: dict[tuple[Any, ...], set[str]] = {}
        self._counts: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._altered: list[int] = []

    def compare(self, rows: Iterable[Row]) -> Iterator[str]:
        """Compare all decisions of these entries; stops at the digest of a catalogue that it needs to go on."""
        replayed = 0
        for index, body, facts in rows:
            for entry, asked, was, at in self._decisions(index, body, facts):
                try:
                    while True:
                        try:
                            now = self._replay.judge(asked, at=at)
                            break
                        except Lacking as lacking:
                            yield lacking.digest
                except Unreplayable as error:
                    self._unknown[error.message] += 1
                    continue
                replayed += 1
                if was.allowed is not now.allowed:
                    self._note(index, entry, asked, was, now)
        self._counts["replayed"] += replayed

    def _decisions(self, index: int, body: bytes, facts: bytes | None) -> list[tuple[Recorded, Posed, Verdict, int]]:
        """What of an entry can be asked again, and what the answer was; the rest is counted as unknown."""
        try:
            entry = _decode_entry(body)
            if not entry.facts:
                self._unknown["nothing was kept of it"] += _named_policies(entry)
                return []
            if facts is None:
                self._unknown["the facts are gone"] += 1
                return []
            if b64u(sha256(facts).digest()) != entry.facts:
                self._unknown["the facts were altered"] += 1
                if len(self._altered) < MAX_GROUPS:
                    self._altered.append(index)
                return []
            told = decode_facts(facts)
            was = verdicts(entry, len(told.asked))
        except (msgspec.DecodeError, RecursionError):
            self._unknown["what was kept does not parse"] += 1
            return []
        if len(was) != len(told.asked):
            self._unknown["the entry does not say what was decided"] += len(told.asked)
            return []
        return [(entry, asked, one, told.at) for asked, one in zip(told.asked, was, strict=True) if asked is not None]

    def _note(self, index: int, entry: Recorded, asked: Posed, was: Verdict, now: Judgement) -> None:
        direction: Direction = "deny->allow" if now.allowed else "allow->deny"
        self._counts[direction] += 1
        agent, what, who = subject_of(asked)[:MAX_WORD], what_of(asked)[:MAX_WORD], self._who(asked)[:MAX_WORD]
        before, after = was.policies[:MAX_NAMED], now.policies[:MAX_NAMED]
        key = (direction, who, what, now.because, after, before)
        change = self._groups.get(key)
        if change is None:
            if len(self._groups) == MAX_GROUPS:
                self._counts["ungrouped"] += 1
                return
            change = self._groups[key] = Change(
                direction=direction,
                who=who,
                what=what,
                because=now.because,
                example=index,
                agent=agent,
                before=list(before),
                after=list(after),
            )
            self._agents[key] = set()
        change.count += 1
        if len(seen := self._agents[key]) < MAX_AGENTS:
            seen.add(agent)
            change.agents = len(seen)

    def _who(self, asked: Posed) -> str:
        seen = asked.principal
        if not isinstance(seen, AgentSeen):
            return asked.question.subject.type if asked.question else ""
        return {"": "agent", "agent": seen.id, "owner": seen.owner}[self._by]

    def report(self) -> Report:
        """The largest groups first."""
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


def subject_of(asked: Posed) -> str:
    """The id of whom it was about."""
    if isinstance(asked.principal, AgentSeen):
        return asked.principal.id
    return asked.question.subject.id if asked.question else ""


def what_of(asked: Posed) -> str:
    """The tool that was called; else what was to be done, and to what."""
    match asked:
        case Posed(question=None, resource=ToolSeen(name=name, tool=tool)):
            return f"{name}/{tool}"
        case Posed(question=None, resource=AgentSeen(id=id), action=action):
            return f"{action} {id}"
        case Posed(question=None, resource=ResourceSeen(name=name, uri=uri), action=action):
            return f"{action} {name or uri}"
        case Posed(question=question) if question is not None:
            kind = question.resource.type
            return f"{question.action.name} {question.resource.id if asked.resource is not None else kind}"
    return ""
