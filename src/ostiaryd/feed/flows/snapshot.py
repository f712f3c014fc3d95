"""The snapshot that a guard gets when it starts, and the facts of the feed that the server reads from the database."""

from __future__ import annotations

from ostiary.decision.feed import (
    Fact,
    KeyFact,
    KeysFact,
    PolicyFact,
    ResourceFact,
    RestrictionFact,
    RiskFact,
    SecretUseFact,
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
from ostiaryd.policy import flows as policy
from ostiaryd.policy.flows import active_set
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import LONGEST_TOKEN, Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.trust import flows as trust
from ostiaryd.watch import flows as watch


def snapshot(reader: Reader, keyring: Keyring, resource: Resource, *, now: int) -> list[Fact]:
    """Return all facts that concern the guard of `resource`.

    An agent, task, key or token that was stopped is included only for as long as an earlier token can still be live.
    """
    since = now - LONGEST_TOKEN
    facts: list[Fact] = [resource_fact(reader, resource), policy_fact(reader), keys_fact(keyring)]
    facts += [
        agent_fact(id, state.value, epoch, at=now)
        for id, state, epoch in registry.list_agent_exceptions(reader, since=since)
    ]
    facts += [TaskFact(id, at + LONGEST_TOKEN) for id, at in tasks.list_ended_tasks(reader, since=since)]
    facts += [KeyFact(jkt, at + LONGEST_TOKEN) for jkt, at in registry.list_revoked_keys(reader, since=since)]
    facts += [TokenFact(id, until) for id, until in store.ended_tokens(reader, resource.uri, since=since, now=now)]
    facts += [
        RiskFact(subject, risk.millis, risk.at) for subject, risk in registry.list_risks(reader, now - OVER_AFTER)
    ]
    facts += [SecretUseFact(agent, until) for agent, until in registry.list_secret_users(reader, now=now)]
    facts += threat_facts(reader)
    facts += [StopFact(one.target_kind, one.value) for one in registry.list_stops(reader)]
    facts += profile_facts(reader, resource.resource_id)
    facts += [
        RestrictionFact(agent, *restriction) for agent, restriction in registry.list_restrictions(reader, now=now)
    ]
    return facts


def resource_fact(reader: Reader, resource: Resource) -> ResourceFact:
    """Return the fact that describes a resource to its guards: catalogue, mode, segment and others."""
    return ResourceFact(
        resource_id=resource.resource_id,
        name=resource.name,
        uri=resource.uri,
        mode=resource.mode.value,
        segment=resource.segment,
        catalogue=registry.get_catalogue(reader, resource.resource_id),
        exempt=trust.list_exempt_agents(reader, resource.resource_id),
        exempt_classes=trust.list_exempt_classes(reader, resource.resource_id),
        learned=learned(reader, resource.resource_id),
    )


def threat_facts(reader: Reader) -> list[Fact]:
    """Return the facts of all threat lists."""
    return [threat_fact(reader, id) for id in watch.list_threat_lists(reader)]


def threat_fact(reader: Reader, id: str) -> ThreatFact:
    """Return the fact of a threat list; a fact with an empty list if the threat list was deleted."""
    threats = watch.get_threat_list(reader, id)
    if threats is None:
        return ThreatFact(id, id, 1, "")
    return ThreatFact(id, threats.name, threats.points, b64u(b"".join(sorted(threats.marks))), sorted(threats.networks))


def policy_fact(reader: Reader) -> PolicyFact:
    """Return the fact with the policies of the active policy set."""
    ready = active_set(reader)
    return PolicyFact(*policy.get_active_ir(reader), ready.entities, ready.policies.remote)


def keys_fact(keyring: Keyring) -> KeysFact:
    """Return the fact with the public keys that sign access tokens and the feed."""
    token, feed = ([dict(key.jwk) for key in keyring.public(use).values()] for use in ("token", "feed"))
    return KeysFact(token, feed)
