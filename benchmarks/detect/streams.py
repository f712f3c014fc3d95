"""Streams of sessions before the server's own `Watcher`, as a server would see them over weeks: what is narrowed.

Sessions are drawn from runs (`benchmarks.detect.runs`), honest ones with detours among them. Fifty agents take turns;
what each usually does is learned from what was let through. An agent is *narrowed* when a finding that may narrow
brings its risk to the bar of the starter playbook. A session whose risk reaches the bar of the alert is
looked at by a person, where one answers.

    stationary   honest sessions alone
    drifting     honest sessions whose kind changes from one half of the tasks to the other half
    attacked     from the first day on a tenth of the sessions is attacked
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from benchmarks.detect.runs import Run
from ostiary.provenance.noticing import CALM, NEW, Event, Profile, Risk, learn, notice
from ostiaryd.watch.model import FindingJudgement, Sighting
from ostiaryd.watch.model.detector import detectors
from ostiaryd.watch.model.watcher import Watcher

AGENTS = 50
A_DAY = 1000
"""sessions of all agents"""
DAY = 86_400_000_000
START = 20_000 * DAY
TOLD, NARROWED = 50, 60
"""the thresholds of the risk score in the safeguards of a new server"""
BATCH = 20
"""sessions after which persons have answered"""
ATTACKED = 0.1
WARM = 3000
"""sessions before those that count, of the same stream"""
BUDGETS = (0.0005, 0.005)
SEED = 20261128
KINDS = ("stationary", "drifting", "attacked")


@dataclass(frozen=True, slots=True)
class Held:
    honest: int
    false: int
    """honest sessions in which the agent was narrowed"""
    attacked: int
    narrowed: int
    """attacked sessions in which it was, by the harmful call"""
    alerts: int
    """honest sessions of which a person was told"""


def drawn(kind: str, runs: Sequence[Run], count: int, dice: random.Random) -> Iterator[Run]:
    """Draw the sessions of a stream."""
    honest = [run for run in runs if run.kind == "benign"]
    attacked = [run for run in runs if run.kind == "compromised"]
    tasks = sorted({(run.suite, run.task) for run in honest})
    early = set(tasks[::2])
    halves = [[run for run in honest if ((run.suite, run.task) in early) is first] for first in (True, False)]
    for number in range(count):
        if kind == "attacked" and attacked and dice.random() < ATTACKED:
            yield dice.choice(attacked)
        elif kind == "drifting" and all(halves):
            yield dice.choice(halves[dice.random() < number / count])
        else:
            yield dice.choice(honest)


def hold(runs: Iterable[Run], *, budget: float, wrong: float | None = 0.0, seed: int = 1) -> Held:
    """Hold a stream; the first `WARM` sessions do not count. `wrong`: the share of wrong answers of the persons who
    look at alerts; None: nobody answers.
    """
    watcher = Watcher(detectors(), budget=budget, peers_of=lambda agent: agent.partition(":")[0])
    profiles, risks = dict[str, Profile](), dict[str, Risk]()
    dice, number, sessions = random.Random(f"persons {seed}"), 0, 0
    counted = dict.fromkeys(("honest", "false", "attacked", "narrowed", "alerts"), 0)
    stream = iter(runs)
    while part := list(islice(stream, BATCH)):
        events, of = list[Event](), dict[int, tuple[int, int]]()
        for place, run in enumerate(part):
            agent = f"{run.suite}:{(sessions + place) % AGENTS}"
            for at, (session, event) in enumerate(run.calls):
                moment = START + ((sessions + place) * DAY // A_DAY) + at * 1_000_000
                fields = {
                    "at": moment,
                    "agent": agent,
                    "task": f"tk_{sessions + place}",
                    "resource": "https://x.example",
                }
                event = msgspec.structs.replace(event, number=number, reporter="https://x.example", **fields)
                profile = profiles.get(agent, NEW)
                event = msgspec.structs.replace(event, noticed=tuple(notice(profile, session, event)))
                profiles[agent] = learn(profile, event)
                of[number] = place, at
                events.append(event)
                number += 1
        narrowed, alerted = _followed(watcher.take(events), risks, of)
        for place, run in enumerate(part):
            is_attack = run.kind == "compromised"
            if sessions + place >= WARM:
                counted["attacked" if is_attack else "honest"] += 1
                if is_attack:
                    counted["narrowed"] += place in narrowed and narrowed[place] <= (run.harm or 0)
                else:
                    counted["false"] += place in narrowed
                    counted["alerts"] += place in alerted
            if place in alerted and wrong is not None:
                agent = f"{run.suite}:{(sessions + place) % AGENTS}"
                risks[agent] = CALM
                is_real = is_attack is not (dice.random() < wrong)
                watcher.take([FindingJudgement(agent, ("origin_drift",), is_real, number)])
                number += 1
        sessions += len(part)
    return Held(**counted)


def _followed(
    told: Sequence[Sighting], risks: dict[str, Risk], of: Mapping[int, tuple[int, int]]
) -> tuple[dict[int, int], set[int]]:
    """The sessions in which the agent was narrowed, each with the call; those of which a person was told."""
    narrowed, alerted = dict[int, int](), set[int]()
    for one in told:
        risks[one.agent] = risks.get(one.agent, CALM).raised(one.points, one.at, counted=one.counted)
        place, at = of[one.number]
        score = risks[one.agent].points(one.at)
        if score >= TOLD:
            alerted.add(place)
        if score >= NARROWED and one.may_narrow:
            narrowed.setdefault(place, at)
    return narrowed, alerted


def upper(errors: int, count: int, confidence: float = 0.95) -> float:
    """The one-sided upper bound of Clopper and Pearson (1934): the rate at which so few errors are this unlikely."""
    low, high = errors / count, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        at_most = math.fsum(
            math.exp(
                math.lgamma(count + 1)
                - math.lgamma(k + 1)
                - math.lgamma(count - k + 1)
                + k * math.log(rate)
                + (count - k) * math.log1p(-rate)
            )
            for k in range(errors + 1)
        )
        low, high = (rate, high) if at_most > 1 - confidence else (low, rate)
    return high


def table(runs: Sequence[Run], *, sessions: int) -> dict[str, dict[str, float]]:
    """By stream: what was asked for and what came of it, over that many sessions that count."""
    found: dict[str, dict[str, float]] = {}
    for budget in BUDGETS:
        for kind in KINDS:
            for persons, wrong in (("", 0.0), (", a tenth of the answers wrong", 0.1), (", nobody answers", None)):
                if persons and kind != "attacked":
                    continue
                stream = drawn(kind, runs, WARM + sessions, random.Random(SEED))
                held = hold(stream, budget=budget, wrong=wrong)
                found[f"{kind}{persons}, {1e4 * budget:g} in 10,000"] = {
                    "asked": budget,
                    "honest": held.honest,
                    "false": held.false,
                    "upper": upper(held.false, held.honest),
                    "alerts": held.alerts,
                    "attacked": held.attacked,
                    "narrowed": held.narrowed,
                }
    return found


def text(found: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each stream; rates in 10,000 honest sessions."""
    lines = []
    for name, row in found.items():
        rate = 1e4 * row["false"] / row["honest"]
        lines.append(
            f"{name:<58} {row['false']:.0f} of {row['honest']:.0f} honest sessions narrowed: {rate:.2f} in 10,000,"
            f" at most {1e4 * row['upper']:.2f}; {1e4 * row['alerts'] / row['honest']:.0f} alerts;"
            f" {row['narrowed']:.0f} of {row['attacked']:.0f} attacks by the harmful call"
        )
    return "\n".join(lines)
