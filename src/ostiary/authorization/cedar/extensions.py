"""Cedar's extension types: decimal, ipaddr, datetime, duration (docs.cedarpolicy.com, "Operators", RFC 80).

Constructors accept exactly the string form that Cedar accepts. They raise EvaluationError for any other value, also for
one of a wrong type, because policies may call them with computed values. Arithmetic is that of signed 64-bit integers
and never wraps.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

_I64_MIN, _I64_MAX = -(2**63), 2**63 - 1
_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000


class EvaluationError(Exception):
    """A policy cannot be evaluated for a request, for example because an operand has the wrong type. The message names
    types and attributes, never a value.
    """


class Unusable:
    """A value of a request that Cedar cannot represent. `problem` states the reason, `raw` is the JSON value.

    Any use of the value, a comparison included, raises Unreadable: a policy that reads the value fails; other policies
    are not affected.
    """

    __slots__ = ("problem", "raw")

    def __init__(self, problem: str, raw: object) -> None:
        self.problem, self.raw = problem, raw

    def __eq__(self, other: object) -> bool:
        raise Unreadable(self)

    def __hash__(self) -> int:
        raise Unreadable(self)


class Unreadable(EvaluationError):
    """Raised if a policy reads an Unusable, a value that Cedar cannot represent. The policy then fails."""

    def __init__(self, value: Unusable) -> None:
        super().__init__(f"a value {value.problem}")
        self.value = value


class Decimal(msgspec.Struct, frozen=True, gc=False):
    """A decimal number in units of 1/10000."""

    units: int


class Ip(msgspec.Struct, frozen=True, gc=False):
    """An IP address or a range. The host bits of a range are stored and count in comparisons, as in Cedar."""

    bits: int  # 32 or 128
    address: int
    prefix: int


class Datetime(msgspec.Struct, frozen=True, gc=False):
    """A point in time, in milliseconds since 1970-01-01T00:00:00Z."""

    ms: int


class Duration(msgspec.Struct, frozen=True, gc=False):
    """A duration in milliseconds."""

    ms: int


def check_usable(*operands: object) -> None:
    """Check that no operand is Unusable. Raises Unreadable otherwise."""
    for operand in operands:
        if type(operand) is Unusable:
            raise Unreadable(operand)


def _string(value: object, function: str) -> str:
    if type(value) is not str:
        check_usable(value)
        raise EvaluationError(f"{function} needs a string as its argument")
    return value


def _i64(value: int, function: str) -> int:
    if not _I64_MIN <= value <= _I64_MAX:
        raise EvaluationError(f"{function} is outside of the range of 64 bits")
    return value


def _natural(digits: str, function: str) -> int:
    """Return the number that `digits` spell. Raises EvaluationError for a text too long for 64 bits, before
    conversion.
    """
    significant = digits.lstrip("0")
    if len(significant) > 19:
        raise EvaluationError(f"{function} is outside of the range of 64 bits")
    return int(significant or "0")


# --- decimal --------------------------------------------------------------------------------------------------------

_DECIMAL = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")


def decimal(text: object) -> Decimal:
    """Return the Cedar decimal of a text such as `-12.34`: digits on both sides of the point, at most four after it."""
    match = _DECIMAL.fullmatch(_string(text, "decimal"))
    if match is None:
        raise EvaluationError("decimal: not of the form DIGITS.DIGITS, with one to four digits after the point")
    sign, whole, part = match.groups()
    units = _natural(whole, "decimal") * 10_000 + int(part.ljust(4, "0"))
    return Decimal(_i64(-units if sign else units, "decimal"))


# --- ipaddr ---------------------------------------------------------------------------------------------------------

_IP = re.compile(r"(?:(?P<v4>[0-9.]+)|(?P<v6>[0-9A-Fa-f:]+))(?:/(?P<prefix>0|[1-9][0-9]{0,2}))?")


def ip(text: object) -> Ip:
    """Return the address or range of a text such as `10.0.0.0/8` or `::1`. An IPv4 address within an IPv6
    address is refused.
    """
    match = _IP.fullmatch(_string(text, "ip"))
    if match is None or match.end() > 43:
        raise EvaluationError("ip: neither an address nor a range")
    try:
        address = ipaddress.IPv4Address(match["v4"]) if match["v4"] else ipaddress.IPv6Address(match["v6"])
    except ValueError as error:
        raise EvaluationError("ip: neither an address nor a range") from error
    prefix = int(match["prefix"] or address.max_prefixlen)
    if prefix > address.max_prefixlen:
        raise EvaluationError("ip: the prefix is longer than the address")
    return Ip(address.max_prefixlen, int(address), prefix)


def is_in_range(inner: Ip, outer: Ip) -> bool:
    """Return whether `inner` is inside the range `outer`."""
    shift = outer.bits - outer.prefix
    return (
        inner.bits == outer.bits and inner.prefix >= outer.prefix and inner.address >> shift == outer.address >> shift
    )


_LOOPBACK = {32: Ip(32, 127 << 24, 8), 128: Ip(128, 1, 128)}
_MULTICAST = {32: Ip(32, 224 << 24, 4), 128: Ip(128, 0xFF << 120, 8)}


def is_loopback(address: Ip) -> bool:
    """Return whether the address is a loopback address."""
    return is_in_range(address, _LOOPBACK[address.bits])


def is_multicast(address: Ip) -> bool:
    """Return whether the address is a multicast address."""
    return is_in_range(address, _MULTICAST[address.bits])


# --- datetime and duration ------------------------------------------------------------------------------------------

_DATETIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?"
)
_DURATION = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def datetime(text: object) -> Datetime:
    """Return the point in time of a text such as `2024-10-15` or `2024-10-15T11:35:00.123+0200`; years 0000 to 9999."""
    match = _DATETIME.fullmatch(_string(text, "datetime"))
    if match is None:
        raise EvaluationError("datetime: not one of the forms YYYY-MM-DD[Thh:mm:ss[.SSS](Z|+hhmm|-hhmm)]")
    year, month, day, hour, minute, second, ms = (int(part or 0) for part in match.groups()[:7])
    sign, offset_hour, offset_minute = match[8], int(match[9] or 0), int(match[10] or 0)
    is_day = 1 <= month <= 12 and 1 <= day <= _MONTH_DAYS[month - 1]
    if not is_day or (month == 2 and day == 29 and not _is_leap(year)):
        raise EvaluationError("datetime: no such day")
    if hour > 23 or minute > 59 or second > 59 or offset_hour > 23 or offset_minute > 59:
        raise EvaluationError("datetime: no such time of day")
    offset = (offset_hour * _HOUR + offset_minute * _MINUTE) * (-1 if sign == "-" else 1)
    local = _days(year, month, day) * _DAY + hour * _HOUR + minute * _MINUTE + second * _SECOND + ms
    return Datetime(local - offset)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days(year: int, month: int, day: int) -> int:
    """Return the number of days since 1970-01-01 in the proleptic Gregorian calendar, which includes the year 0
    (Python's `date` does not).
    """
    leaps = (year + 3) // 4 - (year + 99) // 100 + (year + 399) // 400  # leap years in 0 .. year-1
    in_year = sum(_MONTH_DAYS[: month - 1]) - (month > 2 and not _is_leap(year))
    return year * 365 + leaps + in_year + day - 1 - 719_528


def duration(text: object) -> Duration:
    """Return the duration of a text such as `-1d2h3m4s5ms`: at least one unit, each unit at most once, in this
    order.
    """
    match = _DURATION.fullmatch(_string(text, "duration"))
    if match is None or not any(match.groups()[1:]):
        raise EvaluationError(
            "duration: not of the form -1d2h3m4s5ms, with at least one unit, each at most once, in this order"
        )
    sign, *numbers = match.groups()
    units = (_DAY, _HOUR, _MINUTE, _SECOND, 1)
    ms = sum(_natural(number or "0", "duration") * unit for number, unit in zip(numbers, units, strict=True))
    return Duration(_i64(-ms if sign else ms, "duration"))


def offset(start: object, length: object) -> Datetime:
    """Return the datetime `start` plus a duration. Raises EvaluationError for values of other types."""
    if type(start) is not Datetime or type(length) is not Duration:
        check_usable(start, length)
        raise EvaluationError("offset needs a datetime and a duration")
    return Datetime(_i64(start.ms + length.ms, "offset"))


def duration_since(end: object, start: object) -> Duration:
    """Return the duration from `start` to `end`. Raises EvaluationError for values of other types."""
    if type(end) is not Datetime or type(start) is not Datetime:
        check_usable(end, start)
        raise EvaluationError("durationSince needs two datetimes")
    return Duration(_i64(end.ms - start.ms, "durationSince"))


def to_date(moment: Datetime) -> Datetime:
    """Return the datetime at midnight of the same day."""
    return Datetime(_i64(moment.ms - moment.ms % _DAY, "toDate"))


def to_time(moment: Datetime) -> Duration:
    """Return the duration since midnight."""
    return Duration(moment.ms % _DAY)


def whole(length: Duration, unit: int) -> int:
    """Return the number of whole units, rounded towards zero. `unit` in milliseconds."""
    return length.ms // unit if length.ms >= 0 else -(-length.ms // unit)


def to_milliseconds(length: Duration) -> int:
    """Return the duration in milliseconds."""
    return length.ms


def to_seconds(length: Duration) -> int:
    """Return the whole seconds of a duration."""
    return whole(length, _SECOND)


def to_minutes(length: Duration) -> int:
    """Return the whole minutes of a duration."""
    return whole(length, _MINUTE)


def to_hours(length: Duration) -> int:
    """Return the whole hours of a duration."""
    return whole(length, _HOUR)


def to_days(length: Duration) -> int:
    """Return the whole days of a duration."""
    return whole(length, _DAY)
