"""Every number and every event on docs/how-to/signals.md is the one of the code."""

from __future__ import annotations

import re
from pathlib import Path

from ostiaryd.ground.http import buckets
from ostiaryd.ground.outbound.jwks import FRESH, SOON
from ostiaryd.notifications.model import webhooks
from ostiaryd.signals.flows import delivery, reception
from ostiaryd.signals.model import issuers, sets, signals, streams
from ostiaryd.signals.model.issuers import EVENTS, Effect
from ostiaryd.signals.wire_signals import COST, SETS, IssuerBuckets
from ostiaryd.signals.wire_ssf_poll import WAIT_S

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to/signals.md").read_text("utf-8").replace("\n", " ")
CONFORMANCE = (DOCS / "reference/conformance.md").read_text("utf-8")
SECOND = 1_000_000


def test_every_supported_event_and_effect_is_on_the_page() -> None:
    assert all(f"`{uri.rpartition('/')[2]}`" in PAGE for uri in (*EVENTS, *streams.SUPPORTED))
    assert all(f"*{one.value}*" in PAGE for one in Effect)


def test_the_conformance_page_lists_the_events_that_are_sent_and_received() -> None:
    [(sent, processed)] = re.findall(r"^\| CAEP 1.0 \| sent: ([^;]+); processed: ([^|]+) \|", CONFORMANCE, re.M)
    [of_risc] = re.findall(r"^\| RISC 1.0 \| processed: ([^|]+) \|", CONFORMANCE, re.M)
    if processed.startswith("these, "):
        processed += sent
    assert _events(sets.CAEP, sent) == set(streams.SUPPORTED)
    assert _events(sets.CAEP, processed) | _events(sets.RISC, of_risc) == set(EVENTS)


def _events(family: str, cell: str) -> set[str]:
    """Return the URIs of the events that a cell of the page names."""
    return {family + name for name in re.findall(r"`([a-z-]+)`", cell)}


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    minute, day = 60 * SECOND, 86_400 * SECOND
    points = sorted({points for _, cases in issuers._IF.values() for what, points in cases.values() if points})
    sentences = [
        f"`HIGH` ({points[-1]} points) or `MEDIUM` ({points[0]})",
        f"passes {signals.MEDIUM_FROM} (`MEDIUM`) or {signals.HIGH_FROM} (`HIGH`) points",
        f"more than {reception.MAX_AGENTS} agents",
        f"at most {streams.MOST_AT_ONCE} tokens at once",
        f"for up to {WAIT_S:.0f} seconds",
        f"at most {sets.MAX_SET_BYTES >> 10} KB",
        f"at most {sets.AHEAD // minute} minutes ahead and less than {sets.OLDEST // day} days ago",
        f"{SETS:,} events at once and {IssuerBuckets.per_second // COST} a second",
        f"at most {len(webhooks.DELAYS_S) + 1} times in {sum(webhooks.DELAYS_S) * 21 // 20 // 3600} hours",
        f"({webhooks.REJECTED_TRIES} times after `invalid_request`)",
        f"longer than {delivery.PUSH_S + 5} seconds",
    ]
    assert [text for text in sentences if text not in PAGE] == []
    assert 60 * minute == FRESH, "each hour"
    assert minute == SOON, "once a minute"
    assert 7 * day == streams.KEPT, "a week"
    assert (COST, buckets.FLOODING, buckets.QUIET_S) == (5, 100, 300), "a fifth, a hundred times, five minutes"
    assert points == [30, 60]
