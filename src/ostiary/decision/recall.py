"""Requests of guards to share the memory of a task (`ostiary.provenance.origins`). The server keeps the memory, and
orders the observations.

Before a guard returns the output of a tool to the agent, the guard sends the new parts and the version of its copy. The
answer contains the present version; it also contains the whole memory, unless the guard's copy lacks only the parts
that the guard has just sent. Each guard that asks later therefore gets the new parts. Guards hash words with the key
in the answer.

The answer (`ostiary.protocol.signed`) has the type `ostiary-memory+jwt`.

The same requests share the history (`ostiary.provenance.history`), for tasks with and without a memory. A guard with an
outdated history may allow too much. Before a call runs, the guard therefore sends the call with the version of the
history that the decision used, and the server accepts the call only if this version is current.
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
from ostiary.provenance.history import (
    MAX_CREATED,
    MAX_HISTORY,
    MAX_MET,
    MAX_RECIPIENTS,
    Met,
    PriorHistory,
    Value,
    unpack_history,
)
from ostiary.provenance.history.counterparts import unpack_counterparts
from ostiary.provenance.origins import KEY_BYTES, MAX_BYTES, MAX_PARTS, Memory, Part, check_observed, unpack

MAX_RECALL = 192 << 10

_encode = msgspec.json.Encoder().encode


class HistoryVersion(msgspec.Struct, frozen=True, array_like=True):
    """The version of the guard's copy of the history (see `PriorHistory`); `seq` and `day` are 0 if the guard has no
    copy. `met`: the version of its copy of the owner's counterparts; -1 if there is no copy.
    """

    seq: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    day: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    met: Annotated[int, Meta(ge=-1, le=MAX_INT)] = -1


class Next(msgspec.Struct, frozen=True, array_like=True):
    """A call of the tool, with its hashed recipients. The server adds the call to the history if the guard's copy of
    the history is current.

    The server takes all other facts of the call from the catalogue. `is_more`: true if the call has more recipients
    than `recipients`. `met`: the recipients hashed with the key of the owner's counterparts; empty if the guard does
    not have this key.
    """

    recipients: Annotated[tuple[Value, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    is_more: bool = False
    met: Annotated[tuple[Value, ...], Meta(max_length=MAX_RECIPIENTS)] = ()


class Recall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    call: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
    """random number with which the guard identifies the request"""
    token: Id
    """`jti` of the token of the call"""
    seq: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    """version of the guard's copy of the memory; 0: the guard has no copy"""
    tool: Annotated[str, Meta(max_length=128)] = ""
    """name of the tool, at the guard's own resource, whose output the `parts` in the request are"""
    parts: Annotated[tuple[Part, ...], Meta(max_length=MAX_PARTS)] = ()
    past: HistoryVersion | None = None
    """version of the guard's copy of the history, in a request about the history; None in a request about the memory"""
    next: Next | None = None
    made: Annotated[tuple[Value, ...], Meta(max_length=MAX_CREATED)] = ()
    """hashes of the ids of the objects that a call of the tool has created"""


class Counterparts(msgspec.Struct, frozen=True, array_like=True):
    """The counterparts of an owner: the recipients and payees with whom the agents of the owner have dealt. `body`: the
    packed counterparts; None if the guard's copy has this version.
    """

    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    body: Annotated[bytes, Meta(max_length=MAX_MET)] | None = None


class Happened(msgspec.Struct, frozen=True, array_like=True):
    """The present history, in an answer of the server. It includes the call `next` of the request if the server has
    accepted that call.
    """

    task: Annotated[bytes, Meta(max_length=MAX_HISTORY)]
    recent: Annotated[bytes, Meta(max_length=MAX_HISTORY)]
    day: int
    is_accepted: bool = True
    met: Counterparts | None = None
    """the counterparts; None unless policies read them"""


class Recalled(SignedAnswer, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    TYP, MAX_BYTES = "ostiary-memory+jwt", 192 << 10

    seq: int
    """version of the memory, or of the history, after the server has processed this request"""
    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    body: Annotated[bytes, Meta(max_length=MAX_BYTES)] | None = None
    """the whole packed memory; None if the guard's copy lacks only the parts in the request"""

    past: Happened | None = None

    def read_history(self, base: PriorHistory | None = None) -> PriorHistory:
        """Return the present history. `base`: the guard's copy of the history at the time of the request. Raises
        Malformed for an answer without a history.
        """
        if self.past is None:
            raise Malformed("the answer has no history")
        task, recent = map(unpack_history, (self.past.task, self.past.recent))
        met = None if base is None else base.met
        if (counterparts := self.past.met) is not None and counterparts.body is not None:
            met = Met(counterparts.key, unpack_counterparts(counterparts.body))
        return PriorHistory(self.key, task, recent, self.seq, self.past.day, met)

    def memory(self) -> Memory | None:
        """Return the memory in the answer; None if the answer has none. Raises Malformed for a memory that cannot be
        read.
        """
        return None if self.body is None else unpack(self.body, key=self.key)


def render_recall(recall: Recall) -> bytes:
    """Return the request as JSON."""
    return _encode(recall)


def parse_recall(body: bytes) -> Recall:
    """Return the request in a JSON body. Raises Malformed for any other body."""
    try:
        recall = json_decoder(Recall)(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"the body is not a request about the memory or the history of a task: {error}") from None
    check_observed(recall.parts)
    return recall
