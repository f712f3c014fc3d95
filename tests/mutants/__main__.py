"""Plant one fault at a time in a copy of the tree and demand that a test reddens.

`faults/` has the tables: where, which exact text (it must occur once), what stands there instead, the claim that this
breaks, and the quickest test that proves the claim. A fault that no test notices means that the claim is only words, so
the run fails; it also fails if the text is gone, if a test is red without a fault, or if the fault breaks the program
rather than the claim. Tests that run on both databases run on SQLite alone here, unless
the table names the test with `[postgres]`; those of a framework run in
its environment, which `make frameworks` makes.

Usage: python -m tests.mutants [--jobs N] [--only WORD ...] [--part K/N]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import msgspec
import pytest

from tests.frameworks.environment import FRAMEWORKS, environment, framework_of, python

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).with_name("faults")
CONSOLE = "src/ostiaryd/console/dist"
LIMIT_S = 120
PATIENCE_S = 60
"""Time that a test waits for a state that the fault may prevent, in seconds. Less than `LIMIT_S`, so that the test
fails in time.
"""
GRACE_S = 30
"""Time that pytest may take to end after `LIMIT_S`, in seconds, before it is killed."""
_RED = re.compile(r"^FAILED (.+?)(?: - (.*))?$", re.MULTILINE)
_RED_OR_BROKEN = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.MULTILINE)
_BROKEN = ("NameError", "UnboundLocalError", "ImportError", "SyntaxError")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tests` are arguments of pytest, best one test, or one command of the environment (`lint-imports`)."""

    file: str
    find: str
    replace: str
    claim: str
    tests: tuple[str, ...]


class Unfit(Exception):
    """The fault is not one that a test could notice; the table must be put right."""


