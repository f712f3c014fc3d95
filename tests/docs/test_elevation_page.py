"""The policies of docs/how-to/elevation.md load, and decide as the page says."""

from __future__ import annotations

import re
from pathlib import Path

from ostiary.authorization.assurance import ACRS
from ostiaryd.approvals.flows.elevate import MAX_MINUTES, MAX_MINUTES_OF_GLASS
from ostiaryd.notifications.model.webhooks import DELAYS_S, MAX_BODY, REJECTED_TRIES, TRY_S, WAITING_LIMIT
from ostiaryd.policy.model import load
from ostiaryd.tokens.flows.backchannel import INTERVAL_S

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "elevation.md").read_text("utf-8")


def test_the_policies_on_the_page_load() -> None:
    found = re.findall(r"^```cedar\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert [load({"a.cedar": text}).count for text in found] == [2, 2]


def test_the_assurance_levels_and_numbers_on_the_page_are_those_of_the_code() -> None:
    assert all(f"`{acr}`" in PAGE for acr in ACRS)
    assert (MAX_MINUTES, MAX_MINUTES_OF_GLASS) == (8 * 60, 60)
    assert "after 5 and 30 seconds, 2, 10 and 30 minutes, 1, 2, 4 and 8 hours" in PAGE.replace("\n", " ")
    assert list(DELAYS_S) == [5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800]
    assert (TRY_S, REJECTED_TRIES, MAX_BODY, WAITING_LIMIT, INTERVAL_S) == (15, 3, 20_000, 1000, 5)
