"""ARIA snapshots of pages, compared with approved ones in `tests/browser/approved`; `make approve` writes new ones.

An ARIA snapshot has the roles, names and states that assistive technology gets. Ids, digests, times and numbers are
replaced by signs, and repeated items of a list count once, so that a snapshot is the same on every run.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from itertools import groupby
from pathlib import Path

from harness.patience import PATIENCE_S
from tests.support.chromium import Chromium

FOLDER = Path(__file__).parents[1] / "browser/approved"
IS_APPROVING = bool(os.environ.get("OSTIARY_APPROVE"))
_PAUSE_S = 0.2
_SIGNS = (
    (re.compile(r"\b[a-z]{2,5}_[0-9a-f]{8,}[0-9a-f-]*|\b[0-9a-f]{12,}\b"), "ID"),
    (re.compile(r"(?<=ostiary\+)[0-9a-f]+\+[A-Za-z0-9+/=]+"), "KEY"),
    (re.compile(r'"(-[\w-]{11,}={0,2})"'), r"\1"),  # YAML quotes a text that begins with a hyphen
    (re.compile(r"(?<![\w-])(?=[\w-]*[0-9])[\w-]{40,}={0,2}"), "KEY"),
    (re.compile(r"(?<![\w-])(?=[\w-]*[a-z][\w-]*[A-Z])[\w-]{12}(?![\w-])"), "KEY"),  # the version of a policy set
    (
        re.compile(
            r"\b(?:in a moment|just now|(?:in )?\d+ (?:min|hr|day|mo|yr)s?\b\.?(?: ago)?)|(?<![\w-])never(?![\w-])"
        ),
        "TIME",
    ),
    (re.compile(r"\d+(?:[,.]\d+)*"), "#"),
    (re.compile(r"\w*…"), "…"),  # where a label is cut depends on the digits in it
)


def normalize(snapshot: str) -> str:
    """Return a snapshot with signs for what differs between runs, and each repeated item of a list once."""
    for pattern, sign in _SIGNS:
        snapshot = pattern.sub(sign, snapshot)
    return "\n".join(_collapse(snapshot.splitlines(), 0)) + "\n"


def _collapse(lines: list[str], depth: int) -> list[str]:
    """Return the items at a depth, each equal neighbour once, with the same done below them."""
    items: list[list[str]] = []
    for line in lines:
        if items and len(line) - len(line.lstrip()) > depth:
            items[-1].append(line)
        else:
            items.append([line])
    done = [[first, *_collapse(rest, depth + 2)] for first, *rest in items]
    return [line for item, _ in groupby(done) for line in item]


def check_approved(chromium: Chromium, name: str, selector: str = "main") -> None:
    """Wait until an element has the approved snapshot. Raises AssertionError with the difference."""
    path = FOLDER / f"{name}.yml"
    if IS_APPROVING:
        path.write_text(_settled(chromium, selector))
        return
    assert path.exists(), f"{path.name} was never approved: `make approve` writes it; look at it before you commit it"
    approved, until = path.read_text(), time.monotonic() + PATIENCE_S
    while (shown := normalize(chromium.snapshot(selector))) != approved:
        if time.monotonic() > until:
            difference = difflib.unified_diff(
                approved.splitlines(), shown.splitlines(), "approved", "shown", lineterm=""
            )
            raise AssertionError(f"{name} is not as approved (`make approve`):\n" + "\n".join(difference))
        time.sleep(_PAUSE_S)


def _settled(chromium: Chromium, selector: str) -> str:
    """Return the snapshot once it has been the same for a while."""
    last, same = "", 0
    while same < 10:
        shown = normalize(chromium.snapshot(selector))
        last, same = shown, same + 1 if shown == last and "Loading" not in shown else 0
        time.sleep(_PAUSE_S)
    return last
