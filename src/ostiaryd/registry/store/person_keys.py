"""Stored public keys with which persons answer approval requests, by thumbprint. A key is never deleted."""

from __future__ import annotations

from ostiary.protocol import canonical
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.registry.model import PersonId, PersonKey

_SELECT = "select jkt, person, alg, jwk, added_at, revoked_at from person_key "
_BY_JKT = sql(_SELECT + "where jkt = :jkt")
_OF_PERSON = sql(_SELECT + "where person = :person order by added_at, jkt")
_ANY = sql(
    """select 1 from person_key join person on person = person_id
       where revoked_at is null and state = 'active' limit 1"""
)
_INSERT = sql("insert into person_key (jkt, person, alg, jwk, added_at) values (:jkt, :person, :alg, :jwk, :added_at)")
_REVOKE = sql("update person_key set revoked_at = :now where jkt = :jkt and revoked_at is null")


def insert(tx: Tx, key: PersonKey) -> None:
    """Insert a key of a person."""
    tx.touch("person_key", key.jkt)
    jwk = canonical.encode(key.jwk).decode()
    tx.send(_INSERT, jkt=key.jkt, person=key.person, alg=key.alg, jwk=jwk, added_at=key.added_at)


def get(reader: Reader, jkt: str) -> PersonKey | None:
    """Return a key by its thumbprint; None if it was never registered."""
    row = reader.one(_BY_JKT, jkt=jkt)
    return None if row is None else _key(row)


def of_person(reader: Reader, person: PersonId) -> list[PersonKey]:
    """Return all keys of a person, also revoked ones, the oldest first."""
    return [_key(row) for row in reader.all(_OF_PERSON, person=person)]


def list_active_person_keys(reader: Reader, person: PersonId) -> list[PersonKey]:
    """Return the keys of a person that are not revoked."""
    return [key for key in of_person(reader, person) if key.revoked_at is None]


def has_active_person_key(reader: Reader) -> bool:
    """Return whether any person has a valid key, so that approval requests can be answered."""
    return reader.one(_ANY) is not None


def revoke(tx: Tx, jkt: str) -> int:
    """Revoke a key; return 1, or 0 if it was revoked before."""
    tx.touch("person_key", jkt)
    return tx.run(_REVOKE, jkt=jkt, now=tx.now)


def _key(row: Row) -> PersonKey:
    jkt, person, alg, jwk, added_at, revoked_at = row
    parsed = canonical.parse(jwk)
    assert isinstance(parsed, dict)
    return PersonKey(jkt=jkt, person=person, alg=alg, jwk=parsed, added_at=added_at, revoked_at=revoked_at)
