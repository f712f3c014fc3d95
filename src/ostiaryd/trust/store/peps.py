"""Stored policy enforcement points of gateways, and their API keys."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.trust.model import Pep, PepKey

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
    """Record that an API key was used now. Call it at most once in `PEP_USE_INTERVAL` for each key."""
    tx.send(_USE_PEP_KEY, digest=digest, now=tx.now)


def end_pep_keys(tx: Tx, pep: str, *, at: int) -> None:
    """Set the end of all API keys of a PEP to `at` (microseconds). A key that ends earlier keeps its end."""
    for key in pep_keys(tx, pep):
        tx.touch("pep_key", key.key_id)
    tx.send(_END_PEP_KEYS, pep=pep, at=at)
