"""Stored checkpoints: one signed checkpoint of the log for each hour, so that clients can compare any two."""

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
    """A stored signed checkpoint: the number of entries of the log at that time, the time in microseconds since the
    epoch, and the signed note.
    """

    size: int
    at: int
    note: str


def checkpoints(reader: Reader, page: Page) -> list[KeptCheckpoint]:
    """Return a page of the stored checkpoints, the largest first. The cursor of a page is the size of a checkpoint."""
    rows = reader.all(_PAGE, before=int(page.after or 0), limit=page.limit)
    return [KeptCheckpoint(*row) for row in rows]


def keep_checkpoint(tx: Tx) -> None:
    """Store the present checkpoint of the log."""
    tx.send(_KEEP, now=tx.now)
