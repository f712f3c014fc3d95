"""`make bench BENCH_ARGS="contain [--suite X] [--json FILE]"`: see docs/explanation/containment.md.

In the main environment it makes the environment of the suites, and goes on there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.progress import Progress

from benchmarks.contain import columns, compiled, owner, questions, rules, suites, sweep, table
from benchmarks.contain.attacks import ALL, VARIANTS
from benchmarks.contain.baselines import Listed
from benchmarks.contain.doorkeeper import doorkeeper
from benchmarks.contain.inprocess import InProcess
from benchmarks.contain.products import Product
from benchmarks.contain.strange import LEVELS, differences, strange_worlds
from ostiary.authorization.catalogue import Catalogue

ROOT = Path(__file__).resolve().parents[2]
SUITES = Path(sys.prefix).parent / ".suites"
RECORDED = ("gpt-4o-2024-05-13", "claude-3-5-sonnet-20240620")
"""models whose recorded runs are replayed, where nothing else is said"""
COLUMNS = ("R1", "R2", "R3", "R4", "R5")
ABLATED = ("R1", "R2", "R3")


def main(given: list[str]) -> int:
    asked = arguments(given)
    if Path(sys.prefix) != SUITES:
        if suites.EVERYDAY in (asked.suite or ()):
            subprocess.run(["make", "-s", "-C", ROOT, suites.EVERYDAY], check=True)
        return elsewhere("benchmarks.contain", given, recorded="R4" in asked.column)
    if unknown := sorted(set(asked.suite or ()) - {suites.EVERYDAY, *suites.installed()}):
        print(
            f"no suite {', '.join(unknown)}; there are {', '.join((*suites.installed(), suites.EVERYDAY))}",
            file=sys.stderr,
        )
        return 2
    if asked.sweep:
        return sweep_worlds(asked)
    if asked.questions:
        return list_questions(asked)
    held = list[columns.Row]()
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        for name in asked.suite or suites.installed():
            for suite in worlds(suites.load(name), asked):
                plan = columns.Plan(suite, tasks=asked.tasks, injections=asked.injections)
                bar = progress.add_task(suite.name, total=None)
                for row in rows(plan, asked):
                    held.append(row)
                    progress.update(bar, advance=1, description=f"{suite.name}: {row.product}, {row.column}")
    print(table.text(held))
    if asked.why:
        print(table.reasons(held))
    if asked.json is not None:
        asked.json.write_text(json.dumps(table.value(held), indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


def sweep_worlds(asked: argparse.Namespace) -> int:
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("worlds", total=1.0)
        cells = sweep.sweep(asked, lambda share: progress.update(bar, completed=share))
    print(sweep.text(cells))
    if asked.json is not None:
        asked.json.write_text(json.dumps(sweep.value(cells), indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


def list_questions(asked: argparse.Namespace) -> int:
    found, policies = questions.Questions(), compiled.starter()
    for name in asked.suite or sweep.DEVELOPED:
        for suite in worlds(suites.load(name), asked):
            plan = columns.Plan(suite, tasks=asked.tasks, sample=(sweep.PAIRS, sweep.ATTACKS, asked.seed))
            found.add(plan, catalogue_of(suite, asked), policies)
    print(found.text())
    return 0


def catalogue_of(suite: suites.Suite, asked: argparse.Namespace) -> Catalogue:
    """Return the catalogue of a suite as its server lists it, or as the owner's stand-in confirms it."""
    if asked.confirmed:
        return owner.confirmed(suite, wrong=asked.wrong, seed=asked.seed)
    return owner.reading(suite)


