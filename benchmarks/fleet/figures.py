"""From alarms to figures: which attacks were found, how soon, and how often honest agents were blamed."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fleet.attacks import ATTACKS, Planted
from benchmarks.fleet.held import Held
from benchmarks.fleet.plan import DAY, FIRST_DAY
from ostiaryd.watch.model import Sighting

WARM = 3
"""days on which nothing counts as a false alarm: nobody has seen the fleet before"""
AFTERMATH = DAY
"""for how long after it began an attack may still be found; what is said of its agent later is not counted"""


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of attack. `acts` and `minutes`: until half of those that were found were."""

    kind: str
    planted: int
    found: int
    acts: int
    minutes: float
    by: tuple[str, ...]
    """which detectors found any, those that found most first"""


@dataclass(frozen=True, slots=True)
class Blame:
    """False alarms of a detector for each agent and day."""

    detector: str
    alarms: int
    rate: float


@dataclass(frozen=True, slots=True)
class Figures:
    rows: tuple[Row, ...]
    blames: tuple[Blame, ...]
    rate: float
    """all false alarms together, for each agent and day"""


def figures(held: Held, planted: Sequence[Planted], *, without: str = "") -> Figures:
    """As if there were one detector less."""
    told = [one for one in held.alarms if one.detector != without]
    days = _agent_days(held, planted)
    false = Counter(one.detector for one in false_alarms(held, planted) if one.detector != without)
    blames = tuple(Blame(name, false[name], false[name] / days) for name in held.seconds if name != without)
    return Figures(tuple(_row(kind, told, held, planted) for kind in ATTACKS), blames, false.total() / days)


def _row(kind: str, told: Sequence[Sighting], held: Held, planted: Sequence[Planted]) -> Row:
    mine = [number for number, one in enumerate(planted) if one.kind == kind]
    by = defaultdict[str, int](int)
    delays = list[tuple[int, float]]()
    for number in mine:
        harm = held.harm[number]
        start, name = harm[0].at, planted[number].agent.id
        late = max(start, harm[-1].at) + AFTERMATH
        hits = [one for one in told if one.agent == name and start <= one.at <= late]
        for detector in {one.detector for one in hits}:
            by[detector] += 1
        if hits:
            first = min(hits, key=lambda one: one.number)
            acts = bisect_right([event.number for event in harm], first.number)
            delays.append((acts, (first.at - start) / 60e6))
    acts, minutes = sorted(delays)[len(delays) // 2] if delays else (0, 0.0)
    return Row(kind, len(mine), len(delays), acts, minutes, tuple(sorted(by, key=lambda one: (-by[one], one))))


def false_alarms(held: Held, planted: Sequence[Planted]) -> list[Sighting]:
    """The findings about agents that had not been attacked until then."""
    begun = _begun(held, planted)
    since = FIRST_DAY + WARM * DAY
    return [one for one in held.alarms if since <= one.at < begun.get(one.agent, 1 << 62)]


def _agent_days(held: Held, planted: Sequence[Planted]) -> float:
    begun = _begun(held, planted)
    return sum(
        sum(FIRST_DAY + (day + 1) * DAY <= begun.get(agent, 1 << 62) for agent in agents)
        for day, agents in enumerate(held.at_work)
        if day >= WARM
    )


def _begun(held: Held, planted: Sequence[Planted]) -> dict[str, int]:
    return {planted[number].agent.id: harm[0].at for number, harm in held.harm.items()}
