"""Stored data of trust: used proofs, join tokens, client secrets, PEPs, and exemptions that allow bearer tokens."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.trust.model import Pep, PepKey, Secret, Spend, Spent
from ostiaryd.trust.model.clients import BearerClass

_SPENT_SINCE = sql("select seq, digest, until from spent where seq > :seq order by seq")
_ADD_SPENT = sql("insert into spent (seq, digest, until) values (:seq, :digest, :until)")
_IS_SPENT = sql("select seq from spent where digest = :digest")
_PRUNE_SPENT = sql(
    """delete from spent where seq in (select seq from spent order by seq limit :limit) and until <= :before
       and seq < (select max(seq) from spent)"""
)
_AGENT_KEYS = sql(
    "select jwk, not_after from agent_key where agent = :agent and revoked_at is null order by added_at", steady=True
)
_ADD_JOIN = sql(
    """insert into join_token (digest, agent, created_at, expires_at)
       values (:digest, :agent, :created_at, :expires_at)"""
)
_USE_JOIN = sql(
    """update join_token set used_at = :now
       where digest = :digest and used_at is null and expires_at > :now returning agent"""
)
_DROP_JOIN = sql("delete from join_token where agent = :agent and used_at is null")
_DROP_ALL_JOIN = sql("delete from join_token where used_at is null")
_PRUNE_JOIN = sql("delete from join_token where expires_at <= :before")
_EXEMPTION = sql("select since from bearer_exemption where agent = :agent and resource = :resource", steady=True)
_EXEMPT_AT = sql("select agent from bearer_exemption where resource = :resource order by agent")
_EXEMPTIONS_OF = sql("select resource, since from bearer_exemption where agent = :agent order by resource")
_EXEMPT_CLASSES = sql(
    "select registration from bearer_class where resource = :resource order by registration", steady=True
)
_ADD_CLASS = sql(
    """insert into bearer_class (resource, registration, since) values (:resource, :registration, :since)
       on conflict (resource, registration) do nothing"""
)
_DROP_CLASS = sql("delete from bearer_class where resource = :resource and registration = :registration")
_UNBOUND_AT = sql(
    """select id, agent from holding where audience = :uri and kind in ('token', 'vault_token', 'vault_secret_id')
        and jkt is null
        and ended_at is null"""
)
_EXEMPT = sql("select distinct agent from bearer_exemption")
_UNBOUND = sql(
    """select id, audience from holding where agent = :agent and kind in ('token', 'vault_token', 'vault_secret_id')
        and jkt is null
        and ended_at is null"""
)
_OF_SECRETS = sql(
    """select id from holding where agent = :agent and kind in ('token', 'vault_token', 'vault_secret_id')
        and (jkt is null or (kind = 'token' and client_jkt is null))
        and ended_at is null"""
)
_ADD_EXEMPTION = sql(
    """insert into bearer_exemption (agent, resource, since) values (:agent, :resource, :since)
       on conflict (agent, resource) do nothing"""
)
_SECRETS = sql(
    "select id, agent, digest, created_at, expires_at from client_secret where agent = :holder order by created_at, id",
    steady=True,
)
_SECRET_HOLDERS = sql("select distinct agent from client_secret")
_ADD_SECRET = sql(
    """insert into client_secret (id, agent, digest, created_at, expires_at)
       values (:id, :holder, :digest, :created_at, :expires_at)"""
)
_DELETE_SECRET = sql("delete from client_secret where id = :id")
_DROP_EXEMPTION = sql("delete from bearer_exemption where agent = :agent and resource = :resource")

_PEP = sql("select id, name, networks, created_at, revoked_at from pep where id = :named or name = :named")
_PEPS = sql("select id, name, networks, created_at, revoked_at from pep order by name")
_COUNT_PEPS = sql("select count(*) from pep where revoked_at is null")
_ADD_PEP = sql("insert into pep (id, name, networks, created_at) values (:id, :name, :networks, :now)")
_REVOKE_PEP = sql("update pep set revoked_at = :now where id = :pep")
_PEP_KEYS = sql("select id, created_at, expires_at, used_at from pep_key where pep = :pep order by created_at, id")
_FIND_PEP_KEY = sql(
    """select p.id, p.name, p.networks, p.created_at, p.revoked_at, k.id, k.created_at, k.expires_at, k.used_at
       from pep_key k join pep p on p.id = k.pep where k.digest = :digest and p.revoked_at is null""",
    steady=True,
)
_ADD_PEP_KEY = sql(
    "insert into pep_key (id, pep, digest, created_at, expires_at) values (:id, :pep, :digest, :now, :expires_at)"
)
_USE_PEP_KEY = sql("update pep_key set used_at = :now where digest = :digest")
_END_PEP_KEYS = sql("update pep_key set expires_at = :at where pep = :pep and expires_at > :at")
_DROP_PEP_KEYS = sql("delete from pep_key where pep = :pep")
_DROP_ENDED_PEP_KEYS = sql("delete from pep_key where pep = :pep and expires_at <= :now")


def is_older_than_loss(tx: Tx, one: Spend) -> bool:
    """Return whether a proof was made before the last loss of history was detected, so that it may have been used in
    the lost part.
    """
    return one.made <= tx.pin.lost_at


def spend(tx: Tx, one: Spend) -> bool:
    """Store a proof as used; return false if it was stored before, or if it may have been used in a part of the history
    that the database lost.

    Lookups use a set in memory; the database has only a log of used proofs, because an index by digest would cost a
    database page for each proof.
    """
    spent = tx.get_singleton(Spent)
    if spent.read_in is not tx:  # during this transaction, no other process adds a proof
        spent.add_rows(tx.all(_SPENT_SINCE, seq=spent.seq))
        spent.read_in = tx
    if one.digest in spent or is_older_than_loss(tx, one):
        return False
    spent.add(one.digest, one.until)
    tx.defer(_write_spent, one)
    return True


def _write_spent(tx: Tx, spends: list[Spend]) -> None:
    spent = tx.get_singleton(Spent)
    spent.forget(now=tx.now)
    spent.read_in = None
    tx.many(_ADD_SPENT, [(seq, one.digest, one.until) for seq, one in enumerate(spends, spent.seq + 1)])


def agent_keys(reader: Reader, agent: str, *, now: int) -> list[tuple[str, int | None]]:
    """Return the keys with which an agent can authenticate at the time `now` (microseconds), as (JWK in
    JSON, expiry).
    """
    return [(jwk, ends) for jwk, ends in reader.all(_AGENT_KEYS, agent=agent) if ends is None or ends > now]


def is_spent(reader: Reader, digest: bytes) -> bool:
    """Return whether the database contains the digest of a used proof. The query reads the whole table."""
    return reader.one(_IS_SPENT, digest=digest) is not None


def prune_spent(tx: Tx, *, before: int, limit: int) -> int:
    """Delete used proofs that expired by `before` (microseconds), at most the `limit` oldest rows; return their number.

    The newest row is always kept, so that the numbers of rows continue to increase: other processes read only rows with
    higher numbers.
    """
    return tx.run(_PRUNE_SPENT, before=before, limit=limit)


def add_join_token(tx: Tx, digest: bytes, *, agent: str, expires_at: int) -> None:
    """Store the digest of a join token."""
    tx.send(_ADD_JOIN, digest=digest, agent=agent, created_at=tx.now, expires_at=expires_at)


def use_join_token(tx: Tx, digest: bytes) -> str | None:
    """Mark a join token as used, and return the id of its agent. Return None if the token is unknown,
    used or expired.
    """
    row = tx.one(_USE_JOIN, digest=digest, now=tx.now)
    return None if row is None else str(row[0])


def drop_join_tokens(tx: Tx, agent: str) -> int:
    """Delete the unused join tokens of an agent; return their number."""
    return tx.run(_DROP_JOIN, agent=agent)


def drop_all_join_tokens(tx: Tx) -> None:
    """Delete the unused join tokens of all agents."""
    tx.send(_DROP_ALL_JOIN)


def prune_join_tokens(tx: Tx, *, before: int) -> int:
    """Delete the join tokens that expired by `before` (microseconds); return their number."""
    return tx.run(_PRUNE_JOIN, before=before)


def is_exempt(reader: Reader, agent: str, resource: str) -> bool:
    """Return whether an agent (id) has a bearer exemption at a resource (id)."""
    return reader.one(_EXEMPTION, agent=agent, resource=resource) is not None


def exempt_at(reader: Reader, resource: str) -> list[str]:
    """Return the ids of the agents that have a bearer exemption at a resource."""
    return [agent for (agent,) in reader.all(_EXEMPT_AT, resource=resource)]


def exemptions_of(reader: Reader, agent: str) -> list[tuple[str, int]]:
    """Return the bearer exemptions of an agent, as (id of the resource, time of the exemption in microseconds)."""
    return [(resource, since) for resource, since in reader.all(_EXEMPTIONS_OF, agent=agent)]


def exempt_classes(reader: Reader, resource: str) -> list[BearerClass]:
    """Return the classes of registration that are exempt at a resource."""
    return [registration for (registration,) in reader.all(_EXEMPT_CLASSES, resource=resource)]


def set_exempt_class(tx: Tx, resource: str, registration: str, allowed: bool) -> None:
    """Add or remove the exemption of a class of registration at a resource."""
    tx.touch("bearer_class", f"{resource} {registration}")
    if allowed:
        tx.send(_ADD_CLASS, resource=resource, registration=registration, since=tx.now)
    else:
        tx.send(_DROP_CLASS, resource=resource, registration=registration)


def unbound_at(reader: Reader, uri: str) -> list[tuple[str, str]]:
    """Return the bearer tokens for the audience `uri` that have not ended, as (id of the token, id of the agent)."""
    return [(id, agent) for id, agent in reader.all(_UNBOUND_AT, uri=uri)]


def exempt(reader: Reader) -> list[str]:
    """Return the ids of all agents that are exempt at any resource."""
    return [agent for (agent,) in reader.all(_EXEMPT)]


def unbound(reader: Reader, agent: str, uri: str) -> list[str]:
    """Return the ids of an agent's bearer tokens that have not ended, for the audience `uri`."""
    return [id for id, audience in reader.all(_UNBOUND, agent=agent) if audience == uri]


