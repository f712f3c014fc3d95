"""Canonical JSON: each value has exactly one spelling; RFC 8785 (JCS) within I-JSON (RFC 7493).

Members are sorted by UTF-16 code units, there is no white space, and numbers are spelled as ECMAScript spells them.
Numbers that a JSON reader cannot distinguish (`1`, `1.0`, `1e0`; `0`, `-0.0`) have the same spelling and the same
digest.

Stricter than RFC 8785: integers beyond 2^53-1 are refused, because JSON readers read them differently, and numbers that
are not integers are refused. A caller can permit both (`floats`); large integers are then spelled with all their
digits, so that different integers have different digests. Strings are written code point by code point, never
normalised.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_ARGUMENTS_DEPTH = 128
"""maximum nesting of the arguments of a call that a record or an approval can name"""
MAX_INT = (1 << 53) - 1

_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Any)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_CONTAINERS = frozenset({dict, list})
_SPACE_AS_QUOTE = bytes.maketrans(b" \t\n\r", b'""""')


def encode(value: object, *, floats: bool = False, max_depth: int = MAX_DEPTH) -> bytes:
    """Return the canonical bytes of a JSON value: None, bool, int, str, list, tuple, dict with string keys.

    `floats` also permits floats and integers beyond 2^53-1.

    Raises Malformed for every other value, for NaN and the infinities, and beyond `max_depth` levels of nesting.
    """
    try:
        if _is_plain(value, max_depth, floats):
            return _encode_sorted(value)
        return _encode(_spell(value, floats))
    except UnicodeEncodeError:
        raise Malformed("a string has a lone surrogate in it") from None


def digest(value: object, *, floats: bool = False, max_depth: int = MAX_DEPTH) -> str:
    """Return base64url(SHA-256(encode(value))), 43 characters."""
    hashed = sha256(encode(value, floats=floats, max_depth=max_depth)).digest()
    return base64.urlsafe_b64encode(hashed)[:43].decode()


def parse(data: bytes | str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> object:
    """Return the JSON value of a text, which need not be canonical. Raises Malformed for text that is not JSON, repeats
    a member, or exceeds a limit.

    Refused: not UTF-8, a repeated member, NaN, numbers out of range, beyond `max_depth` levels or `max_bytes`.
    """
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError:
            raise Malformed("the JSON text has a lone surrogate in it") from None
    if len(data) > max_bytes:
        raise Malformed(f"the JSON text is longer than {max_bytes} bytes")
    try:
        value: object = _decode(data)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise Malformed(f"not JSON: {error}") from None
    _check_members(data, _count_members(value, max_depth))
    return value


def _check_members(data: bytes, kept: int) -> None:
    """Check that no object has a repeated member. The decoder silently keeps only the last of repeated members.
    Therefore the number of members in the text, which is its number of colons, must equal `kept`, the number of
    decoded members.

    First, all colons are counted, then colons after a quote or white space. These numbers are never too small, but
    colons inside strings can make them too large. In that case, the strings are removed from the text and the colons
    are counted again.
    """
    if data.count(b":") == kept or data.translate(_SPACE_AS_QUOTE).count(b'":') == kept:
        return
    if _STRING.sub(b"", data).count(b":") != kept:
        raise Malformed("an object of the JSON text has the same member twice")


def _count_members(value: object, depth: int) -> int:
    """Return the total number of members of all objects in `value`. Raises Malformed for more than `depth` levels of
    nesting.
    """
    inner: Iterable[object]
    if type(value) is dict:
        inner, count = value.values(), len(value)
    elif type(value) is list:
        inner, count = value, 0
    else:
        return 0
    if depth == 0:
        raise Malformed("the JSON text is nested too deeply")
    if not _CONTAINERS.isdisjoint(map(type, inner)):
        for item in inner:
            if type(item) in _CONTAINERS:
                count += _count_members(item, depth - 1)
    return count


def _is_plain(value: object, depth: int, floats: bool) -> bool:
    """Return whether the fast encoder writes `value` canonically: no floats, ASCII names. Raises Malformed for other
    values than JSON.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        if not -MAX_INT <= value <= MAX_INT:  # type: ignore[operator]
            if floats:
                return False
            raise Malformed("an integer is beyond 2^53-1", hint="send the integer as a string")
        return True
    if kind is float:
        return False
    if depth == 0:
        raise Malformed("the value is nested too deeply")
    plain = True
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                raise Malformed("the name of a member is not a string")
            plain = _is_plain(item, depth - 1, floats) and key.isascii() and plain
        return plain
    if kind is list or kind is tuple:
        for item in value:  # type: ignore[attr-defined]
            plain = _is_plain(item, depth - 1, floats) and plain
        return plain
    raise Malformed(f"{kind.__name__} is not a JSON type")


def _spell(value: object, floats: bool) -> object:
    """Return the value with its members in order and its floats spelled out."""
    if isinstance(value, float):
        if not floats and not (value.is_integer() and -MAX_INT <= value <= MAX_INT):
            raise Malformed("a number is not an integer", hint="send the number as a decimal string")
        return msgspec.Raw(_spell_float(value).encode())
    if type(value) is int and not -MAX_INT <= value <= MAX_INT:
        return msgspec.Raw(_spell_int(value).encode())
    if isinstance(value, dict):
        return {key: _spell(value[key], floats) for key in sorted(value, key=_utf16)}
    if isinstance(value, (list, tuple)):
        return [_spell(item, floats) for item in value]
    return value


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be")


def _spell_int(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        raise Malformed("an integer has more than 4,300 digits", hint="send the integer as a string") from None


def _spell_float(number: float) -> str:
    """ECMA-262 Number::toString, which RFC 8785 section 3.2.2.3 refers to."""
    if number != number or number in (float("inf"), float("-inf")):
        raise Malformed("a number is not finite")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = f"{abs(number)!r}e0".partition("e")
    whole, _, fraction = mantissa.partition(".")
    power = int(exponent.partition("e")[0])
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + power - (len(whole + fraction) - len(digits))  # the value is 0.digits * 10^point
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        return sign + digits[:point].ljust(point, "0") + ("." + digits[point:] if len(digits) > point else "")
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    tail = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"
