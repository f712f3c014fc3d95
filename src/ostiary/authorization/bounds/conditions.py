"""Conditions on one argument of a call. All members must hold; a member never holds for a value of a wrong type.

| member | holds for |
| --- | --- |
| `eq`, `one_of` | the same string, integer or boolean; `1.0` is the integer 1, `"1"` and `true` are not |
| `prefix` | strings that begin with it, as text: not a path, not a URL |
| `glob` | strings that the pattern matches as a whole, see `glob.py`; `*` also matches slashes |
| `min`, `max` | numbers, and strings that spell a decimal number, in exact decimal arithmetic; both ends included |
| `max_length` | strings of at most this number of code points |

Strings are compared code point by code point, without normalisation, and case matters.

*A prefix is compared as text, but a tool reads a path or a URL.* `/srv/a/../../etc` begins with `/srv/a/` and leads to
another place: the tool would be a confused deputy. A condition with `prefix` or `glob` therefore fails for a value that
has a segment `..` or a NUL, plain or percent-encoded. `https://good.example.attacker.example/` begins with
`https://good.example`, and `https://*.good.example/` matches `https://attacker.example/.good.example/`. Therefore a
prefix of a URL must extend beyond the host, and a glob must have no wildcard in the host (except `https://*` as a
whole). The tool itself must refuse symbolic links and its own aliases, which the text of a value does not show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from urllib.parse import unquote

import msgspec

from ostiary.authorization.bounds.glob import Pattern, glob_pattern, includes, longest, matches, prefix_pattern
from ostiary.protocol.canonical import MAX_INT
from ostiary.protocol.errors import Invalid

MAX_TEXT = 1024
MAX_GLOB = 256
MAX_CHOICES = 256
MAX_DIGITS = 64

Scalar = str | int | bool
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_CLIMB = re.compile(
    r"""(?:\A|[/\\]) \s* \. \s* \. \s* (?:[/\\?#;]|\Z)  # readers of URLs drop white space, and end a path at ? # ;
    | \0""",
    re.VERBOSE,
)
_MAX_DECODINGS = 8
_PREFIX_IN_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]+")
_GLOB_IN_HOST = re.compile(r"[A-Za-z*?][A-Za-z0-9+.*?-]*://(?!\*\Z)[^/]*[*?]")


class InvalidDetails(Invalid):
    """The `authorization_details` are malformed, or exceed the available access (RFC 9396 section 5)."""

    code = "invalid_authorization_details"


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    eq: Scalar | None = None
    one_of: tuple[Scalar, ...] | None = None
    prefix: str | None = None
    glob: str | None = None
    min: int | str | None = None
    """an integer, or a decimal number as a string"""
    max: int | str | None = None
    max_length: int | None = None

    def holds(self, value: object) -> bool:
        """Return whether the condition holds for `value`."""
        return self.failure(value) is None

    def failure(self, value: object) -> str | None:
        """Return, in words, the first member of the condition that `value` does not meet; None if it meets all. The
        text does not quote the value.
        """
        if self.eq is not None and not is_same(value, self.eq):
            return f"must be {self.eq!r}"
        if self.one_of is not None and not any(is_same(value, choice) for choice in self.one_of):
            return f"must be one of {list(self.one_of)!r}"
        if (self.prefix is not None or self.glob is not None) and (reason := self._text_failure(value)):
            return reason
        if (self.min is not None or self.max is not None) and (reason := self._number_failure(value)):
            return reason
        if self.max_length is not None and not (isinstance(value, str) and len(value) <= self.max_length):
            return f"must be a string of at most {self.max_length} characters"
        return None

    def _text_failure(self, value: object) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        if self.prefix is not None and not value.startswith(self.prefix):
            return f"must begin with {self.prefix!r}"
        if self.glob is not None and not matches(self.glob, value):
            return f"must match {self.glob!r}"
        if climbs(value):
            return "must not have a segment `..` or a NUL"
        return None

    def _number_failure(self, value: object) -> str | None:
        number = decimal(value)
        if number is None:
            return "must be a decimal number"
        if self.min is not None and number < Decimal(self.min):
            return f"must be at least {self.min}"
        if self.max is not None and number > Decimal(self.max):
            return f"must be at most {self.max}"
        return None

    def __post_init__(self) -> None:
        """Check that the condition is not empty or contradictory. Raises InvalidDetails otherwise."""
        if not any(getattr(self, name) is not None for name in self.__struct_fields__):
            raise InvalidDetails("a condition is empty", hint=f"state one of: {', '.join(self.__struct_fields__)}")
        for scalar in self.choices() or ():
            _check_scalar(scalar)
        if self.one_of is not None and not 0 < len(self.one_of) <= MAX_CHOICES:
            raise InvalidDetails(f"`one_of` must have 1 to {MAX_CHOICES} members")
        if self.prefix is not None:
            _check_text(self.prefix, "prefix", MAX_TEXT)
            if _PREFIX_IN_HOST.fullmatch(self.prefix):
                raise InvalidDetails("`prefix` ends within the host of a URL", hint="add the slash after the host")
        if self.glob is not None:
            _check_text(self.glob, "glob", MAX_GLOB)
            if _GLOB_IN_HOST.match(self.glob):
                raise InvalidDetails("`glob` has a wildcard in the host of a URL", hint="name each host, with `one_of`")
        for name, bound in (("min", self.min), ("max", self.max)):
            if isinstance(bound, int):
                _check_scalar(bound)
            elif bound is not None and decimal(bound) is None:
                raise InvalidDetails(f"`{name}` is neither an integer nor a string that spells a decimal number")
        if self.min is not None and self.max is not None and Decimal(self.min) > Decimal(self.max):
            raise InvalidDetails("`min` is more than `max`")
        if self.max_length is not None and not 0 <= self.max_length <= MAX_INT:
            raise InvalidDetails(f"`max_length` must be from 0 to {MAX_INT}")

    def choices(self) -> tuple[Scalar, ...] | None:
        """Return the only values that the condition permits, as `eq` or `one_of` list them; None if the condition has
        neither.
        """
        if self.eq is not None:
            return (self.eq,)
        return self.one_of

    def patterns(self) -> tuple[Pattern, ...]:
        """Return the patterns of `prefix` and `glob`. A string must match all of them."""
        prefix = () if self.prefix is None else (prefix_pattern(self.prefix),)
        return prefix if self.glob is None else (*prefix, glob_pattern(self.glob))

    def is_within(self, outer: Condition) -> bool:
        """Return whether `outer` holds for every value for which this condition holds. True is always correct. If this
        condition has `eq` or `one_of`, False is correct too.

        Without these members, False may be wrong, for example if `outer` has `eq` or `one_of`, or if a member of
        `outer` follows only from several members of this condition together.
        """
        choices = self.choices()
        if choices is not None:
            return all(outer.holds(choice) for choice in choices if self.holds(choice))
        if outer.choices() is not None:
            return False
        return self._text_is_within(outer) and self._number_is_within(outer) and self._length_is_within(outer)

    def _text_is_within(self, outer: Condition) -> bool:
        inner = self.patterns()
        return all(any(includes(outer_pattern, pattern) for pattern in inner) for outer_pattern in outer.patterns())

    def _number_is_within(self, outer: Condition) -> bool:
        if outer.min is not None and (self.min is None or Decimal(self.min) < Decimal(outer.min)):
            return False
        return outer.max is None or (self.max is not None and Decimal(self.max) <= Decimal(outer.max))

    def _length_is_within(self, outer: Condition) -> bool:
        if outer.max_length is None:
            return True
        limits: Iterable[int | None] = (self.max_length, *map(longest, self.patterns()))
        return any(limit is not None and limit <= outer.max_length for limit in limits)


def is_same(value: object, expected: Scalar) -> bool:
    """Return whether two scalars are equal as JSON: in type and value, where 1 equals 1.0."""
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    return isinstance(value, (str, int, float)) and value == expected


def decimal(value: object) -> Decimal | None:
    """Return the exact number that `value` is, or that it spells as a string of at most MAX_DIGITS characters; None for
    any other value, such as a boolean.

    A float counts as its shortest decimal form, which equals the JSON text (up to 15 digits).
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        number = Decimal(repr(value))
        return number if number.is_finite() else None
    if isinstance(value, str) and len(value) <= MAX_DIGITS and _DECIMAL.fullmatch(value):
        return Decimal(value)
    return None


def climbs(text: str) -> bool:
    """Return whether the text has a segment `..` or a NUL, plain or percent-encoded, also several times: a reader of
    paths or URLs could leave a prefix through this text. True also for a text that 8 decodings do not decode
    completely.
    """
    if text.count(".") < 2 and "%" not in text and "\0" not in text:
        return False  # this quick check settles nearly all texts, at a tenth of the cost
    for _ in range(_MAX_DECODINGS):
        if _CLIMB.search(text):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def _check_scalar(scalar: Scalar) -> None:
    if isinstance(scalar, str):
        if len(scalar) > MAX_TEXT:
            raise InvalidDetails(f"a string in `eq` or `one_of` has more than {MAX_TEXT} characters")
    elif not -MAX_INT <= scalar <= MAX_INT:
        raise InvalidDetails("an integer in `eq`, `one_of`, `min` or `max` is beyond 2^53-1")


def _check_text(text: str, name: str, most: int) -> None:
    if not 0 < len(text) <= most:
        raise InvalidDetails(f"`{name}` must have 1 to {most} characters")
    if climbs(text):
        raise InvalidDetails(f"`{name}` has a segment `..` or a NUL in it")
