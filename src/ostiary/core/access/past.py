"""What happened before a call, as policies see it: made where one looks, so that it is known whether one did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ostiary.core.access.facts import ReadyTool
from ostiary.core.access.policies import HISTORY
from ostiary.core.cedar.values import Record, Value
from ostiary.core.history import Before, Done, done_of, recipients_of


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
    """A context whose `history` is made when a policy looks at it."""

    __slots__ = ("_arguments", "_past")

    def __init__(self, context: Record, past: Past, arguments: Mapping[str, object]) -> None:
        super().__init__(context)
        self._past, self._arguments = past, arguments

    def __missing__(self, name: str) -> Value:
        if name != HISTORY:
            raise KeyError(name)
        made = self[name] = self._past.before.seen(self._past.done, self._arguments, self._past.met)
        return made

    def __contains__(self, name: object) -> bool:
        return name == HISTORY or super().__contains__(name)

    @property
    def looked_at(self) -> Record | None:
        found = super().get(HISTORY)
        return found if isinstance(found, dict) else None

    @property
    def is_full(self) -> bool:
        """Whether it was looked at, and more has happened than it holds."""
        return super().__contains__(HISTORY) and self._past.before.is_full