def worlds(suite: suites.Suite, asked: argparse.Namespace) -> Iterator[suites.Suite]:
    """The suite itself, or the strange worlds that are asked for, each proved sound. Raises SystemExit."""
    if not asked.strange:
        yield suite
        return
    seeds = range(asked.seed, asked.seed + asked.seeds)
    for strange in strange_worlds(suite, asked.strange, seeds, owner.readers(suite)):
        if unsound := differences(suite, strange, tasks=asked.tasks, injections=asked.injections):
            raise SystemExit(f"{strange.name} is unsound: {len(unsound)} sessions end otherwise, as {unsound[0]}")
        yield strange


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contain", description=__doc__)
    parser.add_argument("--suite", action="append", help="one of those that are installed; may be given again")
    parser.add_argument("--column", action="append", choices=COLUMNS, help="may be given again; without, all")
    parser.add_argument("--model", action="append", help="whose recorded runs are replayed; may be given again")
    parser.add_argument("--tasks", type=int, help="only so many of each suite's tasks, the first ones")
    parser.add_argument("--injections", type=int, help="only so many of each suite's injections, the first ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and sessions there")
    parser.add_argument("--baselines", action="store_true", help="hold the same sessions with the baselines")
    parser.add_argument("--ablate", action="store_true", help="hold them again without each rule, to see its worth")
    parser.add_argument(
        "--strange", action="append", choices=LEVELS, help="hold unfamiliar worlds instead; may be given again"
    )
    parser.add_argument("--in-process", action="store_true", help="decide in this process, without a server")
    parser.add_argument("--confirmed", action="store_true", help="the owner's stand-in confirms the catalogue first")
    parser.add_argument("--wrong", type=float, default=0.0, metavar="SHARE", help="of the owner's answers are wrong")
    parser.add_argument("--variant", action="append", choices=ALL, help="of R3; may be given again")
    parser.add_argument("--sweep", action="store_true", help="sample many worlds in process: means over seeds")
    parser.add_argument(
        "--questions", action="store_true", help="count in process, by rule, honest questions and attacks stopped"
    )
    parser.add_argument("--why", action="store_true", help="print the most frequent reasons, with --in-process")
    parser.add_argument("--seed", type=int, default=1, help="of the first unfamiliar world")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="unfamiliar worlds of each kind")
    asked = parser.parse_args(given)
    asked.column = asked.column or (ABLATED if asked.ablate else COLUMNS)
    return asked


def elsewhere(module: str, given: list[str], *, recorded: bool) -> int:
    """The same in the environment of the suites, which is made first if it is not there."""
    subprocess.run(["make", "-s", "-C", ROOT, "recordings" if recorded else "suites"], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    command = [str(SUITES / "bin" / "python"), "-m", module, *given]
    return subprocess.run(command, env=environment, check=False).returncode


def rows(plan: columns.Plan, asked: argparse.Namespace) -> Iterator[columns.Row]:
    """All sessions of a suite, with one product after the other; each server ends before the next starts."""
    if asked.baselines:
        for baseline in (Listed("allow-list"), Listed("oracle tools", plan.needed)):
            yield from of_product(plan, baseline, asked)
    catalogue, policies = catalogue_of(plan.suite, asked), compiled.starter()
    chosen = ["", *(rules.ablated(policies) if asked.ablate else ())]
    if asked.in_process:
        for rule in chosen:
            yield from of_product(plan, InProcess(catalogue, policies, without=rule), asked)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, rule in enumerate(chosen):
            with doorkeeper(catalogue, Path(folder) / f"{number}", without=rule) as product:
                yield from of_product(plan, product, asked)


def of_product(plan: columns.Plan, product: Product, asked: argparse.Namespace) -> Iterator[columns.Row]:
    if "R1" in asked.column:
        yield from plan.honest(product)
    if "R2" in asked.column:
        yield from plan.attacked(product)
        if not asked.ablate:
            yield from plan.attacked(product, column="R2 worst case, tired person", tired=True)
    if "R3" in asked.column:
        known = owner.confirmed(plan.suite)
        for variant in asked.variant or VARIANTS:
            yield from plan.adaptive(product, variant, known)
    if "R4" in asked.column:
        for model in asked.model or RECORDED:
            yield from plan.replayed(product, model)
    if "R5" in asked.column:
        yield from plan.rogue(product)
        for how in product.thefts:
            yield from plan.stolen(product, how)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
