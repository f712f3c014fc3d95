"""The tables of planted faults fit the program as it is; `make mutants` plants them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.frameworks.environment import framework_of
from tests.mutants.__main__ import ROOT, Fault, faults


def test_the_text_that_a_fault_replaces_is_there_once() -> None:
    assert [f"{fault.claim}: {fault.find!r}" for fault in faults() if not _fits(fault)] == []


def test_a_file_with_its_fault_is_still_python() -> None:
    assert [fault.claim for fault in faults() if fault.file.endswith(".py") and not _is_python(fault)] == []


def test_the_names_of_a_replacement_are_defined(tmp_path: Path) -> None:
    """A fault with an undefined name breaks the program, not its claim."""
    renaming = {number: fault for number, fault in enumerate(faults()) if fault.file.endswith(".py") and _names(fault)}
    for number, fault in renaming.items():
        text = (ROOT / fault.file).read_text("utf-8").replace(fault.find, fault.replace)
        (tmp_path / f"{number}.py").write_text(text, "utf-8")
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--no-cache", "--select", "F821"]
    run = subprocess.run([*ruff, "--output-format", "concise", tmp_path], capture_output=True, text=True, check=False)
    undefined = re.findall(r"(\d+)\.py:\d+:\d+: F821 (.+)", run.stdout)
    assert [f"{renaming[int(number)].claim}: {problem}" for number, problem in undefined] == [], run.stderr
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_tests_that_a_fault_names_are_there() -> None:
    absent = [f"{fault.claim}: {test}" for fault in faults() for test in fault.tests if not _is_there(test)]
    assert absent == []


def test_every_claim_is_broken_by_one_fault() -> None:
    claims = Counter(fault.claim for fault in faults())
    planted = Counter((fault.file, fault.find, fault.replace) for fault in faults())
    assert [what for what, times in (claims | planted).items() if times > 1] == []


def _fits(fault: Fault) -> bool:
    file = ROOT / fault.file
    return file.is_file() and file.read_text("utf-8").count(fault.find) == 1 and fault.find != fault.replace


def _names(fault: Fault) -> set[str]:
    """The words of a replacement that the replaced text does not have."""
    new, old = (set(re.findall(r"[A-Za-z_]\w*", text)) for text in (fault.replace, fault.find))
    return new - old


def _is_python(fault: Fault) -> bool:
    text = (ROOT / fault.file).read_text("utf-8")
    try:
        compile(text.replace(fault.find, fault.replace), fault.file, "exec")
    except SyntaxError:
        return False
    return True


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
