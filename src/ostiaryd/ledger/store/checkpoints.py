"""Signed checkpoints of the log that are kept: one an hour, for a comparison of any two of them."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.ground.http.pages import Page

_PAGE = sql(
    """select size, at, note from log_checkpoint where :before = 0 or size < :before
       order by size desc limit :limit"""
)
_KEEP = sql(
    """insert into log_checkpoint (size, at, note) select size, :now, checkpoint from log_head where id = 1
       on conflict (size) do nothing"""
)


class KeptCheckpoint(NamedTuple):
    """A signed checkpoint of the log when it had `size` entries, kept at `at` (microseconds)."""

    size: int
    at: int
    note: str


def checkpoints(reader: Reader, page: Page) -> list[KeptCheckpoint]:
    """Return a page of the kept checkpoints, the largest first; the cursor is a size."""
    rows = reader.all(_PAGE, before=int(page.after or 0), limit=page.limit)
    return [KeptCheckpoint(*row) for row in rows]


def keep_checkpoint(tx: Tx) -> None:
    """Keep the present checkpoint of the log."""
    tx.run(_KEEP, now=tx.now)
