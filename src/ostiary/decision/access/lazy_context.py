"""The history of a call in the context of policies. The history is computed only when a policy first reads it, and the
decision records that it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ostiary.authorization.cedar.values import Record, Value
from ostiary.decision.access.facts import ReadyTool
from ostiary.decision.access.policies import HISTORY
from ostiary.provenance.history import Done, PriorHistory, done_of, recipients_of


class CallHistory(NamedTuple):
    """The history before a call (`prior`), and the call itself in the form in which a history stores it (`done`).

    `met`: the recipients of the call, hashed with the key of the owner's counterparts; empty unless a policy reads
    counterparts.
    """

    prior: PriorHistory
    done: Done
    met: tuple[bytes, ...] = ()


def past_of(prior: PriorHistory, ready: ReadyTool, arguments: Mapping[str, object]) -> CallHistory:
    """Return the history for a call of the tool `ready` with these arguments."""
    met = () if prior.met is None else recipients_of(prior.met.key, ready.plan, arguments)[0]
    return CallHistory(prior, done_of(prior.key, ready.plan, arguments), met)


class LazyContext(dict[str, Value]):
    """A context whose member `history` is computed when a policy first reads it. `looked_at`: the computed history;
    None if no policy has read the history.
    """

    __slots__ = ("_arguments", "_others", "_past", "looked_at")

    def __init__(self, context: Record, past: CallHistory, arguments: Mapping[str, object]) -> None:
        super().__init__(context)
        self._others, self._past, self._arguments = context, past, arguments
        self.looked_at: Record | None = None

    def __missing__(self, name: str) -> Value:
        if name != HISTORY:
            raise KeyError(name)
        prior, done, met = self._past
        made = self[HISTORY] = self.looked_at = prior.context(done, self._arguments, met)
        return made

    def __contains__(self, name: object) -> bool:
        return name in self._others or name == HISTORY

    @property
    def is_full(self) -> bool:
        """Return whether the history is full: there were more calls than it can store."""
        return self._past.prior.is_full
