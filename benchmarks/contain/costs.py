"""The time that origins, labels and slots add to the decisions of sessions; a part of `python -m benchmarks.origins`.

The sessions are R1 and R2 of banking and slack, in the originals and in one strange world of each level. Each call is
decided with the memory that its task has at this call, and without a memory: the difference is counted once for each
call, whether or not the call is allowed. The time of one decision is the smallest mean of several rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace
from rich.progress import Progress

from benchmarks.contain import compiled, owner, suites, sweep
from benchmarks.contain.columns import Plan
from benchmarks.contain.inprocess import InProcess, Session
from benchmarks.contain.products import Verdict
from benchmarks.contain.strange import LEVELS, strange_worlds
from benchmarks.contain.suites import Call, Suite
from ostiary.decision.access import Principal, resolve
from ostiary.provenance.origins import CARRIES

SEED = 90_001
PAIRS = 24
"""worst-case sessions of each world"""
ROUNDS, REPEATS = 5, 4


@dataclass(frozen=True, slots=True)
class Cost:
    """The time in microseconds that the memory adds to one decision. `is_judged`: policies on origins apply to the
    call; `goes_out`: text of the call goes to a third party; `has_labels`: the memory has labels.
    """

    added: float
    is_judged: bool
    goes_out: bool
    has_labels: bool


class Timed(InProcess):
    """The product, which also measures each decision."""

    costs: list[Cost]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.costs = []

    def decide(self, session: Session, call: Call) -> Verdict:
        principal = session.principal
        plain = Principal(replace(principal.claims, memory=""))
        pairs = [(self._time(session, principal, call), self._time(session, plain, call)) for _ in range(ROUNDS)]
        decision = self._decide(session, principal, call, ())
        self.costs.append(
            Cost(
                added=min(with_memory for with_memory, _ in pairs) - min(without for _, without in pairs),
                is_judged=resolve(principal, call.tool, call.arguments, self._facts, 0).reads_memory,
                goes_out=CARRIES in (decision.call_context or {}),
                has_labels=bool(session.memory.labels),
            )
        )
        return super().decide(session, call)

    def _time(self, session: Session, principal: Principal, call: Call) -> float:
        started = time.process_time_ns()
        for _ in range(REPEATS):
            self._decide(session, principal, call, ())
        return (time.process_time_ns() - started) / REPEATS / 1000


def worlds() -> Iterator[Suite]:
    for name in sweep.DEVELOPED:
        suite = suites.load(name)
        yield suite
        yield from strange_worlds(suite, [*LEVELS], [SEED], owner.readers(suite))


def measure(suite: Suite, *, confirmed: bool) -> list[Cost]:
    """Return the cost of each call of the sessions of one world."""
    plan = Plan(suite, sample=(PAIRS, 0, SEED))
    product = Timed(owner.confirmed(suite) if confirmed else owner.reading(suite), compiled.starter())
    for _ in (*plan.honest(product), *plan.attacked(product)):
        pass  # the rows are of no interest here
    return product.costs


def line(what: str, costs: list[Cost]) -> str:
    shares = statistics.quantiles([cost.added for cost in costs], n=100, method="inclusive")
    return f"{what:<66} {shares[49]:8.1f} {shares[89]:8.1f} {shares[98]:8.1f} {len(costs):8,}"


def main() -> None:
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        for state in ("confirmed", "unconfirmed"):
            costs = [
                cost
                for suite in progress.track([*worlds()], description=state)
                for cost in measure(suite, confirmed=state == "confirmed")
            ]
            judged = [cost for cost in costs if cost.is_judged]
            sent = [cost for cost in costs if cost.goes_out]
            print(f"\n{f'more µs in sessions, catalogue {state}':<66} {'p50':>8} {'p90':>8} {'p99':>8} {'calls':>8}")
            print(line("all calls", costs))
            print(line("calls to which policies on origins apply", judged))
            print(line("the same, with labels in play", [cost for cost in judged if cost.has_labels]))
            print(line("calls with an outgoing text", sent))
            print(line("the same, with labels in play", [cost for cost in sent if cost.has_labels]))


if __name__ == "__main__":
    main()