class Survived(Exception):
    """No test noticed."""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--only", nargs="*", default=[], help="words of the file or the claim")
    arguments.add_argument("--part", default="1/1", help="K/N: every N-th fault, from the K-th on, of several runs")
    options = arguments.parse_args()
    part, parts = map(int, options.part.split("/"))
    chosen = [fault for fault in faults() if all(word in f"{fault.file} {fault.claim}" for word in options.only)]
    chosen = chosen[part - 1 :: parts]
    if not chosen:
        print("no fault has these words")
        return 1

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ostiary-mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        red = red_tests(trees, chosen, options.jobs)
        with ThreadPoolExecutor(options.jobs) as pool:
            bad = sum(not fine for fine in pool.map(lambda fault: report(fault, trees, red), chosen))
    print(f"\n{len(chosen)} faults: {len(chosen) - bad} noticed, {bad} not, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


def faults() -> tuple[Fault, ...]:
    """All tables."""
    tables = [tomllib.loads(table.read_text("utf-8")) for table in sorted(FAULTS.glob("*.toml"))]
    return msgspec.convert([fault for table in tables for fault in table["fault"]], tuple[Fault, ...])


def copy_tree(tree: Path) -> Path:
    """Everything that git knows or would add, as it is in the working tree now, and the built console."""
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and not deleted just now
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    if (ROOT / CONSOLE).is_dir():  # git ignores it
        shutil.copytree(ROOT / CONSOLE, tree / CONSOLE)
    _run(["git", "init", "--quiet"], tree)  # tests of the architecture ask git which files there are
    # Tests then start faster. Python compares the hash of a source file, so bytecode hides no fault.
    _run([sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "."], tree, limit_s=None)
    seen = _run([sys.executable, "-c", "import ostiary; print(ostiary.__file__)"], tree).stdout
    assert seen.startswith(str(tree)), f"the tests would import {seen}"
    return tree


def red_tests(trees: SimpleQueue[Path], chosen: list[Fault], jobs: int) -> set[str]:
    """The tests that fail without any fault, on the copies and not on the working tree, without their parameters."""
    modules: dict[str, set[str]] = {}
    for test in {test for fault in chosen if _is_pytest(fault) for test in fault.tests}:
        modules.setdefault(test.partition("::")[0], set()).add(test)
    commands = {fault.tests for fault in chosen if not _is_pytest(fault)}
    with ThreadPoolExecutor(jobs) as pool:
        each = [*(tuple(sorted(tests)) for tests in modules.values()), *commands]
        return set[str]().union(*pool.map(lambda tests: _red_of(tests, trees), each))


def _red_of(tests: tuple[str, ...], trees: SimpleQueue[Path]) -> set[str]:
    tree = trees.get()
    try:
        run = _run(_command(tests), tree, limit_s=None)
    finally:
        trees.put(tree)
    if run.returncode == 0:
        return set()
    print(run.stdout, run.stderr, sep="\n")
    failed = _RED_OR_BROKEN.findall(run.stdout) if run.returncode == pytest.ExitCode.TESTS_FAILED else []
    return set(failed or tests)


def report(fault: Fault, trees: SimpleQueue[Path], red: set[str]) -> bool:
    """Try one fault and print its line; whether a test noticed it that is not among the `red` ones anyway."""
    tree = trees.get()
    started = time.monotonic()
    try:
        if any(part in fault.tests for test in red for part in (test, test.partition("::")[0])):
            raise Unfit("a test is red without a fault")
        verdict, fine = plant(fault, tree), True
    except Survived:
        verdict, fine = f"SURVIVED {' '.join(fault.tests)}", False
    except Unfit as error:
        verdict, fine = f"UNFIT {error}", False
    finally:
        trees.put(tree)
    print(
        f"{'ok ' if fine else 'BAD'} {fault.claim}\n      {fault.file}  {verdict}  {time.monotonic() - started:.1f} s"
    )
    return fine


def plant(fault: Fault, tree: Path) -> str:
    """Put the fault into the tree, run its tests, take it out again; the test that reddened."""
    target = tree / fault.file
    if not target.is_file():
        raise Unfit("there is no such file")
    sound = target.read_text("utf-8")
    if (count := sound.count(fault.find)) != 1:
        raise Unfit(f"the text occurs {count} times")
    target.write_text(sound.replace(fault.find, fault.replace), "utf-8")
    try:
        run = _run(_command(fault.tests, "-x"), tree)
    except subprocess.TimeoutExpired:
        raise Unfit(f"it hung for {LIMIT_S} s") from None
    finally:
        target.write_text(sound, "utf-8")
    if run.returncode == 0:
        if _is_pytest(fault) and " passed" not in run.stdout:
            raise Unfit(f"every test was skipped: {run.stdout[-300:]}")
        raise Survived
    if not _is_pytest(fault):
        if "BROKEN" not in run.stdout:
            raise Unfit(f"{fault.tests[0]} could not run: {run.stdout[-300:]}")
        return fault.tests[0]
    if (red := _RED.search(run.stdout)) is None:
        raise Unfit(f"pytest ended with {run.returncode}: {run.stdout[-300:]}")
    if (red[2] or "").startswith(_BROKEN):
        raise Unfit(f"it breaks more than its claim: {red[0]}")
    return red[1]


def _is_pytest(fault: Fault) -> bool:
    return fault.tests[0].startswith("tests/")


def _command(tests: tuple[str, ...], *options: str) -> list[str]:
    if not tests[0].startswith("tests/"):
        return [str(Path(sys.executable).parent / tests[0]), *tests[1:]]
    framework = framework_of(tests[0])
    options = (*options, "-o", "filterwarnings=") if framework else options
    quiet = ["-q", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    quiet += [] if any(test.endswith("[postgres]") for test in tests) else ["-k", "not postgres"]
    return [python(framework) if framework else sys.executable, "-m", "pytest", *quiet, *options, *tests]


def _run(command: list[str], tree: Path, *, limit_s: float | None = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """`PYTHONPATH` goes before the editable install, so the copy is what is tested."""
    framework = next((name for name in FRAMEWORKS if python(name) == command[0]), None)
    variables = environment(framework, tree) if framework else os.environ | {"PYTHONPATH": str(tree / "src")}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1", "PATIENCE_S": str(PATIENCE_S)}
    with subprocess.Popen(
        command, cwd=tree, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest then ends the servers that its tests have started
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=GRACE_S)
            raise
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


if __name__ == "__main__":
    sys.exit(main())
