"""Output for people: tables, facts, trees and progress bars, fitted to the width of the terminal.

Piped output is made for `cut` and `grep`: tabs separate cells, cells are not padded, and values are not shortened.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product, zip_longest
from typing import Any, Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleDimensions
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ostiary import ambient

UNLIMITED = 10_000
"""Width, in columns, of piped output and of output with `--wide`."""
GAP = 2
"""Number of blank columns between two cells."""
LINES = 2
"""Maximum number of lines of a cell in a table that is too wide for the terminal. Cells of the last column have no
maximum. Piped output and `--wide` print the whole text of every cell.
"""
MIN_WIDTH = 8
"""Width in columns to which a table may shrink a column, even if words in its cells are longer."""
WORD_WIDTHS = (14, 10)
"""Maximum width, in columns, of a word that is not cut, such as `decommissioned`, and on a narrow terminal, such as a
date.
"""
FIRST_WIDTH = 14
"""Width in columns to which a table may shrink its first column. Cells of the first column are never cut: a longer cell
gets a line of its own.
"""
SHORT_ID = 19
"""Minimum number of characters of a shortened id. They contain the id's time in milliseconds and 12 random bits."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ")
_SHORT = re.compile(r"\d\d-\d\d \d\d:\d\dZ")
_ID = re.compile(r"[a-z]{2,3}_[0-9a-f]{32}")
_ID_OR_PREFIX = re.compile(rf"[a-z]{{2,3}}_[0-9a-f]{{{SHORT_ID - 4},32}}")


class _Output(Console):
    """A console that prints each control or invisible character as its escape sequence.

    Third parties choose some of the names that commands show. Text that is printed without markup may have lines.
    """

    is_wide = False
    """True with `--wide`: tables and trees may be wider than the terminal."""

    @property
    def size(self) -> ConsoleDimensions:
        return ConsoleDimensions(UNLIMITED, super().size.height) if self.is_wide else super().size

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self.width, self.height = new_size

    def render_str(self, text: str, *, markup: bool | None = None, **options: Any) -> Text:
        return super().render_str(spell_out(text, keep="\n\t" if markup is False else ""), markup=markup, **options)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, for which `main` exits without a message."""
        raise BrokenPipeError


out = _Output(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else UNLIMITED)
err = _Output(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def remark(message: str, *, as_json: bool, kind: Literal["note", "warning"] = "note") -> None:
    """Print a message on standard error, beside the result of the command. With `as_json`, print a JSON object whose
    member is named by `kind`.
    """
    if as_json:
        err.print(json.dumps({kind: message}), markup=False)
    elif kind == "warning":
        err.print(f"warning: {message}", style="yellow", markup=False)
    else:
        err.print(message, style="dim", markup=False)


def spell_out(text: str, *, keep: str = "") -> str:
    """Return `text` with the escape sequence of each character that is not printable and not in `keep`."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str, console: _Output | None = None
) -> None:
    """Print a line for each row. `columns` maps a member of the rows to the heading of its column; the first column
    identifies the row.

    On a terminal the table fits the width. Ids are cut to a prefix that commands accept. Times of this year lose year
    and seconds (`11-28 19:10Z`). Text wraps to two lines, in the last column to any number, and a longer word ends in
    `…`. A list that is too long shows its first item and the number of the others (`mail:read +2`). Only ids of the
    first column are cut. On a terminal that is too narrow for the columns, each row is a block of lines. `empty` is
    printed if there are no rows.
    """
    console = console or out
    if not rows:
        console.print(empty, style="dim", markup=False)
        return
    cells = [[_cell(key, row.get(key)) for key in columns] for row in rows]
    if not console.is_terminal:
        for line in ([*columns.values()], *cells):
            print("\t".join(line), file=console.file)  # rich would turn tabs into spaces
        return
    this_year = f"{datetime.fromtimestamp(ambient.now() / 1e6, UTC).year}-"
    heading, *lines = fit(cells, [*columns.values()], console.width, this_year=this_year)
    console.print(Text(heading, style="bold"))
    for text in lines:
        console.print(Text(text))


