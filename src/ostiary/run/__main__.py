"""`python -m ostiary.run PLAN -- COMMAND ...`: a guard in front of one stdio MCP server, as `ostiary run` starts it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from ostiary.protocol.errors import Refused
from ostiary.run.gate import Gate, stored_mode
from ostiary.run.plan import read_plan
from ostiary.run.proxy import CANNOT_RUN, Proxy

USAGE = 2
log = logging.getLogger("ostiary.run")


def main(arguments: list[str]) -> int:
    """Run the proxy process between an agent and one of its MCP servers; return the exit code of the process."""
    logging.basicConfig(stream=sys.stderr, format="ostiary: %(message)s", level=logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.ERROR)
    if len(arguments) < 3 or arguments[1] != "--":
        log.error("usage: python -m ostiary.run PLAN -- COMMAND ...")
        return USAGE
    command = arguments[2:]
    try:
        plan = read_plan(Path(arguments[0]))
    except Refused as refusal:
        log.error("%s (%s)", refusal.message, refusal.hint)
        return USAGE
    try:
        gate = Gate(plan)
    except Refused as refusal:
        log.error("no guard for `%s`: %s", plan.server, refusal.message)
        if stored_mode(Path(plan.mode)) != "watch":
            return USAGE
        log.error("mode `watch`: `%s` runs without a guard, and its calls are not recorded", plan.server)
        os.execvp(command[0], command)
    gate.start()
    try:
        return Proxy(gate, command).run()
    except OSError as error:
        log.error("cannot run %s: %s", command[0], error.strerror)
        return CANNOT_RUN
    finally:
        gate.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
