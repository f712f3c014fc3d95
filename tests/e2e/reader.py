"""Begin a call under a volume, then kill itself: `python -m tests.e2e.reader GUARD AGENT SPOOL URI TASK`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from harness.patience import PATIENCE_S
from ostiary.guard import Guard
from tests.e2e.spender import show


def main(guard_key: str, agent_key: str, spool: str, uri: str, task: str) -> None:
    guard = Guard(Path(guard_key), spool_dir=Path(spool), max_age=30, max_skew=10).start(wait=PATIENCE_S)
    with guard.call(show(guard, Path(agent_key), uri, task), "read", {}):
        print("reading", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
