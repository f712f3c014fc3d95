"""When the detectors examine waiting events: at once, or together after a tenth of a second."""

from __future__ import annotations

import pytest

from ostiary.provenance.noticing import Event, Noticed
from ostiaryd.watch.model import FindingJudgement, Waiting
from ostiaryd.watch.model.waiting import LOOK_US, MOST

NOW = 1_800_000_000_000_000
PLAIN = Event(at=NOW, action="tool.call", outcome="allow", agent="ag_1")
HARMFUL = [
    Event(at=NOW, action="tool.call", outcome="deny", agent="ag_1", canary=True),
    Event(at=NOW, action="tool.call", outcome="allow", agent="ag_1", threat=("list", 10)),
    Event(
        at=NOW, action="tool.call", outcome="allow", agent="ag_1", noticed=(Noticed(detector="x", points=1, says="y"),)
    ),
]


def looked(*events: Event | FindingJudgement, at: int = NOW) -> Waiting:
    """Return a queue that was examined at `at` and has received the events since."""
    waiting = Waiting()
    waiting.take(at)
    waiting.add(events)
    return waiting


def test_the_first_event_is_examined_at_once() -> None:
    waiting = Waiting()
    waiting.add([PLAIN])
    assert waiting.due_in(NOW) == 0


def test_later_events_wait_for_at_most_a_tenth_of_a_second() -> None:
    waiting = looked(PLAIN, FindingJudgement("ag_1", (), True))
    assert waiting.due_in(NOW) == LOOK_US
    assert waiting.due_in(NOW + LOOK_US - 1) == 1
    assert waiting.due_in(NOW + LOOK_US) == waiting.due_in(NOW + 10 * LOOK_US) == 0


@pytest.mark.parametrize("event", HARMFUL)
def test_a_harmful_event_is_examined_at_once_with_all_waiting_events(event: Event) -> None:
    waiting = looked(PLAIN, event, PLAIN)
    assert waiting.due_in(NOW) == 0
    assert waiting.take(NOW) == [PLAIN, event, PLAIN]
    waiting.add([PLAIN])
    assert waiting.due_in(NOW) == LOOK_US, "it counts for one look"


def test_the_maximum_number_of_waiting_events_is_examined_at_once() -> None:
    waiting = looked(*[PLAIN] * (MOST - 1))
    assert waiting.due_in(NOW) == LOOK_US
    waiting.add([PLAIN])
    assert waiting.due_in(NOW) == 0
    assert len(waiting.take(NOW)) == MOST
    assert len(waiting) == 0
