"""What happened before a call, as policies see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec.structs import replace

from ostiary.authorization.budget import DAY_US
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.history.calls import is_created
from ostiary.provenance.history.counterparts import Counterparts
from ostiary.provenance.history.kept import EFFECTS, Done, History, is_news


class Met(NamedTuple):
    """Whom the agents of an owner have dealt with, and under which key those are hashed."""

    key: bytes
    known: Counterparts


@dataclass(frozen=True, slots=True)
class Before:
    """What happened before a call: in its task, and in the recent past of its agent. `seq` and `day` say which state of
    it that is.
    """

    key: bytes
    task: History
    recent: History
    seq: int
    day: int
    met: Met | None = None
    """where policies look at it; how it lags makes only less known, so it is no part of the state"""
    _told: list[tuple[Record, frozenset[bytes]]] = field(default_factory=list)
    """what is the same for each call: what policies see, and who its recipients were"""

    @property
    def is_full(self) -> bool:
        return self.task.is_full or self.recent.is_full

    def is_news(self, done: Done, *, now: int) -> bool:
        """Return whether that call would make it another one; of another day it is always."""
        return self.day != now // DAY_US or is_news(self.task, done) or is_news(self.recent, in_passing(done))

    def seen(self, done: Done, arguments: Mapping[str, Any], met: tuple[bytes, ...] = ()) -> Record:
        """`context.history` of that call; `met` are its recipients under the key of those who were met."""
        if not self._told:
            known = frozenset(self.task.recipients)
            same = {**told(self.task), "recipients": len(known), "recent": told(self.recent)}
            self._told.append((same, known))
        same, known = self._told[0]
        seen: Record = {
            **same,
            "new_recipients": len({*done.recipients} - known),
            "created": is_created(self.task, self.key, done.tool, arguments),
        }
        if self.met is not None:
            seen["counterparts"] = self.met.known.seen(met, is_more=done.is_more, day=self.day)
        return seen


def in_passing(done: Done) -> Done:
    """What is remembered of a call beyond its task: not to whom."""
    return replace(done, recipients=(), is_more=False) if done.recipients else done


def told(history: History) -> Record:
    """What policies see of it, beside what is about one call."""
    return {
        "tools": frozenset[object](history.tools),
        "effects": frozenset[object](name for place, name in enumerate(EFFECTS) if history.effects >> place & 1),
        "classes": frozenset[object](history.classes),
        "read_classes": frozenset[object](history.read_classes),
        "counts": dict(zip(EFFECTS, history.counts, strict=True)),
        "outside": history.has_seen_outside,
    }
