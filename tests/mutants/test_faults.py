"""The tables of planted faults fit the program as it is; `make mutants` plants them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.frameworks.environment import framework_of
from tests.mutants.__main__ import ROOT, Fault, faults

BREAKING = "F404,F406,F621,F622,F701,F702,F704,F706,F707,F821,PLE0100,PLE0115,PLE0116,PLE0117,PLE0118,PLE1142,PLE1700"
"""Rules of ruff: undefined names, and errors of a compilation beside the grammar, which ruff always checks."""


def test_the_text_that_a_fault_replaces_occurs_once_in_its_file() -> None:
    assert [f"{fault.claim}: {fault.find!r}" for fault in faults() if not _fits(fault)] == []


def test_a_python_file_with_its_fault_compiles_and_its_names_are_defined(tmp_path: Path) -> None:
    """Such a fault would break the program, not its claim. One run of ruff takes a quarter of the time of a
    compilation of each.
    """
    planted = [fault for fault in faults() if fault.file.endswith(".py")]
    for number, fault in enumerate(planted):
        text = (ROOT / fault.file).read_text("utf-8").replace(fault.find, fault.replace)
        (tmp_path / f"{number}.py").write_text(text, "utf-8")
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--no-cache", "--select", BREAKING]
    options = ["--target-version", "py311", "--output-format", "concise"]
    run = subprocess.run([*ruff, *options, tmp_path], capture_output=True, text=True, check=False)
    problems = re.findall(r"(\d+)\.py:\d+:\d+: (.+)", run.stdout)
    assert [f"{planted[int(number)].claim}: {problem}" for number, problem in problems] == [], run.stderr
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_tests_that_a_fault_names_exist() -> None:
    absent = [f"{fault.claim}: {test}" for fault in faults() for test in fault.tests if not _is_there(test)]
    assert absent == []


def test_every_claim_is_broken_by_one_fault() -> None:
    claims = Counter(fault.claim for fault in faults())
    planted = Counter((fault.file, fault.find, fault.replace) for fault in faults())
    assert [what for what, times in (claims | planted).items() if times > 1] == []


def _fits(fault: Fault) -> bool:
    file = ROOT / fault.file
    return file.is_file() and file.read_text("utf-8").count(fault.find) == 1 and fault.find != fault.replace


def _is_there(test: str) -> bool:
    if not test.startswith("tests/"):
        return True  # a command
    file, _, name = test.removesuffix("[postgres]").partition("::")
    if not (ROOT / file).exists() or "postgres" in file + name:  # such tests run only where a fault names PostgreSQL
        return False
    text = (ROOT / file).read_text("utf-8")
    if framework_of(test) is not None:  # the file of a framework takes over the tests of the contract
        text += (ROOT / "tests/frameworks/contract.py").read_text("utf-8")
    return not name or f"def {name}(" in text
