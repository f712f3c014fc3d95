"""Encryption of stored values: encrypt and decrypt a value, seal and unseal all secrets, and renew all keys while
requests run.

No decrypted key is kept in memory beyond a transaction, which takes at most some 100 ms: each transaction decrypts the
wrapping keys and the values that it needs. Sealing encrypts the wrapping keys for the unseal key; from then on, neither
the memory nor the database of the server contains a key that decrypts a secret.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

from ostiary.protocol.errors import Conflict, Forbidden, Invalid, Unavailable
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Row, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.model import sealing
from ostiaryd.secrets.model.sealing import KEY_BYTES, PURPOSE, Envelope, Place, WrappingKey

log = logging.getLogger("ostiary")

RENEWED_AT_ONCE = 100
MAX_OPENED, MAX_OPENED_BYTES = 256, 4096
"""Maximum number of decrypted values that a transaction keeps, and maximum size of each in bytes."""
MAX_KEYS = 100
"""Maximum number of wrapping keys. Values under a retired key are encrypted again within seconds, and the key is then
deleted.
"""


class Sealed(Unavailable):
    """The secrets are sealed: no stored value can be read or written until they are unsealed with the
    unseal key.
    """

    code = "sealed"


class SealStatus(NamedTuple):
    """The state of the seal: whether the secrets are sealed, the fingerprint of the unseal key (None if there is no
    unseal key), and the wrapping keys. `sealed_at`: microseconds since the epoch, None if the secrets are not sealed.
    """

    is_sealed: bool
    sealed_at: int | None
    unseal_key: str | None
    keys: list[store.seal.StoredKey]


def check_open(reader: Reader) -> None:
    """Check that stored secrets can be read and written: the seal is open. Raises Sealed otherwise."""
    if _is_sealed(reader):
        raise Sealed("the secrets are sealed", hint="run: ostiary secret unseal --key-file FILE")


def _is_sealed(reader: Reader) -> bool:
    seal = store.seal.seal(reader)
    return seal is not None and seal.sealed_at is not None


def seal_value(tx: Tx, plain: bytes, place: Place) -> Envelope:
    """Return a value, encrypted with a new data key. `place`: the mount, the path and the version of the value; the
    result can be decrypted only for this place. Raises Sealed while the secrets are sealed, Conflict if the wrapping
    key cannot be decrypted.
    """
    return sealing.seal_under(make_data_key(tx, place), plain, random=tx.random)


def make_data_key(tx: Tx, place: Place) -> sealing.DataKey:
    """Return a new data key, with which one value at `place` (its mount, path and version) can be encrypted later, even
    while the secrets are sealed. Raises Sealed while the secrets are sealed, Conflict if the wrapping key cannot be
    decrypted.
    """
    check_open(tx)
    active = next(key for key in _stored_keys(tx) if key.is_active)
    return sealing.make_data_key(under=_open_in(tx, active, tx.keys), place=place, random=tx.random)


def open_value(reader: Reader, envelope: Envelope, place: Place, *, keys: Keyring) -> bytes:
    """Return the decrypted value of an envelope. Raises Sealed if the secrets are sealed; Conflict if the envelope was
    made for another `place` (mount, path and version) or was changed.
    """
    number = envelope.key_number
    if number and (stored := store.seal.find_open_key(reader, number)) is not None:
        return _open_once(
            reader,
            (stored, envelope, place),
            lambda: sealing.open_value(envelope, under=_open_in(reader, stored, keys), place=place),
        )
    check_open(reader)
    if number:
        raise sealing.damaged()
    return sealing.open_value(envelope, under=WrappingKey(0, keys.derive(PURPOSE)), place=place)


def _open_in(reader: Reader, stored: store.seal.StoredKey, keys: Keyring) -> WrappingKey:
    return WrappingKey(stored.number, _open_once(reader, stored, lambda: _open(stored, keys).key))


def _open_once(reader: Reader, encrypted: Hashable, decrypt: Callable[[], bytes]) -> bytes:
    """Return the result of `decrypt`, which depends on `encrypted` and the keyring alone. Within a transaction,
    `decrypt` is called once for each `encrypted`.
    """
    if not isinstance(reader, Tx):
        return decrypt()
    if (value := reader.opened.get(encrypted)) is None:
        value = decrypt()
        if len(reader.opened) < MAX_OPENED and len(value) <= MAX_OPENED_BYTES:
            reader.opened[encrypted] = value
    return value


def _stored_keys(tx: Tx) -> list[store.seal.StoredKey]:
    """Return the stored wrapping keys. If there is none, create the first one."""
    if not (keys := store.seal.keys(tx)):
        if any(table.envelopes(tx, table.first, limit=1) for table in store.seal.ENVELOPE_TABLES):
            # wrapping key 0 is for values that were stored before wrapping keys had numbers
            _insert(tx, WrappingKey(0, tx.keys.derive(PURPOSE)))
        _insert(tx, WrappingKey(1, tx.random(KEY_BYTES)))
        keys = store.seal.keys(tx)
    return keys


def _insert(tx: Tx, key: WrappingKey) -> None:
    """Store a new wrapping key, which encrypts all new values from now on."""
    store.seal.insert_key(tx, key.number, sealing.close_key(key, under=tx.keys.derive(PURPOSE), random=tx.random))


def _open(stored: store.seal.StoredKey, keys: Keyring) -> WrappingKey:
    return sealing.open_key(stored.number, stored.sealed, under=keys.derive(PURPOSE))


def examine_keys(reader: Reader, keys: Keyring) -> int:
    """Decrypt each wrapping key as a check; return the number of wrapping keys. The caller must have checked that the
    secrets are not sealed. Raises Conflict if a key cannot be decrypted.
    """
    return len([_open(key, keys) for key in store.seal.keys(reader)])


def seal_secrets(act: Act, public_key: bytes | None, *, may_choose: bool = True) -> SealStatus:
    """Seal the secrets for an unseal key; if `public_key` is None, for the unseal key of the previous seal. Return the
    state of the seal. If the secrets are sealed already, they stay sealed.

    `may_choose`: whether the caller may choose another unseal key, which only a caller that may unseal can do. Raises
    Invalid for a key that is not valid, Forbidden for a key that the caller may not choose; Conflict for another unseal
    key while the secrets are sealed.
    """
    present = store.seal.seal(act.tx)
    public = public_key or (None if present is None else present.public_key)
    if public is None:
        raise Invalid("no unseal key is known", hint="run: ostiary secret seal --key-file FILE")
    if len(public) != KEY_BYTES:
        raise Invalid(f"`unseal_public_key` must be {KEY_BYTES} bytes in base64url: an X25519 public key")
    registry.fill_entry(act, object="secrets", unseal_key=sealing.fingerprint(public))
    if not may_choose and (present is None or public != present.public_key):
        hint = "leave `unseal_public_key` out, or let an administrator seal"
        raise Forbidden("only a person who may unseal can choose the unseal key", hint=hint, code="role_required")
    if _is_sealed(act.tx):
        if present is not None and public != present.public_key:
            raise Conflict("the secrets are sealed for another unseal key", hint="unseal the secrets first")
        return read_status(act.tx)
    for stored in _stored_keys(act.tx):
        locked = sealing.lock_key(_open(stored, act.tx.keys), public=public)
        store.seal.replace_sealed_key(act.tx, stored.number, locked)
    store.seal.set_seal(act.tx, store.seal.Seal(public, act.now))
    act.tx.opened.clear()
    return read_status(act.tx)


def unseal_secrets(act: Act, unverified_key: bytes) -> SealStatus:
    """Unseal the secrets with the unseal key; return the state of the seal. Raises Forbidden for a wrong key; Conflict
    if the secrets are not sealed.
    """
    act.entry.object = "secrets"
    seal = store.seal.seal(act.tx)
    if seal is None or seal.sealed_at is None:
        raise Conflict("the secrets are not sealed", hint="see `ostiary secret status`")
    act.check_granting()
    key = sealing.check_unseal_key(unverified_key, public=seal.public_key)
    registry.fill_entry(act, object="secrets", unseal_key=sealing.fingerprint(seal.public_key))
    for stored in store.seal.keys(act.tx):
        opened = sealing.unlock_key(stored.number, stored.sealed, unseal_key=key)
        closed = sealing.close_key(opened, under=act.tx.keys.derive(PURPOSE), random=act.tx.random)
        store.seal.replace_sealed_key(act.tx, stored.number, closed)
    store.seal.set_seal(act.tx, store.seal.Seal(seal.public_key, None))
    return read_status(act.tx)


def rotate_keys(act: Act) -> SealStatus:
    """Create a new wrapping key, and return the state of the seal. Afterwards, `renew_envelopes` encrypts every value
    again with a new data key under the new wrapping key. Raises Sealed while the secrets are sealed, Conflict if too
    many earlier wrapping keys are still in use.
    """
    act.entry.object = "secrets"
    check_open(act.tx)
    keys = _stored_keys(act.tx)
    if len(keys) >= MAX_KEYS:
        raise Conflict(f"{MAX_KEYS} wrapping keys have values that are not renewed yet", hint="try again later")
    number = keys[-1].number + 1
    registry.fill_entry(act, object="secrets", wrapping_key=number)
    _insert(act.tx, WrappingKey(number, act.tx.random(KEY_BYTES)))
    return read_status(act.tx)


def read_status(reader: Reader) -> SealStatus:
    """Return the state of the seal (open or sealed), and the states of the wrapping keys."""
    seal = store.seal.seal(reader)
    if seal is None:
        return SealStatus(False, None, None, store.seal.keys(reader))
    fingerprint = sealing.fingerprint(seal.public_key)
    return SealStatus(seal.sealed_at is not None, seal.sealed_at, fingerprint, store.seal.keys(reader))


async def renew_envelopes(world: World) -> int:
    """Encrypt each value that is not under the newest wrapping key again, then delete the other wrapping keys; return
    the number of renewed values.

    Requests continue meanwhile: each batch is one transaction, and the server decrypts a value under either key. If a
    value cannot be decrypted, the other wrapping keys are kept. While the secrets are sealed, nothing is renewed.
    """
    status = read_status(world.db.read())
    retired = [key.number for key in status.keys if not key.is_active]
    if status.is_sealed or not retired:
        return 0
    renewed = damaged = 0
    try:
        for table in store.seal.ENVELOPE_TABLES:
            after: Row | None = table.first
            while after is not None:
                batch = await world.writer.submit(partial(_renew_batch, table=table, after=after))
                after, renewed, damaged = batch.last, renewed + batch.renewed, damaged + batch.damaged
        if damaged:
            log.error("%d stored secrets cannot be decrypted, so the wrapping keys %s are kept", damaged, retired)
        else:
            await ledger.act(world, "vault.rewrap", partial(_forget_keys, retired=retired, renewed=renewed))
    except Sealed:
        log.info("the secrets were sealed while their keys were renewed: the renewal continues after an unseal")
    return renewed


class _Batch(NamedTuple):
    last: Row | None
    renewed: int
    damaged: int


def _renew_batch(tx: Tx, *, table: store.seal.EnvelopeTable, after: Row) -> _Batch:
    check_open(tx)
    active = next(key.number for key in store.seal.keys(tx) if key.is_active)
    rows = table.envelopes(tx, after, limit=RENEWED_AT_ONCE)
    renewed = damaged = 0
    for key, envelope in rows:
        if envelope.key_number == active:
            continue
        place = table.place(key)
        try:
            plain = open_value(tx, envelope, place, keys=tx.keys)
        except Conflict:
            damaged += 1
            continue
        table.replace(tx, key, seal_value(tx, plain, place))
        renewed += 1
    return _Batch(rows[-1][0] if rows else None, renewed, damaged)


def _forget_keys(act: Act, *, retired: list[int], renewed: int) -> None:
    check_open(act.tx)
    for number in retired:
        store.seal.forget_key(act.tx, number)
    registry.fill_entry(act, object="secrets", values=renewed, forgotten_keys=retired)
