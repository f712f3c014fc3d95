"""Summaries of the arguments of calls in mode `watch`, from which bounds are suggested.

Values that a bound could name are recorded unchanged: numbers, booleans, and texts that are short and not secret. For
any other value, the type and the length are recorded. Nested objects are flattened: each name is a path as in bounds
(`a.b`). A value in the record that is an object is therefore always the summary of a value:

    {"path": "/srv/reports/q3.txt", "limit": 20, "text": {"type": "string", "length": 8210},
     "key": {"type": "string", "length": 40, "secret": true}, "walk.depth": 3, "tags": {"type": "array", "length": 2}}

A value counts as a secret if its kind in the catalogue is `secret`, if its name suggests a secret (such as `password`),
or if it has the form of a well-known secret. Secrets in other forms are not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ostiary.decision.access import ReadyTool
from ostiary.decision.access.recorded import KNOWN_SECRET, SECRET_NAME
from ostiary.protocol import canonical

MAX_TEXT = 256
"""Maximum number of code points of a text that is recorded unchanged."""
MAX_ARGUMENTS = 64
MAX_NAME = 256
MAX_DEPTH = 8

_RANDOM = re.compile(r"(?<![A-Za-z0-9+=])(?=[A-Za-z+=]*[0-9])(?=[0-9+=]*[A-Za-z])[A-Za-z0-9+=]{28,}")
_UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)


def learn_arguments(arguments: Mapping[str, Any], ready: ReadyTool | None) -> dict[str, Any]:
    """Return the recorded form of the arguments of a call in mode `watch` (`summarize_arguments`). `ready`: the tool;
    None for a tool that is not in the catalogue. Raises nothing.
    """
    if ready is None:
        return summarize_arguments(arguments, {})
    return summarize_arguments(arguments, ready.tool.kinds, are_secret=ready.secrets is None)


def summarize_arguments(
    arguments: Mapping[str, Any], kinds: Mapping[str, str], *, are_secret: bool = False
) -> dict[str, Any]:
    """Return the recorded form of the arguments by path: numbers, booleans and short texts unchanged, and the type and
    length of secrets and other values. `kinds`: the kinds that the catalogue states, by path of the argument.
    `are_secret`: all arguments are secrets. Raises nothing.
    """
    return dict(islice(_leaves(arguments, kinds, are_secret, "", MAX_DEPTH), MAX_ARGUMENTS))


def _leaves(
    inside: Mapping[str, Any], kinds: Mapping[str, str], are_secret: bool, before: str, depth: int
) -> Iterator[tuple[str, Any]]:
    """Yield (path, recorded value) for each value. A member whose name contains a dot is omitted, because its name
    could be confused with a path.
    """
    for name, value in inside.items():
        path = before + name
        if not name or "." in name or len(path) > MAX_NAME:
            continue
        if isinstance(value, dict) and value and depth > 1 and not are_secret and kinds.get(path) != "secret":
            yield from _leaves(value, kinds, are_secret, f"{path}.", depth - 1)
        else:
            is_secret = are_secret or kinds.get(path) == "secret" or SECRET_NAME.search(name) is not None
            yield path, _summary(value, is_secret=is_secret)


def _summary(value: object, *, is_secret: bool) -> object:
    match value:
        case None:
            return value
        case bool():
            return _hidden("boolean", None, is_secret=True) if is_secret else value
        case int() if not is_secret and -canonical.MAX_INT <= value <= canonical.MAX_INT:
            return value
        case float() if not is_secret and abs(value) <= canonical.MAX_INT:
            return value
        case int() | float():
            return _hidden("number", None, is_secret=is_secret)
        case str():
            if is_secret or len(value) > MAX_TEXT:
                return _hidden("string", len(value), is_secret=is_secret)
            text = _UUID.sub("", value)
            is_secret = (KNOWN_SECRET.search(text) or _RANDOM.search(text)) is not None
            return _hidden("string", len(value), is_secret=True) if is_secret else value
        case list() | tuple():
            return _hidden("array", len(value), is_secret=is_secret)
        case dict():
            return _hidden("object", len(value), is_secret=is_secret)
        case _:
            return _hidden(type(value).__name__, None, is_secret=is_secret)


def _hidden(kind: str, length: int | None, *, is_secret: bool) -> dict[str, Any]:
    return {"type": kind} | ({} if length is None else {"length": length}) | ({"secret": True} if is_secret else {})
