"""The cost of budgets at a guard: `python -m benchmarks.budgets`.

decide   microseconds of processor time for a decision: plain, with two budgets (calls, and an amount) paid from slices
         at hand, and with those, a chain of three agents behind it and exceptions in the feed; the record is left out.
         At most 5 each, or this fails
draws    how often a guard must ask the server to use up a budget by itself; enforced, since it is a count
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.decide import CATALOGUE, NOW, URI, policies, principal
from ostiary import ambient
from ostiary.authorization import budget
from ostiary.authorization.claims import Link
from ostiary.decision import access
from ostiary.decision.access import AgentStatus, Facts, Principal, Protected
from ostiary.guard.budgets import BudgetCache

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
    resource, rules = Protected(name="files", uri=URI, segment="default", catalogue=CATALOGUE), policies(100)
    quiet = Facts(resource, rules)
    busy = Facts(resource, rules, agents={"ag_9": AgentStatus("suspended", 1)}, ended_tasks={"tk_9": 0})
    limits = budget.parse_limits(
        [
            {"kind": "calls", "limit": 1_000_000_000},
            {"kind": "amount", "limit": "10000000000.00", "tools": ["files/tool_7"], "argument": "path"},
        ]
    )
    budgets = [budget.Budget(f"bu_{number}", limit) for number, limit in enumerate(limits)]
    chain = [Link(f"ag_{number}", 0, f"tk_{number}", "pe_1", "default") for number in range(2, 5)]
    purse = BudgetCache(tick=ambient.tick)
    purse.expect(one.id for one in budgets)
    purse.grant({one.id: one.limit.units for one in budgets})

    def deciding(who: Principal, facts: Facts) -> Callable[[], int | None]:
        """The work of a guard for a call, without the record."""

        def decide() -> int | None:
            decision = access.decide(access.resolve(who, "tool_7", ARGUMENTS, facts, NOW))
            ready = facts.resource.tools["tool_7"]
            if decision.verdict and (prices := who.prices(ready.uid.id, ready.classes)):
                return purse.pay(budget.costs(prices, ARGUMENTS, now=NOW), lambda: 1)
            return 1 if decision.allowed else None

        assert decide() == 1
        return decide

    plain = measure(deciding(principal(), quiet))
    counted = measure(deciding(principal(budgets=budgets), quiet))
    handed = measure(deciding(principal(budgets=budgets, chain=chain), busy))
    print(
        f"decision {plain:.2f} µs, with two budgets {counted:.2f}, and a chain of 3 {handed:.2f} (at most {LIMIT_US})"
    )
    counts = {units: draws(units) for units in (100, 1_000, 10_000, 100_000)}
    print("draws to use up a budget:", ", ".join(f"{units:,}: {count}" for units, count in counts.items()))
    return int(max(counted, handed) > LIMIT_US or counts != {100: 52, 1_000: 89, 10_000: 125, 100_000: 160})


if __name__ == "__main__":
    sys.exit(main())
