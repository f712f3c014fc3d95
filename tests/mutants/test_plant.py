"""The verdict on a planted fault: noticed, survived or unfit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from queue import SimpleQueue

import pytest

from harness.patience import eventually
from tests.mutants.__main__ import Fault, Survived, Unfit, _command, _run, plant, red_tests, report

PROGRAM = """
def double(n: int) -> int:
    return n + n
"""
TEST = """
from program import double


def test_twice_two_is_four() -> None:
    assert double(2) == 4
"""
SKIPPED_TEST = """
import pytest


@pytest.mark.skip(reason="needs a part that is not installed")
def test_twice_three_is_six() -> None:
    assert False
"""
RED_TESTS = """

def test_twice_two_is_five() -> None:
    assert double(2) == 5


def test_twice_two(missing) -> None:
    assert double(2) == 4
"""
HANGING_TEST = """
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def server():
    process = subprocess.Popen(["sleep", "1000"])
    Path("pid").write_text(str(process.pid))
    yield process
    process.kill()
    process.wait()


def test_it_ends(server):
    server.wait()
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in (("src/program.py", PROGRAM), ("tests/test_program.py", TEST)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


def fault(find: str, replace: str, file: str = "src/program.py") -> Fault:
    return Fault(file, find, replace, "Twice two is four", ("tests/test_program.py::test_twice_two_is_four",))


def test_the_test_that_detects_a_fault_is_named_and_the_fault_is_removed(tree: Path) -> None:
    assert plant(fault("n + n", "n + 1"), tree) == "tests/test_program.py::test_twice_two_is_four"
    assert (tree / "src/program.py").read_text() == PROGRAM


def test_a_fault_that_no_test_notices_survives(tree: Path) -> None:
    with pytest.raises(Survived):
        plant(fault("n + n", "n * n"), tree)


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (fault("m + m", "n"), "the text occurs 0 times"),
        (fault("n", "m"), "the text occurs 6 times"),
        (fault("n + n", "n", file="src/other.py"), "there is no such file"),
        (fault("n + n", "n + m"), "it breaks more than its claim: .*NameError"),
        (fault("def double", "def treble"), "pytest ended with 4"),
    ],
)
def test_a_fault_that_cannot_be_planted_or_breaks_more_than_its_claim_is_unfit(
    tree: Path, unfit: Fault, why: str
) -> None:
    with pytest.raises(Unfit, match=why):
        plant(unfit, tree)
    assert (tree / "src/program.py").read_text() == PROGRAM


def test_a_fault_is_unfit_if_its_tests_are_skipped(tree: Path) -> None:
    (tree / "tests/test_skipped.py").write_text(SKIPPED_TEST)
    skipped = ("tests/test_skipped.py::test_twice_three_is_six",)
    with pytest.raises(Unfit, match="every test was skipped"):
        plant(Fault("src/program.py", "n + n", "n + 1", "Twice three is six", skipped), tree)


def test_a_test_that_fails_without_a_fault_makes_its_fault_unfit(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "src/ostiary").mkdir()
    (tree / "src/ostiary/__init__.py").touch()
    (tree / "tests/test_program.py").write_text(TEST + RED_TESTS)
    sound, *broken = (
        Fault("src/program.py", "n + n", "n + 1", name, (f"tests/test_program.py::test_{name}",))
        for name in ("twice_two_is_four", "twice_two_is_five", "twice_two")
    )
    trees = SimpleQueue[Path]()
    trees.put(tree)
    red = red_tests(trees, [sound, *broken], jobs=1)
    assert red == {test for fault in broken for test in fault.tests}
    assert [report(fault, trees, red) for fault in (sound, *broken)] == [True, False, False]
    assert capsys.readouterr().out.count("UNFIT a test is red without a fault") == 2


def test_the_processes_of_a_hanging_test_are_killed(tree: Path) -> None:
    (tree / "tests/test_hanging.py").write_text(HANGING_TEST)
    for limit_s in (3, 30, 300):  # a slow machine may need longer until the test begins
        with pytest.raises(subprocess.TimeoutExpired):
            _run(_command(("tests/test_hanging.py",)), tree, limit_s=limit_s)
        if (tree / "pid").exists():
            break
    pid = int((tree / "pid").read_text())

    def has_ended() -> bool:
        """Return whether the process has ended; a killed process is there until its parent has read its status."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    eventually(has_ended)
