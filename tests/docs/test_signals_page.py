"""Every number and every event on docs/how-to/signals.md is the one of the code."""

from __future__ import annotations

from pathlib import Path

from ostiaryd.ground.http import buckets
from ostiaryd.notifications.model import webhooks
from ostiaryd.signals.flows import delivery, hearing
from ostiaryd.signals.model import issuers, sets, signals, streams
from ostiaryd.signals.model.issuers import EVENTS, Effect
from ostiaryd.signals.wire_signals import COST, FRESH, SETS, SOON, Said
from ostiaryd.signals.wire_ssf_poll import WAIT_S

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "signals.md").read_text("utf-8").replace("\n", " ")
SECOND = 1_000_000


def test_every_event_that_does_something_or_is_told_is_on_the_page() -> None:
    assert all(f"`{uri.rpartition('/')[2]}`" in PAGE for uri in (*EVENTS, *streams.SUPPORTED))
    assert all(f"*{one.value}*" in PAGE for one in Effect)


def test_every_number_on_the_page_is_the_one_of_the_code() -> None:
    assert (signals.MEDIUM_FROM, signals.HIGH_FROM, hearing.MANY, streams.MOST_AT_ONCE, WAIT_S) == (
        30,
        70,
        500,
        100,
        25,
    )
    assert (sets.MAX_SET_BYTES, sets.AHEAD, sets.OLDEST) == (16 << 10, 300 * SECOND, 7 * 86_400 * SECOND)
    assert (FRESH, SOON, streams.KEPT) == (3600 * SECOND, 60 * SECOND, 7 * 86_400 * SECOND)
    assert (SETS, Said.per_second // COST, COST) == (2000, 20, 5), "a fifth more for each agent"
    assert (buckets.FLOODING, buckets.QUIET_S) == (100, 300)
    assert (len(webhooks.DELAYS_S) + 1, webhooks.REJECTED_TRIES, webhooks.STALLED_S) == (10, 3, 60)
    assert sum(webhooks.DELAYS_S) // 3600 == 15, "and a tenth more"
    assert delivery.PUSH_S + 5 == 20
    doubts = {points for _, cases in issuers._IF.values() for what, points in cases.values() if what is Effect.DOUBT}
    assert doubts == {30, 60}
