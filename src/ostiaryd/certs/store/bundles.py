"""The tables of the keys of JWT-SVIDs and of the published trust bundle of this server's trust domain."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql

_KEYS = sql("select kid, sealed, created_at, signs_at from svid_key order by signs_at, kid")
_INSERT_KEY = sql("insert into svid_key (kid, sealed, created_at, signs_at) values (:kid, :sealed, :now, :signs_at)")
_DELETE_KEY = sql("delete from svid_key where kid = :kid")
_BUNDLE = sql("select sequence, content from trust_bundle where trust_domain = :name")
_PUT = sql(
    """insert into trust_bundle (trust_domain, sequence, content, changed_at)
       values (:name, :sequence, :content, :now)
       on conflict (trust_domain) do update
       set sequence = excluded.sequence, content = excluded.content, changed_at = excluded.changed_at"""
)


class SvidKey(NamedTuple):
    """An encrypted key of JWT-SVIDs, and the time (microseconds) from which the key signs."""

    kid: str
    sealed: bytes
    created_at: int
    signs_at: int


def svid_keys(reader: Reader) -> list[SvidKey]:
    """Return all keys of JWT-SVIDs in the order in which they sign."""
    return [SvidKey(kid, bytes(sealed), created, signs) for kid, sealed, created, signs in reader.all(_KEYS)]


def insert_key(tx: Tx, kid: str, sealed: bytes, *, signs_at: int) -> None:
    """Store a new key of JWT-SVIDs, which signs from `signs_at` (microseconds) on."""
    tx.run(_INSERT_KEY, kid=kid, sealed=sealed, now=tx.now, signs_at=signs_at)
    tx.touch("svid_key", kid)


def delete_key(tx: Tx, kid: str) -> None:
    """Delete a key of JWT-SVIDs."""
    tx.run(_DELETE_KEY, kid=kid)
    tx.touch("svid_key", kid)


def bundle(reader: Reader, trust_domain: str) -> tuple[int, bytes] | None:
    """Return the sequence number and the content of the published bundle; None if none has been published."""
    row = reader.one(_BUNDLE, name=trust_domain)
    return None if row is None else (int(row[0]), bytes(row[1]))


def put_bundle(tx: Tx, trust_domain: str, *, sequence: int, content: bytes) -> None:
    """Store the published bundle of a trust domain, with its sequence number."""
    tx.run(_PUT, name=trust_domain, sequence=str(sequence), content=content, now=tx.now)
