"""Determines which findings may restrict an agent without a person: certain findings, and rare findings within a
budget.

A *trial* is one task of one agent on one day. Its score (0 to 100) combines the points of all findings of statistical
detectors about it, and the highest points of an observation of a guard. A finding may restrict the agent if the score
of its trial is rare: by a conformal test, at most the budget's share of the trials of the agent's peers (of all agents,
if the peers have too few) had such a score. The counts of scores are halved from time to time, so the test follows the
deployment's own traffic. Until there are enough trials to measure such a small share, findings of statistical detectors
only inform people.

The test alone gives no guarantee on a stream that drifts or is attacked. Two accounts give a guarantee on every stream:
each trial in which the agent was restricted spends one alarm, which is returned if a person judges the finding real.
The account of all agents begins empty and earns the budget with each trial, so in at most `budget * N` of N trials an
agent is restricted by mistake. The account of an agent begins with one alarm, so in at most `1 + budget * n` of an
agent's n trials the agent is restricted by mistake.

A trial that a person judges an attack, or for which there is certain evidence, no longer counts as usual. For one
agent, at most `MOST_ALARMS` trials with a rare score count until a person judges them. One agent can therefore not make
a high score usual for all agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, Ints, Words
from ostiaryd.watch.model.detector import Anomaly, Kept
from ostiaryd.watch.model.runs import Runs

NAME = "narrowing"
TRIALS = 4
"""Number of trials of an agent that are stored at a time (a power of two). A further trial overwrites another."""
NOTICED = 8
"""Maximum number of scores of an agent's earlier trials that are stored until a person gives a verdict."""
MOST_ALARMS = 4
"""Maximum number of an agent's trials with a rare score that the counts include before a person gives a verdict."""
MOST_A_DAY = 200
"""Maximum number of an agent's trials per day that the counts include, so that a flood of tasks cannot change the
counts.
"""
CAP = 8.0
"""Maximum balance of the account of all agents, in alarms: so many restrictions can happen at once."""
MEMORY = 16.0
"""Expected number of alarms after which all counts are halved."""
SCORES = 101
UNCOUNTED = 128
"""Number that is added to the stored score of a trial to mark that the counts leave the trial out, because too many
trials of its agent had rare scores.
"""
OUT = 255
"""Stored in place of the score of a trial (a task on a day) that the counts of scores no longer include."""
DAY = 86_400_000_000

AGENT = np.dtype(
    [
        ("trial", np.uint32, (TRIALS,)),
        ("score", np.uint8, (TRIALS,)),
        ("acted", np.bool_, (TRIALS,)),
        ("by_guards", np.uint8, (TRIALS,)),
        ("noticed", np.uint8, (NOTICED,)),
        ("day", np.uint16),
        ("count", np.uint16),
        ("spent", np.float32),
        ("open", np.uint8),
    ]
)
"""State of an agent. `trial`, `score`, `acted` (whether the trial spent an alarm) and `by_guards` (the highest points
of an observation of a guard) are those of its present trials. `noticed` are the highest scores of earlier trials.
`open` is the number of spent alarms without a person's verdict.
"""
PEERS = np.dtype([("scores", np.float32, (SCORES,))])
ALL = np.dtype([("scores", np.float32, (SCORES,)), ("tokens", np.float64)])
CERTAIN, THRESHOLD = False, 1.0


class Records:
    """The record types of this module in the form of a detector, so that `Memory` saves the records with those of the
    detectors.
    """

    AGENT, PEERS, ALL, CERTAIN, THRESHOLD = AGENT, PEERS, ALL, CERTAIN, THRESHOLD

    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        """Return an empty list: this object has the form of a detector only so that its records are saved, and finds
        nothing.
        """
        return []


