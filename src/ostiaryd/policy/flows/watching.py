"""A watching set: decides beside the enforcing set, is recorded, and changes nothing.

It gets the questions of the enforcing set from the facts kept beside the entry (`ostiaryd.policy.model.replay`). Calls
at guards are therefore decided when they are reported, and cost the guard nothing. A verdict is `unknown` if a policy
reads an argument that was not kept.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ostiary.decision.access import Judgement
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.model import Entry
from ostiaryd.policy import store
from ostiaryd.policy.flows.sets import ready
from ostiaryd.policy.model import Posed, decode_facts, starter
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.registry import flows as registry

MAX_NAMED = 16


class _Watching:
    """A set that watches, with its compiled catalogues."""

    def __init__(self, reader: Reader, hash: str) -> None:
        kept = store.rules(reader, hash)
        rules = starter().ir if kept is None else kept[1]
        self.hash, self._reader = hash, reader
        self._replay = Replay(
            ready(reader, hash).policies,
            rules,
            catalogue=lambda digest: registry.get_catalogue_by_hash(self._reader, digest),
        )

    def judge(self, reader: Reader, posed: Posed, at: int) -> Judgement | None:
        """Return the judgement, or None if it cannot be determined."""
        self._reader = reader
        try:
            return self._replay.judge(posed, at=at)
        except Unreplayable:
            return None


_watching: list[_Watching] = []
"""the last one; every writer of this process asks it in turn"""


def note_candidate(reader: Reader, entry: Entry, *, at: int) -> None:
    """Record in the entry the verdict of the watching set on the question at `at` (microseconds), which is kept beside
    the entry.
    """
    hash = store.watched(reader)
    if hash is None or entry.kept_facts is None:
        return
    if not _watching or _watching[0].hash != hash:
        _watching[:] = [_Watching(reader, hash)]
    judgements = [_watching[0].judge(reader, posed, at) for posed in decode_facts(entry.kept_facts).posed if posed]
    verdict: dict[str, Any] = {"policy": hash, "verdict": _verdict(judgements)}
    if len(judgements) == 1 and judgements[0] is not None:
        only = judgements[0]
        verdict |= {"policies": only.policies[:MAX_NAMED]} | ({"because": only.because} if only.because else {})
    elif len(judgements) > 1:
        verdict["verdicts"] = Counter(map(_word, judgements))
    entry.detail = (entry.detail or {}) | {"candidate": verdict}


def _verdict(judgements: list[Judgement | None]) -> str:
    """Return the verdict of a batch: unknown if any is unknown, unless one is denied."""
    words = set(map(_word, judgements))
    return "deny" if "deny" in words else "unknown" if "unknown" in words else "allow"


def _word(judgement: Judgement | None) -> str:
    return "unknown" if judgement is None else "allow" if judgement.allowed else "deny"
