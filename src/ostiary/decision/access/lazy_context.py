"""The history of a call in the context of policies: computed only when a policy reads it, which is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ostiary.authorization.cedar.values import Record, Value
from ostiary.decision.access.facts import ReadyTool
from ostiary.decision.access.policies import HISTORY
from ostiary.provenance.history import Before, Done, done_of, recipients_of


class CallHistory(NamedTuple):
    """The history before a call, and the call itself in the form of the history.

    `met`: its recipients in the form of the owner's counterparts, if a policy reads those.
    """

    before: Before
    done: Done
    met: tuple[bytes, ...] = ()


def past_of(before: Before, ready: ReadyTool, arguments: Mapping[str, object]) -> CallHistory:
    """Return the history of a call of that tool."""
    met = () if before.met is None else recipients_of(before.met.key, ready.plan, arguments)[0]
    return CallHistory(before, done_of(before.key, ready.plan, arguments), met)


class LazyContext(dict[str, Value]):
    """A context whose `history` is computed when a policy reads it. `looked_at` then has the parts that the
    policy read.
    """

    __slots__ = ("_arguments", "_others", "_past", "looked_at")

    def __init__(self, context: Record, past: CallHistory, arguments: Mapping[str, object]) -> None:
        super().__init__(context)
        self._others, self._past, self._arguments = context, past, arguments
        self.looked_at: Record | None = None

    def __missing__(self, name: str) -> Value:
        if name != HISTORY:
            raise KeyError(name)
        before, done, met = self._past
        made = self[HISTORY] = self.looked_at = before.context(done, self._arguments, met)
        return made

    def __contains__(self, name: object) -> bool:
        return name in self._others or name == HISTORY

    @property
    def is_full(self) -> bool:
        """Return whether more calls have happened than the history can hold."""
        return self._past.before.is_full