class Narrowing:
    def __init__(self, *, budget: float) -> None:
        """Create the account. `budget` is the share of trials in which statistical detectors may restrict an agent by
        mistake. With the budget 0, they restrict no agent.
        """
        self._budget = budget

    def begins(self, batch: Batch, kept: Kept) -> list[int]:
        """Return the indices of the events that start a new trial (an agent's work on one task on one day), in time
        order.
        """
        rows = np.flatnonzero(batch.is_call & (batch.agent != NOBODY))
        if len(rows) == 0:
            return []
        trial = _trials(batch.task[rows], batch.at[rows])
        place = batch.agent[rows] * TRIALS + _slots(trial)
        order = np.argsort(place, kind="stable")
        before, first = np.roll(trial[order], 1), Runs(place[order]).first
        before[first] = kept.agents["trial"][place[order][first] // TRIALS, place[order][first] % TRIALS]
        fresh = rows[order[before != trial[order]]]
        rows_in_order: list[int] = fresh[np.argsort(batch.number[fresh], kind="stable")].tolist()
        return rows_in_order

    def begin(self, kept: Kept, row: int, peers: int, task: int, at: int) -> None:
        """Start a trial (an agent's work on one task on one day): count it, and add the budget of one trial to the
        accounts of the agent and of all agents. After `MOST_A_DAY` trials of the agent on a day, further trials are not
        counted.

        `row` and `peers` are the rows of the agent and its group of peers, `task` is the hash of the task, and `at` is
        in microseconds.
        """
        agent, trial = kept.agents[row], _trial(task, at)
        slot = trial >> 8 & TRIALS - 1
        lowest = agent["noticed"].argmin()
        if UNCOUNTED > agent["score"][slot] > agent["noticed"][lowest]:
            agent["noticed"][lowest] = agent["score"][slot]
        agent["trial"][slot], agent["score"][slot], agent["acted"][slot], agent["by_guards"][slot] = trial, 0, False, 0
        day = at // DAY & 0xFFFF
        if agent["day"] != day:
            agent["day"], agent["count"] = day, 0
        if agent["count"] >= MOST_A_DAY:
            agent["score"][slot] = OUT
            return
        agent["count"] += 1
        agent["spent"] = max(0.0, agent["spent"] - self._budget)
        kept.all["tokens"][0] = min(CAP, kept.all["tokens"][0] + self._budget)
        for scores in _scores(kept, peers):
            scores[0] += 1
            if self._budget * scores.sum() > MEMORY:
                scores *= 0.5

    def judge(
        self, kept: Kept, row: int, peers: int, task: int, at: int, *, points: int, certain: bool, by_guard: bool
    ) -> bool:
        """Return whether playbooks may restrict the agent because of a finding, and add the finding's `points` to the
        score of its trial (the agent's work on one task on one day).

        A `certain` finding always may, and its trial leaves the counts. Any other finding may if an earlier finding of
        the trial did, or if the score is rare and the accounts have a budget left. Of the findings `by_guard`, which a
        guard observed, only the highest points count: a long task with many questions to a person is no rarer than a
        short one.
        """
        agent, trial = kept.agents[row], _trial(task, at)
        slot = trial >> 8 & TRIALS - 1
        is_known = bool(agent["trial"][slot] == trial)
        score, has_acted = (int(agent["score"][slot]), bool(agent["acted"][slot])) if is_known else (OUT, False)
        if certain:
            if is_known:
                _leave(kept, peers, [score])
                agent["score"][slot] = OUT
            return True
        before = 0 if score == OUT else score % UNCOUNTED
        counted = int(agent["by_guards"][slot]) if by_guard and is_known else 0
        highest = max(points, counted)
        after = round(100 - (100 - before) * (100 - highest) / max(1, 100 - counted))
        if by_guard and is_known:
            agent["by_guards"][slot] = highest
        _leave(kept, peers, [score])
        is_rare = self._is_rare(kept, peers, after)
        may = has_acted or (is_rare and self._has_budget(kept, row))
        if score != OUT:
            agent["score"][slot] = 0
            if is_rare and self._count_alarms(kept, row, peers) >= MOST_ALARMS:
                agent["score"][slot] = after + UNCOUNTED
            else:
                agent["score"][slot] = after
                for scores in _scores(kept, peers):
                    scores[after] += 1
        if may and not has_acted:
            kept.all["tokens"][0] -= 1
            agent["spent"] += 1
            agent["open"] = min(255, int(agent["open"]) + 1)
            agent["acted"][slot] = is_known
        return may

    def learn_judgement(self, kept: Kept, row: int, peers: int, *, is_real: bool, trials: int) -> None:
        """Update the counts and accounts with a person's verdict on findings about an agent. If the findings are real,
        their alarms are given back, and the scores of their trials leave the counts. `trials` is the number of tasks
        that the findings are about.
        """
        agent = kept.agents[row]
        if is_real:
            agent["spent"] = max(0.0, agent["spent"] - agent["open"])
            kept.all["tokens"][0] = min(CAP, kept.all["tokens"][0] + int(agent["open"]))
            current = np.where(agent["score"] >= UNCOUNTED, 0, agent["score"])
            scores_reported = np.concatenate((current, agent["noticed"]))
            worst = np.argsort(scores_reported, kind="stable")[-trials:]
            _leave(kept, peers, scores_reported[worst][scores_reported[worst] > 0].tolist())
            agent["score"][worst[(worst < TRIALS) & (scores_reported[worst] > 0)]] = OUT
        agent["noticed"], agent["open"] = 0, 0

    def status(self, kept: Kept) -> dict[str, float]:
        """Return three numbers for people: `trials`, the number of counted trials; `rare_from`, the lowest score that
        is rare among all trials (0 while there is none); and `alarms_left`, the balance of the account of all agents.
        """
        rare = [score for score in range(1, SCORES) if _is_rare(kept.all["scores"][0], score, self._budget)]
        return {
            "trials": round(float(kept.all["scores"].sum())),
            "rare_from": min(rare, default=0),
            "alarms_left": round(float(kept.all["tokens"][0]), 3),
        }

    def _is_rare(self, kept: Kept, peers: int, score: int) -> bool:
        theirs = kept.peers["scores"][peers]
        scores = theirs if self._budget * (theirs.sum() + 1) >= 1 else kept.all["scores"][0]
        return _is_rare(scores, score, self._budget)

    def _count_alarms(self, kept: Kept, row: int, peers: int) -> int:
        """Return the number of an agent's counted trials that have a rare score and no person's verdict."""
        agent = kept.agents[row]
        scores_reported = [*agent["noticed"], *agent["score"]]
        return sum(0 < score < UNCOUNTED and self._is_rare(kept, peers, int(score)) for score in scores_reported)

    def _has_budget(self, kept: Kept, row: int) -> bool:
        return bool(kept.all["tokens"][0] >= 1 - 1e-9 and kept.agents["spent"][row] <= 0)


def _is_rare(scores: np.ndarray[tuple[int], np.dtype[np.float32]], score: int, budget: float) -> bool:
    """Return whether the conformal p-value of a score is at most the budget. `scores` is the number of
    trials by score.
    """
    return bool(1 + scores[score:].sum() <= budget * (1 + scores.sum()))


def _leave(kept: Kept, peers: int, scores_left: Iterable[int]) -> None:
    """Subtract one trial for each of these scores from the counts of all agents and of the peers."""
    for score in scores_left:
        if score < UNCOUNTED:
            for scores in _scores(kept, peers):
                scores[score] = max(0.0, scores[score] - 1)


def _scores(kept: Kept, peers: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    yield kept.all["scores"][0]
    yield kept.peers["scores"][peers]


def _trials(task: Words, at: Ints) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Return an id of the trial of each event: a hash of the task and the day, never 0."""
    mixed = (task >> np.uint64(32)) ^ ((at // DAY).astype(np.uint64) * np.uint64(0x9E3779B1))
    return mixed.astype(np.uint32) | np.uint32(1)


def _slots(trial: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> Ints:
    return (trial >> np.uint32(8)).astype(np.int64) & TRIALS - 1


def _trial(task: int, at: int) -> int:
    return (task >> 32 ^ at // DAY * 0x9E3779B1) & 0xFFFFFFFF | 1
