"""The sweep over unfamiliar worlds: what is sampled, what is learned before a warm cell, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.contain import compiled
from benchmarks.contain.attacks import VARIANTS
from benchmarks.contain.columns import HONEST, Plan, Row
from benchmarks.contain.sweep import ORIGINAL, Cell, count, figures, grouped, halves, hold, text, value
from tests.contain.toy_bank import Bank
from tests.support.toys import Told


def row(column: str, *, useful: bool = True, harmed: bool | None = None, denied: Sequence[str] = ()) -> Row:
    return Row("s", "p", column, "t", None, useful, harmed, 2, 1, [("tool", code) for code in denied])


def cell(seed: int, useful: int, harmed: int, *, suite: str = "one", warm: bool = False) -> Cell:
    made = Cell("letters", suite, seed, True, warm)
    count(made, [("useful", row(HONEST, useful=n < useful)) for n in range(10)])
    for name in ("harmed", "tired", "R3 link", "R3 fields"):
        count(made, [(name, row("R2", harmed=n < harmed)) for n in range(10)])
    return made


def test_figures_are_means_over_seeds_of_the_results_of_all_suites() -> None:
    found = figures([cell(1, 10, 0), cell(1, 5, 0, suite="two"), cell(2, 10, 2)])
    assert found["useful"].value == (75 + 100) / 2
    assert found["harmed"].value == (0 + 20) / 2
    assert found["R3"].value == 10
    assert (found["questions"].value, found["lists"].value) == (2, 1)
    assert found["useful"].sessions == 30
    assert (found["harmed"].low, found["harmed"].high) == (0, 20)
    alone = figures([cell(1, 10, 1)])["harmed"]
    assert (alone.value, alone.low, alone.high) == (10, 10, 10)


def test_warm_and_cold_cells_are_not_mixed_and_the_table_has_both() -> None:
    cells = [cell(1, 10, 0), cell(1, 0, 10, warm=True)]
    assert [figures(held)["useful"].value for held in grouped(cells).values()] == [100, 0]
    lines = text(cells).splitlines()
    assert sum("letters" in line and "warm" in line for line in lines) == 1
    assert len(value(cells)["figures"]) == len(value(cells)["cells"]) == 2


def test_denials_of_honest_agents_are_counted_by_reason_code() -> None:
    made = Cell("letters", "one", 1, False, False)
    count(made, [("useful", row(HONEST, denied=["a", "b"])), ("useful", row(HONEST, denied=["a"]))])
    count(made, [("harmed", row("R2", harmed=True, denied=["a"]))])
    assert made.denied == {"a": 2, "b": 1}


def test_a_sample_is_determined_by_its_seed_and_keeps_the_order_of_the_suite() -> None:
    def tried(seed: int, most: int) -> list[tuple[str, str | None]]:
        plan = Plan(Bank(), sample=(most, 0, seed))
        return [(one.task, one.injection) for one in plan.attacked(Told(lambda _: True))]

    every = tried(1, 2)
    assert every == [("bill", "theft"), ("notes", "theft")]
    ones = [tried(seed, 1) for seed in range(20)]
    assert ones == [tried(seed, 1) for seed in range(20)]
    assert sorted(set(map(tuple, ones))) == [(each,) for each in sorted(every)]


def test_a_warm_half_learns_only_from_the_other_half() -> None:
    pairs = halves(Plan(Bank()))
    tasks = [([task.id for task in part.tasks], [task.id for task in others.tasks]) for part, others in pairs]
    assert tasks == [(["bill"], ["notes"]), (["notes"], ["bill"])]
    product = Told(lambda _: True)
    assert [one.task for one in pairs[0][1].honest(product, most=3)] == ["notes"] * 3


@pytest.mark.parametrize("level", [ORIGINAL, "letters"])
def test_a_world_is_run_confirmed_and_unconfirmed_and_warm_and_cold(level: str) -> None:
    cells = hold(Bank(), level, 1, compiled.starter())
    ways = [(one.is_confirmed, one.is_warm) for one in cells]
    assert ways == [(False, False), (False, True), (True, False), (True, True)]
    assert all(one.counts["useful"][0] == 2 for one in cells)
    variants = {name.removeprefix("R3 ") for one in cells for name in one.counts if name.startswith("R3")}
    assert VARIANTS.keys() - variants <= {"another object"}, "its records are no records in a text"
    assert hold(Bank(), level, 1, compiled.starter()) == cells
