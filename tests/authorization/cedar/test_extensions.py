"""Extension types by known answers, and each limit with both its sides."""

from __future__ import annotations

import datetime as python
from collections.abc import Callable

import pytest

from ostiary.authorization.cedar.extensions import (
    Datetime,
    Decimal,
    Duration,
    EvaluationError,
    Ip,
    datetime,
    decimal,
    duration,
    duration_since,
    ip,
    is_in_range,
    is_loopback,
    is_multicast,
    offset,
    to_date,
    to_days,
    to_hours,
    to_milliseconds,
    to_minutes,
    to_seconds,
    to_time,
)

DAY = 86_400_000
I64_MIN, I64_MAX = -(2**63), 2**63 - 1


@pytest.mark.parametrize("construct", [decimal, ip, datetime, duration])
@pytest.mark.parametrize("value", [1, True, None, frozenset(), {}, Decimal(1)])
def test_a_constructor_refuses_a_value_that_is_not_a_string(
    construct: Callable[[object], object], value: object
) -> None:
    with pytest.raises(EvaluationError, match="needs a string"):
        construct(value)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0.0", 0),
        ("-0.0", 0),
        ("1.5", 15_000),
        ("1.50", 15_000),
        ("-1.5", -15_000),
        ("-0.0001", -1),
        ("12.3456", 123_456),
        ("00012.3", 123_000),
        ("922337203685477.5807", I64_MAX),
        ("-922337203685477.5808", I64_MIN),
        ("0" * 5000 + "1.0", 10_000),
    ],
)
def test_decimals_are_parsed_to_units_of_four_decimal_places(text: str, units: int) -> None:
    assert decimal(text) == Decimal(units)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.",
        ".5",
        "1.23456",
        "+1.0",
        " 1.0",
        "1.0 ",
        "1.0\n",
        "1,0",
        "1e1.0",
        "--1.0",
        "1.-0",
        "١.٠",
        "1.0.0",
        "922337203685477.5808",
        "-922337203685477.5809",
        "922337203685478.0",
        "9" * 5000 + ".0",
    ],
)
def test_a_malformed_decimal_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError):
        decimal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.0.0.1", Ip(32, 0x0A000001, 32)),
        ("10.0.0.1/8", Ip(32, 0x0A000001, 8)),
        ("0.0.0.0/0", Ip(32, 0, 0)),
        ("255.255.255.255/32", Ip(32, 2**32 - 1, 32)),
        ("::", Ip(128, 0, 128)),
        ("::1/128", Ip(128, 1, 128)),
        ("::/0", Ip(128, 0, 0)),
        ("1:2:3:4:5:6:7::", ip("1:2:3:4:5:6:7:0")),
        ("ABCD::", ip("abcd:0::0")),
        ("0001:0002:0003:0004:0005:0006:0007:0008/128", ip("1:2:3:4:5:6:7:8")),
    ],
)
def test_ip_addresses_and_ranges_are_parsed(text: str, value: Ip) -> None:
    assert ip(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.01",
        "10.0.0.0.0",
        "::ffff:10.0.0.1",
        "1::2::3",
        ":::",
        "12345::",
        "1:2:3:4:5:6:7:8:9",
        "::1%lo",
        "10.0.0.1\n",
        " ::1",
        "0" * 5000,
        "10.0.0.0/" + "9" * 5000,
    ],
)
def test_an_invalid_ip_address_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError):
        ip(text)


@pytest.mark.parametrize(
    ("inner", "outer", "holds"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.0.0.0", "10.0.0.0/8", False),
        ("10.0.0.0/8", "10.0.0.0/8", True),
        ("10.0.0.0/7", "10.0.0.0/8", False),
        ("10.0.0.0/9", "10.255.255.255/8", True),
        ("0.0.0.1", "::/0", False),
        ("::1", "0.0.0.0/0", False),
        ("255.255.255.255", "0.0.0.0/0", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db9::1", "2001:db8::/32", False),
    ],
)
def test_an_ip_range_contains_only_ranges_wholly_inside(inner: str, outer: str, holds: bool) -> None:
    assert is_in_range(ip(inner), ip(outer)) is holds


def test_loopback_and_multicast_ranges_have_their_exact_limits() -> None:
    loopback = ["127.0.0.0", "127.255.255.255", "127.0.0.0/8", "::1"]
    multicast = ["224.0.0.0", "239.255.255.255", "224.0.0.0/4", "ff00::", "ffff::1", "ff00::/8"]
    neither = ["126.255.255.255", "128.0.0.0", "127.0.0.0/7", "::", "::2", "::1/127", "223.255.255.255", "240.0.0.0"]
    neither += ["224.0.0.0/3", "feff::", "ff00::/7", "::ffff:7f00:1"]
    assert [text for text in loopback + multicast + neither if is_loopback(ip(text))] == loopback
    assert [text for text in loopback + multicast + neither if is_multicast(ip(text))] == multicast


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01", 0),
        ("1970-01-02", DAY),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1970-01-01T00:00:00.001Z", 1),
        ("1970-01-01T00:00:00+0001", -60_000),
        ("1970-01-01T00:00:00-0001", 60_000),
        ("2024-02-29", 1_709_164_800_000),
        ("2000-02-29T12:34:56.789+0130", 951_822_296_789),
        ("0000-01-01", -62_167_219_200_000),
        ("0000-03-01", -62_162_035_200_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("9999-12-31T23:59:59.999-2359", 253_402_387_139_999),
        ("0000-01-01T00:00:00+2359", -62_167_305_540_000),
    ],
)
def test_datetimes_are_parsed_to_milliseconds(text: str, ms: int) -> None:
    assert datetime(text) == Datetime(ms)


