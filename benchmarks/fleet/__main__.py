"""`make bench BENCH_ARGS="fleet [--agents N] [--days N] [--each N] [--seed N]"`: what detectors find in a fleet.

Prints a row for each kind of attack, false alarms for each agent and day, what the fleet looks like without each
detector, and the time that each detector takes for an event.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.fleet.attacks import plant
from benchmarks.fleet.figures import Figures, false_alarms, figures
from benchmarks.fleet.held import hold
from benchmarks.fleet.plan import draw
from benchmarks.fleet.stream import stream
from ostiaryd.watch.model.detector import detectors


def main(given: list[str]) -> int:
    asked = arguments(given)
    fleet = draw(asked.seed, agents=asked.agents, days=asked.days)
    planted = plant(fleet, days=asked.days, each=asked.each)
    some = {name: one for name, one in detectors().items() if not asked.only or name in asked.only}
    held = hold(fleet, stream(fleet, days=asked.days, planted=planted), some, budget=asked.budget)
    whole = figures(held, planted)
    print(text(whole))
    print("\nwithout              finds less of")
    for name in some:
        print(f"{name:<20} {worth(whole, figures(held, planted, without=name))}")
    print(f"\n{held.events:,} acts of {asked.agents} agents; microseconds of the processor for each:")
    for name, seconds in held.seconds.items():
        print(f"{name:<20} {seconds / held.events * 1e6:6.2f}")
    print(f"{'all, with columns':<20} {held.all_seconds / held.events * 1e6:6.2f}")
    if asked.show:
        for one in false_alarms(held, planted):
            if one.detector == asked.show:
                print(one.agent, one.at, f"{one.score:.2f}", one.says)
    return 0


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--agents", type=int, default=320)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--each", type=int, default=6, help="attacks of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=0.0005, help="share of tasks that may be narrowed by mistake")
    parser.add_argument("--only", action="append", help="this detector alone; may be given again")
    parser.add_argument("--show", metavar="DETECTOR", help="print what it said wrongly")
    return parser.parse_args(given)


def text(found: Figures) -> str:
    lines = [f"{'attack':<10} {'found':>8} {'acts':>6} {'minutes':>8}  by"]
    for row in found.rows:
        where = f"{row.found}/{row.planted}"
        lines.append(f"{row.kind:<10} {where:>8} {row.acts:>6} {row.minutes:>8.1f}  {', '.join(row.by)}")
    lines.append("\nfalse alarms            alarms   agent and day")
    lines += [f"{one.detector:<24} {one.alarms:>5} {one.rate:>15.4f}" for one in found.blames]
    lines.append(f"{'all':<24} {sum(one.alarms for one in found.blames):>5} {found.rate:>15.4f}")
    return "\n".join(lines)


def worth(whole: Figures, less: Figures) -> str:
    """The attacks that are not found without the detector, or are found later."""
    cells = []
    for with_, without in zip(whole.rows, less.rows, strict=True):
        if without.found < with_.found:
            cells.append(f"{with_.kind} {with_.found} -> {without.found}")
        elif with_.found and without.acts > with_.acts:
            cells.append(f"{with_.kind} after {with_.acts} -> {without.acts} acts")
    return ", ".join(cells) or "nothing"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
