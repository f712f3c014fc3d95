"""Properties of every detector, and the columns of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from ostiary.provenance.noticing import Event, Noticed
from ostiaryd.watch.model.batch import NOBODY, Batch, word
from ostiaryd.watch.model.detector import Anomaly, Detector, detectors, zeros
from ostiaryd.watch.model.telemetry import FLOOD

MOST_BYTES = 750
"""The number of bytes that all detectors together may keep of an agent."""
SECOND = 1_000_000


def event(number: int, **fields: object) -> Event:
    values = {"at": number * SECOND, "action": "tool.call", "outcome": "allow", "agent": "ag_1", "number": number}
    return msgspec.convert(values | fields, Event)


def run(detector: Detector, events: Sequence[Event], *, size: int) -> list[tuple[int, int, str]]:
    """The findings in these events, cut into batches of that size: (entry, points, words)."""
    rows = {name: row for row, name in enumerate(["", *sorted({event.agent for event in events} - {""})])}
    kept = zeros(detector, agents=len(rows), peers=2)
    found = []
    for start in range(0, len(events), size):
        part = events[start : start + size]
        batch = Batch(part, [rows[event.agent] for event in part], [1] * len(part))
        found += [(batch.events[one.row].number, one.points, one.says) for one in detector.notice(batch, kept)]
    return sorted(found)


def stream() -> list[Event]:
    """Return events of three agents, and events without an agent. The second agent is denied again and again. Each
    agent has events that are a finding alone: a decoy, a threat, a secret, a flood.
    """
    names = ["ag_1", "ag_2", "ag_3", "", "ag_2", "ag_2"]
    return [
        event(
            i,
            agent=(name := names[i % 6]),
            outcome="deny" if name in ("ag_2", "") else "allow",
            tool=f"files/{'abc'[i % 3]}",
            network=f"10.0.{i % 2}.0/24",
            bytes=i * 100,
            canary=i % 17 == 1,
            threat=("feodo", 40) if i % 23 == 2 else None,
            reasons=["secret_sent"] if i % 29 == 1 else [],
            **({"action": FLOOD} if i % 31 == 2 else {}),
        )
        for i in range(120)
    ]


@pytest.mark.parametrize("name", detectors())
def test_the_findings_of_each_detector_do_not_depend_on_the_batch_size(name: str) -> None:
    detector = detectors()[name]
    whole = run(detector, stream(), size=1000)
    for size in (1, 7):
        assert run(detector, stream(), size=size) == whole


def test_each_anomaly_of_a_detector_is_a_valid_observation() -> None:
    told = set[str]()
    for name, detector in detectors().items():
        for _, points, says in run(detector, stream(), size=50):
            noticed = {"detector": name, "points": points, "says": says}
            assert msgspec.convert(noticed, Noticed).says == says
            told.add(name)
    assert told >= {"canary", "denied_burst", "flood", "secret_sent", "threat_list"}


@pytest.mark.parametrize("name", detectors())
def test_events_without_an_agent_change_no_agent_state(name: str) -> None:
    detector = detectors()[name]
    assert detector.THRESHOLD > 0
    kept = zeros(detector, agents=1, peers=1)
    detector.notice(Batch([event(i, agent="", outcome="deny") for i in range(100)], [NOBODY] * 100, [0] * 100), kept)
    assert kept.agents.tobytes() == bytes(detector.AGENT.itemsize)


def test_the_detectors_together_keep_at_most_750_bytes_of_an_agent() -> None:
    assert "denied_burst" in detectors()
    assert sum(detector.AGENT.itemsize for detector in detectors().values()) <= MOST_BYTES


def test_a_batch_is_sorted_by_agent_and_then_by_the_order_of_events() -> None:
    events = [event(i, agent=f"ag_{row}", actors=("ag_9",) * i) for i, row in enumerate([3, 1, 3, 2, 1])]
    batch = Batch(events, [3, 1, 3, 2, 1], [1, 1, 1, 2, 1])
    assert batch.agent.tolist() == [1, 1, 2, 3, 3]
    assert batch.peers.tolist() == [1, 1, 2, 1, 1]
    assert batch.number.tolist() == batch.depth.tolist() == [1, 4, 3, 0, 2]
    assert batch.first.tolist() == [0, 2, 3]
    assert batch.last.tolist() == [1, 2, 4]
    assert batch.number[batch.order].tolist() == [0, 1, 2, 3, 4]
    assert batch.now == 4 * SECOND


def test_the_hash_of_a_word_is_stable_and_fills_the_columns_of_a_batch() -> None:
    assert word("") == 0
    assert word("files/read") == 0xE0BD2560D47437D0
    events = [event(0, tool="files/read"), event(1, tool=""), event(2, tool="mail/send", outcome="refused")]
    batch = Batch(events, [1, 1, 1], [1, 1, 1])
    assert batch.tool.tolist() == [word("files/read"), 0, word("mail/send")]
    assert batch.is_call.tolist() == [True, False, True]
    assert batch.is_denied.tolist() == [False, False, True]
    assert batch.at.dtype == np.int64


def test_an_anomaly_names_no_entries_by_default() -> None:
    assert Anomaly(0, 1.0, 30, "why").entries == ()
