"""`ostiary whatif`: recorded decisions, asked again of a policy set that does not decide yet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from ostiary import ambient
from ostiary.cli.policy import read_files
from ostiary.cli.replayed import print_report, replayed
from ostiary.cli.session import CHANGES, FAILED, Here
from ostiary.cli.spans import parse_time


def whatif(
    folder: Path,
    /,
    *,
    since: str = "7d",
    until: str | None = None,
    by: Literal["agent", "owner"] | None = None,
    session: Here,
) -> None:
    """Which recorded verdicts a policy set would change.

    Each decision that came to policies is asked again, with what was known then; nothing is changed. Exits with 0 where
    nothing would change, 6 where something would, 5 where nothing would but not all could be replayed.

    Args:
        folder: Where the files of the set are.
        since: How far to look back: a span (90s, 15m, 24h, 7d) or a time.
        until: Up to when, likewise.
        by: Group by agent or by owner too.
    """
    now = ambient.now()
    found = replayed(
        session,
        read_files(folder),
        since=parse_time(since, now=now),
        until=None if until is None else parse_time(until, now=now),
        by=by or "",
    )
    session.show({name: value for name, value in found.items() if name != "ticket"}, print_report)
    if found["changed"]:
        sys.exit(CHANGES)
    if found["unknown"]:
        sys.exit(FAILED)