def tokens_of_secrets(reader: Reader, agent: str) -> list[str]:
    """Return the ids of an agent's tokens that have not ended, and are bearer tokens, or were issued to the agent
    without a key of its own, which means by a client secret.
    """
    return [id for (id,) in reader.all(_OF_SECRETS, agent=agent)]


def set_exempt(tx: Tx, agent: str, resource: str, allowed: bool) -> None:
    """Add or remove the exemption of an agent at a resource."""
    tx.touch("exemption", f"{agent} {resource}")
    if allowed:
        tx.send(_ADD_EXEMPTION, agent=agent, resource=resource, since=tx.now)
    else:
        tx.send(_DROP_EXEMPTION, agent=agent, resource=resource)


def secrets(reader: Reader, holder: str) -> list[Secret]:
    """Return the client secrets of an agent or a resource, the oldest first, including expired secrets."""
    return [Secret(*row) for row in reader.all(_SECRETS, holder=holder)]


def secret_holders(reader: Reader) -> list[str]:
    """Return the ids of all agents and resources that have a client secret."""
    return [holder for (holder,) in reader.all(_SECRET_HOLDERS)]


def add_secret(tx: Tx, one: Secret) -> None:
    """Store a client secret."""
    tx.touch("secret", one.id)
    tx.send(_ADD_SECRET, **one._asdict())


