"""How unusual something must be to be told: enough that false alarms stay within the operator's budget.

Each detector has an equal share of the budget. Once in an hour of events its bar moves: up where it has told more
alarms than its share, by more than chance explains; down where it tells less. What a person says of a finding counts
too. The bar moves between its start and twice that and no further: whoever provokes alarms, for however long, does not
silence a detector, and nobody's silence makes one shriller than its author meant it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from ostiaryd.watch.model.detector import Detector

WIDEST = 2.0
HOURS = 168.0
"""in which what was counted halves"""
UP, DOWN = 1.02, 0.98
SAID = 1.1
"""how far a person's word moves a bar"""
CHANCE = 3.0
"""so many alarms, and so many deviations, over what the share allows are no chance"""


class Bar(msgspec.Struct):
    """`height` as a multiple of the detector's threshold; `alarms` told of late that nobody has called real."""

    height: float = 1.0
    alarms: float = 0.0


class Bars(msgspec.Struct):
    """`agent_days`: how long agents have been at work of late; both are counted with a memory of a week."""

    bars: dict[str, Bar]
    agent_days: float = 0.0


class Calibration:
    def __init__(self, detectors: Mapping[str, Detector], *, budget: float) -> None:
        """`budget`: false alarms for each agent and day, of all detectors together."""
        self._thresholds = {name: one.THRESHOLD for name, one in detectors.items()}
        self._share = budget / max(1, len(detectors))
        self.kept = Bars({name: Bar() for name in detectors})

    def load(self, kept: Bars) -> None:
        """Take back what was kept; detectors that were not there begin anew."""
        self.kept = Bars({name: kept.bars.get(name, Bar()) for name in self.kept.bars}, kept.agent_days)

    @property
    def heights(self) -> dict[str, float]:
        """How high each bar is, as a multiple of where it began."""
        return {name: bar.height for name, bar in self.kept.bars.items()}

    def tells(self, detector: str, score: float) -> bool:
        """Whether a score reaches the bar; what has twice the threshold does, wherever that stands."""
        return score >= self._thresholds[detector] * self.kept.bars[detector].height

    def count(self, detector: str, score: float) -> None:
        """It was told. What no bar could have kept back is no matter of calibration."""
        if score < self._thresholds[detector] * WIDEST:
            self.kept.bars[detector].alarms += 1

    def hour(self, agents: int) -> None:
        """An hour has passed in which so many agents were at work."""
        fading = 0.5 ** (1 / HOURS)
        self.kept.agent_days = self.kept.agent_days * fading + agents / 24
        expected = self.kept.agent_days * self._share
        for bar in self.kept.bars.values():
            bar.alarms *= fading
            if bar.alarms > expected + CHANCE * (1 + math.sqrt(expected)):
                bar.height = min(WIDEST, bar.height * UP)
            elif bar.alarms <= expected:
                bar.height = max(1.0, bar.height * DOWN)

    def judge(self, detectors: tuple[str, ...], *, is_real: bool) -> None:
        """A person has said of findings whether there was something."""
        for bar in (self.kept.bars[name] for name in detectors if name in self.kept.bars):
            bar.alarms = max(0.0, bar.alarms - 1) if is_real else bar.alarms + 1
            bar.height = max(1.0, bar.height / SAID) if is_real else min(WIDEST, bar.height * SAID)
