"""The points on docs/explanation/risk.md are those of the rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from ostiary.guard import networks
from ostiary.provenance.noticing import MAX_PROFILE, noticing

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "explanation" / "risk.md").read_text("utf-8")
GRAVE = [points + noticing.MORE_IF_GRAVE for points in noticing.ORIGIN.values()]


@pytest.mark.parametrize(
    ("detector", "points"),
    [
        ("purpose_drift", [noticing.DRIFT, noticing.DRIFT_AS_SAID]),
        ("origin_drift", [*noticing.ORIGIN.values(), *GRAVE, noticing.LINKS]),
        ("instructed", noticing.TOGETHER[1:]),
        ("flow_drift", noticing.SIGNS.values()),
        ("canary", [noticing.CANARY]),
        ("bearer_in_two_networks", [networks.POINTS]),
    ],
)
def test_the_table_has_the_points_of_each_detector(detector: str, points: Iterable[int]) -> None:
    [row] = re.findall(rf"^\| `{detector}` \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert list(map(int, re.findall(r"\d+", row))) == list(points)


def test_the_size_of_a_profile_and_the_habit_discount_on_the_page_are_those_of_the_code() -> None:
    assert f"at most {MAX_PROFILE} bytes" in PAGE
    assert f"takes away up to {noticing.HABIT * 100:.0f} %" in PAGE
