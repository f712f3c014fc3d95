"""Denials are noticed if there are far more than usual; usual denials at most double the threshold."""

from __future__ import annotations

import pytest

from ostiary.provenance.noticing import Event
from ostiaryd.watch.detectors import denied_burst
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import Anomaly, zeros

SECOND = 1_000_000
DAY = 86_400


def seen(times: list[float]) -> list[list[Anomaly]]:
    """The findings after each refusal at these seconds, one batch for each."""
    kept = zeros(denied_burst, agents=2, peers=1)
    return [
        denied_burst.notice(
            Batch([Event(at=round(at * SECOND), action="tool.call", outcome="deny", agent="ag_1", number=i)], [1], [0]),
            kept,
        )
        for i, at in enumerate(times)
    ]


@pytest.mark.parametrize(("count", "is_found"), [(11, False), (12, True), (13, True)])
def test_denials_at_once_are_a_burst_from_twelve_on(count: int, is_found: bool) -> None:
    found = seen([0.0] * count)[-1]
    assert bool(found) is is_found
    if found:
        assert found[0].entries == tuple(range(count - 5, count - 1)), "the newest before it"
        assert "denied" in found[0].says


def test_one_denial_an_hour_is_not_a_burst() -> None:
    assert not any(seen([hour * 3600.0 for hour in range(100)]))


def test_steady_denials_raise_the_threshold_and_a_burst_of_24_is_still_noticed() -> None:
    steady = [second * 30.0 for second in range(DAY // 30)]
    burst = [DAY + i * 0.01 for i in range(24)]
    found = [bool(one) for one in seen([*steady, *burst])]
    assert any(found[:50]), "at first it is unusual"
    assert not any(found[DAY // 60 : len(steady)]), "then it is not"
    assert found[-1], "a burst is one all the same"


@pytest.mark.parametrize(
    ("reasons", "is_found"),
    [
        ((), True),
        (("outside_task",), True),
        (("approval_denied",), True),
        (("approval_needed",), False),
        (("approval_needed", "no_permit"), True),
        (("memory_unavailable",), False),
        (("feed_stale",), False),
        (("unavailable",), False),
        (("memory_unavailable", "no_permit"), True),
    ],
)
def test_approval_requests_and_outages_do_not_count_as_denials(reasons: tuple[str, ...], is_found: bool) -> None:
    events = [
        Event(at=SECOND, action="tool.call", outcome="deny", agent="ag_1", reasons=reasons, number=i) for i in range(20)
    ]
    found = denied_burst.notice(Batch(events, [1] * 20, [0] * 20), zeros(denied_burst, agents=2, peers=1))
    assert bool(found) is is_found
