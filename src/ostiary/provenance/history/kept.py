"""A bounded history of calls. The order in which calls are added does not matter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.authorization.catalogue import Effect
from ostiary.authorization.classes import MAX_CLASSES
from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.errors import Malformed

WIDTH = 8
"""size of a hashed value in bytes"""
MAX_TOOLS = 64
MAX_TOOL_BYTES = 3072
MAX_CLASS_BYTES = 1024
MAX_RECIPIENTS = 128
MAX_CREATED = 64
MAX_HISTORY = 8 << 10
"""maximum size of a stored history in bytes"""
MAX_COUNT = 1 << 40
EFFECTS = tuple(effect.value for effect in Effect)
"""The effects by their place, which histories store: a further effect is the last member of `Effect`."""

Value = Annotated[bytes, Meta(min_length=WIDTH, max_length=WIDTH)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An allowed call, as a history stores it. `is_more`: true if the call has more recipients than `recipients`
    contains.
    """

    tool: Name
    effect: Annotated[int, Meta(ge=0, lt=len(EFFECTS))]
    classes: Annotated[tuple[Name, ...], Meta(max_length=2 * MAX_CLASSES)] = ()
    is_outside: bool = False
    """True if the output of the call may contain content that third parties have written"""
    recipients: Annotated[tuple[Value, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    is_more: bool = False


class History(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of all calls in a history: names of tools, data classes, recipients and created things, each tuple
    sorted, and `counts`, the number of calls by effect; reads are not counted.
    """

    tools: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    read_classes: tuple[str, ...] = ()
    counts: Annotated[tuple[int, ...], Meta(max_length=len(EFFECTS))] = (0,) * len(EFFECTS)
    effects: int = 0
    """effects of the calls as bits: bit N stands for EFFECTS[N]"""
    has_seen_outside: bool = False
    recipients: tuple[bytes, ...] = ()
    created: tuple[bytes, ...] = ()
    is_full: bool = False


NOTHING = History()
_READ = EFFECTS.index(Effect.READ.value)


def after(history: History, done: Done) -> History:
    """Return the history with one more allowed call."""
    counts = [0] * len(EFFECTS)
    counts[done.effect] = int(done.effect != _READ)
    call = History(
        tools=(done.tool,),
        classes=done.classes,
        read_classes=done.classes if done.effect == _READ else (),
        counts=tuple(counts),
        effects=1 << done.effect,
        has_seen_outside=done.is_outside,
        recipients=done.recipients,
        is_full=done.is_more,
    )
    return joined(history, call)


def joined(one: History, other: History) -> History:
    """Return the history that contains the calls of both histories, which share no call."""
    tools, no_tools = _names(one.tools, other.tools, most=MAX_TOOLS, size=MAX_TOOL_BYTES)
    classes, no_classes = _names(one.classes, other.classes, most=MAX_CLASSES, size=MAX_CLASS_BYTES)
    read, no_read = _names(one.read_classes, other.read_classes, most=MAX_CLASSES, size=MAX_CLASS_BYTES)
    recipients = _merged(one.recipients, other.recipients)
    return History(
        tools=tools,
        classes=classes,
        read_classes=read,
        counts=tuple(min(mine + theirs, MAX_COUNT) for mine, theirs in zip(one.counts, other.counts, strict=True)),
        effects=one.effects | other.effects,
        has_seen_outside=one.has_seen_outside or other.has_seen_outside,
        recipients=recipients[:MAX_RECIPIENTS],
        created=_merged(one.created, other.created)[:MAX_CREATED],
        is_full=(one.is_full or other.is_full or no_tools or no_classes or no_read or len(recipients) > MAX_RECIPIENTS),
    )


def created(history: History, values: Iterable[bytes]) -> History:
    """Return the history extended by the hashed names of things that one of its calls created."""
    return joined(history, History(created=tuple(values)))


def _merged(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return all values, sorted, without duplicates, so that a later cut at a limit does not depend on the
    order of calls.
    """
    if not other:
        return one
    return tuple(sorted({*one, *other}))


def _names(one: tuple[str, ...], other: tuple[str, ...], *, most: int, size: int) -> tuple[tuple[str, ...], bool]:
    """Return the names that fit the limits `most` (names) and `size` (bytes), and true if some names do not fit."""
    every = _merged(one, other)
    kept = 0
    for name in every[:most]:
        size -= len(name.encode())
        if size < 0:
            break
        kept += 1
    return every[:kept], kept < len(every)


def is_news(history: History, done: Done) -> bool:
    """Return whether adding the call may change the history. False only if the call certainly changes nothing."""
    return not (
        done.effect == _READ
        and history.effects >> _READ & 1
        and done.tool in history.tools
        and all(name in history.read_classes and name in history.classes for name in done.classes)
        and (history.has_seen_outside or not done.is_outside)
        and (history.is_full or not done.is_more)
        and all(value in history.recipients for value in done.recipients)
    )


def pack_history(history: History) -> bytes:
    """Return the history in its stored form (msgpack)."""
    return msgspec.msgpack.encode(history)


def unpack_history(body: bytes) -> History:
    """Return the history that `pack_history` packed. An effect that did not exist at that time has the count 0. Raises
    Malformed for other bytes.
    """
    try:
        kept = msgpack_decoder(History)(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a stored history: {error}") from None
    missing = len(EFFECTS) - len(kept.counts)
    return replace(kept, counts=kept.counts + (0,) * missing) if missing else kept
