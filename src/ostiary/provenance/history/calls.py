"""What is remembered of a call: to whom it goes, and what it created."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2s
from typing import Any, NamedTuple

import msgspec

from ostiary.authorization.catalogue import Effect, Kind, Tool
from ostiary.provenance.history.kept import EFFECTS, MAX_CREATED, MAX_RECIPIENTS, WIDTH, Done, History

MAX_DEPTH = 16
_OUTGOING = frozenset({Effect.SEND, Effect.SHARE, Effect.PAY})
_RECIPIENTS = frozenset({Kind.PRINCIPAL, Kind.ACCOUNT, Kind.ADDRESS})
"""kinds of arguments that say to whom"""
_BETWEEN = re.compile(r"[,;\n]")
_decode = msgspec.json.Decoder().decode


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
    recipients, is_more = recipients_of(key, plan, arguments)
    return Done(call.tool, call.effect, call.classes, call.is_outside, recipients, is_more)


def recipients_of(key: bytes, plan: Plan, arguments: Mapping[str, Any]) -> tuple[tuple[bytes, ...], bool]:
    """To whom a call of that tool goes, and whether it has more recipients than that."""
    found: set[bytes] = set()
    for path in plan.paths:
        value = arguments.get(path)
        for leaf in (value,) if isinstance(value, str) and "." not in path else _leaves(_at(arguments, path)):
            for recipient in _recipients(leaf):
                found.add(_hashed(key, "recipient", recipient))
                if len(found) > MAX_RECIPIENTS:
                    return tuple(sorted(found)[:MAX_RECIPIENTS]), True
    return tuple(sorted(found)), False


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


def _recipients(text: str) -> Iterator[str]:
    """Each of a list, however it is written, mail addresses with spaces between too; case makes no difference."""
    parts = _BETWEEN.split(text) if "," in text or ";" in text or "\n" in text else [text]
    if text.count("@") > 1:
        parts = [piece for part in parts for piece in (part.split() if part.count("@") > 1 else (part,))]
    for part in parts:
        name = part.lower() if part.isascii() else unicodedata.normalize("NFC", part).casefold()
        if name := name.strip():
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
