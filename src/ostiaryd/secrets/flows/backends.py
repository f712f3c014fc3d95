"""Operations on back ends: their configuration, and the checks before and after a read."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Conflict, NotFound, Refused
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.callers import TokenRefused
from ostiaryd.secrets.flows.seal import check_open, open_value, seal_value
from ostiaryd.secrets.model.backend import BACKEND_MOUNT, MAX_BACKENDS, BackendConfig, BackendFailed
from ostiaryd.secrets.model.request import NothingStored
from ostiaryd.secrets.store.backends import StoredBackend

_decode_credentials = json_decoder(dict[str, str])


def put_backend(act: Act, name: str, config: BackendConfig, credentials: Mapping[str, str]) -> StoredBackend:
    """Store a back end, or replace its configuration; return it. Raises Conflict if the server has too many back ends,
    and Sealed while the secrets are sealed.
    """
    registry.fill_entry(act, object=f"{BACKEND_MOUNT}/{name}", kind=config.kind.value, address=config.address)
    if store.backends.get(act.tx, name) is None and len(store.backends.get_all(act.tx)) >= MAX_BACKENDS:
        raise Conflict(f"the server has {MAX_BACKENDS} back ends, which is the limit", hint="remove a back end")
    store.backends.put(
        act.tx, name, config, seal_value(act.tx, msgspec.json.encode(credentials), (BACKEND_MOUNT, name, 1))
    )
    stored = store.backends.get(act.tx, name)
    assert stored is not None
    return stored


def delete_backend(act: Act, name: str) -> None:
    """Delete the configuration of a back end. The secrets of the back end stay at the back end. Raises NotFound if
    there is none.
    """
    registry.fill_entry(act, object=f"{BACKEND_MOUNT}/{name[:64]}")
    if not store.backends.delete(act.tx, name):
        raise NotFound("back end not found", hint="list the back ends with `ostiary secret backend list`")


def find_backend(reader: Reader, name: str) -> StoredBackend:
    """Return the record of the back end `name`: its configuration and its encrypted credentials. Raises NothingStored
    if there is none.
    """
    if (stored := store.backends.get(reader, name)) is None:
        raise NothingStored(
            "back end not found", hint="list the back ends with `ostiary secret backend list`", code="no_route"
        )
    return stored


def open_credentials(reader: Reader, stored: StoredBackend, *, keys: Keyring) -> dict[str, str]:
    """Return the decrypted credentials of a back end. Raises Sealed while the secrets are sealed, Conflict if the
    stored credentials cannot be decrypted.
    """
    plain = open_value(reader, stored.credentials, (BACKEND_MOUNT, stored.name, 1), keys=keys)
    return _decode_credentials(plain)


def check_still(reader: Reader, stored: StoredBackend, holding: str | None, *, now: int) -> None:
    """Check that a value that was read from a back end may still be returned. Raises Sealed if the secrets were sealed,
    TokenRefused if the caller's token has ended or its agent was stopped, and BackendFailed if the back end was deleted
    or its configuration replaced.

    `holding`: the id of the token or access key with which the caller authenticated; None for an administrator.
    """
    check_open(reader)
    if holding is not None:
        try:
            registry.check_holder(reader, holding, now=now)
        except Refused as refusal:
            raise TokenRefused(f"permission denied: {refusal.message}", hint="log in again") from None
    present = store.backends.get(reader, stored.name)
    if present is None or present.updated_at != stored.updated_at:
        raise BackendFailed("the configuration of the back end has changed during the read", hint="try again")
