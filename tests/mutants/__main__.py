"""Plant one fault at a time in a copy of the tree and demand that a test reddens.

`faults.toml` beside this file is the list: where, which exact text (it must occur once), what stands there instead, the
claim that this breaks, and where to look for the test that proves the claim. A fault that no test notices means that
the claim is only words, so the run fails; it also fails if the text is gone, if the tests are red without a fault, or
if the fault does not even import.

Usage: python -m tests.mutants [--jobs N] [--only WORD ...]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import msgspec

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).with_name("faults.toml")
LIMIT_S = 180
_RED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_INTERRUPTED, _NO_TESTS = 2, 5  # exit codes of pytest


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tests` are arguments of pytest, or one command of the virtual environment (`lint-imports`)."""

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
    options = arguments.parse_args()
    chosen = [fault for fault in faults() if all(word in f"{fault.file} {fault.claim}" for word in options.only)]
    if not chosen:
        print("no fault has these words")
        return 1

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ostiary-mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        if not is_green(trees, chosen):
            return 1
        with ThreadPoolExecutor(options.jobs) as pool:
            bad = sum(not fine for fine in pool.map(lambda fault: report(fault, trees), chosen))
    print(f"\n{len(chosen)} faults: {len(chosen) - bad} noticed, {bad} not, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


def faults() -> tuple[Fault, ...]:
    """The table."""
    return msgspec.convert(tomllib.loads(FAULTS.read_text("utf-8"))["fault"], tuple[Fault, ...])


def copy_tree(tree: Path) -> Path:
    """Everything that git knows or would add, as it is in the working tree now."""
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and not deleted just now
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    return tree


def is_green(trees: SimpleQueue[Path], chosen: list[Fault]) -> bool:
    """Whether the tests pass without any fault, on the copy and not on the working tree."""
    tree = trees.get()
    try:
        seen = _run([sys.executable, "-c", "import ostiary; print(ostiary.__file__)"], tree).stdout
        assert seen.startswith(str(tree)), f"the tests would import {seen}"
        for command in sorted({_command(fault, whole=True) for fault in chosen}):
            run = _run(list(command), tree)
            if run.returncode != 0:
                print(run.stdout, run.stderr, "red without a fault", sep="\n")
                return False
        return True
    finally:
        trees.put(tree)


def report(fault: Fault, trees: SimpleQueue[Path]) -> bool:
    """Try one fault and print its line; whether a test noticed it."""
    tree = trees.get()
    started = time.monotonic()
    try:
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
        run = _run(list(_command(fault)), tree)
    except subprocess.TimeoutExpired:
        return f"hung for {LIMIT_S} s"
    finally:
        target.write_text(sound, "utf-8")
    if run.returncode == 0:
        raise Survived
    if not _is_pytest(fault):
        if "BROKEN" not in run.stdout:
            raise Unfit(f"{fault.tests[0]} could not run: {run.stdout[-300:]}")
        return fault.tests[0]
    if run.returncode in (_INTERRUPTED, _NO_TESTS) or not (red := _RED.search(run.stdout)):
        raise Unfit(f"pytest could not run: {run.stdout[-300:]}")
    return red[1]


def _is_pytest(fault: Fault) -> bool:
    return fault.tests[0].startswith("tests/")


def _command(fault: Fault, *, whole: bool = False) -> tuple[str, ...]:
    if not _is_pytest(fault):
        return (str(Path(sys.executable).parent / fault.tests[0]), *fault.tests[1:])
    options = ["-q", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    return (sys.executable, "-m", "pytest", *options, *([] if whole else ["-x"]), *fault.tests)


def _run(command: list[str], tree: Path) -> subprocess.CompletedProcess[str]:
    """`PYTHONPATH` goes before the editable install, so the copy is what is tested."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
