"""How far those are doubted through whom a question comes, as policies see it: `context.risk`, in points from 0 to 100.

    agent   who is asked about, be it that policies are asked about another one behind it
    task    under which it acts
    chain   the worst of the agents behind it and the tasks above
    call    what this very call made somebody notice, before it runs
    score   the worst of all

Made only where a policy reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ostiary.authorization.cedar.values import Record
from ostiary.provenance.noticing import CALM, Risk


def doubted(
    risks: Mapping[str, Risk], *, agents: Sequence[str], tasks: Sequence[str], now: int, call: int = 0
) -> Record:
    """At `now` (microseconds). Of `agents` and `tasks` the first ones act, the others are behind and above."""
    agent, task = _worst(risks, agents[:1], now), _worst(risks, tasks[:1], now)
    chain = max(_worst(risks, agents[1:], now), _worst(risks, tasks[1:], now))
    return {"score": max(agent, task, chain, call), "agent": agent, "task": task, "chain": chain, "call": call}


def _worst(risks: Mapping[str, Risk], subjects: Iterable[str], now: int) -> int:
    return max((risks.get(subject, CALM).points(now) for subject in subjects), default=0)
