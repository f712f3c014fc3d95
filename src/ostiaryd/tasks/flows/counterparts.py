"""The counterparts of an owner: the recipients to whom the owner's agents have sent something, in any task."""

from __future__ import annotations

import hmac

from ostiary.authorization.budget import DAY_US
from ostiary.provenance.history import Met, record_recipients
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.tasks import store


def counterparts(reader: Reader, owner: str, keys: Keyring) -> Met:
    """Return the counterparts of an owner (recipients and payees with whom the owner's agents have dealt), and the key
    with which they are hashed.
    """
    key = hmac.digest(keys.secret("nonce"), b"ostiary counterparts\0" + owner.encode(), "sha256")
    return Met(key, store.counterparts.get(reader, owner))


def add_counterparts(tx: Tx, owner: str, values: tuple[bytes, ...]) -> None:
    """Add recipients to the counterparts of an owner, because a call to them was allowed. `values` are their hashes."""
    if values:
        store.counterparts.put(
            tx, owner, record_recipients(store.counterparts.lock(tx, owner), values, day=tx.now // DAY_US)
        )
