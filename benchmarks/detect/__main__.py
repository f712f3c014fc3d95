"""`make bench BENCH_ARGS="detect [--suite X] [--model M]"`: what a guard notices in recorded runs; docs/noticing.md.

In the main environment it makes the environment of the suites with the recorded runs, and goes on there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.progress import Progress

from benchmarks.contain import suites
from benchmarks.contain.__main__ import SUITES, elsewhere
from benchmarks.detect import table
from benchmarks.detect.made import PLANTED
from benchmarks.detect.runs import Run, runs

DEVELOPED = ("banking", "slack", "workspace")
RECORDED = (
    "claude-3-5-sonnet-20240620", "claude-3-opus-20240229", "gemini-1.5-pro-001", "gpt-4-0125-preview",
    "gpt-4o-2024-05-13", "gpt-4o-mini-2024-07-18",
)  # fmt: skip
"""models whose runs are taken, where nothing else is said"""


def main(given: list[str]) -> int:
    asked = arguments(given)
    if Path(sys.prefix) != SUITES:
        recorded = not set(asked.model or RECORDED) <= PLANTED.keys()
        return elsewhere("benchmarks.detect", given, recorded=recorded)
    chosen = asked.suite or DEVELOPED
    if unknown := sorted(set(chosen) - suites.installed().keys()):
        print(f"no suite {', '.join(unknown)}; there are {', '.join(suites.installed())}", file=sys.stderr)
        return 2
    held = list[Run]()
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        for name in chosen:
            suite = suites.load(name)
            for model in progress.track(asked.model or RECORDED, description=name):
                try:
                    found = runs(suite, model, tasks=asked.tasks)
                except KeyError:
                    print(f"{name} has no recorded runs of {model}", file=sys.stderr)
                    return 2
                held += found
    made = table.tables(held)
    print(table.text(made))
    if asked.json is not None:
        asked.json.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detect", description=__doc__)
    parser.add_argument("--suite", action="append", help="one of those that are installed; may be given again")
    parser.add_argument(
        "--model",
        action="append",
        help="whose recorded runs are taken, or `obeyed`, `silent`: made ones; may be given again",
    )
    parser.add_argument("--tasks", type=int, help="only so many of each suite's tasks, the first ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
