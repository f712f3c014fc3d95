"""The environments that `make frameworks` made, one for each framework, and how tests run in them.

`test_<name>.py` beside this file runs in `.frameworks/<name>`, started by `test_each.py`; the server that it needs
comes from the main environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LOCKS = ROOT / "requirements" / "frameworks"
FRAMEWORKS = sorted(lock.stem for lock in LOCKS.glob("*.lock"))
INSIDE = os.environ.get("OSTIARY_TEST_FRAMEWORK")
"""The framework whose environment this is; None in the main one."""


def file_of(name: str) -> str:
    """From the root of the tree."""
    return f"tests/frameworks/test_{name.replace('-', '_')}.py"


def framework_of(test: str) -> str | None:
    """The framework in whose environment a test runs, by the name of its file; None for the main one."""
    file = test.partition("::")[0]
    return next((name for name in FRAMEWORKS if file_of(name) == file), None)


def python(name: str) -> str:
    """The interpreter of a framework's environment: beside the environment that this program runs in."""
    return str(Path(sys.prefix).parent / ".frameworks" / name / "bin" / "python")


def environment(name: str, tree: Path = ROOT) -> dict[str, str]:
    """The environment of its tests: the source of this tree, the commands of the main environment, and an own home."""
    home = str(Path(python(name)).parents[1] / "home")
    return os.environ | {
        "OSTIARY_TEST_FRAMEWORK": name,
        "OSTIARY_TEST_COMMAND": str(Path(sys.executable).with_name("ostiary")),
        "PYTHONPATH": str(tree / "src"),
        **dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), home),
        "CREWAI_DISABLE_TELEMETRY": "true",
        "OTEL_SDK_DISABLED": "true",
    }
