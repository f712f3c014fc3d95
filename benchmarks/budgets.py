"""What budgets cost a guard: `python -m benchmarks.budgets`.

decide   microseconds of processor time for a decision, without a budget and with two of them paid from slices at hand
         (calls, and an amount); the record is left out of both. At most 5 with budgets, or this fails
draws    how often a guard must ask the server to use up a budget by itself; enforced, since it is a count
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.decide import CATALOGUE, NOW, URI, policies, principal
from ostiary.core import access, budget
from ostiary.core.access import Facts, Protected
from ostiary.guard.purse import Purse

ROUNDS, CALLS = 25, 2000
LIMIT_US = 5.0
ARGUMENTS = {"path": "12.50", "limit": 20}


def measure(call: Callable[[], object]) -> float:
    """Microseconds a call: the median of rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        for _ in range(CALLS):
            call()
        rounds.append((time.process_time_ns() - begin) / CALLS / 1000)
    return statistics.median(rounds)


def draws(units: int) -> int:
    """How often is drawn until nothing is left, one unit a call."""
    left, here, count = units, 0, 0
    while left or here:
        if not here:
            here = budget.slice_of(left, 1)
            left, count = left - here, count + 1
        here -= 1
    return count


def main() -> int:
    facts = Facts(Protected(name="files", uri=URI, segment="default", catalogue=CATALOGUE), policies(100))
    limits = budget.parse_limits(
        [
            {"kind": "calls", "limit": 1_000_000_000},
            {"kind": "amount", "limit": "10000000000.00", "tools": ["files/tool_7"], "argument": "path"},
        ]
    )
    budgets = [budget.Budget(f"bu_{number}", limit) for number, limit in enumerate(limits)]
    plain, counted = principal(), principal(budgets=budgets)
    purse = Purse(tick=lambda: 0)
    purse.grant({one.id: one.limit.units for one in budgets})

    def decide() -> object:
        return access.decide(plain, tool="tool_7", arguments=ARGUMENTS, facts=facts, now=NOW)

    def decide_and_pay() -> object:
        decision = access.decide(counted, tool="tool_7", arguments=ARGUMENTS, facts=facts, now=NOW)
        costs = budget.costs(counted.claims.budgets, "files/tool_7", ARGUMENTS, now=NOW)
        return decision.allowed and purse.pay(costs, lambda: 1)

    assert decide_and_pay() == 1
    without, with_two = measure(decide), measure(decide_and_pay)
    print(f"decision {without:.2f} µs, with two budgets {with_two:.2f} µs (at most {LIMIT_US})")
    counts = {units: draws(units) for units in (100, 1_000, 10_000, 100_000)}
    print("draws to use up a budget:", ", ".join(f"{units:,}: {count}" for units, count in counts.items()))
    return int(with_two > LIMIT_US or counts != {100: 52, 1_000: 89, 10_000: 125, 100_000: 160})


if __name__ == "__main__":
    sys.exit(main())
