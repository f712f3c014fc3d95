"""The figures on docs/reference/detectors.md are those of the program."""

from __future__ import annotations

import pytest

from ostiary.protocol.network import BITS
from ostiaryd.watch.flows.child import LEARN, LOCK
from ostiaryd.watch.flows.process import SNAPSHOT_S
from ostiaryd.watch.model.memory import FORGET_S
from ostiaryd.watch.model.narrowing import CAP, MOST_A_DAY
from ostiaryd.watch.model.watcher import QUIET_GUARD_MIN, QUIET_MIN
from tests.support.sources import ROOT

PAGE = " ".join((ROOT / "docs/reference/detectors.md").read_text("utf-8").split())


@pytest.mark.parametrize(
    ("says", "is_true"),
    [
        ("has not acted for 90 days is forgotten", FORGET_S == 90 * 86_400),
        ("Every minute the changed profiles are saved", SNAPSHOT_S == 60),
        ("the newest 100,000 entries", LEARN == 100_000),
        ("`*.lock1`", LOCK == 1),
        (
            "about the agent for five minutes, and the same guard for thirty minutes",
            (QUIET_MIN, QUIET_GUARD_MIN) == (5, 30),
        ),
        ("at most 8 alarms at once", CAP == 8),
        ("t most 200 tasks of an agent count on one day", MOST_A_DAY == 200),
        ("a /24 of IPv4, a /48 of IPv6", BITS == {4: 24, 6: 48}),
    ],
)
def test_the_figures_on_the_page_are_those_of_the_code(says: str, is_true: bool) -> None:
    assert says in PAGE
    assert is_true
