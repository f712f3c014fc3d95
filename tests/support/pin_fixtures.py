"""A database that is set back to an earlier state, as a restore does."""

from __future__ import annotations

from ostiaryd.ground.database import Tx, sql
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import act

FORGET = sql("delete from entry where idx >= :size")


REWIND = sql("update log_head set size = :size, peaks = :peaks, checkpoint = :checkpoint")


async def add(world: World, count: int = 1) -> None:
    for number in range(count):
        await act(world, f"test.{number}", lambda act: None)


async def rewind(world: World, row: tuple[int, bytes, str]) -> None:
    """Set the database back to its state at that head, as a restore of an older copy does."""

    def run(tx: Tx) -> None:
        tx.run(FORGET, size=row[0])
        tx.run(REWIND, size=row[0], peaks=row[1], checkpoint=row[2])

    await world.writer.submit(run)


def saved(world: World) -> tuple[int, bytes, str]:
    frontier, note = store.get_head(world.db.read())
    return frontier.size, b"".join(frontier.peaks), note
