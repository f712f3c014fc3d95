"""Federation with other trust domains: add, refresh and remove trust domains, and let agents trust them."""

from __future__ import annotations

from collections.abc import Sequence

from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.certs import store
from ostiaryd.certs.flows.bundles import find_own_bundle, own_bundle, publish_bundle, wake_workloads
from ostiaryd.certs.model.bundle import REFRESH_S, TrustBundle, render_bundle
from ostiaryd.certs.model.spiffe_id import SpiffeId
from ostiaryd.certs.model.trust_domain import (
    MAX_TRUST_DOMAINS,
    SECOND,
    TrustDomain,
    check_endpoint,
    check_foreign,
    check_other_domain,
    is_new,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry

AGAIN = REFRESH_S * SECOND
"""Microseconds until the next attempt after a failed fetch of a bundle."""
OLD = 86_400 * SECOND
"""Age of a bundle in microseconds above which `ostiary doctor` reports a problem."""


def add_trust_domain(
    act: Act,
    name: str,
    bundle_url: str,
    *,
    endpoint_spiffe_id: str = "",
    bundle: TrustBundle | None = None,
    config: Config,
) -> TrustDomain:
    """Add a trust domain to federate with, and return it. The fetch of its bundle is due at once. No agent trusts the
    trust domain yet.

    `endpoint_spiffe_id`: the SPIFFE ID that the bundle endpoint must prove; empty: the endpoint must prove its host
    name. `bundle`: the first bundle, only for an endpoint in the trust domain itself. Raises Invalid for members that
    are not valid or do not fit together, NotFound if the trust domain of the endpoint is unknown, Conflict for a known
    trust domain (`trust_domain_exists`), too many (`too_many_trust_domains`), or a bundle with a key of this server
    (`own_authority`).
    """
    registry.fill_entry(act, object=name[:255], bundle_url=bundle_url[:256], endpoint=endpoint_spiffe_id[:256])
    check_other_domain(name, own=config.trust_domain)
    endpoint = check_endpoint(name, endpoint_spiffe_id, bundle)
    if endpoint is not None and endpoint.trust_domain not in (name, config.trust_domain):
        find_trust_domain(act.tx, endpoint.trust_domain)
    if store.trust_domains.get(act.tx, name) is not None:
        raise Conflict(
            f"the trust domain `{name}` is federated already",
            hint=f"see `ostiary trust-domain show {name}`",
            code="trust_domain_exists",
        )
    if len(store.trust_domains.list_trust_domains(act.tx)) >= MAX_TRUST_DOMAINS:
        raise Conflict(
            f"this server federates with {MAX_TRUST_DOMAINS} trust domains, which is the limit",
            hint="remove a trust domain first: ostiary trust-domain remove NAME",
            code="too_many_trust_domains",
        )
    domain = TrustDomain(
        name=name,
        bundle_url=bundle_url,
        endpoint_spiffe_id=endpoint_spiffe_id,
        sequence=None if bundle is None else bundle.sequence,
        content=None if bundle is None else render_bundle(bundle),
        due_at=act.now,
        created_at=act.now,
    )
    store.trust_domains.insert(act.tx, domain)
    own = publish_bundle(act, config)
    if bundle is not None:
        check_foreign(name, bundle, own=own)
    return domain


def remove_trust_domain(act: Act, name: str) -> TrustDomain:
    """Remove a federated trust domain, and return it. The workloads of the agents that trusted it lose its bundle at
    once. Raises NotFound if there is none.
    """
    domain = find_trust_domain(act.tx, name)
    registry.fill_entry(act, object=domain.name)
    store.trust_domains.delete(act.tx, domain.name)
    wake_workloads(act)
    return domain


def allow_agent(act: Act, name: str, agent: str) -> TrustDomain:
    """Let the workloads of an agent trust a federated trust domain; return the trust domain. Raises NotFound for an
    unknown trust domain or agent.
    """
    domain, holder = find_trust_domain(act.tx, name), registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=domain.name, agent=holder.agent_id, owner=holder.owner)
    if store.trust_domains.allow(act.tx, domain.name, holder.agent_id):
        wake_workloads(act)
    return domain


