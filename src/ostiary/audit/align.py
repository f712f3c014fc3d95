"""What happened to the entries: those that are there, laid beside the hashes of those that were logged.

Both are streams. Where they part, that step is taken after which most of what follows matches again: one entry altered,
some dropped, or some inserted. An entry that is gone here and turns up there was moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ostiary.audit.report import Finding, Kind
from ostiary.protocol.tiles import WIDTH

LOOKAHEAD = 4 * WIDTH
_SAMPLE = 64


class _Event(NamedTuple):
    """`at` this index `logged` (a leaf hash) is not, and `found` is where it should not be."""

    at: int
    logged: bytes | None
    found: bytes | None


class Alignment:
    """Feed it block by block, then ask for the findings. Memory: LOOKAHEAD hashes, and two per entry in disorder."""

    def __init__(self) -> None:
        self._found: list[bytes] = []  # not yet matched
        self._logged: list[bytes] = []  # not yet matched
        self._index = 0  # of the first of _logged
        self._events: list[_Event] = []

    @property
    def disorder(self) -> int:
        """How many entries were found out of place so far."""
        return len(self._events)

    def feed(self, found: Sequence[bytes], logged: Sequence[bytes]) -> None:
        """The leaf hashes of the next entries that are there, and of those that were logged."""
        if not self._found and not self._logged and found == logged:
            self._index += len(logged)
            return
        self._found += found
        self._logged += logged
        while self._differ() and min(len(self._found), len(self._logged)) >= LOOKAHEAD:
            self._step(*self._best_step())

    def skip(self, count: int) -> None:
        """`count` entries cannot be compared. Logged ones that still wait are gone, found ones may be of these."""
        while self._differ():
            self._step(*self._best_step())
        self._step(0, len(self._logged))
        self._found.clear()
        self._index += count

    def findings(self) -> list[Finding]:
        """The verdict, in the order of the log. Ends the stream."""
        while self._differ():
            self._step(*self._best_step())
        self._step(len(self._found), 0)
        self._step(0, len(self._logged))
        logged = {event.logged for event in self._events}
        stands = {event.found: event for event in reversed(self._events)}
        findings: list[Finding] = []
        for event in self._events:
            moved = stands.get(event.logged) if event.logged else None
            if moved:
                place = f"{'as' if moved.logged else 'before'} {moved.at}"
                findings.append(Finding(Kind.REORDERED, f"the entry was moved: it stands {place}", event.at))
            strange = event.found is not None and event.found not in logged
            if event.logged and not moved:
                kind = Kind.ALTERED if strange else Kind.DROPPED
                _add(findings, Finding(kind, _MESSAGES[kind], event.at), adjacent=1)
            elif strange:
                _add(findings, Finding(Kind.INSERTED, _MESSAGES[Kind.INSERTED], event.at), adjacent=0)
        return findings

    def _differ(self) -> bool:
        """Consume what is equal. True when both streams go on, with different heads."""
        same = 0
        for found, logged in zip(self._found, self._logged, strict=False):
            if found != logged:
                break
            same += 1
        self._consume(same, same)
        return bool(self._found and self._logged)

    def _best_step(self) -> tuple[int, int]:
        """How many of each stream to give up: (1, 1) altered, (0, n) dropped, (n, 0) inserted."""
        steps = [(1, 1)]
        if self._found[0] in self._logged:
            steps.append((0, self._logged.index(self._found[0])))
        if self._logged[0] in self._found:
            steps.append((self._found.index(self._logged[0]), 0))
        return max(steps, key=self._matches_after)

    def _matches_after(self, step: tuple[int, int]) -> int:
        found, logged = self._found[step[0] :][:_SAMPLE], self._logged[step[1] :][:_SAMPLE]
        return sum(a == b for a, b in zip(found, logged, strict=False))

    def _step(self, found: int, logged: int) -> None:
        if found and logged:
            self._events.append(_Event(self._index, self._logged[0], self._found[0]))
        elif found:
            self._events += [_Event(self._index, None, hash_) for hash_ in self._found[:found]]
        else:
            self._events += [_Event(self._index + i, hash_, None) for i, hash_ in enumerate(self._logged[:logged])]
        self._consume(found, logged)

    def _consume(self, found: int, logged: int) -> None:
        del self._found[:found]
        del self._logged[:logged]
        self._index += logged


_MESSAGES = {
    Kind.ALTERED: "the entry is not the one that was logged",
    Kind.DROPPED: "the entry that was logged is gone",
    Kind.INSERTED: "an entry that was never logged stands before this one",
}


def _add(findings: list[Finding], new: Finding, *, adjacent: int) -> None:
    """Append, or let the last finding grow when `new` continues it; `adjacent` is how far a run goes on per entry."""
    last = findings[-1] if findings else None
    if last and last.kind == new.kind and last.index is not None and new.index == last.index + adjacent * last.count:
        new = Finding(last.kind, last.message, last.index, count=last.count + 1)
        findings.pop()
    findings.append(new)
