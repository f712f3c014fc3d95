"""Recorded arguments of a call, so that other policies can be evaluated for it later.

Arguments are recorded with their Cedar types, as the policies saw them. Hidden (not recorded) are arguments of the kind
`secret`, all arguments of a tool that handles the data class `secret`, and long values. If a policy reads a hidden
argument, the decision cannot be replayed with this policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ostiary.authorization.catalogue import Tool
from ostiary.authorization.cedar.render import render_value
from ostiary.protocol.errors import Invalid

SECRET = "secret"
MAX_TEXT = 1024
"""maximum length of an argument, in characters"""
MAX_TOGETHER = 8192
"""maximum length of all arguments together, in characters"""
MAX_NAMES = 64
NEVER = 1 << 62
"""stands for the length of a value that is never recorded: it has a NUL character, or is too large to be rendered in
Cedar's JSON
"""

_encode = msgspec.json.Encoder().encode


class Kept(NamedTuple):
    """Recorded arguments in Cedar's JSON, without the hidden arguments, whose names are in `hidden`. If not even names
    are recorded (for a tool of the class `secret`, or for too many or too long names), `arguments` is None and `hidden`
    is empty.
    """

    arguments: dict[str, object] | None
    hidden: list[str]


ALL_HIDDEN = Kept(None, [])


def secrets_of(tool: Tool, classes: frozenset[str]) -> frozenset[str] | None:
    """Return the names of the arguments that are never recorded, for a tool with these data classes; None: all
    of them. An argument that contains a secret is hidden as a whole.
    """
    if SECRET in classes:
        return None
    paths = [path for path, kind in tool.kinds.items() if kind == SECRET]
    return frozenset((*paths, *(path.partition(".")[0] for path in paths)))


def arguments_to_record(typed: Mapping[str, object], secrets: frozenset[str] | None) -> Kept:
    """Return the arguments to record; secret and long arguments are hidden. `typed`: the arguments of a call, as
    policies see them; `secrets`: the result of `secrets_of`. Raises nothing.
    """
    if secrets is None or len(typed) > MAX_NAMES:
        return ALL_HIDDEN
    arguments: dict[str, object] = {}
    hidden: list[str] = []
    room = MAX_TOGETHER
    for name, value in typed.items():
        kind = type(value)
        if kind is str:
            kept, size = value, len(value) if "\0" not in value else NEVER  # type: ignore[arg-type, operator]
        elif kind is int or kind is bool:
            kept, size = value, 0
        else:
            kept, size = _rendered(value)
        room -= len(name)
        if size <= MAX_TEXT and size <= room and name not in secrets:
            arguments[name] = kept
            room -= size
        else:
            hidden.append(name)
        if room < 0 or "\0" in name:
            return ALL_HIDDEN
    return Kept(arguments, hidden)


def _rendered(value: object) -> tuple[object, int]:
    """Return the value in Cedar's JSON, and its length; NEVER for a value that is too large."""
    try:
        rendered = render_value(value)
        text = _encode(rendered)
    except (Invalid, UnicodeEncodeError):
        return None, NEVER
    return rendered, NEVER if b"\\u0000" in text else len(text)
