"""Risk scores: a score halves over time, is at most 100, and a new finding does not lower the score."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.provenance.noticing import CALM, HALF_LIFE, MOST, Risk
from ostiary.provenance.noticing.risk import OVER_AFTER

NOW = 1_800_000_000_000_000
points = st.integers(1, 100)
later = st.integers(0, 20 * HALF_LIFE)


@pytest.mark.parametrize(
    ("age", "left"),
    [(-1, 80), (0, 80), (1, 80), (HALF_LIFE, 40), (2 * HALF_LIFE, 20), (7 * HALF_LIFE, 1), (8 * HALF_LIFE, 0)],
)
def test_a_risk_score_halves_with_each_half_life(age: int, left: int) -> None:
    assert CALM.raised(80, NOW).points(NOW + age) == left


@pytest.mark.parametrize(("millis", "points"), [(59_499, 59), (59_500, 60), (60_000, 60), (60_499, 60), (60_500, 61)])
def test_the_points_of_a_risk_score_are_rounded_to_the_nearest_integer(millis: int, points: int) -> None:
    """A finding is older than the act that asks how much it is worth: its 60 points must pass a bar of 60."""
    assert Risk(millis, NOW).points(NOW) == points


def test_independent_findings_raise_a_risk_score_by_less_than_their_sum() -> None:
    assert CALM.raised(50, NOW).raised(50, NOW).points(NOW) == 75
    assert CALM.raised(50, NOW).raised(50, NOW + HALF_LIFE).points(NOW + HALF_LIFE) == 63
    assert CALM.raised(100, NOW).points(NOW) == MOST


@pytest.mark.parametrize(
    ("before", "counted", "more", "points"),
    [
        (CALM.raised(40, NOW), 40, 40, 40),
        (CALM.raised(40, NOW), 40, 30, 40),
        (CALM.raised(40, NOW), 40, 70, 70),
        (CALM.raised(40, NOW), 20, 40, 55),
        (CALM.raised(40, NOW).raised(50, NOW), 40, 40, 70),
        (CALM.raised(40, NOW).raised(50, NOW), 40, 70, 85),
        (CALM, 40, 40, 40),
        (CALM.raised(100, NOW), 100, 100, 100),
    ],
)
def test_evidence_that_the_risk_score_already_counts_is_not_counted_again(
    before: Risk, counted: int, more: int, points: int
) -> None:
    assert before.raised(more, NOW, counted=counted).points(NOW) == points


def test_a_clock_that_goes_back_does_not_lower_a_risk_score() -> None:
    assert CALM.raised(50, NOW).raised(10, NOW - HALF_LIFE) == Risk(55_000, NOW)


@given(st.lists(st.tuples(points, later), max_size=20))
def test_a_risk_score_is_at_least_the_last_finding_and_at_most_100(reasons: list[tuple[int, int]]) -> None:
    risk, now = CALM, NOW
    for more, passed in reasons:
        now += passed
        before, risk = risk.points(now), risk.raised(more, now)
        assert max(before, more) <= risk.points(now) <= MOST
        assert risk.points(risk.until) == 0


@pytest.mark.parametrize("age", [OVER_AFTER - 1, OVER_AFTER])
def test_the_highest_risk_score_is_zero_when_it_is_removed(age: int) -> None:
    assert CALM.raised(MOST, NOW).points(NOW + age) == 0
