"""Requests of guards to share the memory of a task (`ostiary.provenance.origins`). The server keeps the memory, and
orders the observations.

Before a guard hands out the output of a tool, it sends the new parts, and the version that it has. The answer has the
present version, and the whole memory unless the guard lacks only its own new parts. Every guard that asks after the
acknowledgement therefore gets the observation. Guards hash words, under the key that the answer brings.

The answer (`ostiary.protocol.signed`) is of type `ostiary-memory+jwt`.

The same requests share the history (`ostiary.provenance.history`), for tasks with and without a memory. A guard that
knows too little of the history may allow too much. The guard therefore sends each call ahead, with the state that the
decision used, and the server accepts the call only if that state is current.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.decision.report import Id
from ostiary.protocol.canonical import MAX_INT
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed
from ostiary.protocol.signed import SignedAnswer
from ostiary.provenance.history import MAX_CREATED, MAX_HISTORY, MAX_MET, MAX_RECIPIENTS, Before, Met, Value
from ostiary.provenance.history import unpack as unpack_history
from ostiary.provenance.history.counterparts import unpack as unpack_met
from ostiary.provenance.origins import KEY_BYTES, MAX_BYTES, MAX_PARTS, Memory, Part, check_observed, unpack

MAX_RECALL = 192 << 10

_encode = msgspec.json.Encoder().encode


class HistoryVersion(msgspec.Struct, frozen=True, array_like=True):
    """The version of the history that a guard has (`Before`); zeros for none. `met`: the version of the owner's
    counterparts; -1: none.
    """

    seq: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    day: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    met: Annotated[int, Meta(ge=-1, le=MAX_INT)] = -1


class Next(msgspec.Struct, frozen=True, array_like=True):
    """A call of the tool, with its recipients, that the server accepts if the guard's history is current.

    Other members of the history come from the catalogue. `is_more`: it has more recipients than listed. `met`: the same
    recipients under the key of the owner's counterparts, if the guard has it.
    """

    recipients: Annotated[tuple[Value, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    is_more: bool = False
    met: Annotated[tuple[Value, ...], Meta(max_length=MAX_RECIPIENTS)] = ()


class Recall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    call: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
    """a random number of the guard"""
    token: Id
    """the token's `jti`"""
    seq: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    """the version that the guard has; 0: none"""
    tool: Annotated[str, Meta(max_length=128)] = ""
    """the tool of the guard's resource that returned `parts`"""
    parts: Annotated[tuple[Part, ...], Meta(max_length=MAX_PARTS)] = ()
    past: HistoryVersion | None = None
    """set for a request about the history rather than the origins"""
    next: Next | None = None
    made: Annotated[tuple[Value, ...], Meta(max_length=MAX_CREATED)] = ()
    """the objects that a call of the tool has created"""


class Counterparts(msgspec.Struct, frozen=True, array_like=True):
    """The counterparts of an owner's agents; `body` is absent if the guard has this version."""

    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    body: Annotated[bytes, Meta(max_length=MAX_MET)] | None = None


class Happened(msgspec.Struct, frozen=True, array_like=True):
    """The history up to now, with `next` if it was accepted."""

    task: Annotated[bytes, Meta(max_length=MAX_HISTORY)]
    recent: Annotated[bytes, Meta(max_length=MAX_HISTORY)]
    day: int
    is_accepted: bool = True
    met: Counterparts | None = None
    """the counterparts, if policies read them"""


class Recalled(SignedAnswer, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    TYP, MAX_BYTES = "ostiary-memory+jwt", 192 << 10

    seq: int
    """the version of the memory or the history, with the new parts"""
    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    body: Annotated[bytes, Meta(max_length=MAX_BYTES)] | None = None
    """the whole content; absent if the guard has all but its own new parts"""

    past: Happened | None = None

    def before(self, base: Before | None = None) -> Before:
        """Return the history. `base`: the guard's history at the time of the request. Raises Malformed."""
        if self.past is None:
            raise Malformed("the answer has no history")
        task, recent = map(unpack_history, (self.past.task, self.past.recent))
        met = None if base is None else base.met
        if (counterparts := self.past.met) is not None and counterparts.body is not None:
            met = Met(counterparts.key, unpack_met(counterparts.body))
        return Before(self.key, task, recent, self.seq, self.past.day, met)

    def memory(self) -> Memory | None:
        """Return the memory; None if the answer leaves it out. Raises Malformed."""
        return None if self.body is None else unpack(self.body, key=self.key)


def render_recall(recall: Recall) -> bytes:
    """Encode a request."""
    return _encode(recall)


def parse_recall(body: bytes) -> Recall:
    """Parse a request from a body that is strict JSON (no member twice). Raises Malformed."""
    try:
        recall = json_decoder(Recall)(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None
    check_observed(recall.parts)
    return recall
