"""Operations of administrators on stored values. A path contains the mount, as in policies and entries:
`secret/app/db`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.flows.seal import check_open
from ostiaryd.secrets.model.keyvalue import LastSecretUse, Secret, UseFilter, Version, parse_number
from ostiaryd.secrets.model.request import NothingStored, check_path, split_path

ONE_VERSION = "kv"
"""The mount whose secrets have only one version."""
KEY_VALUE_MOUNTS = (ONE_VERSION, "secret")


class StoredSecret(NamedTuple):
    """A secret, one of its versions, and the value of this version as JSON; None after a write, whose result has no
    value.
    """

    secret: Secret
    version: Version
    value: bytes | None

    def __repr__(self) -> str:
        """Return only the number of the version: the value is secret."""
        return f"StoredSecret({self.version.version})"


def put_secret(act: Act, path: str, value: dict[str, object], *, cas: int | None = None) -> StoredSecret:
    """Store a value as a new version of a secret, and return the secret and the version, without the value. In the
    mount `kv`, which keeps one version, the earlier version is deleted permanently. `cas`: the number that the current
    version must have; 0: the secret must be new; None: any. Raises Malformed for a malformed path, Invalid for a path
    outside of the key-value mounts, a value that is too long or another `cas`, and Sealed while the secrets are sealed.
    """
    act.entry.object = path
    mount, rest = _find_place(path)
    secret, version = keyvalue.put_value(act, mount, rest, value, cas=cas)
    if mount == ONE_VERSION:
        store.keyvalue.prune(act.tx, mount, rest, before=version.version)
    return StoredSecret(secret, version, None)


def get_secret(act: Act, path: str, number: int = 0) -> StoredSecret:
    """Return a version of a secret with its value; 0 is the current version. Raises NothingStored if there is no such
    version, or it is deleted or destroyed; Malformed for a malformed path, Invalid for a path outside of the key-value
    mounts or a wrong number; Sealed while the secrets are sealed, Conflict if the stored value cannot be decrypted.
    """
    act.entry.object = path
    mount, rest = _find_place(path)
    check_open(act.tx)
    secret, version, value = keyvalue.examine_value(act, mount, rest, parse_number(number))
    if value is None:
        raise NothingStored(
            "the version is deleted or destroyed",
            hint="read another version: ostiary secret get PATH --version N",
            code="not_found",
        )
    return StoredSecret(secret, version, value)


def list_names(reader: Reader, folder: str) -> list[str]:
    """Return the names in a folder; names of folders end with a slash. Raises NothingStored if the folder is empty,
    Conflict if it has too many names, Malformed for a malformed path, and Sealed while the secrets are sealed.
    """
    check_open(reader)
    mount, rest = split_path(check_path(folder if folder.endswith("/") else f"{folder}/"))
    _check_mount(mount)
    return keyvalue.list_keys(reader, mount, rest)


def mark_canary(act: Act, path: str, *, is_canary: bool) -> None:
    """Mark a secret as a canary secret (an agent that reads it is quarantined), or remove the mark.

    A secret whose value was ever read cannot become a canary secret, because its honest readers would be quarantined.
    Raises NothingStored if there is no such secret, Conflict (`secret_in_use`) if an agent or a person has read it,
    Malformed for a malformed path, Invalid for a path outside of the key-value mounts.
    """
    act.entry.object = path
    registry.fill_entry(act, object=path, marked=is_canary)
    mount, rest = _find_place(path)
    if (secret := store.keyvalue.get(act.tx, mount, rest)) is None:
        raise NothingStored(
            "no value is stored at this path", hint="list the paths: ostiary secret list FOLDER", code="not_found"
        )
    if is_canary and secret.reader is not None:
        hint = "store a secret at another path, and mark that secret before it is read"
        raise Conflict(
            "the secret was read already, so it cannot become a canary secret", hint=hint, code="secret_in_use"
        )
    store.keyvalue.set_canary(act.tx, mount, rest, is_canary)


def list_uses(reader: Reader, where: UseFilter, page: Page) -> list[LastSecretUse]:
    """Return a page of the secrets that `where` selects, with their last reads and changes. Raises Invalid for a mount
    that is not a key-value mount.
    """
    _check_mount(where.mount)
    return store.keyvalue.uses(reader, where, after=page.after, limit=page.limit)


def find_uses(reader: Reader, paths: Iterable[str]) -> list[LastSecretUse]:
    """Return the last read and change of each secret in `paths` that the key-value store has; other paths are left out.
    Each path begins with its mount, such as `secret/app/db`.
    """
    uses: list[LastSecretUse] = []
    for path in paths:
        mount, rest = split_path(path)
        secret = store.keyvalue.get(reader, mount, rest)
        version = None if secret is None else store.keyvalue.version(reader, mount, rest, secret.current_version)
        if secret is not None and version is not None:
            uses.append(
                LastSecretUse(
                    mount=mount,
                    path=rest,
                    version=version.version,
                    rotated_at=version.created_at,
                    read_at=secret.read_at,
                    reader=secret.reader,
                    is_canary=secret.is_canary,
                )
            )
    return uses


def delete_secret(act: Act, path: str, *, with_versions: bool) -> None:
    """Mark the current version of a secret as deleted, so that it can be restored; or, with `with_versions` or in the
    mount `kv`, delete the secret with all versions permanently. Raises NothingStored if there is no such secret,
    Malformed for a malformed path, Invalid for a path outside of the key-value mounts, and Sealed while the secrets are
    sealed.
    """
    act.entry.object = path
    mount, rest = _find_place(path)
    check_open(act.tx)
    if store.keyvalue.get(act.tx, mount, rest) is None:
        raise NothingStored(
            "no value is stored at this path", hint="list the paths: ostiary secret list FOLDER", code="not_found"
        )
    if with_versions or mount == ONE_VERSION:
        keyvalue.delete_secret(act, mount, rest)
    else:
        keyvalue.delete_versions(act, mount, rest)


def _find_place(path: str) -> tuple[str, str]:
    """Return the mount of a path, and the path below the mount. Raises Malformed for a malformed path, Invalid for a
    path that is no secret of a key-value mount.
    """
    mount, rest = split_path(check_path(path))
    _check_mount(mount)
    if not rest or rest.endswith("/"):
        raise Invalid("the path of a secret is empty or ends with a slash", hint="write a path as secret/app/db")
    return mount, rest


def _check_mount(mount: str) -> None:
    if mount not in KEY_VALUE_MOUNTS:
        raise Invalid("the path must begin with the mount `secret` or `kv`", hint="write a path as secret/app/db")
