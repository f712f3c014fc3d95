"""Synchronisation of stored values with a back end: the comparison of values, and all changes of stored values in one
act.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.flows.operators import KEY_VALUE_MOUNTS, ONE_VERSION
from ostiaryd.secrets.flows.seal import check_open
from ostiaryd.secrets.model.backend import BACKEND_MOUNT
from ostiaryd.secrets.model.request import NothingStored, check_path, split_path

MAX_SECRETS = 500
"""Maximum number of secrets in one synchronisation."""
NAMED = 100
"""Maximum number of changes whose paths a ledger entry names."""


class Change(StrEnum):
    """The result of a synchronisation at a path of the target: `same` if the values are equal already, `failed` if the
    target refused the value, `skipped` if an earlier failure or the time limit ended the synchronisation.
    """

    CREATE = "create"
    UPDATE = "update"
    SAME = "same"
    FAILED = "failed"
    SKIPPED = "skipped"


class PathChange(NamedTuple):
    """A path of the target and its change; `error` is the reason of a failure."""

    path: str
    change: Change
    error: str = ""


class SyncPlace(NamedTuple):
    """A secret, or a folder with everything below: the key-value mount or the name of a back end, and the path
    below.
    """

    mount: str
    path: str
    is_backend: bool

    @property
    def is_folder(self) -> bool:
        """Return whether the place of a synchronisation is a folder: its path is empty, or ends with a slash."""
        return not self.path or self.path.endswith("/")

    def full(self, below: str = "") -> str:
        """Return the full path of `below`, a path relative to this place, with the mount at its beginning, as policies
        and ledger entries show it.
        """
        return f"{f'{BACKEND_MOUNT}/' if self.is_backend else ''}{self.mount}/{self.path}{below}"


def parse_place(path: str) -> SyncPlace:
    """Return the place that a path such as `secret/app/` or `backend/NAME/app/` names. Raises Malformed for a malformed
    path, Invalid for a path in another mount than a back end, `secret` or `kv`.
    """
    mount, rest = split_path(check_path(path))
    if mount == BACKEND_MOUNT:
        name, below = split_path(rest)
        return SyncPlace(name, below, True)
    if mount not in KEY_VALUE_MOUNTS:
        raise Invalid(f"the path must begin with backend/NAME/, {' or '.join(f'{one}/' for one in KEY_VALUE_MOUNTS)}")
    return SyncPlace(mount, rest, False)


def write_values(
    act: Act, target: SyncPlace, values: Mapping[str, Mapping[str, Any]], *, is_dry: bool
) -> list[PathChange]:
    """Store the values that differ from the present values; return the change at each path. `values` is by path below
    the target. `is_dry`: store nothing. Raises Invalid for a value that is too long, Sealed while the secrets are
    sealed.
    """
    check_open(act.tx)
    changes = []
    for below, value in sorted(values.items()):
        path = check_path(f"{target.path}{below}")
        present = _read(act, target.mount, path)
        change = compare(present, canonical.encode(value, floats=True))
        if change is not Change.SAME and not is_dry:
            secret = store.keyvalue.get(
                act.tx, target.mount, path
            )  # the comparison is in this act, so no version is lost
            cas = 0 if secret is None else secret.current_version
            _, version = keyvalue.put_value(act, target.mount, path, value, cas=cas)
            if target.mount == ONE_VERSION:
                store.keyvalue.prune(act.tx, target.mount, path, before=version.version)
        changes.append(PathChange(target.full(below), change))
    return changes


def read_values(act: Act, source: SyncPlace) -> dict[str, dict[str, Any]]:
    """Return the present values at a place, by the path below the place. Raises NothingStored if there are none,
    Conflict if a stored value cannot be decrypted, and Sealed while the secrets are sealed.
    """
    check_open(act.tx)
    paths = list(_list_paths(act, source))
    start = len(source.path)
    values = {path[start:]: value for path in paths if (value := _read(act, source.mount, path)) is not None}
    if not values:
        raise NothingStored("no value is stored at this path", code="not_found")
    return {below: msgspec.json.decode(value) for below, value in values.items()}


def note_changes(
    act: Act, source: SyncPlace, target: SyncPlace, changes: Iterable[PathChange], *, is_dry: bool
) -> None:
    """Write a synchronisation into the act's ledger entry: the number of changes of each kind except `same`, and the
    first `NAMED` of their paths.
    """
    changed = [one for one in changes if one.change is not Change.SAME]
    counts = {change.value: sum(one.change is change for one in changed) for change in Change}
    act.entry.object = target.full()
    act.entry.detail = {
        "source": source.full(),
        "dry_run": is_dry,
        "changes": {name: count for name, count in counts.items() if count},
        "paths": [one.path for one in changed[:NAMED]],
    }


def compare(present: bytes | None, new: bytes) -> Change:
    """Return the kind of the change from a present value (None: no value) to a new value; both are canonical JSON."""
    return Change.CREATE if present is None else Change.SAME if present == new else Change.UPDATE


def _list_paths(act: Act, place: SyncPlace) -> Iterable[str]:
    if not place.is_folder:
        return [place.path]
    prefix = place.path.encode()
    end = prefix[:-1] + b"0" if prefix else b"\xff"  # `0` follows `/`
    paths = store.keyvalue.paths(act.tx, place.mount, first=prefix, end=end, limit=MAX_SECRETS + 1)
    if len(paths) > MAX_SECRETS:
        raise Conflict(
            f"the folder has more than {MAX_SECRETS} secrets", hint="synchronise folders below this folder, one by one"
        )
    return [path.decode() for path in paths]


def _read(act: Act, mount: str, path: str) -> bytes | None:
    """Return the present value at a path as canonical JSON; None if there is no value or the current version is
    deleted.
    """
    try:
        value = keyvalue.open_current(act, mount, path)
    except NothingStored:
        return None
    return None if value is None else canonical.encode(msgspec.json.decode(value), floats=True)
