"""Limit on the entries that refusals cause: a few full entries, then one summary for each network and minute.

Unauthenticated callers must not make the ledger grow without bound. In each minute, each of the first
`FULL_OF_NETWORK` refusals of a network gets an entry, up to `FULL_OF_STRANGERS` entries for all networks. The further
refusals of the minute become one summary for each of the first `NETWORKS` networks, and one summary for all other
networks. Unauthenticated callers therefore cause at most `MAX_ENTRIES_A_DAY` entries on each server.

For an authenticated caller, each of the first `FULL_OF_CALLER` refusals in a minute gets an entry. The further refusals
become one summary for the caller and minute.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ostiaryd.ledger.model.entry import CLAIMED, Entry

MINUTE = 60_000_000
"""A minute in microseconds."""
FULL_OF_NETWORK = 10
FULL_OF_STRANGERS = 40
NETWORKS = 16
FULL_OF_CALLER = 600
KINDS = 16
"""Maximum number of pairs (action, reason code) that a summary counts separately; further pairs count as `other`."""
MAX_ENTRIES_A_DAY = (FULL_OF_STRANGERS + NETWORKS + 1) * 24 * 60
MAX_TEXT = 128
"""Maximum number of characters of each text in the entry of an unauthenticated caller's refusal."""
SUMMARY = "refusals.summary"
OTHERS = "other"


@dataclass(slots=True)
class _Tally:
    """The refusals of one network or caller in the present minute. `full` is the number of refusals with an entry;
    `kinds` counts the refusals without an entry, by `ACTION REASON_CODE`.
    """

    full: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def count(self, entry: Entry) -> None:
        code = entry.reasons[0].code if entry.reasons else ""
        kind = f"{entry.action} {code}"
        self.kinds[kind if kind in self.kinds or len(self.kinds) < KINDS else OTHERS] += 1


class RefusalSampler:
    """Decides which refusals get a ledger entry of their own; the others are counted for summaries. Only jobs of the
    database writer, which run one at a time, use a sampler.
    """

    def __init__(self) -> None:
        self._minute = -1
        self._full = 0
        self._networks: dict[str, _Tally] = {}
        self._callers: dict[str, _Tally] = {}

    def is_kept(self, entry: Entry) -> bool:
        """Count the refusal of `entry`; return whether `entry` must be written. The texts of an unauthenticated
        caller's entry are cut. Call `take_summaries` before this method.
        """
        if (caller := entry.agent or entry.person or entry.reporter) is not None:
            tally = self._callers.setdefault(caller, _Tally())
            if tally.full < FULL_OF_CALLER:
                tally.full += 1
                return True
        else:
            network = entry.network or ""
            is_known = network in self._networks or len(self._networks) < NETWORKS
            tally = self._networks.setdefault(network if is_known else OTHERS, _Tally())
            if tally.full < FULL_OF_NETWORK and self._full < FULL_OF_STRANGERS:
                tally.full += 1
                self._full += 1
                _cut(entry)
                return True
        tally.count(entry)
        return False

    def take_summaries(self, now: int, *, at_end: bool = False) -> list[Entry]:
        """Return the summaries of the past minute, and begin a new minute. Within one minute, return nothing, except
        with `at_end`.

        `now`: microseconds since the epoch. If the clock goes back, the present minute continues until its end, so a
        caller never gets the entries of one minute twice.
        """
        minute = now // MINUTE
        if minute <= self._minute and not at_end:
            return []
        since = self._minute * MINUTE
        made = [
            *(_summary(now, since, tally, network=name) for name, tally in self._networks.items() if tally.kinds),
            *(_summary(now, since, tally, caller=name) for name, tally in self._callers.items() if tally.kinds),
        ]
        self._minute, self._full = max(minute, self._minute), 0
        self._networks.clear()
        self._callers.clear()
        return made


def _summary(now: int, since: int, tally: _Tally, *, network: str = "", caller: str | None = None) -> Entry:
    detail = {"since": since, "refused": tally.kinds.total(), "kinds": dict(tally.kinds)}
    return Entry(at=now, action=SUMMARY, outcome="refused", network=network or None, object=caller, detail=detail)


def _cut(entry: Entry) -> None:
    """Cut the texts of an unauthenticated caller to `MAX_TEXT` characters and remove the arguments, so that the entry
    is small.
    """
    for name in CLAIMED:
        if text := getattr(entry, name):
            setattr(entry, name, text[:MAX_TEXT])
    entry.actors, entry.arguments, entry.digest = [], None, None
    entry.remove_facts()
