"""How things look for people. What is piped is never wrapped, so that `grep` and `cut` work on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

ENDLESS = 10_000
"""Columns of what is no terminal."""


class _Paper(Console):
    """Strangers choose some of the names that are shown: what would move the cursor, hide, or begin a line of its own
    is spelled out. What is printed without markup may have lines.
    """

    def render_str(self, text: str, *, markup: bool | None = None, **options: Any) -> Text:
        kept = "\n\t" if markup is False else ""
        shown = "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)
        return super().render_str(shown, markup=markup, **options)

    def on_broken_pipe(self) -> None:
        """Who reads has gone away: `main` ends in silence."""
        raise BrokenPipeError


out = _Paper(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else ENDLESS)
err = _Paper(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """A row for each thing; `columns` maps a member to its heading, `empty` is said when there is none."""
    if not rows:
        out.print(empty, style="dim", markup=False)
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for heading in columns.values():
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*[_cell(key, row.get(key)) for key in columns])
    out.print(grid)


def facts(value: Mapping[str, Any]) -> None:
    """One thing, a line for each member that says something."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for key, item in value.items():
        if item not in (None, "", [], {}):
            grid.add_row(key, _cell(key, item))
    out.print(grid)


def tree(rows: Sequence[Mapping[str, Any]], line: Callable[[Any], str], *, of: str, key: str = "task_id") -> None:
    """A line for each thing, under the one that its member `of` names; the first is the top, none before its own."""
    first, *rest = rows
    drawn = {first[key]: Tree(escape(line(first)))}
    for row in rest:
        drawn[row[key]] = drawn[row[of]].add(escape(line(row)))
    out.print(drawn[first[key]])


def moment(seconds: float) -> str:
    """Seconds since the epoch as 2026-01-31 12:00:00, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _cell(key: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() | float() if key.endswith(("_at", "not_after")):
            return f"{moment(value)}Z" if value else ""
        case str():
            return escape(value)
        case list() if all(isinstance(item, str) for item in value):
            return escape(" ".join(value))
        case _:
            return escape(json.dumps(value, ensure_ascii=False))
