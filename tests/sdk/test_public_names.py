"""The public names of `ostiary` are listed by `dir`, and are imported at their first use only."""

from __future__ import annotations

import inspect
import subprocess
import sys

import ostiary
from harness.patience import PATIENCE_S

PROGRAM = """
import sys, ostiary
listed = dir(ostiary)
assert not [name for name in sys.modules if name.startswith("ostiary.")], "listing names imports nothing"
assert ostiary.Guard.__module__.startswith("ostiary.guard")
print(*listed)
"""


def test_dir_lists_the_public_names_without_importing_them() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert run.returncode == 0, run.stderr
    assert sorted(ostiary.__all__) == run.stdout.split()


def test_every_public_name_exists() -> None:
    for name in ostiary.__all__:
        assert getattr(ostiary, name).__name__ == name


def test_the_description_of_a_guard_names_each_parameter() -> None:
    """`now`, `tick` and `random` are for tests."""
    described = ostiary.Guard.__init__.__doc__ or ""
    parameters = inspect.signature(ostiary.Guard).parameters.keys() - {"now", "tick", "random"}
    assert {name for name in parameters if f"`{name}`:" not in described} == set()