def fit(cells: Sequence[Sequence[str]], headings: Sequence[str], limit: int, *, this_year: str) -> list[str]:
    """Return the heading and the lines of a table, each at most `limit` columns wide. Only an identifier may be longer.

    `this_year`: the text with which times of this year begin, such as `2026-`.
    """
    lines = [list(line) for line in cells]
    if _total(_natural([headings, *lines])) > limit:
        _shorten_ids(lines)
    if _total(_natural([headings, *lines])) > limit:
        _shorten_times(lines, this_year)
    for word_width, whole_times in product(WORD_WIDTHS, (True, False)):
        least = _least([headings, *lines], word_width, whole_times=whole_times)
        if _total(least) <= limit:
            break
    else:
        return _stack(lines, headings, limit)
    widths = _shrink(_natural([headings, *lines]), least, limit)
    printed: list[str] = []
    for line in ([*headings], *lines):
        if cell_len(line[0]) > widths[0]:  # print the identifier on a line of its own, and the rest of the row below
            printed.append(line[0])
            line = ["", *line[1:]]
        wrapped = [_cut_lines(_wrap(cell, width), width) for cell, width in zip(line[:-1], widths[:-1], strict=True)]
        wrapped.append(_wrap(line[-1], widths[-1]))
        for part in zip_longest(*wrapped, fillvalue=""):
            padded = [set_cell_size(text, width) for text, width in zip(part, widths, strict=True)]
            printed.append((" " * GAP).join(padded).rstrip())
    return printed


def _natural(lines: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of the widest cell of each column."""
    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]


def _least(lines: Sequence[Sequence[str]], word_width: int, *, whole_times: bool) -> list[int]:
    """Return the minimum width of each column: the width of its longest id, time or word, or MIN_WIDTH for words longer
    than `word_width`.
    """
    least: list[int] = []
    for place, column in enumerate(zip(*lines, strict=True)):
        unbroken = [
            text for text in column if _ID_OR_PREFIX.fullmatch(text) or (whole_times and _SHORT.fullmatch(text))
        ]
        ids = [cell_len(text) for text in unbroken]
        words = max(cell_len(word) for text in column for word in (text.split() or [""]))
        fitting = words if words <= word_width else MIN_WIDTH
        if place == 0:
            fitting = min(words, FIRST_WIDTH)
        least.append(max(fitting, *ids, cell_len(column[0])))
    return least


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _shrink(natural: Sequence[int], least: Sequence[int], limit: int) -> list[int]:
    """Return column widths whose total is within `limit`. The widest columns shrink first. The total of `least` is
    within `limit`.
    """
    widths = list(natural)
    while _total(widths) > limit:
        shrinkable = [place for place, width in enumerate(widths) if width > least[place]]
        widths[max(shrinkable, key=widths.__getitem__)] -= 1
    return widths


def _stack(lines: Sequence[Sequence[str]], headings: Sequence[str], limit: int) -> list[str]:
    """Return the lines of a table that has too many columns for `limit`: the identifier of each row, and below it a
    line for each other cell with text, behind the heading of its column.
    """
    first, *others = headings
    widest = max(map(cell_len, others), default=0)
    printed = [first]
    for identifier, *cells in lines:
        printed.append(identifier)
        for heading, cell in zip(others, cells, strict=True):
            if cell:
                label = " " * GAP + set_cell_size(heading, widest) + " " * GAP
                printed += (label + hang(cell, cell_len(label), width=limit)).split("\n")
    return printed


class _Items(str):
    """The cell of a table that shows a list; spaces separate the items."""


def _cut(word: str, width: int) -> str:
    return word if cell_len(word) <= width else set_cell_size(word, width - 1).rstrip() + "…"


def _wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` columns, broken between words; a list stays on one line."""
    if isinstance(text, _Items) and cell_len(text) > width:
        first, *others = text.split(" ")
        more = f" +{len(others)}" if others else ""
        return [_cut(first, width - len(more)) + more]
    lines = [""]
    for word in text.split(" "):
        word = _cut(word, width)
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _cut_lines(lines: list[str], width: int) -> list[str]:
    """Return at most LINES lines; if there are more, the last line ends in `…`."""
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], _cut(" ".join(lines[LINES - 1 :]), width)]


