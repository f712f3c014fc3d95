"""`python -m benchmarks.contain.drafts SUITE ...`: what plans have of what tasks need, and what else they have.

Catalogues are the default reading of what each suite lists; nobody corrects them. A task is whole where its draft has
every effect of the reference path. In the main environment it goes on in the one of the suites.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.contain.__main__ import ROOT, SUITES
from benchmarks.contain.suites import Suite, load
from ostiary.authorization.catalogue import Effect
from ostiary.catalogue_advisor.draft import draft
from ostiary.catalogue_advisor.reading import propose_catalogue

URI = "https://tools.example/mcp"


class Kept(NamedTuple):
    tasks: int
    whole: int
    unneeded: int
    """effects that tasks do not need, all together"""
    left_open: int
    """those of them that drafts have"""


def measure(suite: Suite) -> Kept:
    catalogue = propose_catalogue("suite", {"tools": [tool.listed for tool in suite.tools]}).catalogue
    effects = {tool.name for tool in catalogue.tools.values() if tool.effect is not Effect.READ}
    whole = unneeded = left_open = 0
    for task in suite.tasks:
        needed = {call.tool for call in suite.world(task.id, {}).reference()} & effects
        made = draft(task.purpose, [(URI, catalogue)], scopes=catalogue.scopes)
        had = {line.subject.removeprefix("suite/") for line in made.lines if line.verdict == "planned"}
        whole += needed <= had
        unneeded += len(effects - needed)
        left_open += len(had - needed)
    return Kept(len(suite.tasks), whole, unneeded, left_open)


def main(names: list[str]) -> int:
    if Path(sys.prefix) != SUITES:
        subprocess.run(["make", "-s", "-C", ROOT, "suites"], check=True)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
        command = [str(SUITES / "bin" / "python"), "-m", "benchmarks.contain.drafts", *names]
        return subprocess.run(command, env=environment, check=False).returncode
    for name in names:
        kept = measure(load(name))
        print(f"{name}: {kept.whole} of {kept.tasks} whole, {kept.left_open} of {kept.unneeded} unneeded effects open")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
