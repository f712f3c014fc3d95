"""Hold a task until input arrives: `python -m tests.e2e.holder CREDENTIAL HEARTBEAT [TASK]`. Prints the task.

Without TASK, start a task that ends with its last holder. HEARTBEAT is in seconds. A line on standard input
ends it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ostiary.agent import Agent


def main(credential: str, heartbeat: str, *task: str) -> None:
    with Agent.from_credential(Path(credential)) as agent:
        held = agent.resume(task[0]) if task else agent.task("to work", heartbeat=int(heartbeat), end_with_last=True)
        with held:
            print(held.id, flush=True)
            sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
