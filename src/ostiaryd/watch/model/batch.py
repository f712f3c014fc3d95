"""A batch: new events as columns, the input of detectors.

A column is computed on first use. Texts (names of tools, keys, networks) become 64-bit hashes, which are stable across
restarts, so that a detector can store them; 0 means absent. Two texts may have the same hash, so a detector must not
treat an equal hash as a reason for less suspicion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2s

import numpy as np
from numpy.typing import NDArray

from ostiary.authorization.assurance import INSUFFICIENT
from ostiary.provenance.noticing import Event

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]

NOBODY = 0
"""Index of the row that stands for "no agent" in the records of agents."""
MAX_WORDS = 1 << 16
LATE = 60_000_000
"""Delay between an event and its report, in microseconds, from which on the report counts as late."""
_DENIED = frozenset({"deny", "refused"})
_QUESTIONS = frozenset({"approval_needed", INSUFFICIENT, "throttled", "narrowed"})
"""Reason codes of denials that do not count against the agent: the call waits for a person, or a response of the server
has caused the denial.
"""


@lru_cache(MAX_WORDS)
def word(text: str) -> int:
    """Return the 64-bit hash of a text; 0 for an empty text."""
    return int.from_bytes(blake2s(text.encode(), digest_size=8).digest(), "big") if text else 0


def is_excused(code: str) -> bool:
    """Return whether a reason code of a denial does not count against the agent: a person must be asked, the server
    responded to an incident, or something was unavailable.
    """
    return code in _QUESTIONS or code == "feed_stale" or code.endswith("unavailable")


class Batch:
    """The events of a batch (ledger entries in the form for detectors), sorted by agent, and by time for each agent. A
    batch has at least one event.

    `agent` is, for each event, the row of its agent in the records of agents; `peers` is the row of the agent's group
    in the records of groups of peers.
    """

    def __init__(self, events: Sequence[Event], agent: Sequence[int] | Ints, peers: Sequence[int] | Ints) -> None:
        """Sort `events`, which are in time order, by agent. `agent` and `peers` have a row for each event."""
        rows = np.asarray(agent, np.int64)
        order = np.argsort(rows, kind="stable")
        self.events: list[Event] = [events[i] for i in order.tolist()]
        self.agent: Ints = rows[order]
        self.peers: Ints = np.asarray(peers, np.int64)[order]
        self.now = max(event.at for event in events)

    def __len__(self) -> int:
        return len(self.events)

    @cached_property
    def first(self) -> Ints:
        """The index of the first event of each agent, as `np.add.reduceat` needs it. `agent[first]` are the agents."""
        return np.flatnonzero(np.diff(self.agent, prepend=-1))

    @cached_property
    def last(self) -> Ints:
        """The index of the last event of each agent."""
        return np.append(self.first[1:], len(self)) - 1

    @cached_property
    def order(self) -> Ints:
        """The indices of all events in time order."""
        return np.argsort(self.number, kind="stable")

    @cached_property
    def at(self) -> Ints:
        """The time of each event, in microseconds."""
        return np.array([event.at for event in self.events], np.int64)

    @cached_property
    def number(self) -> Ints:
        """The numbers of the entries."""
        return np.array([event.number for event in self.events], np.int64)

    @cached_property
    def bytes(self) -> Ints:
        """The sizes of the answers, in bytes."""
        return np.array([event.bytes for event in self.events], np.int64)

    @cached_property
    def records(self) -> Ints:
        """The numbers of records in the answers."""
        return np.array([event.records for event in self.events], np.int64)

    @cached_property
    def depth(self) -> Ints:
        """The number of agents in the delegation chain of each event."""
        return np.array([len(event.actors) for event in self.events], np.int64)

    @cached_property
    def is_denied(self) -> Flags:
        """True for events that were denied or refused, so that nothing happened."""
        return np.array([event.outcome in _DENIED for event in self.events], np.bool_)

    @cached_property
    def is_refused(self) -> Flags:
        """True for denied or refused events, except those for which no reason counts against the agent
        (`is_excused`).
        """
        return self.is_denied & np.array(
            [not event.reasons or not all(map(is_excused, event.reasons)) for event in self.events], np.bool_
        )

    @cached_property
    def is_call(self) -> Flags:
        """True for calls of a tool.

        An event for a late result is not a call. A call in the agent's own telemetry (`~/tool`) does not count.
        """
        return np.array(
            [event.tool != "" and event.action != "tool.result" and event.tool[0] != "~" for event in self.events],
            np.bool_,
        )

    @cached_property
    def is_used(self) -> Flags:
        """True for calls of a tool, and for results of calls that a guard reported later: the events that can have a
        size.
        """
        return np.array([event.tool[:1] not in ("", "~") for event in self.events], np.bool_)

    @cached_property
    def is_late(self) -> Flags:
        """True for events that a guard reported more than `LATE` after they happened. These events do not count in the
        present window of time.
        """
        return np.array([event.late > LATE for event in self.events], np.bool_)

    @cached_property
    def action(self) -> Words:
        """The hash of the action, for each event."""
        return _words(event.action for event in self.events)

    @cached_property
    def tool(self) -> Words:
        """The hash of the called tool, for each event."""
        return _words(event.tool for event in self.events)

    @cached_property
    def effect(self) -> Words:
        """The hash of the tool's effect, for each event."""
        return _words(event.effect for event in self.events)

    @cached_property
    def classes(self) -> Words:
        """The hash of the tool's data classes of each event: one hash for all classes of a tool together."""
        return _words(" ".join(event.classes) for event in self.events)

    @cached_property
    def shape(self) -> Words:
        """The hash of the names and types of the arguments, for each event."""
        return _words(event.shape for event in self.events)

    @cached_property
    def resource(self) -> Words:
        """The hash of the resource, for each event."""
        return _words(event.resource for event in self.events)

    @cached_property
    def task(self) -> Words:
        """The hash of the task, for each event."""
        return _words(event.task for event in self.events)

    @cached_property
    def owner(self) -> Words:
        """The hash of the agent's owner, for each event."""
        return _words(event.owner for event in self.events)

    @cached_property
    def key(self) -> Words:
        """The hash of the key with which the agent proved its identity, for each event."""
        return _words(event.key for event in self.events)

    @cached_property
    def network(self) -> Words:
        """The hash of the caller's network, for each event."""
        return _words(event.network for event in self.events)

    @cached_property
    def model(self) -> Words:
        """The hash of the agent's model, for each event."""
        return _words(event.model for event in self.events)

    @cached_property
    def reporter(self) -> Words:
        """The hash of the guard that reported each event."""
        return _words(event.reporter for event in self.events)

    @cached_property
    def agent_word(self) -> Words:
        """The hash of the agent's id, for each event. Unlike the row in `agent`, the hash of an agent never changes."""
        return _words(event.agent for event in self.events)

    @cached_property
    def is_canary(self) -> Flags:
        """True for each event that is a call of a decoy, or a read of a canary secret."""
        return np.array([event.canary for event in self.events], np.bool_)


def _words(texts: Iterable[str]) -> Words:
    return np.array([word(text) for text in texts], np.uint64)
