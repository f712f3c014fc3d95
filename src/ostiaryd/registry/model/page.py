"""Lists are read in pages: `?limit=` (1 to 1000) and `?after=` the last id of the page before."""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.core.errors import Invalid

MAX_ROWS = 1000
DEFAULT_ROWS = 100


@dataclass(frozen=True, slots=True)
class Page:
    limit: int
    after: str


def parse_page(limit: str | None, after: str | None) -> Page:
    """From the query; raises Invalid."""
    if limit is None:
        return Page(DEFAULT_ROWS, after or "")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MAX_ROWS):
        raise Invalid(f"`limit` must be 1 to {MAX_ROWS}")
    return Page(int(limit), after or "")
