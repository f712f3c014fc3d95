"""The facts of a call that a history stores: the recipients of the call, and the things that the call created."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2s
from typing import Any, NamedTuple

import msgspec

from ostiary.authorization.catalogue import RECIPIENTS, SENDING, Tool
from ostiary.provenance.history.kept import EFFECTS, MAX_CREATED, MAX_RECIPIENTS, WIDTH, Done, History

MAX_DEPTH = 16
_BETWEEN = re.compile(r"[,;\n]")
_decode = msgspec.json.Decoder().decode


class Plan(NamedTuple):
    """The form in which the history stores calls of one tool. `call`: the entry of such a call, without recipients;
    `paths`: the arguments that name recipients.
    """

    call: Done
    paths: tuple[str, ...]


def plan_of(uid: str, tool: Tool, classes: Iterable[str]) -> Plan:
    """Return the plan of the tool with the id `uid` (`mail/send`), which handles the data classes `classes`."""
    call = Done(uid, EFFECTS.index(tool.effect.value), tuple(sorted(classes)), tool.is_outside)
    outgoing = tool.effect in SENDING
    return Plan(call, tuple(path for path, kind in tool.argument_kinds.items() if outgoing and kind in RECIPIENTS))


def done_of(key: bytes, plan: Plan, arguments: Mapping[str, Any]) -> Done:
    """Return the history entry of a call: the plan's facts, and the recipients that the arguments name, hashed with
    `key`.
    """
    call = plan.call
    if not plan.paths:
        return call
    recipients, is_more = recipients_of(key, plan, arguments)
    return Done(call.tool, call.effect, call.classes, call.is_outside, recipients, is_more)


def recipients_of(key: bytes, plan: Plan, arguments: Mapping[str, Any]) -> tuple[tuple[bytes, ...], bool]:
    """Return the recipients of a call, hashed, and true if the call has more than MAX_RECIPIENTS."""
    recipients: set[bytes] = set()
    for path in plan.paths:
        value = arguments.get(path)
        for leaf in (value,) if isinstance(value, str) and "." not in path else _leaves(_at(arguments, path)):
            for recipient in _recipients(leaf):
                recipients.add(_hashed(key, "recipient", recipient))
                if len(recipients) > MAX_RECIPIENTS:
                    return tuple(sorted(recipients)[:MAX_RECIPIENTS]), True
    return tuple(sorted(recipients)), False


def _at(value: object, path: str) -> list[object]:
    """Return the values at a name or dotted path. In a list, return the values of all elements."""
    if isinstance(value, list | tuple):
        return [values for item in value for values in _at(item, path)]
    if not isinstance(value, Mapping):
        return []
    values = [value[path]] if path in value else []
    if "." not in path:
        return values
    first, dot, rest = path.partition(".")
    return values + (_at(value[first], rest) if dot and first in value else [])


def _recipients(text: str) -> Iterator[str]:
    """Yield each recipient that a text names. Separators are commas, semicolons, line ends, and white space
    between mail addresses.
    """
    parts = _BETWEEN.split(text) if "," in text or ";" in text or "\n" in text else [text]
    if text.count("@") > 1:
        parts = [piece for part in parts for piece in (part.split() if part.count("@") > 1 else (part,))]
    for part in parts:
        # case folding would make `straße.example` and `strasse.example` one recipient
        if name := unicodedata.normalize("NFC", part.lower()).strip():
            yield name


def created_by(key: bytes, uid: str, tool: Tool, arguments: Mapping[str, Any], output: object) -> tuple[bytes, ...]:
    """Return hashes of the things that a call created, at most MAX_CREATED, as `tool.creates` declares them.
    Each hash stands for the thing's name as the value of one argument.
    """
    created: set[bytes] = set()
    opened = _opened(output) if tool.creates else None
    for argument, path in tool.creates.items():
        where, _, rest = path.partition(".")
        value: object = arguments if where == "arguments" else opened
        for name in rest.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        created |= {_hash_name(key, uid, argument, leaf) for leaf in _leaves(value)}
    return tuple(sorted(created)[:MAX_CREATED])


def _opened(output: object) -> object:
    """Return the JSON object in a text; None for malformed JSON. A list with one element stands for this
    element. Any other value is returned unchanged.
    """
    if isinstance(output, list) and len(output) == 1:
        output = output[0]
    if isinstance(output, str) and output.lstrip()[:1] == "{":
        try:
            return _decode(output)
        except (msgspec.DecodeError, RecursionError):
            return None
    return output


def list_created(history: History, key: bytes, uid: str, arguments: Mapping[str, Any]) -> frozenset[object]:
    """Return the names of the arguments whose values all name things that this task created with tools of the
    same resource.
    """
    if not history.created:
        return frozenset()
    created = frozenset(history.created)
    names: set[object] = set()
    for name, value in arguments.items():
        leaves = list(_leaves(value))
        if 0 < len(leaves) <= MAX_CREATED and all(_hash_name(key, uid, name, leaf) in created for leaf in leaves):
            names.add(name)
    return frozenset(names)


def _hash_name(key: bytes, uid: str, argument: str, leaf: str) -> bytes:
    return _hashed(key, f"{uid.partition('/')[0]}\0{argument}", leaf)


def _hashed(key: bytes, label: str, value: str) -> bytes:
    hasher = _hasher(key).copy()
    hasher.update(f"{label}\0{value}".encode("utf-8", "surrogatepass"))
    return hasher.digest()


@lru_cache(maxsize=256)
def _hasher(key: bytes) -> blake2s:
    return blake2s(digest_size=WIDTH, key=key, person=b"history\0")


def _leaves(value: object, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the scalars in a value as texts; NUL for a value that is nested too deeply, or of no JSON type."""
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
