"""Counterparts: the recipients of the agents of one owner in all tasks, with first use, last use and number of uses.

A recipient without an entry is unknown. If an entry is removed for lack of space, its recipient becomes unknown; lack
of space never makes a recipient known. Values are hashed as in a history, with a key of the owner.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.authorization.cedar.values import Record
from ostiary.protocol.canonical import MAX_INT
from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.errors import Malformed
from ostiary.provenance.history.kept import Value

MAX_COUNTERPARTS = 512
MAX_MET = 16 << 10
"""maximum size of the stored counterparts of an owner, in bytes"""
MAX_USES = 1 << 20

Day = Annotated[int, Meta(ge=0, lt=1 << 24)]


class Counterpart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A recipient that the agents of an owner have dealt with. `since` and `last`: days since 1970-01-01."""

    value: Value
    since: Day
    last: Day
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)]


class Counterparts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The counterparts of one owner (the recipients and payees with whom the agents of the owner have dealt), sorted by
    value, each value once. `seq`: the number of changes.
    """

    entries: Annotated[tuple[Counterpart, ...], Meta(max_length=MAX_COUNTERPARTS)] = ()
    seq: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0

    def recipient_context(self, values: Collection[bytes], *, is_more: bool, day: int) -> Record:
        """Return `context.history.counterparts` of a call to the recipients `values`.

        `unknown`: the number of unknown recipients. If it is 0, `age_days` is the age of the newest entry among the
        recipients, and `uses` the smallest number of uses; otherwise both are 0. `is_more`: true if the call has
        further recipients, which count as one unknown recipient. A call without recipients has no unknown recipients.
        """
        dealt = [one for one in self.entries if one.value in values]
        unknown = len(values) - len(dealt) + is_more
        if unknown or not dealt:
            return {"unknown": unknown, "age_days": 0, "uses": 0}
        age = max(0, day - max(one.since for one in dealt))
        return {"unknown": 0, "age_days": age, "uses": min(one.uses for one in dealt)}


NOBODY = Counterparts()


def record_recipients(counterparts: Counterparts, values: Collection[bytes], *, day: int) -> Counterparts:
    """Return the counterparts after an allowed call to the recipients `values`. If there are more than
    MAX_COUNTERPARTS, remove entries with a single use first, and among these the least recently used ones.
    """
    if not values:
        return counterparts
    by_value = {one.value: one for one in counterparts.entries}
    for value in values:
        old = by_value.get(value)
        by_value[value] = (
            Counterpart(value, day, day, 1)
            if old is None
            else Counterpart(value, old.since, max(day, old.last), min(old.uses + 1, MAX_USES))
        )
    kept = sorted(by_value.values(), key=lambda one: (one.uses > 1, one.last, one.value))[-MAX_COUNTERPARTS:]
    return Counterparts(tuple(sorted(kept, key=lambda one: one.value)), counterparts.seq + 1)


def pack_counterparts(counterparts: Counterparts) -> bytes:
    """Return the counterparts in their stored form (msgpack)."""
    return msgspec.msgpack.encode(counterparts)


def unpack_counterparts(body: bytes) -> Counterparts:
    """Return the counterparts that `pack_counterparts` packed. Raises Malformed for other bytes."""
    try:
        return msgpack_decoder(Counterparts)(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a stored list of counterparts: {error}") from None
