"""The tables of federated trust domains, of their bundles, and of the agents that trust them."""

from __future__ import annotations

from ostiaryd.certs.model.trust_domain import TrustDomain
from ostiaryd.ground.database import Reader, Row, Tx, sql

_SELECT = """select name, bundle_url, endpoint_spiffe_id, sequence, content, refreshed_at, due_at, failed, created_at
    from trust_domain """
_GET = sql(_SELECT + "where name = :name")
_ALL = sql(_SELECT + "order by name")
_DUE = sql(_SELECT + "where due_at <= :now order by due_at limit :limit")
_TRUSTED_BY = sql(
    _SELECT + "where name in (select trust_domain from trust_domain_agent where agent = :agent) order by name"
)
_INSERT = sql(
    """insert into trust_domain (name, bundle_url, endpoint_spiffe_id, sequence, content, due_at, failed, created_at)
       values (:name, :bundle_url, :endpoint_spiffe_id, :sequence, :content, :due_at, '', :created_at)"""
)
_DELETE = sql("delete from trust_domain where name = :name")
_CLAIM = sql("update trust_domain set due_at = :until where name = :name and due_at = :due_at")
_TAKE = sql(
    """update trust_domain
       set sequence = :sequence, content = :content, refreshed_at = :now, due_at = :due_at, failed = ''
       where name = :name"""
)
_KEEP = sql("update trust_domain set refreshed_at = :now, due_at = :due_at, failed = '' where name = :name")
_FAIL = sql("update trust_domain set failed = :why where name = :name")
_AGENTS = sql("select agent from trust_domain_agent where trust_domain = :name order by agent")
_ALLOW = sql("insert into trust_domain_agent (trust_domain, agent) values (:name, :agent) on conflict do nothing")
_DISALLOW = sql("delete from trust_domain_agent where trust_domain = :name and agent = :agent")


def get(reader: Reader, name: str) -> TrustDomain | None:
    """Return a trust domain by its name; None if it is not federated."""
    return reader.one_as(_GET, _domain, name=name)


def list_trust_domains(reader: Reader) -> list[TrustDomain]:
    """Return all federated trust domains, sorted by name."""
    return [_domain(row) for row in reader.all(_ALL)]


def due(reader: Reader, *, now: int, limit: int) -> list[TrustDomain]:
    """Return at most `limit` trust domains whose bundle must be fetched at `now` (microseconds)."""
    return [_domain(row) for row in reader.all(_DUE, now=now, limit=limit)]


def trusted_by(reader: Reader, agent: str) -> list[TrustDomain]:
    """Return the trust domains that an agent trusts."""
    return [_domain(row) for row in reader.all(_TRUSTED_BY, agent=agent)]


def insert(tx: Tx, domain: TrustDomain) -> None:
    """Store a new trust domain."""
    tx.run(
        _INSERT,
        name=domain.name,
        bundle_url=domain.bundle_url,
        endpoint_spiffe_id=domain.endpoint_spiffe_id,
        sequence=None if domain.sequence is None else str(domain.sequence),
        content=domain.content,
        due_at=domain.due_at,
        created_at=domain.created_at,
    )
    tx.touch("trust_domain", domain.name)


def delete(tx: Tx, name: str) -> None:
    """Delete a trust domain with its bundle."""
    for agent in agents(tx, name):
        disallow(tx, name, agent)
    tx.run(_DELETE, name=name)
    tx.touch("trust_domain", name)


def claim(tx: Tx, domain: TrustDomain, *, until: int) -> bool:
    """Claim the fetch of a bundle for this process until `until` (microseconds). Return False if another process has
    the claim.
    """
    return tx.run(_CLAIM, name=domain.name, due_at=domain.due_at, until=until) == 1


def take(tx: Tx, name: str, *, sequence: int | None, content: bytes, due_at: int) -> None:
    """Store a new bundle of a trust domain, with its sequence number and the time of the next fetch."""
    text = None if sequence is None else str(sequence)
    tx.run(_TAKE, name=name, sequence=text, content=content, now=tx.now, due_at=due_at)
    tx.touch("trust_domain", name)


def record_unchanged(tx: Tx, name: str, *, due_at: int) -> None:
    """Record that the fetched bundle equals the stored bundle, and store the time of the next fetch."""
    tx.run(_KEEP, name=name, now=tx.now, due_at=due_at)


def fail(tx: Tx, name: str, why: str) -> None:
    """Record the reason why the bundle of a trust domain could not be fetched."""
    tx.run(_FAIL, name=name, why=why)


def agents(reader: Reader, name: str) -> list[str]:
    """Return the ids of the agents that trust a trust domain."""
    return [id for (id,) in reader.all(_AGENTS, name=name)]


def allow(tx: Tx, name: str, agent: str) -> bool:
    """Record that an agent trusts a trust domain. Return False if the agent trusts it already."""
    is_new = tx.run(_ALLOW, name=name, agent=agent) == 1
    tx.touch("trusted_domain", f"{name} {agent}")
    return is_new


def disallow(tx: Tx, name: str, agent: str) -> bool:
    """Delete the record that an agent trusts a trust domain. Return False if there is no record of this trust."""
    was_allowed = tx.run(_DISALLOW, name=name, agent=agent) == 1
    tx.touch("trusted_domain", f"{name} {agent}")
    return was_allowed


def _domain(row: Row) -> TrustDomain:
    name, bundle_url, endpoint_spiffe_id, sequence, content, refreshed_at, due_at, failed, created_at = row
    return TrustDomain(
        name=name,
        bundle_url=bundle_url,
        endpoint_spiffe_id=endpoint_spiffe_id,
        sequence=None if sequence is None else int(sequence),
        content=None if content is None else bytes(content),
        refreshed_at=refreshed_at,
        due_at=due_at,
        failed=failed,
        created_at=created_at,
    )
