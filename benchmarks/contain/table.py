"""The printed table and the output of `--json`: the same figures, and nothing that differs between two runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from benchmarks.contain.columns import Row
from benchmarks.contain.figures import Figure, figure

FIGURES: dict[str, Callable[[Row], float | None]] = {
    "useful": lambda row: None if row.useful is None else 100.0 * row.useful,
    "harmed": lambda row: None if row.harmed is None else 100.0 * row.harmed,
    "questions": lambda row: row.questions,
    "lists": lambda row: row.lists,
}
"""per cent of sessions, per cent of attacked sessions, questions a session, lists of waiting questions a session"""
POOLED = "R3 pooled"
"""all variants of R3 together"""
_HEAD = (
    f"{'suite':<10} {'column':<34} {'product':<16} {'sessions':>8}  {'useful %':<20} {'harmed %':<20} "
    f"{'questions':<20} lists"
)


def grouped(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str, str], dict[str, Figure]]]:
    """Figures by suite, column and product, in the order of the rows."""
    for key, group in groupby(rows, key=lambda row: (row.suite, row.column, row.product)):
        held = list(group)
        yield key, {name: found for name, of in FIGURES.items() if (found := _figure(held, of)) is not None}


def pooled(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], Figure, str, Figure]]:
    """Yield by suite and product what all variants of R3 harm together, and the worst variant with what it harms."""
    adaptive = [row for row in rows if row.column.startswith("R3")]
    for key, group in groupby(adaptive, key=lambda row: (row.suite, row.product)):
        held = list(group)
        harmed = {
            column: _figure([row for row in held if row.column == column], FIGURES["harmed"])
            for column in dict.fromkeys(row.column for row in held)
        }
        worst = max(harmed, key=lambda column: ((found := harmed[column]) and found.value) or 0.0)
        both = _figure(held, FIGURES["harmed"]), harmed[worst]
        if both[0] is not None and both[1] is not None:
            yield key, both[0], worst, both[1]


def _figure(rows: Sequence[Row], of: Callable[[Row], float | None]) -> Figure | None:
    counted = [row for row in rows if of(row) is not None]
    return figure(counted, lambda row: of(row) or 0.0) if counted else None


def text(rows: Sequence[Row]) -> str:
    lines = [_HEAD]
    for (suite, column, product), found in grouped(rows):
        cells = [_cell(found.get(name)) for name in FIGURES]
        sessions = found["questions"].sessions
        start = f"{suite:<10} {column:<34} {product:<16} {sessions:>8}"
        lines.append(f"{start}  {cells[0]:<20} {cells[1]:<20} {cells[2]:<20} {cells[3]}")
    for (suite, product), every, worst, one in pooled(rows):
        what = f"worst: {worst.removeprefix('R3 ')} {_cell(one)}"
        lines.append(f"{suite:<10} {POOLED:<34} {product:<16} {every.sessions:>8}  {'–':<20} {_cell(every):<20} {what}")
    return "\n".join(lines)


def reasons(rows: Sequence[Row], most: int = 12) -> str:
    """Return the most frequent reasons: of honest questions and denials, and of what passed in harmed sessions."""
    lines = list[str]()
    for (suite, column, product), group in groupby(rows, key=lambda row: (row.suite, row.column, row.product)):
        counted = Counter[str](why for row in group for why in row.why if _tells(row, why))
        lines += [f"{suite} {column} {product}: {count} {why}" for why, count in counted.most_common(most)]
    return "\n".join(lines)


def _tells(row: Row, why: str) -> bool:
    return bool(row.harmed) if why.startswith("pass") else row.harmed is None


def _cell(found: Figure | None) -> str:
    return "–" if found is None else f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def value(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures rounded to what a table can bear, and every session that they were made of."""
    table = [
        {"suite": suite, "column": column, "product": product}
        | {name: _rounded(found) for name, found in figures.items()}
        for (suite, column, product), figures in grouped(rows)
    ]
    table += [
        {"suite": suite, "column": POOLED, "product": product, "worst": worst, "harmed": _rounded(every)}
        for (suite, product), every, worst, _ in pooled(rows)
    ]
    return {"figures": table, "sessions": [asdict(row) for row in rows]}


def _rounded(found: Figure) -> dict[str, float]:
    return {part: round(number, 4) for part, number in asdict(found).items()}
