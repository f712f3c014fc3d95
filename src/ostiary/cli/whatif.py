"""`ostiary whatif`: recorded decisions, replayed with a policy set that is not active."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from ostiary import ambient
from ostiary.cli.exit_codes import CHANGES, FAILED
from ostiary.cli.policy import read_files
from ostiary.cli.session import Here
from ostiary.cli.spans import parse_time
from ostiary.cli.whatif_report import fetch_report, print_report


def whatif(
    folder: Path,
    /,
    *,
    since: str = "7d",
    until: str | None = None,
    by: Literal["agent", "owner"] | None = None,
    session: Here,
) -> None:
    """Show the recorded verdicts that a policy set would change.

    The command changes nothing. It replays each decision that reached the policies, with the facts of its time. Exits
    with 0 if no verdict would change, 6 if a verdict would change, 5 if none would but some decisions could not be
    replayed.

    Args:
        folder: Folder with the files of the set.
        since: Start of the period: a span before now (90s, 15m, 24h, 7d) or a time.
        until: End of the period, in the same form.
        by: Group the changes by agent or by owner too.
    """
    now = ambient.now()
    report = fetch_report(
        session,
        read_files(folder),
        since=parse_time(since, now=now),
        until=None if until is None else parse_time(until, now=now),
        by=by or "",
    )
    session.show({name: value for name, value in report.items() if name != "ticket"}, print_report)
    if report["changed"]:
        sys.exit(CHANGES)
    if report["unknown"]:
        sys.exit(FAILED)
