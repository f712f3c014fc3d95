"""Counterparts: one row for each owner whose agents have dealt with recipients."""

from __future__ import annotations

from ostiary.provenance.history import NOBODY, Counterparts
from ostiary.provenance.history.counterparts import pack_counterparts, unpack_counterparts
from ostiaryd.ground.database import Reader, Tx, sql

_GET = sql("select body from counterpart where owner = :owner")
_LOCK = sql("update counterpart set body = body where owner = :owner")
_PUT = sql(
    """insert into counterpart (owner, body) values (:owner, :body)
       on conflict (owner) do update set body = excluded.body"""
)


def get(reader: Reader, owner: str) -> Counterparts:
    """Return the stored recipients and payees of the agents of an owner; an empty value if there are none."""
    row = reader.one(_GET, owner=owner)
    return NOBODY if row is None else unpack_counterparts(bytes(row[0]))


def lock(tx: Tx, owner: str) -> Counterparts:
    """Return the counterparts of an owner (the recipients and payees with whom its agents have dealt), locked until the
    end of this act.
    """
    tx.send(_LOCK, owner=owner)
    return get(tx, owner)


def put(tx: Tx, owner: str, counterparts: Counterparts) -> None:
    """Replace the stored recipients and payees of the agents of an owner."""
    tx.send(_PUT, owner=owner, body=pack_counterparts(counterparts))
