"""The measure of what origins, labels and slots add to the decisions of sessions."""

from __future__ import annotations

from benchmarks.contain.columns import Plan
from benchmarks.contain.costs import Cost, line, measure
from tests.contain.toy_bank import Bank


def test_each_call_of_the_sessions_is_measured_once() -> None:
    plan, bank = Plan(Bank()), Bank()
    honest = sum(len(bank.world(task.id, {}).reference()) for task in bank.tasks)
    attacked = sum(
        len(bank.world(task.id, {}).reference()) + len(bank.world(task.id, {}).attack(injection.id))
        for task, injection in plan.pairs
    )
    costs = measure(bank, confirmed=True)
    assert len(costs) == honest + attacked
    assert {cost.is_judged for cost in costs} == {True, False}, "reads and payments"


def test_the_line_has_the_median_and_the_ninetieth_and_ninety_ninth_percentile() -> None:
    costs = [Cost(float(added), is_judged=True, goes_out=False, has_labels=False) for added in range(101)]
    assert line("calls", costs).split() == ["calls", "50.0", "90.0", "99.0", "101"]
