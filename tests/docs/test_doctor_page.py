"""The checks of docs/how-to/doctor.md are those of the command."""

from __future__ import annotations

import re
from pathlib import Path

from ostiary.cli.doctor import MAX_SKEW_S
from ostiary.guard.spool import DEFAULT_LIMIT
from ostiaryd.certs.flows import trust_domains
from ostiaryd.doctor import ENDS_SOON_S, EXPERIMENTS, MAX_ACTS, MAX_LAG_S, NEWEST
from ostiaryd.feed.flows import missing
from ostiaryd.feed.flows.streams import HALF, MAX_UNREPORTED_S, MAX_WAITING
from ostiaryd.ground.database.folder import SPARE_BYTES
from ostiaryd.ground.rounds import MAX_LATE_S
from ostiaryd.notifications.model.webhooks import STALLED_S, WAITING_LIMIT
from ostiaryd.signals.model.streams import KEPT, SECOND
from ostiaryd.trust.flows import peps
from ostiaryd.watch.flows import threats
from ostiaryd.watch.flows.process import MAX_BEHIND_S

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "doctor.md").read_text("utf-8")
OUTSIDE = ["server", "clock", "credential", "strangers", "stolen token", "replayed proof", "default deny", "egress"]
VISIT = ["record", "guards"]
DAY_S = 86_400
DAY = DAY_S * SECOND


def test_the_page_has_a_row_for_each_line_of_the_doctor_in_order() -> None:
    lines = PAGE.partition("## Queues")[0]
    names = re.findall(r"^\| ([a-zA-Z ]+) \| .+ \|$", lines, re.MULTILINE)
    assert names == ["line", *OUTSIDE, *VISIT, *(name for name, _ in EXPERIMENTS)]


def test_the_constants_of_the_doctor_have_the_documented_values() -> None:
    assert (MAX_SKEW_S, MAX_LAG_S, NEWEST, MAX_BEHIND_S) == (5, 2, 10_000, 5)
    assert (MAX_ACTS, MAX_WAITING, HALF, MAX_UNREPORTED_S) == (1000, 1000, 50, 60)
    assert (STALLED_S, WAITING_LIMIT, KEPT, DEFAULT_LIMIT) == (60, 1000, 7 * 86_400 * SECOND, 256 << 20)
    assert (MAX_LATE_S, SPARE_BYTES, ENDS_SOON_S) == (10, 256 << 20, 14 * DAY_S)
    assert (peps.ENDS_SOON, peps.UNUSED, missing.WITHIN) == (14 * DAY, 7 * DAY, 7 * DAY)
    assert (trust_domains.OLD, threats.OLD) == (DAY, DAY)
