"""`make bench BENCH_ARGS="detect [--suite X] [--model M]"`: see docs/explanation/risk.md.

In the main environment it makes the environment of the suites with the recorded runs, and goes on there.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.progress import Progress

from benchmarks.contain import owner, suites
from benchmarks.contain.__main__ import SUITES, elsewhere
from benchmarks.contain.strange import LEVELS, strange_worlds
from benchmarks.detect import table
from benchmarks.detect.made import DETOURS, MADE
from benchmarks.detect.runs import Run, runs

DEVELOPED = ("banking", "slack")
RECORDED = (
    "claude-3-5-sonnet-20240620",
    "claude-3-opus-20240229",
    "gemini-1.5-pro-001",
    "gpt-4-0125-preview",
    "gpt-4o-2024-05-13",
    "gpt-4o-mini-2024-07-18",
)
"""models whose runs are taken, where nothing else is said"""


def main(given: list[str]) -> int:
    asked = arguments(given)
    if Path(sys.prefix) != SUITES:
        recorded = not set(asked.model or RECORDED) <= MADE
        return streamed(given, asked, recorded=recorded)
    chosen = asked.suite or DEVELOPED
    if unknown := sorted(set(chosen) - suites.installed().keys()):
        print(f"no suite {', '.join(unknown)}; there are {', '.join(suites.installed())}", file=sys.stderr)
        return 2
    held = list[Run]()
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        for name in chosen:
            for suite in worlds(suites.load(name), asked):
                catalogue = owner.confirmed(suite) if asked.confirmed else None
                for model in progress.track(asked.model or RECORDED, description=suite.name):
                    try:
                        found = runs(suite, model, tasks=asked.tasks, catalogue=catalogue)
                    except KeyError:
                        print(f"{name} has no recorded runs of {model}", file=sys.stderr)
                        return 2
                    held += found
    made = table.tables([run for run in held if run.model != DETOURS])
    print(table.text(made))
    if asked.runs is not None:
        asked.runs.write_bytes(pickle.dumps(held))
    if asked.json is not None:
        asked.json.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


def streamed(given: list[str], asked: argparse.Namespace, *, recorded: bool) -> int:
    """The runs in the environment of the suites; then, in this one, which has the server, the streams of them."""
    if not asked.streams:
        return elsewhere("benchmarks.detect", given, recorded=recorded)
    from benchmarks.detect import streams

    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "runs"
        if code := elsewhere("benchmarks.detect", [*given, "--runs", str(kept)], recorded=recorded):
            return code
        found = streams.table(pickle.loads(kept.read_bytes()), sessions=asked.streams)
    print(streams.text(found))
    if asked.json is not None:
        whole = json.loads(asked.json.read_text("utf-8")) | {"streams": found}
        asked.json.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


def worlds(suite: suites.Suite, asked: argparse.Namespace) -> Iterator[suites.Suite]:
    """The suite itself, or the strange worlds that are asked for; that they are sound `benchmarks.contain` proves."""
    seeds = range(asked.seed, asked.seed + asked.seeds)
    return strange_worlds(suite, asked.strange, seeds, owner.readers(suite)) if asked.strange else iter([suite])


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detect", description=__doc__)
    parser.add_argument("--suite", action="append", help="one of those that are installed; may be given again")
    parser.add_argument(
        "--model",
        action="append",
        help="whose recorded runs are taken, or `obeyed`, `silent`, `detours`: made ones; may be given again",
    )
    parser.add_argument("--strange", action="append", choices=LEVELS, help="unfamiliar worlds, as in `contain`")
    parser.add_argument("--seed", type=int, default=1, help="of the first unfamiliar world")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="unfamiliar worlds of each kind")
    parser.add_argument("--confirmed", action="store_true", help="the owner's stand-in has confirmed the catalogue")
    parser.add_argument(
        "--streams",
        type=int,
        default=0,
        metavar="N",
        help="hold streams of N sessions that count, and print what is narrowed",
    )
    parser.add_argument("--tasks", type=int, help="only so many of each suite's tasks, the first ones")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="keep the runs there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
