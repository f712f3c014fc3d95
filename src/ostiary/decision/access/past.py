"""What happened before a call, as policies see it: made where one looks, so that it is known whether one did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ostiary.authorization.cedar.values import Record, Value
from ostiary.decision.access.facts import ReadyTool
from ostiary.decision.access.policies import HISTORY
from ostiary.provenance.history import Before, Done, done_of, recipients_of


class Past(NamedTuple):
    """What happened before a call, and the call itself as it will be remembered; `met`: its recipients as the owner's
    counterparts are, where those are looked at.
    """

    before: Before
    done: Done
    met: tuple[bytes, ...] = ()


def past_of(before: Before, ready: ReadyTool, arguments: Mapping[str, object]) -> Past:
    """For a call of that tool."""
    met = () if before.met is None else recipients_of(before.met.key, ready.plan, arguments)[0]
    return Past(before, done_of(before.key, ready.plan, arguments), met)


class Looking(dict[str, Value]):
    """A context whose `history` is made when a policy looks at it: `looked_at` then is what it saw."""

    __slots__ = ("_arguments", "_others", "_past", "looked_at")

    def __init__(self, context: Record, past: Past, arguments: Mapping[str, object]) -> None:
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
        """Return whether more has happened than its history holds."""
        return self._past.before.is_full
