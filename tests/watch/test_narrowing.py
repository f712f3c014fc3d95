"""Findings that may narrow an agent: certain findings at once, statistical findings within a budget on every stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.provenance.noticing import Event, Noticed
from ostiaryd.watch.model import FindingJudgement, Piece
from ostiaryd.watch.model.batch import word
from ostiaryd.watch.model.detector import detectors, zeros
from ostiaryd.watch.model.narrowing import CAP, MOST_A_DAY, MOST_ALARMS, Narrowing, Records
from ostiaryd.watch.model.watcher import Watcher

DAY = 86_400_000_000
START = 20_000 * DAY


class Stream:
    """Successive trials that one narrowing judges; an agent has `per_agent` trials a day."""

    def __init__(self, budget: float, *, per_agent: int = 20, agents: int = 40) -> None:
        self.narrowing, self.kept = Narrowing(budget=budget), zeros(Records(), agents=agents + 1, peers=3)
        self.agents, self.per_agent, self.count = agents, per_agent, 0

    def trial(self, score: int, *, peers: int = 2) -> tuple[int, bool]:
        """Return the agent of the next trial, and whether a finding of `score` points may narrow the agent."""
        agent = 1 + self.count % self.agents
        at = START + self.count // (self.agents * self.per_agent) * DAY
        task = word(f"tk_{self.count}")
        self.count += 1
        self.narrowing.begin(self.kept, agent, peers, task, at)
        if not score:
            return agent, False
        may = self.narrowing.judge(self.kept, agent, peers, task, at, points=score, certain=False, by_guard=False)
        return agent, may

    def hear(self, agent: int, *, is_real: bool) -> None:
        self.narrowing.learn_judgement(self.kept, agent, 2, is_real=is_real, trials=1)


def honest(dice: random.Random, shift: int = 0) -> int:
    """Return the score of an honest task: mostly zero, sometimes low, seldom high."""
    return 0 if dice.random() < 0.8 else min(100, shift + int(dice.expovariate(1 / 8)))


BUDGET = 0.002


def test_a_rare_score_narrows_only_after_enough_trials_for_the_budget() -> None:
    stream = Stream(BUDGET)
    first = [stream.trial(90 if n % 100 == 99 else 0)[1] for n in range(400)]
    assert not any(first)
    stream = Stream(BUDGET)
    for _ in range(498):
        stream.trial(0)
    assert not stream.trial(90)[1], "1 / (1 + 498) is more than the budget"
    stream = Stream(BUDGET)
    for _ in range(499):
        stream.trial(0)
    assert stream.trial(90)[1]
    assert not Stream(0.0).trial(100)[1]


@pytest.mark.parametrize("level", [10, 40, 80])
def test_a_usual_score_never_narrows_even_with_many_points(level: int) -> None:
    stream = Stream(BUDGET)
    for n in range(2000):
        stream.trial(level if n % 50 == 0 else 0)
    assert not stream.trial(level)[1]
    assert stream.trial(level + 15)[1]


@pytest.mark.parametrize("drifts", [False, True])
def test_the_rate_of_alarms_stays_within_the_budget_and_uses_it(drifts: bool) -> None:
    dice, stream, count = random.Random(5), Stream(0.005), 8_000
    alarms = sum(stream.trial(honest(dice, shift=drifts * n // 500))[1] for n in range(count))
    assert 4 <= alarms <= 0.005 * count


@pytest.mark.parametrize(("wrong", "least"), [(0.0, 0.8), (0.1, 0.1)])
def test_attacks_are_narrowed_within_the_false_alarm_budget_if_persons_judge_them(wrong: float, least: float) -> None:
    """An attack that a person judges a false alarm spends the budget, so that fewer attacks are narrowed."""
    dice, stream, count = random.Random(7), Stream(0.005), 8_000
    false, caught, attacks = 0, 0, 0
    for n in range(count):
        is_attack = n > 2000 and dice.random() < 0.1
        score = dice.randint(55, 80) if is_attack else honest(dice)
        agent, may = stream.trial(score)
        attacks += is_attack
        false, caught = false + (may and not is_attack), caught + (may and is_attack)
        if score >= 50:
            stream.hear(agent, is_real=is_attack is not (dice.random() < wrong))
    assert false <= 0.005 * count / (1 - wrong)
    assert caught > least * attacks


def test_alarms_that_are_not_judged_stay_within_the_total_budget() -> None:
    dice, stream, count = random.Random(9), Stream(BUDGET), 4_000
    alarms = sum(stream.trial(70 if dice.random() < 0.1 else honest(dice))[1] for _ in range(count))
    assert alarms <= BUDGET * count


STREAMS: dict[str, Callable[[random.Random, int], int]] = {
    "honest": lambda dice, n: honest(dice),
    "rising": lambda dice, n: min(100, n // 30),
    "bursts": lambda dice, n: 95 if n // 100 % 7 == 6 else 0,
    "one in ten": lambda dice, n: 60 + n % 40 if dice.random() < 0.1 else 0,
}


@settings(max_examples=40)
@given(st.integers(0, 1000), st.sampled_from(sorted(STREAMS)), st.sampled_from([0.002, 0.02, 0.1]), st.integers(1, 30))
def test_the_budgets_of_all_agents_and_of_each_agent_hold_at_every_instant(
    seed: int, name: str, budget: float, agents: int
) -> None:
    dice, stream = random.Random(seed), Stream(budget, agents=agents)
    by_agent = [0] * (agents + 1)
    seen = [0] * (agents + 1)
    for n in range(300):
        agent, may = stream.trial(STREAMS[name](dice, n))
        seen[agent] += 1
        by_agent[agent] += may
        assert sum(by_agent) <= budget * sum(seen) + 1e-3
        assert by_agent[agent] <= 1 + budget * seen[agent] + 1e-3


def grown(budget: float = BUDGET, *, count: int = 10_000) -> Stream:
    stream = Stream(budget)
    for _ in range(count):
        stream.trial(0)
    return stream


def test_only_the_highest_score_of_a_guard_counts_in_a_trial() -> None:
    stream, task = Stream(BUDGET), word("tk_long")
    stream.narrowing.begin(stream.kept, 1, 2, task, START)
    observations = [(20, True), (15, True), (20, True), (30, True), (50, False), (50, False), (30, True), (100, True)]
    scores = []
    for points, by_guard in [*observations, (100, True)]:
        stream.narrowing.judge(stream.kept, 1, 2, task, START, points=points, certain=False, by_guard=by_guard)
        scores.append(int(stream.kept.agents[1]["score"].max()))
    assert scores == [20, 20, 20, 30, 65, 82, 82, 100, 100], "what other detectors find adds, as before"
    stream.narrowing.begin(stream.kept, 1, 2, task, START + DAY)
    stream.narrowing.judge(stream.kept, 1, 2, task, START + DAY, points=20, certain=False, by_guard=True)
    assert 20 in stream.kept.agents[1]["score"], "another day is another trial"


def test_alarms_that_come_at_once_are_capped() -> None:
    stream = grown()
    assert sum(stream.trial(60 + n)[1] for n in range(40)) == CAP


def test_an_agent_has_one_alarm_until_a_person_confirms_the_attack() -> None:
    for said, may in ((None, False), (False, False), (True, True)):
        stream = grown(count=9_960)
        agent, first = stream.trial(60)
        assert first
        if said is not None:
            stream.hear(agent, is_real=said)
        for _ in range(stream.agents - 1):
            stream.trial(0)
        assert stream.trial(70) == (agent, may)


def test_a_false_alarm_makes_its_score_usual_and_a_confirmed_attack_does_not() -> None:
    for is_real in (False, True):
        stream = Stream(BUDGET)
        for n in range(4000):
            score = 60 if n % 50 == 0 else 0
            agent, _ = stream.trial(score)
            if score:
                stream.hear(agent, is_real=is_real)
        assert stream.trial(60)[1] is is_real


def test_the_usual_score_is_that_of_the_peers_if_they_have_enough_trials() -> None:
    stream = Stream(BUDGET)
    for n in range(2000):
        stream.trial(60 if n % 20 == 0 else 0, peers=2)
    for _ in range(600):
        stream.trial(0, peers=1)
    assert stream.trial(60, peers=1)[1], "rare among its own kind"
    assert not stream.trial(60, peers=2)[1]


@pytest.mark.parametrize("between", [0, 30])
def test_one_agent_does_not_make_a_high_score_usual_for_all(between: int) -> None:
    """Between its alarms the agent has trials with scores that are not rare, which displace no alarm."""
    stream = Stream(BUDGET, agents=20)
    for n in range(8_000):
        stream.trial(5 if n % 10 == 0 else 0)
    for n in range(2_000):
        of_one = n % 20 == 0
        stream.trial((100 if n % 40 == 0 or not between else 5) if of_one else 0)
    assert stream.kept.all["scores"][0][100] <= MOST_ALARMS
    stream.trial(0)
    _, may = stream.trial(100)
    assert may, "another agent is narrowed"


def test_alarms_of_an_agent_count_again_after_a_person_has_judged_them() -> None:
    stream = Stream(BUDGET, agents=1, per_agent=100)
    for _ in range(3_000):
        stream.trial(0)
    for judged, count in ((False, MOST_ALARMS), (True, MOST_ALARMS + 1)):
        if judged:
            stream.hear(1, is_real=False)
        for _ in range(1 if judged else MOST_ALARMS + 3):
            stream.trial(100)
        assert stream.kept.all["scores"][0][100] == count


def test_a_flood_of_tasks_counts_as_at_most_the_daily_maximum_of_trials() -> None:
    stream = Stream(BUDGET, agents=1, per_agent=100_000)
    for _ in range(MOST_A_DAY + 500):
        stream.trial(0)
    assert stream.narrowing.status(stream.kept)["trials"] == MOST_A_DAY


def events(count: int, *, first: int = 0, **more: Any) -> Iterator[Event]:
    for n in range(first, first + count):
        values: dict[str, Any] = {"agent": f"ag_{n % 7}", "task": f"tk_{n}", "tool": "bank/pay", "outcome": "allow"}
        values |= {"effect": "pay", "resource": "https://bank.example", "reporter": "rs_1"}
        yield Event(at=START + n * 60_000_000, action="tool.call", number=n, **values | more)


def watching(budget: float = 0.01) -> Watcher:
    return Watcher(detectors(), budget=budget, peers_of=lambda agent: "")


def odd(name: str, points: int) -> dict[str, Any]:
    return {"noticed": (Noticed(detector=name, points=points, says="x"),)}


@pytest.mark.parametrize(
    ("more", "may"),
    [
        (odd("instructed", 60), False),
        (odd("bearer_in_two_networks", 60), True),
        (odd("threat_list", 29), False),
        (odd("threat_list", 30), True),
        (odd("canary", 95), False),
        ({"canary": True}, True),
        ({"threat": ("list", 40)}, True),
    ],
)
def test_certain_evidence_may_narrow_at_the_first_call(more: dict[str, Any], may: bool) -> None:
    [one] = watching().take([*events(1, **more)])
    assert one.may_narrow is may


@pytest.mark.parametrize(("points", "may"), [(29, False), (30, True), (40, True)])
def test_stronger_uncertain_evidence_does_not_hide_certain_evidence(points: int, may: bool) -> None:
    both = (*odd("instructed", 60)["noticed"], *odd("threat_list", points)["noticed"])
    [one] = watching().take([*events(1, noticed=both)])
    assert (one.detector, one.may_narrow) == ("instructed", may)


def test_findings_do_not_depend_on_batch_boundaries_or_restarts() -> None:
    stream: list[Event | FindingJudgement] = []
    for n, one in enumerate(events(600)):
        noticed = odd("instructed", 20 + n % 60)["noticed"] if n % 23 == 0 else ()
        stream.append(Event(**{name: getattr(one, name) for name in one.__struct_fields__} | {"noticed": noticed}))
        if n % 100 == 99:
            stream.append(FindingJudgement(f"ag_{n % 7}", ("instructed",), n % 200 == 99, n))
    whole = watching().take(stream)
    assert any(one.may_narrow for one in whole)
    made, told, saved = watching(), list[Any](), dict[str, Piece]()
    for number, start in enumerate(range(0, len(stream), 37)):
        if number % 9 == 5:
            snapshot, pieces, _ = made.snapshot()
            saved |= {piece.key: piece for piece in pieces}
            made = watching()
            made.load(snapshot, sorted(saved.values()))
        told += made.take(stream[start : start + 37])
    assert told == whole


def test_the_status_states_the_lowest_rare_score() -> None:
    made = watching()
    assert made.status == {"trials": 0, "rare_from": 0, "alarms_left": 0}
    made.take([*events(300)])
    made.take([*events(1, first=300, **odd("instructed", 40))])
    assert (made.status["trials"], made.status["rare_from"]) == (301, 1)
    made.take([*events(2, first=301, **odd("instructed", 40))])
    made.take([*events(2, first=304, **odd("instructed", 40))])
    assert made.status["rare_from"] == 41
