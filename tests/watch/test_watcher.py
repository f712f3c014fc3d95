"""From events to findings: the same for any batch boundaries and after a restart, and no finding twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ostiary.provenance.noticing import Event, Noticed
from ostiaryd.watch.model import FindingJudgement, Snapshot
from ostiaryd.watch.model.batch import NOBODY, Batch, word
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Detector, Kept
from ostiaryd.watch.model.detector import detectors as all_detectors
from ostiaryd.watch.model.memory import FORGET_S, MAX_PEERS, OTHERS, TOLD, Memory
from ostiaryd.watch.model.watcher import HOUR, QUIET_GUARD_MIN, QUIET_MIN, SECOND, WEAKEST, Watcher

START = 500_000 * HOUR


class Denials:
    """A detector that finds each denial, with as many points as the agent has had denials, up to nine."""

    AGENT = np.dtype([("count", np.int64)])
    PEERS = np.dtype([("count", np.int64)])
    ALL = np.dtype([("count", np.int64), ("more", np.uint8, (100_000,))])
    THRESHOLD = 1.0
    CERTAIN = False

    def __init__(self, score: float = 1.0) -> None:
        self.score = score

    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        found = []
        for row in batch.order[batch.is_denied[batch.order]].tolist():
            kept.agents["count"][batch.agent[row]] += 1
            kept.peers["count"][batch.peers[row]] += 1
            kept.all["count"] += 1
            kept.all["more"][0, int(kept.all["count"][0]) % 100_000] = 7
            count = int(kept.agents["count"][batch.agent[row]])
            peers, everybody = int(kept.peers["count"][batch.peers[row]]), int(kept.all["count"][0])
            found.append(Anomaly(row, self.score, min(9, count), f"{count} of {peers} of {everybody}"))
        return found


def watcher(score: float = 1.0, *, budget: float = 0.5, **more: Detector) -> Watcher:
    detectors: dict[str, Detector] = {"denials": Denials(score), **more}
    return Watcher(detectors, budget=budget, peers_of=lambda agent: agent[:4])


def event(number: int, *, at_s: float = 0.0, agent: str = "ag_1", **more: Any) -> Event:
    values = {"at": START + round(at_s * SECOND), "action": "tool.call", "outcome": "deny", "agent": agent}
    return msgspec.convert(values | {"number": number} | more, Event)


def told(made: Watcher, events: Sequence[Event | FindingJudgement]) -> list[tuple[int, str, int]]:
    return [(one.number, one.says, one.points) for one in made.take(events)]


STEPS = st.tuples(
    st.integers(0, 900),
    st.sampled_from(["ag_1", "ag_2", "ag_31", "ag_32", ""]),
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["tk_1", "tk_2", "tk_3"]),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Event | FindingJudgement]:
    """Return events of some agents over hours, with judgements of a person between the events."""
    made: list[Event | FindingJudgement] = []
    at = 0
    for number, (pause, agent, outcome, task) in enumerate(draw(st.lists(STEPS, min_size=1, max_size=60))):
        at += pause
        made.append(event(number, at_s=at, agent=agent, outcome=outcome, tool="files/read", task=task))
        if number % 17 == 5:
            made.append(FindingJudgement(agent, ("denials",), number % 2 == 0, number))
    return made


def cut(events: Sequence[Event | FindingJudgement], size: int) -> Iterable[Sequence[Event | FindingJudgement]]:
    return (events[start : start + size] for start in range(0, len(events), size))


JUDGED = [  # what a person says of the first finding does not count for the first finding itself
    event(0, tool="files/read", task="tk_1"),
    FindingJudgement("ag_1", ("denials",), True, 1),
    event(2, tool="files/read", task="tk_2"),
]


@given(streams(), st.integers(1, 9))
@example(JUDGED, 1)
def test_findings_do_not_depend_on_how_events_are_cut_into_batches(
    events: list[Event | FindingJudgement], size: int
) -> None:
    whole = watcher().take(events)
    made = watcher()
    assert [one for part in cut(events, size) for one in made.take(part)] == whole
    assert made.position == events[-1].number + 1


@given(streams(), st.integers(1, 60))
def test_a_restart_from_a_snapshot_changes_no_finding(events: list[Event | FindingJudgement], at: int) -> None:
    first = watcher()
    before = first.take(events[:at])
    saved: dict[str, Any] = {}
    for made in (first, first):  # the second one has nothing that is new
        snapshot, pieces, _ = made.snapshot()
        saved |= {piece.key: piece for piece in pieces}
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot)
    second = watcher()
    second.load(stored, sorted(saved.values()))
    assert second.position == (events[:at][-1].number + 1 if events[:at] else 0)
    assert before + second.take(events[at:]) == watcher().take(events)


def test_a_snapshot_has_only_the_pieces_that_changed_since_the_last_snapshot() -> None:
    made = watcher()
    made.take([event(0), event(1, agent="ag_2")])
    assert {"ag_1", "ag_2", "all/denials/00000000"} <= {piece.key for piece in made.snapshot()[1]}
    made.take([event(2, agent="ag_2", outcome="allow")])
    assert {piece.key for piece in made.snapshot()[1]} == {"ag_2"}, "an agent; what is kept of all is as it was"


def test_a_detector_with_another_state_format_starts_anew_and_others_keep_their_state() -> None:
    class Other(Denials):
        AGENT = np.dtype([("first", np.float32), ("count", np.int64)])

    first = watcher(other=Other())
    first.take([event(0), event(1)])
    snapshot, pieces, _ = first.snapshot()
    second = watcher(other=Denials())
    second.load(snapshot, pieces)
    row = second.memory.row("ag_1")
    assert int(second.memory.kept["denials"].agents["count"][row]) == 2
    assert int(second.memory.kept["other"].agents["count"][row]) == 0
    assert int(second.memory.kept["other"].all["count"][0]) == 0


def test_a_finding_is_not_repeated_for_a_while_unless_its_points_rise() -> None:
    made = watcher()
    assert told(made, [event(0)]) == [(0, "1 of 1 of 1", 1)]
    assert [points for _, _, points in told(made, [event(n, at_s=n) for n in range(1, 9)])] == list(range(2, 10))
    end = QUIET_MIN * 60
    assert told(made, [event(9, at_s=end - 1)]) == [], "nine points are the most"
    assert [n for n, _, _ in told(made, [event(10, at_s=end), event(11, at_s=end + 1)])] == [10]


def test_a_finding_beyond_the_remembered_number_displaces_the_oldest() -> None:
    kinds = [Noticed(detector=f"odd_{letter}", points=50, says="x") for letter in "abcdefghijkl"[: TOLD + 1]]
    assert len(kinds) == TOLD + 1
    made = watcher()

    def seen(number: int, at_s: float, place: int) -> Event:
        resource, noticed = f"https://{place}.example", (kinds[place],)
        return event(number, at_s=at_s, outcome="allow", resource=resource, noticed=noticed)

    first = [seen(n, n * 61, n) for n in range(TOLD + 1)]
    assert len(made.take(first)) == TOLD + 1
    again = [seen(20 + n, 600, n) for n in range(TOLD + 1)]
    assert next(one.detector for one in made.take(again)) == "odd_a", "which was forgotten"


def test_the_remembered_hashes_of_detector_names_are_distinct() -> None:
    assert len({word(f"{name} ") & 0xFFFF for name in all_detectors()}) == len(all_detectors())
    assert 0 not in {word(f"{name} ") & 0xFFFF for name in all_detectors()}


@pytest.mark.parametrize(("points", "is_told"), [(WEAKEST - 1, False), (WEAKEST, True)])
def test_a_guard_observation_with_enough_points_is_a_finding_once_per_quiet_period(points: int, is_told: bool) -> None:
    seen = Noticed(detector="odd", points=points, says="it is odd")
    made = watcher()
    events = [
        event(n, outcome="allow", at_s=at, noticed=(seen,))
        for n, at in enumerate([0.0, QUIET_GUARD_MIN * 60 - 1, QUIET_GUARD_MIN * 60])
    ]
    assert [(one.number, one.detector, one.says) for one in made.take(events)] == (
        [(0, "odd", "it is odd"), (2, "odd", "it is odd")] if is_told else []
    )


def test_the_guard_observations_of_a_call_are_one_finding_named_after_the_strongest() -> None:
    noticed = (Noticed(detector="a", points=30, says="weak"), Noticed(detector="b", points=60, says="strong"))
    [one] = watcher().take([event(0, outcome="allow", noticed=noticed)])
    assert (one.detector, one.points, one.says) == ("b", 72, "strong; weak")


@pytest.mark.parametrize("outcome", ["deny", "allow"])
def test_a_guard_observation_counts_half_if_a_person_decides_the_call(outcome: str) -> None:
    noticed = (Noticed(detector="a", points=30, says="weak"), Noticed(detector="b", points=60, says="strong"))
    told = watcher().take([event(0, outcome=outcome, noticed=noticed, is_asked=True)])
    assert [one.points for one in told if one.detector == "b"] == [36]


def test_certain_evidence_counts_in_full_if_a_person_decides_the_call() -> None:
    noticed = (Noticed(detector="bearer_in_two_networks", points=60, says="two networks"),)
    [one] = watcher().take([event(0, outcome="allow", noticed=noticed, is_asked=True)])
    assert (one.points, one.may_narrow) == (60, True)


def test_a_repeated_guard_observation_is_the_same_evidence_and_a_denial_is_new() -> None:
    seen = Noticed(detector="odd", points=40, says="it is odd")
    again, later = 30 * 60, 150 * 60
    events = [event(n, outcome="allow", at_s=at, noticed=(seen,)) for n, at in enumerate([0, again, later])]
    assert [one.counted for one in watcher().take(events)] == [0, 20, 2]
    refusals = [event(n, at_s=n * again) for n in range(9)]
    assert [one.counted for one in watcher().take(refusals)] == [0] * 9, "each refusal is new evidence"


def test_a_weak_observation_does_not_make_earlier_evidence_count_as_new() -> None:
    usual, weak = (Noticed(detector="odd", points=points, says="it is odd") for points in (48, 10))
    half_an_hour = 30 * 60
    noticed = enumerate([usual, weak, usual, weak])
    events = [event(n, outcome="allow", at_s=n * half_an_hour, noticed=(one,)) for n, one in noticed]
    assert [one.counted for one in watcher().take(events)] == [0, 24, 12, 24]


@pytest.mark.parametrize("is_real", [True, False])
def test_an_observation_after_a_confirmed_attack_is_a_new_finding(is_real: bool) -> None:
    seen = Noticed(detector="odd", points=40, says="it is odd")
    made = watcher()
    made.take([event(0, outcome="allow", noticed=(seen,)), FindingJudgement("ag_1", ("odd",), is_real, 1)])
    again = made.take([event(2, outcome="allow", at_s=60, noticed=(seen,))])
    assert [(one.points, one.counted) for one in again] == [(40, 0)] * is_real


def test_invented_detector_names_give_a_guard_no_further_findings() -> None:
    def named(number: int, points: int, resource: str = "https://a.example") -> Event:
        seen = Noticed(detector=f"odd_{chr(97 + number % 26)}{chr(97 + number // 26)}", points=points, says="it is odd")
        return event(number, outcome="allow", resource=resource, noticed=(seen,))

    made = watcher()
    assert len(made.take([named(n, 50) for n in range(200)])) == 1
    assert [one.points for one in made.take([named(n, n - 150) for n in range(201, 251)])] == list(range(51, 101))
    assert len(made.take([named(n, 50, "https://b.example") for n in range(300, 310)])) == 1, "another guard is heard"


@pytest.mark.parametrize(
    "agent",
    [
        "ag_00112233445566778899aabbccddeeff",
        "ag_00112233445566778899AABBCCDDEEFF",
        "ag_0011223344556677 8899aabbccddeef",
        "ag_1",
        "abcdefghijklmnop",
        "pe_00112233445566778899aabbccddeeff",
    ],
)
def test_an_agent_with_any_id_is_remembered_by_its_id(agent: str) -> None:
    made, both = watcher(), [agent, f"{agent}x"]
    assert [one.agent for one in made.take([event(n, agent=name) for n, name in enumerate(both)])] == both
    snapshot, pieces, _ = made.snapshot()
    second = watcher()
    second.load(snapshot, pieces)
    assert second.memory.row(agent) != second.memory.row(f"{agent}x")
    assert [second.memory.name(second.memory.row(name)) for name in both] == both
    assert len(second.memory) == 2


def test_findings_without_an_agent_are_distinguished_by_resource() -> None:
    made = watcher()
    events = [event(n, agent="", resource=f"https://{n % 2}.example") for n in range(4)]
    seen = [(one.agent, one.resource) for one in made.take(events) if one.points < 3]
    assert seen == [("", "https://0.example"), ("", "https://1.example")]


class Broken(Denials):
    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        if batch.number[0] >= 1:
            raise ValueError("no")
        return super().notice(batch, kept)


def test_a_failing_detector_is_named_and_does_not_stop_the_others() -> None:
    made = watcher(broken=Broken())
    assert [one.detector for one in made.take([event(0)])] == ["broken", "denials"]
    assert made.failing == {}
    assert [one.detector for one in made.take([event(1, at_s=1)])] == ["denials"]
    assert made.failing == {"broken": "entry 1: ValueError: no"}


def test_an_agent_without_events_is_forgotten_and_starts_anew_when_seen_again() -> None:
    made = watcher()
    made.take([event(0, agent="ag_old"), event(1, agent="ag_new")])
    made.snapshot()
    made.take([event(2, agent="ag_new", at_s=FORGET_S)])
    assert len(made.memory) == 2
    later = made.take([event(3, agent="ag_new", at_s=FORGET_S + 86_400)])
    assert len(made.memory) == 1
    assert made.snapshot()[2] == ["ag_old"]
    assert [one.agent for one in later] == ["ag_new"]
    again = made.take([event(4, agent="ag_old", at_s=FORGET_S + 86_401)])
    assert [one.points for one in again] == [1], "as if it had never been there"


def test_rows_grow_with_the_agents_and_the_number_of_peer_groups_is_limited() -> None:
    memory = Memory({"denials": Denials()})
    rows = [memory.row(f"ag_{n}") for n in range(1000)]
    assert len(set(rows)) == len(memory) == 1000
    assert NOBODY not in rows
    assert len(memory.kept["denials"].agents) == len(memory.own) >= 1001
    assert memory.row("ag_7") == rows[7]
    groups = [memory.peers(word(str(n))) for n in range(MAX_PEERS + 2)]
    assert len(set(groups)) == MAX_PEERS + 1
    assert groups[-2:] == [OTHERS, OTHERS]
    assert min(groups[:-2]) > OTHERS


@pytest.mark.parametrize(("score", "is_told"), [(0.99, False), (1.0, True), (5.0, True)])
def test_a_finding_at_its_threshold_is_reported_even_without_a_budget(score: float, is_told: bool) -> None:
    assert bool(watcher(score, budget=0.0).take([event(0)])) is is_told


def test_a_detector_without_state_works_after_a_restart() -> None:
    class Forgetful(Denials):
        AGENT = PEERS = ALL = NOTHING

        def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
            return [Anomaly(0, 1.0, 5, "there was something")]

    first = watcher(forgetful=Forgetful())
    first.take([event(0)])
    snapshot, pieces, _ = first.snapshot()
    second = watcher(forgetful=Forgetful())
    second.load(snapshot, pieces)
    assert second.memory.kept["forgetful"].all.nbytes == 0
    assert [one.detector for one in second.take([event(1, at_s=QUIET_MIN * 60)])] == ["denials", "forgetful"]
