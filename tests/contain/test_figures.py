"""Figures and their intervals."""

from __future__ import annotations

from benchmarks.contain.columns import Row
from benchmarks.contain.figures import figure
from benchmarks.contain.table import text, value


def row(task: str, harmed: bool, *, useful: bool | None = True) -> Row:
    return Row("s", "p", "c", task, "i", useful, harmed, 1, 1)


def test_the_interval_is_over_tasks_not_over_sessions() -> None:
    of_tasks = figure([row(f"{n % 2}", n % 2 == 0) for n in range(200)], lambda row: row.harmed or 0)
    of_many = figure([row(f"{n}", n % 2 == 0) for n in range(200)], lambda row: row.harmed or 0)
    assert (of_tasks.value, of_tasks.low, of_tasks.high) == (0.5, 0.0, 1.0)
    assert of_many.value == 0.5
    # a binomial proportion of 200 at 0.5: 0.5 ± 1.96 * 0.0354
    assert abs(of_many.low - 0.431) < 0.015
    assert abs(of_many.high - 0.569) < 0.015


def test_a_task_with_more_sessions_weighs_more() -> None:
    rows = [row("a", True), row("a", True), row("a", True), row("b", False)]
    assert figure(rows, lambda row: row.harmed or 0).value == 0.75


def test_a_measure_without_values_has_no_figure() -> None:
    rows = [row("a", True, useful=None), row("b", True, useful=None)]
    [found] = value(rows)["figures"]
    assert found["harmed"] == {"value": 100.0, "low": 100.0, "high": 100.0, "sessions": 2}
    assert "useful" not in found
    assert "–" in text(rows)
