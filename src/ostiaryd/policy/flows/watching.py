"""The watching set: a policy set whose verdicts are recorded beside those of the active set, and not enforced.

It evaluates the same questions as the active set, from the facts that are stored with the entry
(`ostiaryd.policy.model.replay`). Calls at guards are therefore evaluated when the guards report them, without cost for
the guard. A verdict is `unknown` if a policy reads an argument that was not stored.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ostiary.decision.access import Judgement
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.model import Entry
from ostiaryd.policy import store
from ostiaryd.policy.flows.sets import ready_set
from ostiaryd.policy.model import Posed, decode_facts, starter_files
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.registry import flows as registry

MAX_NAMED = 16


class _Watching:
    """A set that watches, with its compiled catalogues."""

    def __init__(self, reader: Reader, hash: str) -> None:
        kept = store.rules(reader, hash)
        rules = starter_files().ir if kept is None else kept[1]
        self.hash, self._reader = hash, reader
        self._replay = Replay(
            ready_set(reader, hash).policies,
            rules,
            catalogue=lambda digest: registry.get_catalogue_by_hash(self._reader, digest),
        )

    def judge(self, reader: Reader, posed: Posed, at: int) -> Judgement | None:
        """Return the judgement of the watching set (whose verdicts are only recorded) on a question that the active
        policies answered at `at` (microseconds); None if facts that the set needs were not stored.
        """
        self._reader = reader
        try:
            return self._replay.judge(posed, at=at)
        except Unreplayable:
            return None


_watching: list[_Watching] = []
"""the watching set of the latest act, or empty; acts of this process run one at a time"""


def note_candidate(reader: Reader, entry: Entry, *, at: int) -> None:
    """Record in `entry` the verdict of the watching set (whose verdicts are only recorded) on the questions that are
    stored beside the entry; `at`: their time in microseconds. Do nothing without a watching set or without stored
    questions.
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
    """Return the verdict on several questions: `deny` if any is denied, otherwise `unknown` if any is unknown,
    else `allow`.
    """
    words = set(map(_word, judgements))
    return "deny" if "deny" in words else "unknown" if "unknown" in words else "allow"


def _word(judgement: Judgement | None) -> str:
    return "unknown" if judgement is None else "allow" if judgement.allowed else "deny"
