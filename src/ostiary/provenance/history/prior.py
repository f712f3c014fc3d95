"""The history before a call, as policies see it: earlier calls of the task, and recent calls of the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec.structs import replace

from ostiary.authorization.budget import DAY_US
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.history.calls import list_created
from ostiary.provenance.history.counterparts import Counterparts
from ostiary.provenance.history.kept import EFFECTS, Done, History, is_news


class Met(NamedTuple):
    """The recipients that the agents of an owner have dealt with (counterparts), and the key with which these
    recipients are hashed.
    """

    key: bytes
    counterparts: Counterparts


@dataclass(frozen=True, slots=True)
class PriorHistory:
    """The history before a call: of its task, and of the recent past of its agent. `seq` and `day` identify the
    version of the history.
    """

    key: bytes
    task: History
    recent: History
    seq: int
    day: int
    met: Met | None = None
    """The counterparts of the agents of the owner; None unless a policy reads them. An outdated copy only makes
    recipients unknown, so `seq` and `day` do not cover this field.
    """
    _fixed: list[tuple[Record, frozenset[bytes]]] = field(default_factory=list)
    """cache of the part that is the same for each call: the context, and the recipients of the task; empty
    until first use
    """

    @property
    def is_full(self) -> bool:
        """Return whether the history of the task or the recent history of the agent is full, so that decisions must not
        rely on it.
        """
        return self.task.is_full or self.recent.is_full

    def is_news(self, done: Done, *, now: int) -> bool:
        """Return whether an allowed call would change the task's history or the agent's recent history at `now`
        (microseconds). Always true after a change of the day (UTC).
        """
        return self.day != now // DAY_US or is_news(self.task, done) or is_news(self.recent, in_passing(done))

    def context(self, done: Done, arguments: Mapping[str, Any], met: tuple[bytes, ...] = ()) -> Record:
        """Return `context.history` of a call. `met`: the recipients of the call, hashed with the key of the
        counterparts.
        """
        if not self._fixed:
            recipients = frozenset(self.task.recipients)
            fixed = {
                **history_context(self.task),
                "recipients": len(recipients),
                "recent": history_context(self.recent),
            }
            self._fixed.append((fixed, recipients))
        fixed, recipients = self._fixed[0]
        context: Record = {
            **fixed,
            "new_recipients": len({*done.recipients} - recipients),
            "created": list_created(self.task, self.key, done.tool, arguments),
        }
        if self.met is not None:
            context["counterparts"] = self.met.counterparts.recipient_context(met, is_more=done.is_more, day=self.day)
        return context


def in_passing(done: Done) -> Done:
    """Return the call `done` without its recipients, which is the form in which the recent history of the agent stores
    calls.
    """
    return replace(done, recipients=(), is_more=False) if done.recipients else done


def history_context(history: History) -> Record:
    """Return the facts of a history that policies read, without recipients and created things."""
    return {
        "tools": frozenset(history.tools),
        "effects": frozenset(name for place, name in enumerate(EFFECTS) if history.effects >> place & 1),
        "classes": frozenset(history.classes),
        "read_classes": frozenset(history.read_classes),
        "counts": dict(zip(EFFECTS, history.counts, strict=True)),
        "outside": history.has_seen_outside,
    }
