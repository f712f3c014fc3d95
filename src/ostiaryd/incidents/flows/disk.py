"""The disk of the database: its reserve for acts that stop something, and the alarm when the disk is full."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database.folder import check_space
from ostiaryd.ground.database.line import overtaking
from ostiaryd.ground.database.reserve import DiskFull
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import reason


@dataclass(slots=True)
class DiskWatch:
    """The state of the disk (full or not) that this process has recorded last."""

    world: World
    is_full: bool = False


async def watch_disk(world: World) -> None:
    """Restore the reserve (disk space that is kept for stops) if the disk has space again, and record when the disk
    becomes full and when it has space again. A background loop calls this function.
    """
    writer, watch = world.writer, world.get_singleton(DiskWatch)
    await writer.rebuild()
    if writer.is_full is watch.is_full:
        return
    is_full = writer.is_full
    with overtaking():
        await ledger.act(world, "database.full" if is_full else "database.has_space", _explain if is_full else _note)
    watch.is_full = is_full


def _explain(act: ledger.Act) -> None:
    _note(act)
    full = DiskFull()
    act.entry.reasons = [reason(full.code, f"{full.message}: only acts that stop something are carried out")]


def _note(act: ledger.Act) -> None:
    act.entry.object = "database"


async def examine_disk(world: World) -> str:
    """Return the sentence about the disk for `ostiary doctor`. Raises DiskFull if the disk has too little space,
    Conflict if a write has failed on a full disk or the reserve for stops could not be created.
    """
    return await asyncio.to_thread(_examine, world)


def _examine(world: World) -> str:
    writer = world.writer
    if writer.is_full:
        full = DiskFull()
        raise Conflict(f"{full.message}; {writer.reserve.size >> 20} MiB are reserved for stops", hint=full.hint)
    if writer.reserve.defect:
        raise Conflict(
            f"PostgreSQL refuses to create the reserve for a full disk: {writer.reserve.defect}",
            hint="let the user of the database create tables: without a reserve, stops fail on a full disk",
        )
    free = check_space(world.config.folder)
    return f"{free}; {writer.reserve.size >> 20} MiB are reserved for stops on a full disk"
