"""What a guard knows, and whether it may still rely on it. No I/O: lines go in, facts come out, or a reason why not.

Whatever is wrong with a line (a signature, a number out of order, a kind that we do not know, a policy that does not
compile) makes the guard forget everything: nothing is decided until the next snapshot. So does silence: a feed that is
older than `max_age` may have missed a revocation.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256
from typing import NamedTuple

from ostiary.core import access, canonical, cedar
from ostiary.core.catalogue import Catalogue
from ostiary.core.errors import Refused, Unavailable
from ostiary.core.feed import (
    MAX_LINE_BYTES,
    AgentFact,
    Fact,
    HoldFact,
    KeyFact,
    KeysFact,
    Message,
    PolicyFact,
    ResourceFact,
    RiskFact,
    StopFact,
    TaskFact,
    ThreatFact,
    TokenFact,
    parse_message,
)
from ostiary.core.jose import JwkSet, b64u, unb64u
from ostiary.core.watch import Risk
from ostiary.core.watch.threats import ThreatList, parse_marks

MAX_EXCEPTIONS = 1_000_000
GRACE_US = 60_000_000
"""How much longer than it must a fact is kept, so that no clock decides."""
PRUNE_EVERY_US = 30_000_000


class FeedBroken(Unavailable):
    """The feed said something that it must not say. All knowledge is dropped; only a snapshot heals it."""

    code = "feed_broken"


class FeedStale(Unavailable):
    """Nothing fresh has been heard for too long, or not yet, or not with this clock."""

    code = "feed_stale"


class Present(NamedTuple):
    """What decisions rest on. `facts` looks into tables that the thread of the feed keeps current."""

    resource: ResourceFact
    keys: JwkSet
    facts: access.Facts


@dataclass(slots=True)
class Knowledge:
    """All that was told since the snapshot."""

    resource: ResourceFact | None = None
    protected: access.Protected | None = None
    policies: access.Policies | None = None
    keys: JwkSet = field(default_factory=lambda: JwkSet(()))
    agents: dict[str, access.AgentFact] = field(default_factory=dict)
    agents_until: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)
    """keys, by thumbprint"""
    risks: dict[str, Risk] = field(default_factory=dict)
    """by agent or task"""
    holds: dict[str, tuple[access.Hold, ...]] = field(default_factory=dict)
    """by agent"""
    threats: dict[str, ThreatList] = field(default_factory=dict)
    stops: set[tuple[str, str]] = field(default_factory=set)
    """what the kill switch has stopped"""

    def learn(self, fact: Fact) -> None:
        """Raises Refused for a catalogue or a policy set that is not well-formed."""
        match fact:
            case AgentFact():
                known = self.agents.get(fact.agent)
                if known is None or fact.epoch >= known.epoch:  # resuming may tell again what is known
                    self.agents[fact.agent] = access.AgentFact(fact.state, fact.epoch)
                    self.agents_until[fact.agent] = fact.until
            case TaskFact():
                self.tasks[fact.task] = fact.until
            case TokenFact():
                self.tokens[fact.jti] = fact.until
            case KeyFact():
                self.revoked[fact.jkt] = fact.until
            case RiskFact():
                self.risks[fact.subject] = Risk(fact.millis, fact.at)
            case HoldFact(agent):
                others = tuple(one for one in self.holds.get(agent, ()) if one.kind != fact.hold)
                self.holds[agent] = (*others, access.Hold(fact.hold, fact.limit, fact.since, fact.until))
            case ThreatFact(id, name, points, packed, networks):
                self.threats.pop(id, None)
                if marks := parse_marks(unb64u(packed)):
                    self.threats[id] = ThreatList(name, points, marks, frozenset(networks))
            case StopFact():
                (self.stops.discard if fact.is_lifted else self.stops.add)((fact.what, fact.value))
            case ResourceFact():
                self.resource, self.protected = fact, _protect(fact)
            case PolicyFact():
                self.policies = _policies(fact)
            case KeysFact():
                self.keys = JwkSet.parse({"keys": fact.token})

    def present(self) -> Present:
        """Raises FeedBroken where a part is missing, or there is too much."""
        if self.resource is None or self.protected is None or self.policies is None or not self.keys.keys:
            raise FeedBroken("a snapshot lacks the resource, the policies or the keys")
        tables: tuple[Sized, ...] = (
            self.agents,
            self.tasks,
            self.tokens,
            self.revoked,
            self.risks,
            self.holds,
            self.stops,
        )
        if sum(map(len, tables)) > MAX_EXCEPTIONS:
            raise FeedBroken(f"there are more than {MAX_EXCEPTIONS} exceptions")
        facts = access.Facts(
            self.protected,
            self.policies,
            self.agents,
            self.tasks,
            self.tokens,
            self.revoked,
            risks=self.risks,
            holds=self.holds,
            threats=self.threats,
            stops=self.stops,
        )
        return Present(self.resource, self.keys, facts)

    def prune(self, before: int) -> None:
        """Forget what can no longer matter."""
        for table in (self.tasks, self.tokens, self.revoked):
            for name in [name for name, until in table.items() if until < before]:
                del table[name]
        for agent in [agent for agent, until in self.agents_until.items() if until < before]:
            del self.agents_until[agent], self.agents[agent]
        for subject in [subject for subject, risk in self.risks.items() if risk.until < before]:
            del self.risks[subject]
        for agent in [agent for agent, holds in self.holds.items() if all(one.until < before for one in holds)]:
            del self.holds[agent]


class _Place(Enum):
    """Where in a stream we are: what must come next."""

    OPENING = auto()
    STEP = auto()
    PRIVATE = auto()


class Feed:
    """One guard's side of the stream. Times in microseconds: `now` is the wall clock, `tick` one that never jumps."""

    def __init__(
        self,
        *,
        resource_id: str,
        now: Callable[[], int],
        tick: Callable[[], int],
        max_age: int,
        max_skew: int,
    ) -> None:
        self.issuer, self._resource_id = "", resource_id
        self._now, self._tick = now, tick
        self.max_age, self._max_skew = max_age, max_skew
        self._stream = ""
        self._place = _Place.OPENING
        self.feed_keys = JwkSet(())
        self.seq: int | None = None
        """how far in the server's history we have heard; None: only a snapshot helps"""
        self._knowledge: Knowledge | None = None
        self._present: Present | None = None
        self._heard_at = 0  # on the clock that never jumps, put back by what the message was late
        self.mode: str | None = None
        """of the resource, as it was said last, however long ago"""
        self._why = "nothing has been heard of the server yet"
        self._prune_at = 0

    def begin(self, stream: str, *, issuer: str, keys: JwkSet) -> None:
        """A connection is about to be opened, under this number and to this issuer; no other lines will count."""
        self._stream, self._place, self.issuer, self.feed_keys = stream, _Place.OPENING, issuer, keys

    def accept(self, unverified_line: bytes) -> Message:
        """Learn from the next line. Raises FeedBroken, after which nothing is known any more."""
        try:
            message = parse_message(unverified_line, keys=self.feed_keys)
            self._check(message)
            self._learn(message)
        except Refused as refusal:
            self.doubt(refusal.message)
            raise FeedBroken(f"the feed is broken: {refusal.message}") from None
        self.seq = message.seq
        self._place = _Place.PRIVATE if self._resource_id in message.private else _Place.STEP
        self._listen(message)
        return message

    def doubt(self, why: str) -> None:
        """Forget everything."""
        self._knowledge = self._present = self.seq = None
        self._why = f"the feed is broken: {why}"

    def _check(self, message: Message) -> None:
        """Whether this is the message that must come next."""
        must: dict[str, object] = {"iss": self.issuer, "aud": "", "stream": "", "snapshot": False, "prev": self.seq}
        match self._place:
            case _Place.OPENING:
                must |= {"aud": self._resource_id, "stream": self._stream, "private": []}
                must |= {"snapshot": True, "prev": message.seq} if message.snapshot else {}
            case _Place.PRIVATE:
                must |= {"aud": self._resource_id, "seq": self.seq, "private": []}
        for name, value in must.items():
            if getattr(message, name) != value:
                raise FeedBroken(f"a message has another `{name}` than must come next")
        if message.seq < message.prev:
            raise FeedBroken("a message leads back")

    def _learn(self, message: Message) -> None:
        knowledge = Knowledge() if message.snapshot or self._knowledge is None else self._knowledge
        for fact in message.facts:
            if isinstance(fact, ResourceFact) and fact.resource_id != self._resource_id:
                raise FeedBroken("a message is about another resource")
            knowledge.learn(fact)
            if isinstance(fact, ResourceFact):
                self.mode = fact.mode
            if isinstance(fact, KeysFact):
                self.feed_keys = JwkSet.parse({"keys": fact.feed})
        if message.facts or self._present is None:
            self._present = knowledge.present()
        self._knowledge = knowledge

    def _listen(self, message: Message) -> None:
        """Whether this message makes us current: only if its time and ours agree."""
        now = self._now()
        late = now - message.at
        if abs(late) > self._max_skew:
            self._heard_at = self._tick() - self.max_age - 1
            whose = "behind" if late > 0 else "ahead of"
            self._why = f"the server's clock is {abs(late) / 1e6:.1f} s {whose} ours, or its messages come late"
            return
        self._heard_at, self._why = self._tick() - max(late, 0), "nothing has been heard of the server for too long"
        if now >= self._prune_at and self._knowledge is not None:
            self._knowledge.prune(now - GRACE_US)
            self._prune_at = now + PRUNE_EVERY_US

    @property
    def age(self) -> int:
        """How old our knowledge is, in microseconds."""
        return self._tick() - self._heard_at

    def current(self) -> Present:
        """What is known, if it may be relied on. Raises FeedStale: whoever enforces denies."""
        present = self._present
        if present is None or self._tick() - self._heard_at > self.max_age:
            raise FeedStale(self._why, hint="is the server running, and does this guard's clock agree with it?")
        return present


def _policies(fact: PolicyFact) -> access.Policies:
    stated = canonical.parse(fact.entities, max_bytes=MAX_LINE_BYTES) if fact.entities else []
    return access.Policies(
        fact.hash,
        cedar.ir.parse(fact.policies.encode()),
        entities=cedar.values.parse_entities(stated),
        elsewhere=fact.elsewhere,
    )


def _protect(fact: ResourceFact) -> access.Protected:
    text = fact.catalogue
    return access.Protected(
        name=fact.name,
        uri=fact.uri,
        segment=fact.segment,
        catalogue=None if text is None else Catalogue.parse(text),
        mode=fact.mode,
        catalogue_hash="" if text is None else b64u(sha256(text.encode()).digest()),  # it comes in its canonical form
    )
