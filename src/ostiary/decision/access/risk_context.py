"""Risk in the context of policies: `context.risk`, in points from 0 to 100. Computed only when a policy reads it.

agent   the agent that the request is about, also when policies are asked about an agent behind it
task    the task under which it acts
chain   the highest of the agents behind it and of the tasks above
call    the findings about this very call, before it runs
score   the highest of all
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ostiary.authorization.cedar.values import Record
from ostiary.provenance.noticing import CALM, Risk


def risk_context(
    risks: Mapping[str, Risk], *, agents: Sequence[str], tasks: Sequence[str], now: int, call: int = 0
) -> Record:
    """Return `context.risk` at `now` (microseconds). The first agent and the first task are those of the call."""
    agent, task = _worst(risks, agents[:1], now), _worst(risks, tasks[:1], now)
    chain = max(_worst(risks, agents[1:], now), _worst(risks, tasks[1:], now))
    return {"score": max(agent, task, chain, call), "agent": agent, "task": task, "chain": chain, "call": call}


def _worst(risks: Mapping[str, Risk], subjects: Iterable[str], now: int) -> int:
    return max((risks.get(subject, CALM).points(now) for subject in subjects), default=0)