def test_dates_equal_those_of_the_python_calendar() -> None:
    epoch = python.date(1970, 1, 1)
    for ordinal in range(1, python.date.max.toordinal() + 1, 37):
        day = python.date.fromordinal(ordinal)
        assert datetime(day.isoformat()) == Datetime((day - epoch).days * DAY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024",
        "2024-1-1",
        "24-01-01",
        "02024-01-01",
        "+2024-01-01",
        "-2024-01-01",
        "2024-00-01",
        "2024-13-01",
        "2024-01-00",
        "2024-01-32",
        "2024-04-31",
        "2023-02-29",
        "1900-02-29",
        "2024-02-30",
        "2024-01-01T",
        "2024-01-01Z",
        "2024-01-01T00:00Z",
        "2024-01-01T00:00:00",
        "2024-01-01 00:00:00Z",
        "2024-01-01t00:00:00Z",
        "2024-01-01T00:00:00z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00.12Z",
        "2024-01-01T00:00:00.1234Z",
        "2024-01-01T00:00:00+2400",
        "2024-01-01T00:00:00+0060",
        "2024-01-01T00:00:00+01:00",
        "2024-01-01T00:00:00+01",
        "2024-01-01\n",
        "２024-01-01",
    ],
)
def test_a_malformed_datetime_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError):
        datetime(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1ms", 1),
        ("1s", 1000),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("1d", DAY),
        ("-1d2h3m4s5ms", -93_784_005),
        ("0ms", 0),
        ("-0ms", 0),
        ("5m5ms", 300_005),
        ("9223372036854775807ms", I64_MAX),
        ("-9223372036854775808ms", I64_MIN),
        ("106751991167d7h12m55s807ms", I64_MAX),
        ("-106751991167d7h12m55s808ms", I64_MIN),
        ("0" * 5000 + "1ms", 1),
    ],
)
def test_durations_are_parsed_to_milliseconds(text: str, ms: int) -> None:
    assert duration(text) == Duration(ms)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1",
        "ms",
        "1h1d",
        "1d1d",
        "1d-2h",
        "+1h",
        " 1h",
        "1h ",
        "1h\n",
        "1H",
        "1.5h",
        "1w",
        "１h",
        "--1h",
        "9223372036854775808ms",
        "-9223372036854775809ms",
        "106751991168d",
        "9" * 5000 + "ms",
        "18446744073709551616ms",
    ],
)
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError):
        duration(text)


def test_datetime_arithmetic_beyond_64_bits_is_an_error() -> None:
    assert offset(Datetime(I64_MAX - 1), Duration(1)) == Datetime(I64_MAX)
    assert duration_since(Datetime(-1), Datetime(I64_MAX)) == Duration(I64_MIN)
    assert to_date(Datetime(I64_MAX)) == Datetime(I64_MAX - I64_MAX % DAY)
    first_midnight = I64_MIN + -I64_MIN % DAY
    assert to_date(Datetime(first_midnight)) == Datetime(first_midnight)
    for beyond in (
        lambda: offset(Datetime(I64_MAX), Duration(1)),
        lambda: offset(Datetime(I64_MIN), Duration(-1)),
        lambda: duration_since(Datetime(-2), Datetime(I64_MAX)),
        lambda: duration_since(Datetime(0), Datetime(I64_MIN)),
        lambda: to_date(Datetime(first_midnight - 1)),
    ):
        with pytest.raises(EvaluationError, match="64 bits"):
            beyond()


@pytest.mark.parametrize("ms", [0, 1, -1, DAY - 1, DAY, -DAY, -DAY - 1, I64_MIN, I64_MAX])
def test_a_datetime_equals_the_sum_of_its_date_and_its_time(ms: int) -> None:
    time = to_time(Datetime(ms))
    assert 0 <= time.ms < DAY
    if ms != I64_MIN:  # whose date is out of range
        assert offset(to_date(Datetime(ms)), time) == Datetime(ms)


@pytest.mark.parametrize("sign", [1, -1])
def test_duration_units_are_truncated_towards_zero(sign: int) -> None:
    almost = Duration(sign * (2 * DAY - 1))
    counts = [count(almost) for count in (to_milliseconds, to_seconds, to_minutes, to_hours, to_days)]
    assert counts == [sign * number for number in (2 * DAY - 1, 172_799, 2879, 47, 1)]


def test_methods_on_other_types_are_errors() -> None:
    for wrong in (
        lambda: offset(Datetime(0), Datetime(0)),
        lambda: offset("1970-01-01", Duration(0)),
        lambda: duration_since(Datetime(0), Duration(0)),
    ):
        with pytest.raises(EvaluationError, match="needs"):
            wrong()


def test_values_of_different_types_are_never_equal() -> None:
    values = [Decimal(1), Datetime(1), Duration(1), Ip(32, 1, 32), Ip(128, 1, 32), 1, "1"]
    assert len(set(values)) == len(values)