def _shorten_ids(lines: list[list[str]]) -> None:
    """Cut the ids of each column to one length at which they still differ."""
    for place in range(len(lines[0])):
        ids = {line[place] for line in lines if _ID.fullmatch(line[place])}
        length = next((n for n in range(SHORT_ID, 36) if len({id[:n] for id in ids}) == len(ids)), 36)
        for line in lines:
            if line[place] in ids:
                line[place] = line[place][:length]


def _shorten_times(lines: list[list[str]], this_year: str) -> None:
    """Cut each time of this year to `11-28 19:10Z`, and any other time to its date."""
    for line in lines:
        for place, text in enumerate(line):
            if _TIME.fullmatch(text):
                line[place] = f"{text[5:16]}Z" if text.startswith(this_year) else text[:10]


def facts(value: Mapping[str, Any]) -> None:
    """Print a line for each member of `value`, except members that are None or empty."""
    shown = [(spell_out(key), _text(key, item)) for key, item in value.items() if item not in (None, "", [], {})]
    if not out.is_terminal:
        for pair in shown:
            print("\t".join(pair), file=out.file)
        return
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, text in shown:
        grid.add_row(Text(key), Text(text))
    out.print(grid)


def hang(text: str, indent: int, *, width: int | None = None) -> str:
    """Return `text` in lines that fit `width` (by default the width of the terminal) behind `indent` columns; each line
    but the first begins with `indent` blanks. A word that does not fit into a line is divided.
    """
    lines = Text(spell_out(text)).wrap(out, max((width or out.width) - indent, MIN_WIDTH))
    return f"\n{' ' * indent}".join(line.plain.rstrip() for line in lines)


def tree(rows: Sequence[Mapping[str, Any]], line: Callable[[Any], str], *, of: str, key: str = "task_id") -> None:
    """Print the rows as a tree; `line` returns the text of a row. The member `key` of a row is its id, and the member
    `of` the id of its parent, which precedes it in `rows`. The first row is the root.
    """
    first, *rest = rows
    drawn = {first[key]: Tree(escape(line(first)))}
    for row in rest:
        drawn[row[key]] = drawn[row[of]].add(escape(line(row)))
    out.print(drawn[first[key]])


def short_id(id: str) -> str:
    """Return an id; on a terminal without `--wide`, a prefix that commands accept."""
    return id[:SHORT_ID] if out.is_terminal and not out.is_wide else id


def progress() -> Progress:
    """Return a progress bar on standard error, which only a terminal shows."""
    return Progress(console=err, transient=True, disable=not err.is_terminal)


def moment(seconds: float) -> str:
    """Return a time in seconds since the epoch as `2026-01-31 12:00:00`, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def value_text(value: Any) -> str:
    """Return a JSON value as text for people: `a b` for a list of words, `name=value, ...` for an object."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case int() | float():
            return json.dumps(value)
        case list() if all(isinstance(item, str) and " " not in item for item in value):
            return " ".join(value)
        case list():
            return "; ".join(map(value_text, value))
        case dict():
            return ", ".join(f"{name}={_quoted(item)}" for name, item in value.items())
    return json.dumps(value, ensure_ascii=False)


def _quoted(value: Any) -> str:
    """Return the text of a value inside an object: nested values in brackets, and ambiguous text in quotes."""
    if isinstance(value, dict):
        return f"({value_text(value)})"
    if isinstance(value, list):
        return f"[{'; '.join(map(_quoted, value))}]"
    if isinstance(value, str) and (not value or re.search(r'[,;=()\[\]"]', value)):
        return json.dumps(value, ensure_ascii=False)
    return value_text(value)


def _cell(key: str, value: Any) -> str:
    text = _text(key, value)
    return _Items(text) if isinstance(value, list) and ";" not in text else text


def _text(key: str, value: Any) -> str:
    is_time = key in ("at", "until") or key.endswith(("_at", "not_after"))
    if is_time and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{moment(value)}Z" if value else ""
    return spell_out(value_text(value))
