"""Risk in the context of policies: `context.risk`, in points from 0 to 100. Computed only when a policy reads it.

agent   the risk of the agent that makes the call, also when policies decide for an agent behind it
task    the risk of the task of the call
chain   the highest risk among the agents behind the calling agent and the tasks above the task
call    the points of the findings about this call
score   the highest of these numbers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ostiary.authorization.cedar.values import Record
from ostiary.provenance.noticing import CALM, Risk


def risk_context(
    risks: Mapping[str, Risk], *, agents: Sequence[str], tasks: Sequence[str], now: int, call: int = 0
) -> Record:
    """Return `context.risk` at `now` (microseconds): the scores of the agent, of its task, of the chain behind them and
    of this call, and the highest of these scores. The first of `agents` and the first of `tasks` are those of the call,
    the others are the chain; `call`: the points of the findings about the call.
    """
    agent, task = _worst(risks, agents[:1], now), _worst(risks, tasks[:1], now)
    chain = max(_worst(risks, agents[1:], now), _worst(risks, tasks[1:], now))
    return {"score": max(agent, task, chain, call), "agent": agent, "task": task, "chain": chain, "call": call}


def _worst(risks: Mapping[str, Risk], subjects: Iterable[str], now: int) -> int:
    return max((risks.get(subject, CALM).points(now) for subject in subjects), default=0)
