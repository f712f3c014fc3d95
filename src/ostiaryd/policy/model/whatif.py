"""What another policy set would have said: the verdicts of the ledger, compared with those of a replay, and grouped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from ostiary.core.access import Judgement
from ostiary.core.jose import b64u
from ostiaryd.policy.model.facts import AgentSeen, Posed, ResourceSeen, ToolSeen, decode_facts
from ostiaryd.policy.model.replay import Replay, Unreplayable

MAX_GROUPS = 1000
MAX_AGENTS = 1000
"""agents that a group counts"""
MAX_NAMED = 16

By = Literal["kind", "agent"]
Direction = Literal["allow->deny", "deny->allow"]


class _Detail(msgspec.Struct, gc=False):
    verdict: str = ""
    errors: list[tuple[str, str]] = []
    watched: list[str] = []
    decisions: list[Any] = []


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


_decode_entry = msgspec.json.Decoder(Recorded).decode
_NO_DETAIL = _Detail()


def verdicts(entry: Recorded, count: int) -> list[Verdict]:
    """The `count` decisions of an entry, in their order: of those that one act needs, only the last can be a denial."""
    detail = entry.detail or _NO_DETAIL
    if entry.action == "decide.batch":
        return [_of_line(line) for line in detail.decisions]
    if entry.outcome in ("allow", "deny"):
        allowed = (detail.verdict or entry.outcome) == "allow"
    else:  # a token: it may have been refused for another reason, after the policies allowed it
        allowed = not any(reason.code == "access_denied" for reason in entry.reasons)
    last = _verdict(allowed, entry.policies, detail)
    return [last._replace(allowed=True)] * (count - 1) + [last]


def _of_line(line: list[Any]) -> Verdict:
    """A line of a batch: [allowed, who, what, .., policies or the codes of the reasons, perhaps more]."""
    if len(line) < 7:
        return Verdict(False, ())
    detail = msgspec.convert(line[7], _Detail) if len(line) > 7 else _NO_DETAIL
    return _verdict(line[0] and detail.verdict != "deny", line[6], detail)


def _verdict(allowed: bool, policies: list[str], detail: _Detail) -> Verdict:
    return Verdict(allowed, tuple(policies), tuple(map(tuple, detail.errors)), tuple(detail.watched))  # type: ignore[arg-type]


class Change(msgspec.Struct, kw_only=True):
    """Verdicts that would change alike. `who` is a kind of agents, an agent, or the type of another subject; `before`
    and `after` are the policies that settled it; `example` is an entry, `agent` its agent.
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
    """`replayed` decisions gave a verdict, others did not, by why. `ungrouped` changes were of more groups than fit."""

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


class Comparison:
    """Takes entries with their facts one by one; its memory does not grow with them."""

    def __init__(self, replay: Replay, *, policy: str, by: By, kind_of: Callable[[str], str]) -> None:
        self._replay, self._policy, self._by, self._kind_of = replay, policy, by, kind_of
        self._groups: dict[tuple[Any, ...], Change] = {}
        self._agents: dict[tuple[Any, ...], set[str]] = {}
        self._counts: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._altered: list[int] = []

    def add(self, index: int, body: bytes, facts: bytes) -> None:
        """An entry, and what stands beside it."""
        entry = _decode_entry(body)
        if b64u(sha256(facts).digest()) != entry.facts:
            self._unknown["the facts were altered"] += 1
            if len(self._altered) < MAX_GROUPS:
                self._altered.append(index)
            return
        for asked, was, now in self._judged(entry, facts):
            self._counts["replayed"] += 1
            if was.allowed is not now.allowed:
                self._note(index, entry, asked, was, now)

    def _judged(self, entry: Recorded, facts: bytes) -> Iterator[tuple[Posed, Verdict, Judgement]]:
        try:
            told = decode_facts(facts)
        except (msgspec.DecodeError, RecursionError):
            self._unknown["what was kept does not parse"] += 1
            return
        for asked, was in zip(told.asked, verdicts(entry, len(told.asked)), strict=False):
            if asked is None:
                continue
            try:
                now = self._replay.judge(asked, at=told.at)
            except Unreplayable as error:
                self._unknown[error.message] += 1
                continue
            yield asked, was, now

    def _note(self, index: int, entry: Recorded, asked: Posed, was: Verdict, now: Judgement) -> None:
        direction: Direction = "deny->allow" if now.allowed else "allow->deny"
        self._counts[direction] += 1
        agent, what = subject_of(asked), what_of(asked)
        who = self._who(asked)
        key = (direction, who, what, now.because, now.policies, was.policies)
        change = self._groups.get(key)
        if change is None:
            if len(self._groups) == MAX_GROUPS:
                self._counts["ungrouped"] += 1
                return
            change = self._groups[key] = Change(
                direction=direction, who=who, what=what, because=now.because, example=index, agent=agent,
                before=list(was.policies[:MAX_NAMED]), after=list(now.policies[:MAX_NAMED]),
            )  # fmt: skip
            self._agents[key] = set()
        change.count += 1
        if len(seen := self._agents[key]) < MAX_AGENTS:
            seen.add(agent)
            change.agents = len(seen)

    def _who(self, asked: Posed) -> str:
        if not isinstance(asked.principal, AgentSeen):
            return asked.question.subject.type if asked.question else ""
        return asked.principal.id if self._by == "agent" else self._kind_of(asked.principal.id)

    def report(self) -> Report:
        """The largest groups first."""
        counts = self._counts
        return Report(
            policy=self._policy,
            replayed=counts["replayed"],
            changed=counts["allow->deny"] + counts["deny->allow"],
            to_deny=counts["allow->deny"],
            to_allow=counts["deny->allow"],
            unknown=dict(self._unknown),
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
