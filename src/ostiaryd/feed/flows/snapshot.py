"""All that a guard must know to begin with, and the facts that are more than their change says."""

from __future__ import annotations

from ostiary.decision.feed import (
    Fact,
    HoldFact,
    KeyFact,
    KeysFact,
    PolicyFact,
    ResourceFact,
    RiskFact,
    StopFact,
    TaskFact,
    ThreatFact,
    TokenFact,
)
from ostiary.protocol.jose import b64u
from ostiary.provenance.noticing.risk import OVER_AFTER
from ostiaryd.feed import store
from ostiaryd.feed.flows.profiles import profile_facts
from ostiaryd.feed.flows.sources import learned
from ostiaryd.feed.model import agent_fact
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.policy.flows import active_set
from ostiaryd.policy.store import active_ir
from ostiaryd.registry.model import LONGEST_TOKEN, Resource
from ostiaryd.registry.store import agents, holds, keys, resources, risks, stops, threats
from ostiaryd.tasks.store import tasks
from ostiaryd.trust.store import exempt_at


def snapshot(reader: Reader, keyring: Keyring, resource: Resource, *, now: int) -> list[Fact]:
    """All that concerns the guard of `resource`; exceptions while a token can be alive that knows nothing of them."""
    since = now - LONGEST_TOKEN
    facts: list[Fact] = [resource_fact(reader, resource), policy_fact(reader), keys_fact(keyring)]
    facts += [agent_fact(id, state.value, epoch, at=now) for id, state, epoch in agents.exceptions(reader, since=since)]
    facts += [TaskFact(id, at + LONGEST_TOKEN) for id, at in tasks.ended(reader, since=since)]
    facts += [KeyFact(jkt, at + LONGEST_TOKEN) for jkt, at in keys.revoked(reader, since=since)]
    facts += [TokenFact(id, until) for id, until in store.ended_tokens(reader, resource.uri, since=since, now=now)]
    facts += [RiskFact(who, risk.millis, risk.at) for who, risk in risks.since(reader, now - OVER_AFTER)]
    facts += threat_facts(reader)
    facts += [StopFact(one.what, one.value) for one in stops.stops(reader)]
    facts += profile_facts(reader, resource.resource_id)
    facts += [HoldFact(agent, *hold) for agent, hold in holds.in_force(reader, now=now)]
    return facts


def resource_fact(reader: Reader, resource: Resource) -> ResourceFact:
    return ResourceFact(
        resource_id=resource.resource_id,
        name=resource.name,
        uri=resource.uri,
        mode=resource.mode.value,
        segment=resource.segment,
        catalogue=resources.catalogue(reader, resource.resource_id),
        exempt=exempt_at(reader, resource.resource_id),
        learned=learned(reader, resource.resource_id),
    )


def threat_facts(reader: Reader) -> list[Fact]:
    """All threat lists."""
    return [threat_fact(reader, id) for id in threats.ids(reader)]


def threat_fact(reader: Reader, id: str) -> ThreatFact:
    found = threats.loaded(reader, id)
    if found is None:
        return ThreatFact(id, id, 1, "")
    return ThreatFact(id, found.name, found.points, b64u(b"".join(sorted(found.marks))), sorted(found.networks))


def policy_fact(reader: Reader) -> PolicyFact:
    ready = active_set(reader)
    return PolicyFact(*active_ir(reader), ready.entities, ready.policies.elsewhere)


def keys_fact(keyring: Keyring) -> KeysFact:
    token, feed = ([dict(key.jwk) for key in keyring.public(use).values()] for use in ("token", "feed"))
    return KeysFact(token, feed)
