"""Rate, volume, denials, delegation: usual values are learned, first from peers; an agent hardly moves its limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.provenance.noticing import Event
from ostiaryd.watch.detectors import delegation_storm, denied_burst, rate_volume
from ostiaryd.watch.model.detector import Detector
from tests.watch.detectors.days import Held, event

MINUTE, HOUR, DAY = 60, 3600, 86_400


def burst(at: float, count: int, agent: int = 1, **fields: object) -> list[Event]:
    """Return `count` acts within seconds."""
    return [event(at + number * 0.01, agent, **fields) for number in range(count)]


def usual_days(days: int, *, calls: int = 30, agents: range = range(1, 11), start: int = 0) -> Iterator[Event]:
    """Twelve hours a day, in each of which every agent has one busy window."""
    for day in range(start, start + days):
        for hour in range(8, 20):
            for agent in agents:
                yield from burst(day * DAY + hour * HOUR + agent, calls, agent, bytes=1000, records=1)


@pytest.fixture(scope="module")
def settled() -> Held:
    held = Held(rate_volume)
    assert held.see(usual_days(10)) == []
    return held


@pytest.mark.parametrize(("calls", "is_found"), [(60, False), (61, True), (62, True)])
def test_more_than_twice_the_usual_calls_are_noticed(settled: Held, calls: int, is_found: bool) -> None:
    assert settled.would_find(burst(10 * DAY + 9 * HOUR, calls)) is is_found


def test_a_rate_finding_states_the_number_of_calls_and_their_first_entry(settled: Held) -> None:
    found = settled.copy().see(burst(10 * DAY + 9 * HOUR, 300))
    assert found[0][1].entries == (settled.number,)
    assert found[0][1].says == "61 calls within ten minutes; at most 61 are expected"
    assert found[-1][1].score > found[0][1].score
    assert found[-1][1].points > found[0][1].points


def test_a_new_agent_has_the_threshold_of_its_peers(settled: Held) -> None:
    assert not settled.would_find(burst(10 * DAY + 9 * HOUR, 60, agent=12))
    assert settled.would_find(burst(10 * DAY + 9 * HOUR, 61, agent=12))


def test_a_new_agent_without_peers_has_a_threshold_of_600_calls() -> None:
    assert not Held(rate_volume).would_find(burst(9 * HOUR, 599))
    assert Held(rate_volume).would_find(burst(9 * HOUR, 600))


def test_bytes_and_records_count_also_in_later_results(settled: Held) -> None:
    at = 10 * DAY + 9 * HOUR
    assert not settled.would_find([event(at, bytes=255_000)])
    assert settled.would_find([event(at, bytes=256_000)])
    assert not settled.would_find([event(at, records=199)])
    assert settled.would_find([event(at, records=200)])
    assert settled.would_find([event(at, action="tool.result", bytes=256_000)])
    assert not settled.would_find([event(at + n, action="tool.result") for n in range(100)]), "a result is no call"


def test_telemetry_of_an_agent_does_not_move_its_threshold(settled: Held) -> None:
    held, at = settled.copy(), 10 * DAY + 9 * HOUR
    said = [event(at + n, action="telemetry.span", tool="~/read", bytes=1 << 40, records=1 << 30) for n in range(200)]
    assert held.see(said) == []
    assert held.kept.agents["sum"][1].tolist() == [0, 0, 0, 0]


def test_answers_many_times_larger_than_those_to_peers_are_noticed(settled: Held) -> None:
    at = 10 * DAY + 9 * HOUR
    assert not settled.would_find([event(at + n, bytes=8000) for n in range(20)]), "eight times is nothing"
    [*_, (_, found)] = settled.copy().see(event(at + n, bytes=64_000) for n in range(3))
    assert found.says == "answers many times larger than the same tools return to peers of the agent"
    unknown = [event(at + n, bytes=64_000, tool="files/new") for n in range(3)]
    assert not settled.would_find(unknown), "of a tool that nobody used nothing is usual"


def test_a_flood_of_one_agent_hardly_moves_the_usual_answer_size_of_its_peers() -> None:
    held = Held(rate_volume)
    held.see(usual_days(3))
    before = float(held.kept.peers["size"][1].sum() / held.kept.peers["answers"][1].sum())
    held.see(event(3 * DAY + 9 * HOUR + n * 0.01, 1, bytes=1 << 20) for n in range(2000))
    after = float(held.kept.peers["size"][1].sum() / held.kept.peers["answers"][1].sum())
    assert after - before < 0.05, "powers of two"


def test_calls_reported_more_than_a_minute_late_are_not_a_burst(settled: Held) -> None:
    at = 10 * DAY + 9 * HOUR
    assert not settled.would_find(burst(at, 500, late=60_000_001))
    assert settled.would_find(burst(at, 500, late=60_000_000))


@pytest.mark.parametrize(("count", "is_found"), [(23, False), (24, True), (25, True)])
def test_delegations_at_once_are_a_storm_from_24_on(count: int, is_found: bool) -> None:
    parts = burst(9 * HOUR, count, action="task.start", outcome="ok", tool="")
    assert Held(delegation_storm).would_find(parts) is is_found
    exchanges = burst(9 * HOUR, count, action="token.exchange", outcome="ok", tool="")
    assert Held(delegation_storm).would_find(exchanges) is is_found
    refused = burst(9 * HOUR, 100, action="task.start", outcome="refused", tool="")
    assert not Held(delegation_storm).would_find(refused)


def test_an_agent_that_always_delegates_much_has_a_higher_threshold() -> None:
    held = Held(delegation_storm)
    for day in range(10):
        for hour in range(8, 20):
            held.see(burst(day * DAY + hour * HOUR, 20, action="task.start", outcome="ok", tool=""))

    def parts(count: int) -> list[Event]:
        return burst(10 * DAY + 9 * HOUR, count, action="task.start", outcome="ok", tool="")

    assert not held.would_find(parts(30))
    assert held.would_find(parts(45))


@pytest.mark.parametrize(("agents", "others", "is_found"), [(4, 0, True), (5, 0, False), (5, 5, False), (5, 6, True)])
def test_denials_of_five_agents_by_a_resource_that_allows_no_more_are_not_a_finding(
    agents: int, others: int, is_found: bool
) -> None:
    """First the resource allows other agents, then denies some agents, twenty times each."""
    let_in = [event(9 * HOUR + number, agents + 1 + number) for number in range(others)]
    refused = [
        event(9 * HOUR + 20 + turn + agent / 100, agent, outcome="deny")
        for turn in range(20)
        for agent in range(1, agents + 1)
    ]
    assert Held(denied_burst).would_find(let_in + refused) is is_found


def test_a_burst_of_denials_of_one_agent_by_several_resources_is_noticed() -> None:
    many = [event(9 * HOUR + n * 0.1, resource=f"https://r{n % 3}.example", outcome="deny") for n in range(200)]
    assert Held(denied_burst).would_find(many)


def calls_of(count: int, at: float) -> list[Event]:
    return burst(at, count)


def bytes_of(count: int, at: float) -> list[Event]:
    return [event(at, bytes=count * 10_000)]


def records_of(count: int, at: float) -> list[Event]:
    return [event(at, records=count * 10)]


def refusals_of(count: int, at: float) -> list[Event]:
    return burst(at, count, outcome="deny")


def parts_of(count: int, at: float) -> list[Event]:
    return burst(at, count, action="task.start", outcome="ok", tool="")


@pytest.mark.parametrize(
    ("detector", "acts"),
    [
        (rate_volume, calls_of),
        (rate_volume, bytes_of),
        (rate_volume, records_of),
        (denied_burst, refusals_of),
        (delegation_storm, parts_of),
    ],
    ids=["calls", "bytes", "records", "refusals", "parts"],
)
@settings(max_examples=4, deadline=None, database=None)
@given(drift=st.floats(0.0, 0.05), start=st.integers(5, 40))
def test_thirty_days_of_drift_raise_no_threshold_above_twice_its_start(
    detector: Detector, acts: Callable[[int, float], list[Event]], drift: float, start: int
) -> None:
    """An agent that does a little more each day for a month raises its threshold by a factor of two at most."""
    held = Held(detector)
    days = 12
    for day in range(days):
        for hour in range(8, 20):
            held.see(acts(start, day * DAY + hour * HOUR))
    before = bar(held, acts, days)
    for day in range(days, days + 30):
        for hour in range(8, 20):
            held.see(acts(round(start * (1 + drift) ** (day - days)), day * DAY + hour * HOUR))
    assert bar(held, acts, days + 30) <= 2 * before + 1


def bar(held: Held, acts: Callable[[int, float], list[Event]], day: int) -> int:
    """Return the smallest number of simultaneous acts that is noticed."""
    low, high = 0, 1 << 12
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if held.would_find(acts(middle, day * DAY + 9.5 * HOUR)) else (middle, high)
    return high
