"""The private values of a token: put, read, list, delete. No other token can read them, not even a token of the same
agent, and they end with the token.
"""

from __future__ import annotations

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.callers import CUBBYHOLE, VaultCaller
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.flows.tokens import token_of
from ostiaryd.secrets.model.request import NothingStored
from ostiaryd.secrets.model.sealing import Place

MAX_VALUES = 100
FORGOTTEN_AT_ONCE = 1000


def put_value(act: Act, caller: VaultCaller, path: str, value: object) -> None:
    """Store a private value of the caller's token at a path. Raises Invalid if the token has too many values, Sealed if
    the secrets are sealed, TokenRefused if the caller has no Vault token.
    """
    holding = token_of(caller).holding
    present = store.cubbyhole.paths(act.tx, holding, limit=MAX_VALUES)
    if len(present) >= MAX_VALUES and path not in present:
        raise Invalid(f"the token has {MAX_VALUES} private values, which is the limit", hint="delete a private value")
    above = registry.get_holding(act.tx, holding)
    assert above is not None  # the caller was authenticated in this act
    envelope = seal_value(act.tx, msgspec.json.encode(value), place_of(holding, path))
    store.cubbyhole.put(act.tx, holding, path, envelope, expires_at=above.expires_at)


def has_value(act: Act, caller: VaultCaller, path: str) -> bool:
    """Return whether the caller's token has a private value at a path. Raises TokenRefused if the caller has no Vault
    token.
    """
    return store.cubbyhole.get(act.tx, token_of(caller).holding, path) is not None


def read_value(act: Act, caller: VaultCaller, path: str) -> bytes:
    """Return a private value of the caller's token as JSON. Raises NothingStored if the token has no value at the path,
    TokenRefused if the caller has no Vault token, and Sealed while the secrets are sealed.
    """
    holding = token_of(caller).holding
    if (envelope := store.cubbyhole.get(act.tx, holding, path)) is None:
        raise NothingStored("the token has no value at this path")
    return open_value(act.tx, envelope, place_of(holding, path), keys=act.tx.keys)


def list_names(act: Act, caller: VaultCaller, folder: str) -> list[str]:
    """Return the names in a folder of the caller's token; the name of a folder ends with a slash. `folder` is empty or
    ends with a slash. Raises NothingStored if the folder is empty, TokenRefused if the caller has no Vault token.
    """
    paths = store.cubbyhole.paths(act.tx, token_of(caller).holding, limit=MAX_VALUES)
    below = [path.removeprefix(folder).partition("/") for path in paths if path.startswith(folder)]
    if not below:
        raise NothingStored("the folder is empty")
    return list(dict.fromkeys(f"{name}{slash}" for name, slash, _ in below))


def delete_value(act: Act, caller: VaultCaller, path: str) -> None:
    """Delete a private value of the caller's token. Do nothing if there is none. Raises TokenRefused if the caller has
    no Vault token.
    """
    store.cubbyhole.delete(act.tx, token_of(caller).holding, path)


def place_of(holding: str, path: str) -> Place:
    """Return the place of a private value of a token: associated data of its encryption, so that its ciphertext cannot
    be decrypted as another value.
    """
    return CUBBYHOLE, f"{holding}/{path}", 1


async def forget_private_values(world: World) -> None:
    """Delete the private values of expired tokens, at most `FORGOTTEN_AT_ONCE` in one call. A revoked token's values
    stay encrypted in the database until its original expiry; no request reaches them.
    """
    await world.writer.submit(lambda tx: store.cubbyhole.prune(tx, limit=FORGOTTEN_AT_ONCE))
