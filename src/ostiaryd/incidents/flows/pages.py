"""Check of the pages of the SQLite database: at the start for a limited time, then in the background until all are
checked.

A damaged page, which SQLite did not write, stops everything, as the kill switch does, because a decision on a damaged
database is not reliable. PostgreSQL checks its own pages (`data_checksums`).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ostiary.protocol.errors import Conflict, Refused
from ostiaryd.ground.database import DamagedDatabase, storage_failure
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows.state import stop_everything
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry import flows as registry

log = logging.getLogger("ostiary")
START_S = 1.0
"""Maximum number of seconds for the check of pages before the server answers."""
EVERY = 86_400 * 1_000_000
"""Microseconds between two complete checks of the pages."""
_MOST = 10
"""Maximum number of defects that a check reports."""


@dataclass(slots=True)
class Pages:
    """The result of the last complete check of the database's pages. `checked_at`: the time of the check in
    microseconds, 0 before the first check.
    """

    world: World
    checked_at: int = 0
    defects: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Return a sentence about the result. Raises Conflict if a page is damaged."""
        if self.defects:
            raise Conflict("; ".join(self.defects[:3]), hint="restore the database from a backup")
        if not self.world.db.is_sqlite:
            return "PostgreSQL checks its own pages"
        return "no page is damaged" if self.checked_at else "the pages are being checked"


def find_defects(path: Path, *, within_s: float | None = None, with_indexes: bool = False) -> list[str] | None:
    """Return the defects of the SQLite file that `PRAGMA quick_check` reports, one sentence each; None if the check
    takes longer than `within_s`. `with_indexes`: use `PRAGMA integrity_check`, which also compares each index with its
    table.
    """
    check = "integrity_check" if with_indexes else "quick_check"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=False)) as raw:
        raw.execute("pragma query_only=on")
        done = threading.Event()

        def interrupt() -> None:
            """Interrupt the check after the time limit, repeatedly, since an interrupt before the statement begins has
            no effect.
            """
            if not done.wait(within_s):
                while not done.wait(0.01):
                    raw.interrupt()

        watching = threading.Thread(target=interrupt, name="pages")
        watching.start()
        try:
            lines = [str(row[0]) for row in raw.execute(f"pragma {check}({_MOST})")]
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return None
            if not isinstance(storage_failure(error), DamagedDatabase):
                raise
            lines = [str(error)]
        finally:
            done.set()
            watching.join()
    return [" ".join(line.split())[:200] for line in lines if line != "ok"]


async def check_pages(world: World, *, within_s: float | None = None, with_indexes: bool = False) -> None:
    """Check all pages of the SQLite database if the last complete check is older than `EVERY`, or if a request read a
    damaged page. Stop everything if a page is damaged. A background loop calls this function. `within_s`: seconds after
    which an unfinished check ends without a result; `with_indexes`: also compare each index with its table.
    """
    pages = world.get_singleton(Pages)
    is_due = not pages.checked_at or world.now() - pages.checked_at >= EVERY or world.db.is_suspect
    if not world.db.is_sqlite or pages.defects or not is_due:
        return
    world.db.is_suspect = False
    defects = await asyncio.to_thread(find_defects, world.db.path, within_s=within_s, with_indexes=with_indexes)
    if defects is None:
        return
    pages.checked_at, pages.defects = world.now(), defects
    if defects:
        log.critical("the database is damaged: %s", "; ".join(defects))
        await _stop(world, defects)


async def check_pages_at_start(world: World) -> None:
    """Check the pages for at most `START_S` seconds before the server answers."""
    await check_pages(world, within_s=START_S)


async def describe_pages(world: World) -> str:
    """Return a sentence about the result of the last check. Raises Conflict if a page is damaged."""
    return world.get_singleton(Pages).describe()


async def check_pages_deeply(world: World) -> str:
    """Check all pages and all indexes now; return a sentence about the result. Raises Conflict if a page or an index is
    damaged.
    """
    world.db.is_suspect = True
    await check_pages(world, with_indexes=True)
    return world.get_singleton(Pages).describe()


async def _stop(world: World, defects: list[str]) -> None:
    """Stop everything. If the damaged database cannot store the stop, the server answers no further request."""

    def stop(act: ledger.Act) -> None:
        registry.fill_entry(act, object="database", defects=defects)
        stop_everything(act, says=f"the database is damaged: {defects[0]}")

    try:
        await ledger.act(world, "database.damaged", stop)
    except (Refused, sqlite3.DatabaseError) as error:
        log.critical("the damaged database cannot store the stop of everything either: %s", error)
        world.db.give_up(DamagedDatabase(defects[0]))
