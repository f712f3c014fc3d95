"""Synchronisation of stored values with back ends in the admin API, in both directions, with a dry run. No value is
deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Invalid, Refused
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows import backends, synchronisation
from ostiaryd.secrets.flows.synchronisation import MAX_SECRETS, Change, PathChange, SyncPlace, parse_place
from ostiaryd.secrets.model.backend import Backend, BackendFailed, BackendKind, DeletionScheduled
from ostiaryd.secrets.model.request import NothingStored
from ostiaryd.secrets.wire_backends import BackendReader, forget_values, open_backend

MAX_BYTES = 4 << 20
WITHIN_S = 60.0
"""Maximum seconds of one synchronisation."""


class SyncOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A request to copy values from `source` to `target`: one is `backend/NAME/PATH`, the other `secret/PATH` or
    `kv/PATH`. The path of a folder ends with a slash.

    `dry_run`: report the changes without making them.
    """

    source: str
    target: str
    dry_run: bool = False


class PathChangeBody(TypedDict):
    """A change at a path of the target: `create`, `update`, `same`, `failed` or `skipped`."""

    path: str
    change: str
    error: str


class SyncBody(TypedDict):
    """The changes of a synchronisation."""

    changes: list[PathChangeBody]


async def sync_secrets(call: Call) -> Reply:
    """Copy values from a back end to the key-value store, or from the key-value store to a back end.

    Equal values are not written. All changes of the key-value store are made in one transaction. Values for a back end
    are written one by one; after a failure other than a conflict about one value, or after 60 seconds, the remaining
    values are skipped. A Vault of version 2 refuses to replace a value that has changed since the comparison; other
    stores replace it.
    """
    order = call.json(SyncOrder)
    source, target = parse_place(order.source), parse_place(order.target)
    if source.is_backend == target.is_backend:
        raise Invalid("one of `source` and `target` must begin with backend/NAME/, the other with a key-value mount")
    if source.is_folder != target.is_folder:
        raise Invalid(
            "`source` and `target` must both be folders, or both be secrets",
            hint="write a slash at the end of a folder",
        )
    copy = _pull if source.is_backend else _push
    changes = await copy(call, source, target, order.dry_run)
    body: SyncBody = {
        "changes": [{"path": one.path, "change": one.change.value, "error": one.error} for one in changes]
    }
    return reply(body, headers=[NO_STORE])


async def _pull(call: Call, source: SyncPlace, target: SyncPlace, is_dry: bool) -> list[PathChange]:
    try:
        async with asyncio.timeout(WITHIN_S):
            values = await _read_all(call.world, source)
    except TimeoutError:
        raise BackendFailed(
            f"the back end took longer than {WITHIN_S:g} s", hint="synchronise fewer secrets at once"
        ) from None

    def write(act: Act) -> list[PathChange]:
        changes = synchronisation.write_values(act, target, values, is_dry=is_dry)
        synchronisation.note_changes(act, source, target, changes, is_dry=is_dry)
        return changes

    return await act_as(call, "backend.sync", write)


async def _push(call: Call, source: SyncPlace, target: SyncPlace, is_dry: bool) -> list[PathChange]:
    world, ends_at = call.world, asyncio.get_running_loop().time() + WITHIN_S
    stored = backends.find_backend(world.db.read(), target.mount)
    if not stored.config.kind.is_writable:
        raise Invalid(
            f"a back end of the kind {stored.config.kind} is read-only",
            hint=f"choose a target of the kind {', '.join(kind for kind in BackendKind if kind.is_writable)}",
        )

    def read(act: Act) -> dict[str, dict[str, Any]]:
        values = synchronisation.read_values(act, source)
        synchronisation.note_changes(act, source, target, (), is_dry=is_dry)
        return values

    values, backend = await act_as(call, "backend.sync", read), open_backend(world, stored)
    changes: list[PathChange] = []
    has_failed = False
    for below, value in sorted(values.items()):
        path = target.full(below)
        if has_failed or asyncio.get_running_loop().time() > ends_at:
            changes.append(PathChange(path, Change.SKIPPED))
            continue
        try:
            backends.check_still(world.db.read(), stored, None, now=world.now())
            changes.append(PathChange(path, await _write(backend, f"{target.path}{below}", value, is_dry=is_dry)))
        except Refused as refusal:
            changes.append(PathChange(path, Change.FAILED, refusal.message))
            has_failed = not isinstance(refusal, Conflict)
    forget_values(world)
    if not is_dry:
        note = synchronisation.note_changes
        await act_as(call, "backend.synced", lambda act: note(act, source, target, changes, is_dry=False))
    return changes


async def _write(backend: Backend, path: str, value: Mapping[str, Any], *, is_dry: bool) -> Change:
    try:
        present = await backend.read(path)
    except DeletionScheduled as refusal:
        raise Conflict(refusal.message, hint=refusal.hint) from None
    except NothingStored:
        present = None
    change = synchronisation.compare(None if present is None else present.json, canonical.encode(value, floats=True))
    if change is not Change.SAME and not is_dry:
        await backend.write(path, value, present)
    return change


async def _read_all(world: World, source: SyncPlace) -> dict[str, Mapping[str, Any]]:
    """Return all values below a folder of a back end, by path. Raises NothingStored if the folder is empty, Conflict if
    there are too many or too large values, BackendFailed if the back end fails.
    """
    stored = backends.find_backend(world.db.read(), source.mount)
    reader, backend = world.get_singleton(BackendReader), open_backend(world, stored)
    paths, folders = ([], [source.path]) if source.is_folder else ([source.path], [])
    count = 0
    while folders:
        folder = folders.pop()
        for name in await reader.ask(stored.name, lambda folder=folder: backend.list_names(folder)):  # type: ignore[misc]
            (folders if name.endswith("/") else paths).append(f"{folder}{name}")
        count += 1
        if len(paths) > MAX_SECRETS or count + len(folders) > MAX_SECRETS:
            raise Conflict(
                f"the folder has more than {MAX_SECRETS} secrets or more than {MAX_SECRETS} folders, at all levels",
                hint="synchronise folders below this folder, one by one",
            )
    values: dict[str, Mapping[str, Any]] = {}
    size = 0
    for path in paths:
        try:
            value = await reader.ask(stored.name, lambda path=path: backend.read(path))  # type: ignore[misc]
        except NothingStored:
            if not source.is_folder:
                raise
            continue  # a Vault also lists deleted secrets
        values[path[len(source.path) if source.is_folder else len(path) :]] = value.data
        size += len(value.json)
        if size > MAX_BYTES:
            raise Conflict(
                f"the values of the folder have more than {MAX_BYTES} bytes together", hint="synchronise folders below"
            )
    if not values:
        raise NothingStored("the folder is empty", code="not_found")
    return values


ROUTES = (
    Route(
        "POST",
        "/api/v1/secrets/sync",
        sync_secrets,
        ADMIN,
        body=SyncOrder,
        answers={200: SyncBody},
        errors=(
            flows.Sealed("the secrets are sealed"),
            NothingStored("no value is stored at this path", code="not_found"),
            BackendFailed("the back end cannot be reached"),
        ),
    ),
)
