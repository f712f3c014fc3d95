"""Schedule expressions of AWS Secrets Manager: `rate(12 hours)`, and `cron(0 HOURS DAY-OF-MONTH MONTH DAY-OF-WEEK *)`.

All times are in UTC. A cron expression has whole hours. One of its two fields for days is `?`. A field is a list of
values, ranges and steps; months and days of the week also have names. `L` is the last day of the month, `6L` the last
Friday and `6#2` the second Friday.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.request import SECOND

HOUR_S, DAY_S = 3600, 86_400
LONGEST_DAYS = 1000
_RATE = re.compile(r"rate\(([0-9]{1,5}) (hour|day)s?\)")
_CRON = re.compile(r"cron\(0 ([0-9*,/-]+) ([0-9*,/?L-]+) ([0-9A-Z*,/-]+) ([0-9A-Z*,/?#-]+) \*\)")
_VALUES = re.compile(r"(\*|\w{1,3}|(?=/))(?:-(\w{1,3}))?(?:/([0-9]{1,2}))?")
_NTH = re.compile(r"(\w{1,3})(?:#([1-5])|L)")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIRST_DAY, _DAYS = date(2024, 1, 1), 8 * 366
"""the days in which the longest and the shortest time between two rotations are computed"""


class Schedule(NamedTuple):
    """A schedule of rotations. `period`, `shortest`: the longest and the shortest time between two rotations in
    seconds; they differ only for a cron expression. `expression`, `window`: the members `ScheduleExpression` and
    `Duration` of AWS.
    """

    period: int
    shortest: int
    expression: str = ""
    window: str = ""


class Cron(NamedTuple):
    """A cron expression: hours, months, and days of the month or of the week. `is_last`: the last day of the month too.
    `nth`: (day of the week, number in the month) of further days; number 0 is the last. `None`: the field is `?`.
    """

    hours: frozenset[int]
    days: frozenset[int] | None
    is_last: bool
    months: frozenset[int]
    weekdays: frozenset[int] | None
    nth: frozenset[tuple[int, int]]

    def next(self, after: int) -> int:
        """Return the first time of the cron expression after `after`; both are microseconds since the epoch."""
        moment = datetime.fromtimestamp(after // SECOND, UTC)
        at = next(at for at in self._times(moment.date(), _DAYS) if at > moment)
        return int(at.timestamp()) * SECOND

    def gaps(self) -> tuple[int, int]:
        """Return the shortest and the longest time between two times of the cron expression, in seconds. Raises Invalid
        if the expression names only a day that does not exist, such as February 30.
        """
        hours = sorted(self.hours)
        days = [number for number in range(_DAYS) if self._is_day(_FIRST_DAY + timedelta(days=number))]
        over_night = [24 * (later - day) + hours[0] - hours[-1] for day, later in pairwise(days)]
        if not over_night:
            raise _wrong("the day that the expression names does not exist")
        gaps = [*over_night, *(later - hour for hour, later in pairwise(hours))]
        return min(gaps) * HOUR_S, max(gaps) * HOUR_S

    def _times(self, first: date, count: int) -> Iterator[datetime]:
        for number in range(count):
            day = first + timedelta(days=number)
            if self._is_day(day):
                for hour in sorted(self.hours):
                    yield datetime(day.year, day.month, day.day, hour, tzinfo=UTC)

    def _is_day(self, day: date) -> bool:
        is_last = (day + timedelta(days=1)).month != day.month
        weekday = day.isoweekday() % 7 + 1
        in_month = self.days is None or day.day in self.days or (self.is_last and is_last)
        number = 0 if (day + timedelta(days=7)).month != day.month else -1
        nth = {(weekday, (day.day - 1) // 7 + 1), (weekday, number)}
        in_week = self.weekdays is None or weekday in self.weekdays or not nth.isdisjoint(self.nth)
        return day.month in self.months and in_month and in_week


def parse_schedule(expression: str, window: str = "") -> Schedule:
    """Return the schedule in `expression`, such as `rate(10 days)` or `cron(0 8 1 * ? *)`. `window`: the member
    `Duration` of AWS, such as `3h`; a rotation begins when the window opens. Raises Invalid for a malformed or
    unsupported schedule or window.
    """
    if match := _RATE.fullmatch(expression):
        period = shortest = int(match[1]) * (DAY_S if match[2] == "day" else HOUR_S)
        last_hour = 0
    else:
        cron = parse_cron(expression)
        shortest, period = cron.gaps()
        last_hour = max(cron.hours)
    if not HOUR_S <= period <= LONGEST_DAYS * DAY_S:
        raise _wrong(f"the time between two rotations must be 1 hour to {LONGEST_DAYS} days")
    if window:
        hours = int(window[:-1]) if re.fullmatch("[0-9]{1,2}h", window) else 0
        if not 0 < hours <= min(24 - last_hour, shortest // HOUR_S):
            raise Invalid(
                "`RotationRules.Duration` must be a number of hours such as `3h`, and the window must end before the "
                "next window and before the next UTC day"
            )
    return Schedule(period, shortest, expression, window)


@lru_cache(maxsize=256)
def parse_cron(expression: str) -> Cron:
    """Return the cron expression of AWS in a text such as `cron(0 8 1 * ? *)`. Raises Invalid for other text."""
    match = _CRON.fullmatch(expression)
    if match is None:
        raise _wrong("the form is rate(N hours), rate(N days) or cron(0 HOURS DAY-OF-MONTH MONTH DAY-OF-WEEK *)")
    hours, days, months, weekdays = match.groups()
    if (days == "?") == (weekdays == "?"):
        raise _wrong("exactly one of day-of-month and day-of-week must be `?`")
    of_month = days.split(",")
    numbered = [_NTH.fullmatch(one) for one in weekdays.split(",")]
    plain = [one for one, match in zip(weekdays.split(","), numbered, strict=True) if match is None]
    return Cron(
        _parse_values(hours.split(","), 0, 23),
        None if days == "?" else _parse_values([one for one in of_month if one != "L"], 1, 31),
        "L" in of_month,
        _parse_values(months.split(","), 1, 12, _MONTHS),
        None if weekdays == "?" else _parse_values(plain, 1, 7, _WEEKDAYS),
        frozenset((_parse_value(one[1], 1, 7, _WEEKDAYS), int(one[2] or 0)) for one in numbered if one is not None),
    )


def _parse_values(parts: list[str], low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    values = set[int]()
    for part in parts:
        match = _VALUES.fullmatch(part)
        if match is None or ((is_any := match[1] in ("*", "")) and match[2]):
            raise _wrong(f"{part[:20]!a} is no value, range or step")
        first = low if is_any else _parse_value(match[1], low, high, names)
        last = high if is_any or match[3] else first
        if match[2]:
            last = _parse_value(match[2], low, high, names)
        span = range(first, last + 1, int(match[3] or 1) or high + 1)
        if not span or match[3] == "0":
            raise _wrong(f"{part[:20]!a} has no value")
        values.update(span)
    return frozenset(values)


def _parse_value(text: str, low: int, high: int, names: tuple[str, ...]) -> int:
    value = names.index(text) + 1 if text in names else int(text) if text.isdecimal() else -1
    if not low <= value <= high:
        raise _wrong(f"{text[:20]!a} is not within {low}-{high}")
    return value


def _wrong(why: str) -> Invalid:
    return Invalid(
        f"`RotationRules.ScheduleExpression` is not valid: {why}",
        hint="write rate(12 hours), rate(10 days), or for example cron(0 8 1 * ? *)",
    )
