"""Recorded arguments of a call, and recorded statements of an AuthZEN request, so that other policies can be evaluated
for them later.

Arguments are recorded with their Cedar types, as the policies saw them. Hidden (not recorded) are arguments of the kind
`secret`, all arguments of a tool that handles the data class `secret`, and long values. If a policy reads a hidden
argument, the decision cannot be replayed with this policy.

No catalogue describes the members of other AuthZEN requests. There, a member is hidden if its name, or a name in it,
suggests a secret (such as `password`), or if a name or text in it has the form of a well-known secret. Secrets in
other forms are not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
"""length below which a name or text of an AuthZEN request is not searched for the form of a secret"""
MAX_TOGETHER = 8192
"""maximum length of all arguments together, in characters; of all members of an AuthZEN request, in bytes of JSON"""
MAX_NAMES = 64
MAX_LEVELS = 32
"""maximum depth of a member of an AuthZEN request"""
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
# the time of a search must be linear in the length of the text
KNOWN_SECRET = re.compile(
    r"""\b(sk|pk|rk|gh[pousr]|github_pat|glpat|xox[abeprs]|npm|hf|dop_v1)[-_][A-Za-z0-9_-]{8}  # of well-known issuers
    | \bostiary_pep_[0-9a-f]{8}                              # API key of a gateway
    | \b(AKIA|ASIA)[A-Z0-9]{12} | \bAIza[A-Za-z0-9_-]{20} | \bya29\.
    | \beyJ[A-Za-z0-9_-]{8}                                  # JWT, or other JSON in base64url
    | -----BEGIN | \b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8}
    | ://[^/\s@:]*:[^/\s@]+@                                 # a password in a URL
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


class MemberSizes:
    """The sizes of the members of JSON objects. Each object is searched once, because the items of a batch share
    objects.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Mapping[str, object], list[tuple[str, str, int]] | None]] = {}

    def find(self, stated: Mapping[str, object]) -> list[tuple[str, str, int]] | None:
        """Return, for each member of the object, its name, the name under which it is hidden, and its size in bytes;
        NEVER as the size of a member that is never recorded. None if the names are too many or too long.

        At most MAX_TOGETHER bytes of an object are searched. A hidden member counts too, if it was searched.
        """
        if (entry := self._known.get(id(stated))) is None:  # the cache refers to the object, so its id stays unique
            entry = self._known[id(stated)] = stated, _find_sizes(stated)
        return entry[1]


def members_to_record(
    stated: Mapping[str, object], room: int, sizes: MemberSizes, *, never: frozenset[str] = frozenset()
) -> tuple[dict[str, object], list[str], int]:
    """Return the members of a JSON object to record, the names of the hidden members, and the rest of `room`, the
    maximum size of all in bytes of JSON. Hidden are secrets, long texts, members beyond `room`, and members whose names
    are in `never`. ANYTHING stands for a name that has the form of a secret. If the names are too many or too long,
    nothing is recorded, and ANYTHING is hidden.
    """
    if (items := sizes.find(stated)) is None:
        return {}, [ANYTHING], room
    members: dict[str, object] = {}
    hidden: list[str] = []
    for name, shown, size in items:
        if size <= room and name not in never:
            members[name] = stated[name]
            room -= size
        else:
            hidden.append(shown)
    return members, hidden, room


def _find_sizes(stated: Mapping[str, object]) -> list[tuple[str, str, int]] | None:
    if len(stated) > MAX_NAMES or sum(map(_json_size, stated)) > MAX_TEXT:
        return None
    items: list[tuple[str, str, int]] = []
    left = MAX_TOGETHER
    for name, value in stated.items():
        size = _json_size({name: value}) - 1  # without braces, with a comma
        if size <= left:
            left -= size
            if not _is_recordable(name, value):
                size = NEVER
        else:
            size = NEVER
        items.append((name, ANYTHING if _has_secret_form(name) else name, size))
    return items


def _json_size(value: object) -> int:
    """Return the size of a value in bytes of JSON; NEVER for a value that is nested too deeply."""
    try:
        return len(_encode(value))
    except RecursionError:
        return NEVER


def _is_recordable(name: str, value: object) -> bool:
    """Return whether a member may be recorded: neither a secret nor a long text is in it, no object in it has more than
    MAX_NAMES names, and it is nested at most MAX_LEVELS deep. The elements of an array have empty names.
    """
    level: list[tuple[str, object]] = [(name, value)]
    for _ in range(MAX_LEVELS):
        inner: list[tuple[str, object]] = []
        for name, value in level:
            if name and (_is_secret_name(name) or _has_secret_form(name)):
                return False
            if isinstance(value, str):
                if len(value) > MAX_TEXT or _has_secret_form(value):
                    return False
            elif isinstance(value, dict):
                if len(value) > MAX_NAMES:
                    return False
                inner += value.items()
            elif isinstance(value, list):
                inner += [("", one) for one in value]
        if not inner:
            return True
        level = inner
    return False


def _has_secret_form(text: str) -> bool:
    return len(text) >= MIN_SECRET and KNOWN_SECRET.search(text) is not None


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    return SECRET_NAME.search(name) is not None
