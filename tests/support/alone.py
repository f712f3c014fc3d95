"""Second run of a few failed tests: `python -m tests.support.alone STATUS`, after pytest ended with that exit status.

Among thousands of tests that share two processors, one or two may meet a pause of the machine. Each of them runs once
more with nothing beside it, and is named on the last line. More than `MOST` failures, and anything but failures of
tests (pytest's exit status 1), stay what they are. See docs/adr/0109-a-few-failed-tests-run-again.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 3
FAILED = 1
"""The exit status of pytest if tests failed."""


def run_again(status: int, root: Path) -> int:
    """Return the exit status of the suite, after the tests that failed in its first run have run again."""
    record = root / ".pytest_cache/v/cache/lastfailed"
    failed = list(json.loads(record.read_text("utf-8"))) if status == FAILED and record.exists() else []
    if not 1 <= len(failed) <= MOST:
        return status
    print(f"{len(failed)} failed; each runs once more, alone:", *failed, sep="\n  ", flush=True)
    again = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "--last-failed", "--last-failed-no-failures", "none", *failed],
        cwd=root,
        check=False,
    ).returncode
    if again == 0:
        print("passed only when alone, so they state a time or hide a race, mend them:", *failed, sep="\n  ")
    return again


if __name__ == "__main__":
    sys.exit(run_again(int(sys.argv[1]), Path.cwd()))
