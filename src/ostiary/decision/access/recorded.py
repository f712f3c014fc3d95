"""Recorded arguments of a call, and recorded statements of an AuthZEN request, so that other policies can be evaluated
for them later.

Arguments are recorded with their Cedar types, as the policies saw them. Hidden (not recorded) are arguments of the kind
`secret`, all arguments of a tool that handles the data class `secret`, and long values. If a policy reads a hidden
argument, the decision cannot be replayed with this policy.

No catalogue describes the members of other AuthZEN requests. There, a member is hidden if its name, or a name in it,
suggests a secret (such as `password`), or if it contains the form of a well-known secret. Secrets in other forms are
not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from ostiary.authorization.catalogue import Tool
from ostiary.authorization.cedar.render import render_value
from ostiary.protocol.errors import Invalid

SECRET = "secret"
MAX_TEXT = 1024
"""maximum length of an argument, in characters"""
MIN_SECRET = 12
"""length below which a text of an AuthZEN request is not searched for the form of a secret"""
MAX_TOGETHER = 8192
"""maximum length of all arguments together, in characters"""
MAX_NAMES = 64
ANYTHING = "*"
"""stands for hidden members that are too many or too long to be named"""
NEVER = 1 << 62
"""stands for the length of a value that is never recorded: it has a NUL character, or is too large to be rendered in
Cedar's JSON
"""

SECRET_NAME = re.compile(
    r"pass(word|wd|phrase|code)|secret|token(?!s)|(api|access|private|signing)[-_]?key|auth(orization)?$|cookie"
    r"|credential|^(key|otp|pin|pat)$",
    re.IGNORECASE,
)
KNOWN_SECRET = re.compile(
    r"""\b(sk|pk|rk|gh[pousr]|github_pat|glpat|xox[abeprs]|npm|hf|dop_v1)[-_][A-Za-z0-9_-]{8}  # of well-known issuers
    | \bostiary_pep_[0-9a-f]{8}                              # API key of a gateway
    | \b(AKIA|ASIA)[A-Z0-9]{12} | \bAIza[A-Za-z0-9_-]{20} | \bya29\.
    | \beyJ[A-Za-z0-9_-]{8,}\.                               # JWT
    | -----BEGIN | \b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8}
    | ://[^/\s@]*:[^/\s@]+@                                  # a password in a URL
    | (password|passwd|secret|token|api[-_]?key|sig|signature)=.""",
    re.IGNORECASE | re.VERBOSE,
)
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


def members_to_record(stated: Mapping[str, object], room: int) -> tuple[dict[str, object], list[str], int]:
    """Return the members of a JSON object to record, the names of the hidden members, and the rest of `room`, the
    maximum length of all in characters. Hidden are secrets, long texts, and members beyond `room`. If the names are too
    many or too long, nothing is recorded, and `ANYTHING` is hidden.
    """
    if len(stated) > MAX_NAMES or sum(map(len, stated)) > MAX_TEXT:
        return {}, [ANYTHING], room
    members: dict[str, object] = {}
    hidden: list[str] = []
    for name, value in stated.items():
        if (size := _length([(name, value)])) <= room:
            members[name] = value
            room -= size
        else:
            hidden.append(name)
    return members, hidden, room


def _length(members: Iterable[tuple[str, object]]) -> int:
    """Return the length of the names and texts in JSON values, where any other value counts 1; NEVER if a member is a
    secret or a long text. The elements of an array have empty names.
    """
    total = 0
    open_ = [*members]
    while open_:
        name, value = open_.pop()
        total += len(name) + 1 + (len(value) if isinstance(value, str) else 0)
        if total > MAX_TOGETHER:
            return NEVER
        if name and _is_secret_name(name):
            return NEVER
        if isinstance(value, str):
            if len(value) > MAX_TEXT or (len(value) >= MIN_SECRET and KNOWN_SECRET.search(value)):
                return NEVER
        elif isinstance(value, dict):
            open_ += value.items()
        elif isinstance(value, list):
            open_ += [("", one) for one in value]
    return total


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    return SECRET_NAME.search(name) is not None
