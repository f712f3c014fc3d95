"""Counterparts: whom the agents of one owner have dealt with, in whatever task: since when, and how often.

Who is not in here is unknown, and who has no room is so too: nobody becomes known by what is forgotten. Values are
hashed as those of a history are, under a key of the owner.
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
"""bytes of them"""
MAX_USES = 1 << 20

Day = Annotated[int, Meta(ge=0, lt=1 << 24)]


class Counterpart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`since` and `last`: days since the epoch."""

    value: Value
    since: Day
    last: Day
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)]


class Counterparts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """In order of their values, each once. `seq`: how often they have changed."""

    known: Annotated[tuple[Counterpart, ...], Meta(max_length=MAX_COUNTERPARTS)] = ()
    seq: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0

    def seen(self, values: Collection[bytes], *, is_more: bool, day: int) -> Record:
        """`context.history.counterparts` of a call to these: how many of them are unknown; where none is, for how many
        days the newest has been known, and how often they dealt with the one with whom they did least. `is_more`: it
        has others too, which nobody knows. A call to nobody is to nobody unknown.
        """
        met = [one for one in self.known if one.value in values]
        unknown = len(values) - len(met) + is_more
        if unknown or not met:
            return {"unknown": unknown, "age_days": 0, "uses": 0}
        age = max(0, day - max(one.since for one in met))
        return {"unknown": 0, "age_days": age, "uses": min(one.uses for one in met)}


NOBODY = Counterparts()


def met(counterparts: Counterparts, values: Collection[bytes], *, day: int) -> Counterparts:
    """Those, once a call to these is let through. Where there is no room goes who was met once, or least lately."""
    if not values:
        return counterparts
    by_value = {one.value: one for one in counterparts.known}
    for value in values:
        old = by_value.get(value)
        by_value[value] = (
            Counterpart(value, day, day, 1)
            if old is None
            else Counterpart(value, old.since, max(day, old.last), min(old.uses + 1, MAX_USES))
        )
    kept = sorted(by_value.values(), key=lambda one: (one.uses > 1, one.last, one.value))[-MAX_COUNTERPARTS:]
    return Counterparts(tuple(sorted(kept, key=lambda one: one.value)), counterparts.seq + 1)


def pack(counterparts: Counterparts) -> bytes:
    return msgspec.msgpack.encode(counterparts)


def unpack(body: bytes) -> Counterparts:
    """Raises Malformed."""
    try:
        return msgpack_decoder(Counterparts)(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"these are no counterparts: {error}") from None