def disallow_agent(act: Act, name: str, agent: str) -> TrustDomain:
    """Withdraw the trust of an agent's workloads in a trust domain; return the trust domain. Raises NotFound for an
    unknown trust domain or agent, and for an agent that does not trust the trust domain.
    """
    domain, holder = find_trust_domain(act.tx, name), registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=domain.name, agent=holder.agent_id, owner=holder.owner)
    if not store.trust_domains.disallow(act.tx, domain.name, holder.agent_id):
        raise NotFound(
            f"the agent `{holder.name}` does not trust the trust domain `{domain.name}`",
            hint=f"see `ostiary trust-domain show {domain.name}`",
        )
    wake_workloads(act)
    return domain


def find_trust_domain(reader: Reader, name: str) -> TrustDomain:
    """Return a federated trust domain by its name. Raises NotFound if there is none."""
    if (domain := store.trust_domains.get(reader, name)) is None:
        raise NotFound(
            f"trust domain {name[:64]!a} not found", hint="list the trust domains: ostiary trust-domain list"
        )
    return domain


def find_endpoint_roots(reader: Reader, endpoint: SpiffeId, config: Config) -> tuple[bytes, ...]:
    """Return the X.509 authorities that authenticate a bundle endpoint: those in the latest bundle of the endpoint's
    trust domain (SPIFFE Federation, 5.2.2.4). Raises NotFound for an unknown trust domain, Unavailable if this server
    has no bundle of its own yet.
    """
    if endpoint.trust_domain == config.trust_domain:
        return own_bundle(reader, config).x509
    return find_trust_domain(reader, endpoint.trust_domain).bundle.x509


def list_due_domains(reader: Reader, *, now: int) -> list[TrustDomain]:
    """Return the trust domains whose bundle must be fetched now."""
    return store.trust_domains.due(reader, now=now, limit=MAX_TRUST_DOMAINS)


def claim_refresh(tx: Tx, domain: TrustDomain) -> bool:
    """Claim the fetch of a trust domain's bundle for this process. Return False if another process has claimed the
    fetch.
    """
    return store.trust_domains.claim(tx, domain, until=tx.now + AGAIN)


def take_bundle(act: Act, name: str, bundle: TrustBundle, *, config: Config) -> TrustDomain:
    """Store a fetched bundle of a trust domain, and wake the streams of workloads; return the trust domain. If the
    bundle equals the stored bundle, store only the time of the next fetch. Raises NotFound if the trust domain was
    removed, BackwardBundle for an older bundle than the stored one, OwnAuthority for a bundle with an authority of this
    server.
    """
    domain = find_trust_domain(act.tx, name)
    registry.fill_entry(
        act,
        object=domain.name,
        bundle_sequence=bundle.sequence,
        authorities=len(bundle.x509),
        jwt_keys=[one.kid[:64] for one in bundle.jwt[:16]],
    )
    if (own := find_own_bundle(act.tx, config)) is not None:
        check_foreign(name, bundle, own=own)
    due_at = act.now + bundle.refresh_s * SECOND
    if not is_new(domain, bundle):
        store.trust_domains.record_unchanged(act.tx, domain.name, due_at=due_at)
        return domain
    store.trust_domains.take(
        act.tx, domain.name, sequence=bundle.sequence, content=render_bundle(bundle), due_at=due_at
    )
    wake_workloads(act)
    return find_trust_domain(act.tx, name)


def keep_bundle(tx: Tx, name: str, bundle: TrustBundle) -> None:
    """Record that the bundle of a trust domain was fetched, and equals the stored bundle."""
    store.trust_domains.record_unchanged(tx, name, due_at=tx.now + bundle.refresh_s * SECOND)


def fail_refresh(tx: Tx, name: str, why: str) -> None:
    """Record the reason why the bundle of a trust domain could not be fetched; the stored bundle is kept."""
    store.trust_domains.fail(tx, name, why[:200])


def trusted_bundles(reader: Reader, agents: Sequence[str]) -> dict[str, TrustBundle]:
    """Return, by the name of the trust domain, the bundles of the federated trust domains that at least one of `agents`
    trusts.
    """
    return {
        domain.name: domain.bundle
        for agent in agents
        for domain in store.trust_domains.trusted_by(reader, agent)
        if domain.content is not None
    }


def troubles(reader: Reader, *, now: int) -> list[str]:
    """Return a message for each trust domain whose bundle is older than `OLD`, or could never be fetched."""
    return [
        f"`{domain.name}`: {domain.failed or 'the bundle was not fetched yet'}"
        for domain in store.trust_domains.list_trust_domains(reader)
        if now - (domain.refreshed_at or domain.created_at) > OLD or (domain.failed and domain.refreshed_at is None)
    ]