def delete_secret(tx: Tx, id: str) -> None:
    """Delete a client secret."""
    tx.touch("secret", id)
    tx.send(_DELETE_SECRET, id=id)


def pep(reader: Reader, id_or_name: str) -> Pep | None:
    """Return the static PEP with this id or name, including revoked PEPs; None if there is none."""
    row = reader.one(_PEP, named=id_or_name)
    return None if row is None else Pep(*row)


def peps(reader: Reader) -> list[Pep]:
    """Return all static PEPs by name."""
    return [Pep(*row) for row in reader.all(_PEPS)]


def count_peps(reader: Reader) -> int:
    """Return the number of PEPs that are not revoked."""
    row = reader.one(_COUNT_PEPS)
    return 0 if row is None else int(row[0])


def add_pep(tx: Tx, one: Pep) -> None:
    """Store a PEP."""
    tx.touch("pep", one.pep_id)
    tx.send(_ADD_PEP, id=one.pep_id, name=one.name, networks=one.networks, now=tx.now)


def revoke_pep(tx: Tx, pep: str) -> None:
    """Mark a PEP as revoked and delete its keys."""
    tx.touch("pep", pep)
    for key in pep_keys(tx, pep):
        tx.touch("pep_key", key.key_id)
    tx.send(_REVOKE_PEP, pep=pep, now=tx.now)
    tx.send(_DROP_PEP_KEYS, pep=pep)


def pep_keys(reader: Reader, pep: str) -> list[PepKey]:
    """Return the keys of a PEP, the oldest first."""
    return [PepKey(*row) for row in reader.all(_PEP_KEYS, pep=pep)]


def find_pep_key(reader: Reader, digest: bytes) -> tuple[Pep, PepKey] | None:
    """Return the API key with this digest, and its PEP; None if the key is unknown or its PEP is revoked."""
    row = reader.one(_FIND_PEP_KEY, digest=digest)
    return None if row is None else (Pep(*row[:5]), PepKey(*row[5:]))


def add_pep_key(tx: Tx, key_id: str, digest: bytes, *, pep: str, expires_at: int) -> None:
    """Store the digest of a new API key; delete the expired keys of the PEP."""
    for key in pep_keys(tx, pep):
        tx.touch("pep_key", key.key_id)
    tx.touch("pep_key", key_id)
    tx.send(_DROP_ENDED_PEP_KEYS, pep=pep, now=tx.now)
    tx.send(_ADD_PEP_KEY, id=key_id, digest=digest, pep=pep, now=tx.now, expires_at=expires_at)


def use_pep_key(tx: Tx, digest: bytes) -> None:
    """Record the current use of an API key."""
    tx.send(_USE_PEP_KEY, digest=digest, now=tx.now)


def end_pep_keys(tx: Tx, pep: str, *, at: int) -> None:
    """Set the end of all API keys of a PEP to `at` (microseconds). A key that ends earlier keeps its end."""
    for key in pep_keys(tx, pep):
        tx.touch("pep_key", key.key_id)
    tx.send(_END_PEP_KEYS, pep=pep, at=at)
