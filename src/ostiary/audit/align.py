"""Alignment of the present entries with the hashes of the logged entries, to name each altered, moved or lost entry.

Both are read as streams. Where the streams differ, there are three explanations: one entry was altered, some entries
were dropped, or some were inserted. The alignment chooses the one after which most of the following entries match
again. An entry that was dropped at one place and inserted at another was moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ostiary.audit.report import Finding, Kind
from ostiary.protocol.tiles import WIDTH

LOOKAHEAD = 4 * WIDTH
_SAMPLE = 64


class _Event(NamedTuple):
    """A difference at the index `at`: the logged leaf hash `logged` is missing there, or the present leaf hash
    `present` was not logged there.
    """

    at: int
    logged: bytes | None
    present: bytes | None


class Alignment:
    """The alignment of two streams of leaf hashes, fed block by block: those of the entries that an export contains
    (present), and those in the tree of the log (logged). The differences are altered, dropped, inserted and moved
    entries. Stores about LOOKAHEAD hashes of each stream, and two hashes for each difference.
    """

    def __init__(self) -> None:
        self._present: list[bytes] = []  # not yet matched
        self._logged: list[bytes] = []  # not yet matched
        self._index = 0  # index of the first hash in _logged
        self._events: list[_Event] = []

    @property
    def disorder(self) -> int:
        """Return the number of differences so far: entries that are altered, missing, inserted or moved."""
        return len(self._events)

    def feed(self, present: Sequence[bytes], logged: Sequence[bytes]) -> None:
        """Add the leaf hashes of the next entries in the export (`present`), and of the next entries in the tree of the
        log (`logged`).
        """
        if not self._present and not self._logged and present == logged:
            self._index += len(logged)
            return
        self._present += present
        self._logged += logged
        while self._differ() and min(len(self._present), len(self._logged)) >= LOOKAHEAD:
            self._step(*self._best_step())

    def skip(self, count: int) -> None:
        """Skip `count` entries that cannot be compared. Logged entries before them that the export does not have count
        as missing.
        """
        while self._differ():
            self._step(*self._best_step())
        self._step(0, len(self._logged))
        self._present.clear()
        self._index += count

    def findings(self) -> list[Finding]:
        """End the stream, and return its findings in the order of the log."""
        while self._differ():
            self._step(*self._best_step())
        self._step(len(self._present), 0)
        self._step(0, len(self._logged))
        logged = {event.logged for event in self._events}
        stands = {event.present: event for event in reversed(self._events)}
        findings: list[Finding] = []
        for event in self._events:
            moved = stands.get(event.logged) if event.logged else None
            if moved:
                place = f"{'' if moved.logged else 'before '}entry {moved.at}"
                findings.append(Finding(Kind.REORDERED, f"the entry was moved: it is now {place}", event.at))
            strange = event.present is not None and event.present not in logged
            if event.logged and not moved:
                kind = Kind.ALTERED if strange else Kind.DROPPED
                _add(findings, Finding(kind, _MESSAGES[kind], event.at), adjacent=1)
            elif strange:
                _add(findings, Finding(Kind.INSERTED, _MESSAGES[Kind.INSERTED], event.at), adjacent=0)
        return findings

    def _differ(self) -> bool:
        """Remove equal hashes from the beginning of both streams. Return whether both streams then have a further
        hash.
        """
        same = 0
        for present, logged in zip(self._present, self._logged, strict=False):
            if present != logged:
                break
            same += 1
        self._consume(same, same)
        return bool(self._present and self._logged)

    def _best_step(self) -> tuple[int, int]:
        """Return the number of hashes to consume of each stream: (1, 1) altered, (0, n) dropped, (n, 0) inserted."""
        steps = [(1, 1)]
        if self._present[0] in self._logged:
            steps.append((0, self._logged.index(self._present[0])))
        if self._logged[0] in self._present:
            steps.append((self._present.index(self._logged[0]), 0))
        return max(steps, key=self._matches_after)

    def _matches_after(self, step: tuple[int, int]) -> int:
        present, logged = self._present[step[0] :][:_SAMPLE], self._logged[step[1] :][:_SAMPLE]
        return sum(a == b for a, b in zip(present, logged, strict=False))

    def _step(self, present: int, logged: int) -> None:
        if present and logged:
            self._events.append(_Event(self._index, self._logged[0], self._present[0]))
        elif present:
            self._events += [_Event(self._index, None, hash_) for hash_ in self._present[:present]]
        else:
            self._events += [_Event(self._index + i, hash_, None) for i, hash_ in enumerate(self._logged[:logged])]
        self._consume(present, logged)

    def _consume(self, present: int, logged: int) -> None:
        del self._present[:present]
        del self._logged[:logged]
        self._index += logged


_MESSAGES = {
    Kind.ALTERED: "the entry was changed: its hash differs from the hash in the tree",
    Kind.DROPPED: "the logged entry is missing",
    Kind.INSERTED: "an entry before this one was never logged",
}


def _add(findings: list[Finding], new: Finding, *, adjacent: int) -> None:
    """Append `new` to `findings`; or extend the last finding if `new` is of the same kind and follows it. `adjacent`:
    distance of the indices of two neighbouring entries of such a run.
    """
    last = findings[-1] if findings else None
    if last and last.kind == new.kind and last.index is not None and new.index == last.index + adjacent * last.count:
        new = Finding(last.kind, last.message, last.index, count=last.count + 1)
        findings.pop()
    findings.append(new)
