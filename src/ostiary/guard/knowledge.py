"""The facts of a guard: those of the last snapshot, with all later changes."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple, assert_never

from ostiary.authorization import cedar
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision import access
from ostiary.decision.feed import (
    MAX_LINE_BYTES,
    AgentFact,
    Fact,
    KeyFact,
    KeysFact,
    PolicyFact,
    ProfileFact,
    ResourceFact,
    RestrictionFact,
    RiskFact,
    SecretUseFact,
    StopFact,
    TaskFact,
    ThreatFact,
    TokenFact,
)
from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed, Unavailable
from ostiary.protocol.jose import JwkSet, b64u, unb64u
from ostiary.provenance.noticing import NEW, Profile, Risk, unpack
from ostiary.provenance.noticing.threats import ThreatList, parse_marks
from ostiary.provenance.sources import with_sources

MAX_EXCEPTIONS = 1_000_000
MAX_PROFILES = 20_000


class FeedBroken(Unavailable):
    """The feed is inconsistent. The guard drops all facts and needs a new snapshot."""

    code = "feed_broken"


class FeedStale(Unavailable):
    """The facts are not reliable: the feed is too old or not connected yet, or a clock is wrong."""

    code = "feed_stale"


class KeyUnheard(Unavailable):
    """A token names a key that the feed may announce soon: the token is newer than the newest message of the feed."""

    code = "key_unheard"


class Present(NamedTuple):
    """The inputs of decisions at one moment. The tables behind `facts` change while the guard runs: the thread of the
    feed updates them.
    """

    resource: ResourceFact
    keys: JwkSet
    facts: access.Facts
    exempt: frozenset[str] = frozenset()
    """ids of the agents, and classes of registration (`document`, `dynamic`), whose bearer tokens the guard accepts"""


@dataclass(slots=True)
class Knowledge:
    """The facts that a guard knows from the server: those of the last snapshot, with all later changes applied."""

    resource: ResourceFact | None = None
    exempt: frozenset[str] = frozenset()
    protected: access.Protected | None = None
    policies: access.Policies | None = None
    keys: JwkSet = field(default_factory=lambda: JwkSet(()))
    agents: dict[str, access.AgentStatus] = field(default_factory=dict)
    agents_until: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)
    """revoked keys by thumbprint, each with the time until which the revocation is kept, in microseconds"""
    risks: dict[str, Risk] = field(default_factory=dict)
    """risk scores by the id of an agent or a task; without an entry, the score is 0"""
    restrictions: dict[str, tuple[access.Restriction, ...]] = field(default_factory=dict)
    """restrictions by the id of the agent"""
    secret_uses: dict[str, int] = field(default_factory=dict)
    """agents for which an egress proxy has used secrets; the value is the time in microseconds until which the
    arguments of the agent's calls are searched for these secrets
    """
    threats: dict[str, ThreatList] = field(default_factory=dict)
    stops: set[tuple[str, str]] = field(default_factory=set)
    """(kind, value) of each object that the kill switch stops"""
    profiles: dict[str, Profile] = field(default_factory=dict)
    """usual behaviour by agent, in the order in which the messages about the agents arrived"""
    _present: Present | None = None
    """the result of `present`; None after the resource, the policies or the keys have changed"""

    def learn(self, fact: Fact) -> None:
        """Store a fact of the feed. Raises Refused for a malformed catalogue or policy set."""
        match fact:
            case AgentFact():
                status = self.agents.get(fact.agent)
                # After a reconnection, the stream may repeat an older fact.
                if status is None or fact.epoch >= status.epoch:
                    self.agents[fact.agent] = access.AgentStatus(fact.state, fact.epoch)
                    self.agents_until[fact.agent] = fact.until
            case TaskFact():
                self.tasks[fact.task] = fact.until
            case TokenFact():
                self.tokens[fact.jti] = fact.until
            case KeyFact():
                self.revoked[fact.jkt] = fact.until
            case RiskFact():
                self.risks[fact.subject] = Risk(fact.millis, fact.at)
            case RestrictionFact(agent):
                others = tuple(one for one in self.restrictions.get(agent, ()) if one.kind != fact.hold)
                self.restrictions[agent] = (*others, access.Restriction(fact.hold, fact.limit, fact.since, fact.until))
            case SecretUseFact(agent, until):
                self.secret_uses[agent] = max(until, self.secret_uses.get(agent, 0))
            case ThreatFact(id, name, points, packed, networks):
                self.threats.pop(id, None)
                if marks := parse_marks(unb64u(packed)):
                    self.threats[id] = ThreatList(name, points, marks, frozenset(networks))
            case StopFact():
                (self.stops.discard if fact.is_lifted else self.stops.add)((fact.stop_kind, fact.value))
            case ProfileFact(agent, packed):
                self.profiles.pop(agent, None)
                self.profiles[agent] = _profile(packed)
                if len(self.profiles) > MAX_PROFILES:
                    del self.profiles[next(iter(self.profiles))]
            case ResourceFact():
                self.resource, self.protected, self._present = fact, _protect(fact), None
                self.exempt = frozenset([*fact.exempt, *fact.exempt_classes])
            case PolicyFact():
                self.policies, self._present = _policies(fact), None
            case KeysFact():
                self.keys, self._present = JwkSet.parse({"keys": fact.token}), None
            case _:
                assert_never(fact)

    def learn_stop(self, fact: Fact) -> None:
        """Add a stop that was stored under another history of the server's database, before the database was restored,
        to the facts. A fact that lifts a stop is ignored.
        """
        match fact:
            case AgentFact(agent, state, epoch, until):
                status = self.agents.get(agent)
                if status is not None:
                    state = status.state if state == "active" else state
                    epoch = max(epoch, status.epoch)
                self.agents[agent] = access.AgentStatus(state, epoch)
                self.agents_until[agent] = max(until, self.agents_until.get(agent, 0))
            case TaskFact(task, until):
                self.tasks[task] = max(until, self.tasks.get(task, 0))
            case TokenFact(jti, until):
                self.tokens[jti] = max(until, self.tokens.get(jti, 0))
            case KeyFact(jkt, until):
                self.revoked[jkt] = max(until, self.revoked.get(jkt, 0))
            case StopFact(is_lifted=False):
                self.stops.add((fact.stop_kind, fact.value))

    def present(self) -> Present:
        """Return the present facts. Raises FeedBroken if a part is missing, or the facts exceed the limits."""
        if self.resource is None or self.protected is None or self.policies is None or not self.keys.keys:
            raise FeedBroken("a snapshot lacks the resource, the policies or the keys")
        tables: tuple[Sized, ...] = (
            self.agents,
            self.tasks,
            self.tokens,
            self.revoked,
            self.risks,
            self.restrictions,
            self.secret_uses,
            self.stops,
        )
        if sum(map(len, tables)) > MAX_EXCEPTIONS:
            raise FeedBroken(f"the feed has more than {MAX_EXCEPTIONS} revocations, stops and other exceptions")
        if self._present is not None:
            return self._present
        facts = access.Facts(
            self.protected,
            self.policies,
            self.agents,
            self.tasks,
            self.tokens,
            self.revoked,
            risks=self.risks,
            restrictions=self.restrictions,
            secret_uses=self.secret_uses,
            threats=self.threats,
            profiles=self.profiles,
            stops=self.stops,
        )
        self._present = Present(self.resource, self.keys, facts, self.exempt)
        return self._present

    def prune(self, before: int) -> None:
        """Delete the facts that expired before the time `before`, in microseconds."""
        for table in (self.tasks, self.tokens, self.revoked, self.secret_uses):
            for name in [name for name, until in table.items() if until < before]:
                del table[name]
        for agent in [agent for agent, until in self.agents_until.items() if until < before]:
            del self.agents_until[agent], self.agents[agent]
        for subject in [subject for subject, risk in self.risks.items() if risk.until < before]:
            del self.risks[subject]
        for agent in [
            agent for agent, limits in self.restrictions.items() if all(one.until < before for one in limits)
        ]:
            del self.restrictions[agent]


def _profile(packed: str) -> Profile:
    """Return the unpacked profile. Return an empty profile for malformed data, because no decision depends on a profile
    alone.
    """
    try:
        return unpack(unb64u(packed))
    except Malformed:
        return NEW


def _policies(fact: PolicyFact) -> access.Policies:
    stated = canonical.parse(fact.entities, max_bytes=MAX_LINE_BYTES) if fact.entities else []
    return access.Policies(
        fact.hash,
        cedar.ir.parse(fact.policies.encode()),
        entities=cedar.values.parse_entities(stated),
        remote=fact.remote,
    )


def _protect(fact: ResourceFact) -> access.Protected:
    text = fact.catalogue
    return access.Protected(
        name=fact.name,
        uri=fact.uri,
        segment=fact.segment,
        catalogue=None if text is None else with_sources(Catalogue.parse(text), fact.learned),
        mode=fact.mode,
        catalogue_hash="" if text is None else b64u(sha256(text.encode()).digest()),  # it comes in its canonical form
    )
