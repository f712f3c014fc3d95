"""Our Cedar engine: is it right, and how fast.

First it answers generated questions beside Cedar itself and prints, construct by construct, how many there were and
how they came out; it fails on any difference, and when a construct came up too seldom or always came out alike. Then it
prints microseconds a decision (fastest and median of rounds, CPU time), milliseconds to compile, and the IR's size.

Usage: python -m benchmarks.cedar [--pairs 200000] [--seed 1]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from random import Random
from typing import Any

from harness.cedar_differential.run import SINGLE, TOGETHER, answered, run
from ostiary.authorization.cedar import generate, ir
from ostiary.authorization.cedar.compile import compile_set
from ostiary.authorization.cedar.values import Entity, Record, Uid, entity, parse_record
from ostiaryd.policy.model.lower import lower

ROUNDS, REQUESTS = 25, 400
TEAMS, ACTIONS, ROLES, AGENTS, TOOLS = 10, 20, 50, 1000, 200


def compare(*, pairs: int, seed: int) -> bool:
    """Whether both engines agree and the run was worth something."""
    begin = time.perf_counter()
    report = run(answered(seed), pairs=pairs, stop_at=20)
    print(f"{'construct':30} {'pairs':>7} {'true':>6} {'false':>6} {'error':>6}")
    for construct in (*SINGLE, TOGETHER):
        count = report.counts[construct]
        shares = (f"{count[answer] / count.total():6.1%}" for answer in ("true", "false", "error"))
        print(f"{construct:30} {count.total():7} {' '.join(shares)}")
    print(f"{report}, {len(report.mismatches)} differences, {time.perf_counter() - begin:.0f} s")
    for found in report.mismatches:
        print(f"\n{found.construct}: ours {found.ours}, Cedar's {found.theirs}\n{found.policy}\n{found.request}")
    complaints = report.complaints(at_least=pairs // (2 * len(SINGLE)))
    for complaint in complaints:
        print(complaint)
    return not report.mismatches and not complaints


# --- speed ----------------------------------------------------------------------------------------------------------


def policies(count: int) -> str:
    """Eight in ten by role and attributes, one in ten for one agent and one tool, one in ten that forbids."""
    texts = []
    for number in range(count):
        action = f'Action::"a{number % ACTIONS}"'
        match number % 10:
            case 9:
                scope = f"principal, action == {action}, resource is Tool"
                when = f'resource.class == "restricted" && context.risk > {50 + number % 50}'
                texts.append(f"forbid({scope}) when {{ {when} }};")
            case 8:
                scope = f'principal == Agent::"{number}", action == {action}, resource == Tool::"{number % TOOLS}"'
                texts.append(f"permit({scope}) when {{ context.mfa }};")
            case _:
                actions = f'[{action}, Action::"a{(number + 7) % ACTIONS}"]'
                scope = f'principal in Role::"{number % ROLES}", action in {actions}, resource is Tool'
                when = f'resource.labels.contains("l{number % 5}") && context.risk < {40 + number % 50}'
                texts.append(
                    f"permit({scope}) when {{ principal.team == resource.team && {when} }} unless {{ principal.away }};"
                )
    return "\n".join(f'@id("p{number}") {text}' for number, text in enumerate(texts))


def store() -> dict[Uid, Entity]:
    agents = [
        entity(
            Uid("Agent", str(number)),
            {"team": f"t{number % TEAMS}", "away": False},
            [Uid("Role", str((number * 7 + step * 13) % ROLES)) for step in range(3)],
        )
        for number in range(AGENTS)
    ]
    classes = ("public", "internal", "restricted")
    tools = [
        entity(
            Uid("Tool", str(number)),
            parse_record(
                {
                    "team": f"t{number % TEAMS}",
                    "class": classes[number % 3],
                    "labels": [f"l{number % 5}", f"l{(number + 1) % 5}"],
                }
            ),
        )
        for number in range(TOOLS)
    ]
    return {one.uid: one for one in agents + tools}


def requests(random: Random) -> list[tuple[Uid, Uid, Uid, Record]]:
    made = []
    for number in range(REQUESTS):
        agent = random.randrange(AGENTS)
        tool = agent % TOOLS if number % 2 else random.randrange(TOOLS)  # every other one within one team
        context: Record = {"risk": random.randrange(100), "mfa": True}
        action = Uid("Action", f"a{random.randrange(ACTIONS)}")
        made.append((Uid("Agent", str(agent)), action, Uid("Tool", str(tool)), context))
    return made


def measure(count: int, entities: dict[Uid, Entity], asked: list[tuple[Uid, Uid, Uid, Record]]) -> None:
    lowered, lower_ms = timed(lambda: lower(policies(count)))
    generate._maker.cache_clear()
    compiled, compile_ms = timed(lambda: compile_set(lowered))
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        for question in asked:
            compiled.decide(*question, entities)
        rounds.append((time.process_time_ns() - begin) / len(asked) / 1000)
    allowed = sum(compiled.decide(*question, entities).allowed for question in asked)
    if not allowed or any(compiled.decide(*question, entities).errors for question in asked):
        raise AssertionError("the workload is not what it was meant to be")
    size = len(ir.render(lowered))
    fastest, median = min(rounds), statistics.median(rounds)
    print(f"{count:8} {fastest:10.2f} {median:10.2f} {lower_ms:9.1f} {compile_ms:11.1f} {size:9} {allowed:7}")


def timed(make: Any) -> tuple[Any, float]:
    begin = time.process_time()
    made = make()
    return made, (time.process_time() - begin) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    is_right = compare(pairs=options.pairs, seed=options.seed)
    print(f"\npolicies us/fastest  us/median  lower ms  compile ms  IR bytes  allowed of {REQUESTS}")
    entities, asked = store(), requests(Random(options.seed))
    for count in (10, 100, 1000):
        measure(count, entities, asked)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
