"""`--sweep`: many unfamiliar worlds of each level, decided in process: what holds there on average, with intervals.

A *cell* is one world of one suite, with its catalogue confirmed or not, cold or warm (after `WARM` honest sessions of
other tasks, then frozen). The attacks of a cell are a sample that its seed draws. Figures are means over seeds, all
suites of a seed together, with 95 % intervals by bootstrap over seeds. Cells come in one order from two processes, so
two runs give the same bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from benchmarks.contain import compiled, owner, suites
from benchmarks.contain.attacks import VARIANTS
from benchmarks.contain.columns import Plan, Row
from benchmarks.contain.inprocess import InProcess
from benchmarks.contain.lexicon import Lexicon
from benchmarks.contain.strange import LEVELS, Strange, differences
from benchmarks.contain.suites import Suite
from ostiary.authorization.cedar.ir import PolicySetIR

ORIGINAL = "original"
"""the level of the suite itself: one world, whatever the seeds"""
DEVELOPED = ("banking", "slack")
WARM = 20
"""honest sessions of other tasks before a warm cell is measured"""
PAIRS, ATTACKS = 24, 8
"""attacked sessions of a cell in R2, and of each variant in R3"""
RESAMPLES, SEED = 2_000, 20261128
PROCESSES = 2
A_SESSION = ("questions", "lists")
"""figures that are numbers a session; all others are per cent of sessions"""
Count = tuple[int, int]
"""sessions, and the sum over them"""


@dataclass(slots=True)
class Cell:
    level: str
    suite: str
    seed: int
    is_confirmed: bool
    is_warm: bool
    counts: dict[str, Count] = field(default_factory=dict)
    """by figure: `useful`, `questions`, `lists`, `harmed`, `tired`, and each variant of R3"""
    denied: dict[str, int] = field(default_factory=dict)
    """honest calls by the code of their denial"""

    @property
    def kind(self) -> tuple[str, bool, bool]:
        return self.level, self.is_confirmed, self.is_warm


@dataclass(frozen=True, slots=True)
class World:
    """A world to hold in all ways, for a process of its own."""

    suite: str
    level: str
    seed: int
    wrong: float
    policies: PolicySetIR

    def hold(self) -> list[Cell]:
        """Hold all sessions of the world."""
        return hold(_loaded(self.suite), self.level, self.seed, self.policies, wrong=self.wrong)


def hold(suite: Suite, level: str, seed: int, policies: PolicySetIR, *, wrong: float = 0.0) -> list[Cell]:
    """Hold all sessions of one world in all four ways. Raises ValueError for a world that is unsound."""
    name = suite.name
    if level != ORIGINAL:
        strange = Strange(suite, level, seed, _lexicon(), readers=owner.readers(suite))
        if unsound := differences(suite, strange, tasks=None, injections=2):
            raise ValueError(f"{strange.name} is unsound: {len(unsound)} sessions end otherwise, as {unsound[0]}")
        suite = strange
    plan, known = Plan(suite, sample=(PAIRS, ATTACKS, seed)), owner.confirmed(suite)
    catalogues = {False: owner.reading(suite), True: owner.confirmed(suite, wrong=wrong, seed=seed)}
    cells = list[Cell]()
    for is_confirmed, catalogue in catalogues.items():
        for is_warm in (False, True):
            cell = Cell(level, name, seed, is_confirmed, is_warm)
            for part, others in halves(plan) if is_warm else [(plan, None)]:
                product = InProcess(catalogue, policies)
                if others is not None:
                    with product.learning(keep=True):
                        list(others.honest(product, most=WARM))
                count(cell, rows(part, product, known))
            cells.append(cell)
    return cells


@cache
def _loaded(name: str) -> Suite:
    """Return a suite by name: each process reads the files of each suite once."""
    return suites.load(name)


@cache
def _lexicon() -> Lexicon:
    return Lexicon()


def halves(plan: Plan) -> list[tuple[Plan, Plan]]:
    """Return each half of the tasks with the other one."""
    ids = [task.id for task in plan.tasks]
    one, other = plan.narrowed(ids[::2]), plan.narrowed(ids[1::2])
    return [(one, other), (other, one)]


def rows(plan: Plan, product: InProcess, known: Any) -> Iterator[tuple[str, Row]]:
    """Yield each session with the figure that it counts for."""
    yield from (("useful", row) for row in plan.honest(product))
    yield from (("harmed", row) for row in plan.attacked(product))
    yield from (("tired", row) for row in plan.attacked(product, column="R2 tired", tired=True))
    for variant in VARIANTS:
        yield from ((f"R3 {variant}", row) for row in plan.adaptive(product, variant, known))


def count(cell: Cell, found: Iterable[tuple[str, Row]]) -> None:
    for figure, row in found:
        if figure == "useful":
            _add(cell.counts, figure, int(bool(row.useful)))
            _add(cell.counts, "questions", row.questions)
            _add(cell.counts, "lists", row.lists)
            for _, code in row.denied:
                cell.denied[code] = cell.denied.get(code, 0) + 1
        else:
            _add(cell.counts, figure, int(bool(row.harmed)))


def _add(counts: dict[str, Count], figure: str, value: int) -> None:
    sessions, total = counts.get(figure, (0, 0))
    counts[figure] = sessions + 1, total + value


def sweep(asked: argparse.Namespace, progress: Callable[[float], None]) -> list[Cell]:
    """Hold all worlds that are asked for; `progress` is told the share that is done."""
    policies, seeds = compiled.starter(), range(asked.seed, asked.seed + asked.seeds)
    worlds = [
        World(suite, level, seed, asked.wrong, policies)
        for seed in seeds
        for level in asked.strange or (ORIGINAL, *LEVELS)
        for suite in asked.suite or DEVELOPED
        if level != ORIGINAL or seed == seeds[0]
    ]
    cells = list[Cell]()
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for number, found in enumerate(pool.imap(World.hold, worlds), 1):
            cells += found
            progress(number / len(worlds))
    return cells


@dataclass(frozen=True, slots=True)
class Mean:
    value: float
    low: float
    high: float
    sessions: int


def figures(cells: Sequence[Cell]) -> dict[str, Mean]:
    """Return the figures of cells of one kind: per cent of sessions, questions a session; means over seeds."""
    by_seed: dict[int, dict[str, Count]] = {}
    for cell in cells:
        counts = by_seed.setdefault(cell.seed, {})
        for name, (sessions, total) in cell.counts.items():
            before = counts.get(name, (0, 0))
            counts[name] = before[0] + sessions, before[1] + total
    for counts in by_seed.values():
        variants = [one for name, one in counts.items() if name.startswith("R3 ")]
        counts["R3"] = sum(one[0] for one in variants), sum(one[1] for one in variants)
    names = sorted({name for counts in by_seed.values() for name in counts})
    return {
        name: _mean([counts[name] for counts in by_seed.values() if name in counts], 1 if name in A_SESSION else 100)
        for name in names
    }


def _mean(counts: Sequence[Count], scale: int) -> Mean:
    rates = [scale * total / sessions for sessions, total in counts if sessions]
    dice = random.Random(SEED)
    means = sorted(sum(dice.choices(rates, k=len(rates))) / len(rates) for _ in range(RESAMPLES))
    low, high = means[round(0.025 * (RESAMPLES - 1))], means[round(0.975 * (RESAMPLES - 1))]
    return Mean(sum(rates) / len(rates), low, high, sum(sessions for sessions, _ in counts))


def grouped(cells: Sequence[Cell]) -> dict[tuple[str, bool, bool], list[Cell]]:
    """Return the cells by level, confirmed or not, warm or cold."""
    found = dict[tuple[str, bool, bool], list[Cell]]()
    for cell in cells:
        found.setdefault(cell.kind, []).append(cell)
    return found


def text(cells: Sequence[Cell]) -> str:
    """The table of means with intervals; a second one of the variants of R3, and the codes of honest denials."""
    lines = [
        f"{'level':<10} {'catalogue':<12} {'':<5} {'worlds':>6}  {'useful %':<20} {'R2 %':<20} {'R3 pooled %':<20} "
        f"{'worst variant %':<34} {'questions':<20} {'lists':<8} {'tired +':<9} denied"
    ]
    for (level, is_confirmed, is_warm), held in grouped(cells).items():
        found = figures(held)
        worst = max((name for name in found if name.startswith("R3 ")), key=lambda name: found[name].value)
        adds = found["tired"].value - found["harmed"].value
        denied = Counter[str]()
        for cell in held:
            denied.update(cell.denied)
        lines.append(
            f"{level:<10} {'confirmed' if is_confirmed else 'unconfirmed':<12} {'warm' if is_warm else 'cold':<5} "
            f"{len(held):>6}  {_cell(found['useful']):<20} {_cell(found['harmed']):<20} {_cell(found['R3']):<20} "
            f"{worst.removeprefix('R3 ') + ' ' + _cell(found[worst]):<34} {_cell(found['questions']):<20} "
            f"{found['lists'].value:<8.3g} {adds:<9.3g} "
            + " ".join(f"{code}:{number}" for code, number in denied.most_common(4))
        )
    lines += ["", f"{'R3, cold, % harmed':<24}" + "".join(f"{name:<18}" for name in VARIANTS)]
    for (level, is_confirmed, is_warm), held in grouped(cells).items():
        if not is_warm:
            found = figures(held)
            of = f"{level} {'confirmed' if is_confirmed else 'unconfirmed'}"
            cells_of = (found.get(f"R3 {name}") for name in VARIANTS)
            lines.append(f"{of:<24}" + "".join(f"{'–' if one is None else f'{one.value:.3g}':<18}" for one in cells_of))
    return "\n".join(lines)


def value(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return what `--json` writes: the figures by kind, and every cell that they were made of."""
    table = [
        {"level": level, "confirmed": is_confirmed, "warm": is_warm}
        | {name: {part: round(one, 4) for part, one in asdict(mean).items()} for name, mean in figures(held).items()}
        for (level, is_confirmed, is_warm), held in grouped(cells).items()
    ]
    return {"figures": table, "cells": [asdict(cell) for cell in cells]}


def _cell(found: Mean) -> str:
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"
