"""What happened before: in a task with all tasks of its tree, and in an agent's recent past. Facts for policies.

    history = after(history, done_of(key, plan_of("mail/send", tool, classes), arguments))    a call that is let through
    Before(key, history, recent, ..).seen(done, arguments)                                    what policies see of it

A history is kept call by call, and is the same in whatever order the calls are told. It is bounded: one that is full
says so, and then nobody relies on it, for neither what is in it nor what is not would be sure. What a task created is
different: what has no room there was not created.

Values (recipients, identifiers of what was created) are eight bytes of BLAKE2s under the key of the task's memory.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2s
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.core.budget import DAY_US
from ostiary.core.catalogue import Effect, Kind, Tool
from ostiary.core.cedar.values import Record
from ostiary.core.classes import MAX_CLASSES
from ostiary.core.errors import Malformed

WIDTH = 8
"""bytes of a value"""
MAX_TOOLS = 64
MAX_TOOL_BYTES = 3072
MAX_CLASS_BYTES = 1024
MAX_RECIPIENTS = 128
MAX_CREATED = 64
MAX_HISTORY = 8 << 10
"""bytes of a history"""
MAX_COUNT = 1 << 40
MAX_DEPTH = 16
EFFECTS = tuple(effect.value for effect in Effect)
_OUTGOING = frozenset({Effect.SEND, Effect.SHARE, Effect.PAY})
_RECIPIENTS = frozenset({Kind.PRINCIPAL, Kind.ACCOUNT, Kind.ADDRESS})
"""kinds of arguments that say to whom"""
_BETWEEN = re.compile(r"[,;\n]")

Value = Annotated[bytes, Meta(min_length=WIDTH, max_length=WIDTH)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A call that is let through. `is_more`: it has more recipients than are told."""

    tool: Name
    effect: Annotated[int, Meta(ge=0, lt=len(EFFECTS))]
    classes: Annotated[tuple[Name, ...], Meta(max_length=2 * MAX_CLASSES)] = ()
    is_outside: bool = False
    """whether anybody may have written what it returns"""
    recipients: Annotated[tuple[Value, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    is_more: bool = False


class History(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All in order. `counts` are of calls by effect, those that only read left out."""

    tools: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    read_classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = (0,) * len(EFFECTS)
    effects: int = 0
    """bits, as EFFECTS has them"""
    has_seen_outside: bool = False
    recipients: tuple[bytes, ...] = ()
    created: tuple[bytes, ...] = ()
    is_full: bool = False


NOTHING = History()
_decode = msgspec.json.Decoder().decode
_READ = EFFECTS.index(Effect.READ.value)


def after(history: History, done: Done) -> History:
    """The history with that call in it."""
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
    """Both together: of calls that are in one of them alone."""
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
    """The history with what a call of it has created."""
    return joined(history, History(created=tuple(values)))


def _merged(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """In order, each once. What is cut off behind is cut off in whatever order things come."""
    if not other:
        return one
    return tuple(sorted({*one, *other}))


def _names(one: tuple[str, ...], other: tuple[str, ...], *, most: int, size: int) -> tuple[tuple[str, ...], bool]:
    """The names that have room, and whether some have none."""
    every = _merged(one, other)
    kept = 0
    for name in every[:most]:
        size -= len(name.encode())
        if size < 0:
            break
        kept += 1
    return every[:kept], kept < len(every)


def is_news(history: History, done: Done) -> bool:
    """Whether the history could be another one with that call in it: of one that is not full, whether it would be."""
    return not (
        done.effect == _READ
        and history.effects >> _READ & 1
        and done.tool in history.tools
        and all(name in history.read_classes and name in history.classes for name in done.classes)
        and (history.has_seen_outside or not done.is_outside)
    )


# ----------------------------------------------------------------------------------------------- from calls and outputs


class Plan(NamedTuple):
    """How calls of a tool are remembered: a call without its recipients, and which arguments say to whom it goes."""

    call: Done
    paths: tuple[str, ...]


def plan_of(uid: str, tool: Tool, classes: Iterable[str]) -> Plan:
    """Of that tool (`mail/send`), which handles these data classes."""
    call = Done(uid, EFFECTS.index(tool.effect.value), tuple(sorted(classes)), tool.is_outside)
    outgoing = tool.effect in _OUTGOING
    return Plan(call, tuple(path for path, kind in tool.argument_kinds.items() if outgoing and kind in _RECIPIENTS))


def done_of(key: bytes, plan: Plan, arguments: Mapping[str, Any]) -> Done:
    """A call of that tool."""
    call = plan.call
    if not plan.paths:
        return call
    found: set[bytes] = set()
    for path in plan.paths:
        for recipient in _recipients(_at(arguments, path)):
            found.add(_hashed(key, "recipient", recipient))
            if len(found) > MAX_RECIPIENTS:
                break
    kept = tuple(sorted(found)[:MAX_RECIPIENTS])
    return Done(call.tool, call.effect, call.classes, call.is_outside, kept, len(found) > len(kept))


def _at(value: object, path: str) -> list[object]:
    """What is there, by name or dotted path; of each element of a list."""
    if isinstance(value, list | tuple):
        return [found for item in value for found in _at(item, path)]
    if not isinstance(value, Mapping):
        return []
    found = [value[path]] if path in value else []
    if "." not in path:
        return found
    first, dot, rest = path.partition(".")
    return found + (_at(value[first], rest) if dot and first in value else [])


def _recipients(value: object) -> Iterator[str]:
    """Each of a list, however it is written; case makes no difference."""
    for leaf in _leaves(value):
        for part in _BETWEEN.split(leaf) if _BETWEEN.search(leaf) else (leaf,):
            name = part if part.isascii() else unicodedata.normalize("NFC", part)
            if name := name.strip().casefold():
                yield name


def created_by(key: bytes, uid: str, tool: Tool, arguments: Mapping[str, Any], output: object) -> tuple[bytes, ...]:
    """What that call has created, by the catalogue: what names it, each for one argument of the resource's tools."""
    found: set[bytes] = set()
    opened = _opened(output) if tool.creates else None
    for argument, path in tool.creates.items():
        where, _, rest = path.partition(".")
        value: object = arguments if where == "arguments" else opened
        for name in rest.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        found |= {_named(key, uid, argument, leaf) for leaf in _leaves(value)}
    return tuple(sorted(found)[:MAX_CREATED])


def _opened(output: object) -> object:
    """What a text holds that is JSON itself; the only element of a list."""
    if isinstance(output, list) and len(output) == 1:
        output = output[0]
    if isinstance(output, str) and output.lstrip()[:1] == "{":
        try:
            return _decode(output)
        except (msgspec.DecodeError, RecursionError):
            return None
    return output


def is_created(history: History, key: bytes, uid: str, arguments: Mapping[str, Any]) -> frozenset[object]:
    """Names of the arguments all of whose values this task created, with tools of the same resource."""
    if not history.created:
        return frozenset()
    known = frozenset(history.created)
    names: set[object] = set()
    for name, value in arguments.items():
        leaves = list(_leaves(value))
        if leaves and len(leaves) <= MAX_CREATED and all(_named(key, uid, name, leaf) in known for leaf in leaves):
            names.add(name)
    return frozenset(names)


def _named(key: bytes, uid: str, argument: str, leaf: str) -> bytes:
    return _hashed(key, f"{uid.partition('/')[0]}\0{argument}", leaf)


def _hashed(key: bytes, what: str, value: str) -> bytes:
    made = _hasher(key).copy()
    made.update(f"{what}\0{value}".encode("utf-8", "surrogatepass"))
    return made.digest()


@lru_cache(maxsize=256)
def _hasher(key: bytes) -> blake2s:
    return blake2s(digest_size=WIDTH, key=key, person=b"history\0")


def _leaves(value: object, depth: int = MAX_DEPTH) -> Iterator[str]:
    """The values in it as texts; what is too deep is one that nothing else is."""
    match value:
        case None:
            return
        case str():
            yield value
        case bool():
            yield "true" if value else "false"
        case int() | float():
            yield str(value)
        case Mapping() if depth:
            for item in value.values():
                yield from _leaves(item, depth - 1)
        case list() | tuple() if depth:
            for item in value:
                yield from _leaves(item, depth - 1)
        case _:
            yield "\0"


# --------------------------------------------------------------------------------------------------------- for policies


@dataclass(frozen=True, slots=True)
class Before:
    """What happened before a call: in its task, and in the recent past of its agent. `seq` and `day` say which state of
    it that is.
    """

    key: bytes
    task: History
    recent: History
    seq: int
    day: int
    _told: list[Record] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.task.is_full or self.recent.is_full

    def is_news(self, done: Done, *, now: int) -> bool:
        """Whether that call would make it another one; of another day it is always."""
        return self.day != now // DAY_US or is_news(self.task, done) or is_news(self.recent, in_passing(done))

    def seen(self, done: Done, arguments: Mapping[str, Any]) -> Record:
        """`context.history` of that call."""
        if not self._told:
            self._told.extend((told(self.recent), told(self.task)))
        known = self.task.recipients
        return {
            **self._told[1],
            "recipients": len(known),
            "new_recipients": sum(one not in known for one in done.recipients),
            "created": is_created(self.task, self.key, done.tool, arguments),
            "recent": self._told[0],
        }


def in_passing(done: Done) -> Done:
    """What is remembered of a call beyond its task: not to whom."""
    return replace(done, recipients=(), is_more=False) if done.recipients else done


def told(history: History) -> Record:
    """What policies see of it, beside what is about one call."""
    return {
        "tools": frozenset[object](history.tools),
        "effects": frozenset[object](name for place, name in enumerate(EFFECTS) if history.effects >> place & 1),
        "classes": frozenset[object](history.classes),
        "read_classes": frozenset[object](history.read_classes),
        "counts": dict(zip(EFFECTS, history.counts, strict=True)),
        "outside": history.has_seen_outside,
    }


# ------------------------------------------------------------------------------------------------------------- as bytes


def pack(history: History) -> bytes:
    return msgspec.msgpack.encode(history)


def unpack(body: bytes) -> History:
    """Raises Malformed."""
    try:
        return msgspec.msgpack.decode(body, type=History)
    except msgspec.DecodeError as error:
        raise Malformed(f"it is no history: {error}") from None
