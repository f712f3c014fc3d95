"""Dates and times of day among words, each in one normal form: `@2026-11-25`, `@11-25` without a year, `~10:30`.

Recognised are ISO 8601, forms with dots and slashes, and English month names. An ambiguous date yields both dates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from ostiary.provenance.origins.words import decimal, thousands

_NAMES = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTHS = {spelled: number for number, name in enumerate(_NAMES, 1) for spelled in (name, name[:3])} | {"sept": 9}
_DAY = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?")
_YEAR = re.compile(r"\d{4}")
_ISO = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:t(.+))?")
_OTHER = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})")
_TIME = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2})(?:\.0+)?)?)?(z|[ap]\.?m\.?)?")
_HALVES = {"am": "am", "a.m": "am", "a.m.": "am", "pm": "pm", "p.m": "pm", "p.m.": "pm"}


def moments(words: Sequence[str]) -> list[str]:
    """Return the dates and times among `words` (as the function `words` returns them), in normal form."""
    return list(dict.fromkeys(chain.from_iterable(list_moments(words))))


def list_moments(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield each date and each time among words, as the list of its readings in normal form: two for an ambiguous date,
    otherwise one.
    """
    for place in [at for at, word in enumerate(words) if not word.isalpha() and word[:1].isdigit()]:
        word = words[place]
        if len(word) > 2 and word.replace(".", "", 1).isdigit():
            continue  # no date and no time is a number of three characters or more
        if (match := _ISO.fullmatch(word)) is not None:
            year, month, day, time = match.groups()
            forms = [_date(year, month, day), _time(time, "") if time else []]
        elif (match := _OTHER.fullmatch(word)) is not None:
            one, _, two, year = match.groups()
            forms = [_date(year, two, one) + _date(year, one, two)]
        elif (match := _DAY.fullmatch(word)) is not None and (near := _near(words, place)):
            forms = [_date(near[1], near[0], match[1])]
        else:
            forms = [_time(word, words[place + 1] if place + 1 < len(words) else "")]
        yield from filter(None, forms)


MAX_NUMBERS = 32
"""maximum number of numbers of a text that are examined"""


def numbers(words: Sequence[str]) -> list[str]:
    """Return the numbers among words that may be amounts: no percentages, no years, no parts of dates. The dot of
    `1.200` groups digits.
    """
    spelled: dict[str, None] = {}
    places = (at for at, one in enumerate(words) if one[:1].isdigit())
    for place in islice(places, MAX_NUMBERS):
        word = words[place]
        around = words[max(0, place - 3) : place + 4]
        number = None if word.endswith("%") else thousands(word) or decimal(word)
        if number is not None and not _YEARS.fullmatch(number) and moments(around) == moments(_without(around, word)):
            spelled[number] = None
    return [*spelled]


def _without(words: Sequence[str], word: str) -> list[str]:
    return [one for one in words if one != word]


_YEARS = re.compile(r"(?:19|20)\d\d")
_BESIDE = frozenset(
    (
        *_MONTHS,
        "of",
        "on",
        "at",
        "the",
        "to",
        "until",
        "from",
        "am",
        "pm",
        "a.m",
        "a.m.",
        "p.m",
        "p.m.",
        "z",
        "utc",
        "gmt",
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        "noon",
        "midnight",
    )
)
"""words that may occur in a date or a time"""
_NUMERIC = re.compile(r"\d{1,4}(?:st|nd|rd|th)?|\d{1,2}:\d{2}(?::\d{2})?(?:z|am|pm)?|\d{1,2}(?:am|pm)")
_STAMP = re.compile(
    r"\d{4}-?\d{2}(?:-?\d{2})?(?:[t ]\d{2}(?::?\d{2}(?::?\d{2}(?:[.,]\d{1,9})?)?)?)?\s?(?:z|utc|[+-]\d{2}(?::?\d{2})?)?"
    r"|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?:[t ]\d{1,2}:\d{2}(?::\d{2})?)?|\d{10}|\d{13}"
    r"|p(?:\d+[ymwd])*(?:t(?:\d+[hms])+)?"
)
_GAP = re.compile(r"[\s,]+")
MAX_MOMENT = 64


def is_moment(text: str) -> bool:
    """Return whether a text is a date, a time, a duration (ISO 8601) or a range of them, and nothing else."""
    text = text.strip().casefold()
    if not text or len(text) > MAX_MOMENT or not text.isascii():
        return False
    if text.isalpha() and len(text) > 1:  # a single word
        return text in _BESIDE
    if _STAMP.fullmatch(text) or ("/" in text and is_interval(text)):
        return True
    words = [one for one in _GAP.split(text) if one not in ("", "-")]
    if len(words) > 12:
        return False
    return all(word in _BESIDE or _NUMERIC.fullmatch(word) or _STAMP.fullmatch(word) for word in words)


def is_interval(text: str) -> bool:
    """Return whether a text in lower case is an interval (ISO 8601): dates, times or durations with `/` between. True
    also for a single date, time or duration.
    """
    return all(_STAMP.fullmatch(one) for one in text.split("/"))


def _near(words: Sequence[str], place: int) -> tuple[str, str] | None:
    """Return the month beside a day, and the year after both (may be empty); None without a month."""
    before, behind = words[place - 1] if place else "", place + 1
    if behind < len(words) and words[behind] == "of":
        behind += 1
    if behind < len(words) and words[behind] in _MONTHS:
        return words[behind], _year(words, behind + 1)
    if before in _MONTHS:
        return before, _year(words, place + 1)
    return None


def _year(words: Sequence[str], place: int) -> str:
    return words[place] if place < len(words) and _YEAR.fullmatch(words[place]) else ""


def _date(year: str, month: str, day: str) -> list[str]:
    number = _MONTHS[month] if month in _MONTHS else int(month)
    if not (1 <= number <= 12 and 1 <= int(day) <= 31):
        return []
    return [f"@{year}-{number:02}-{int(day):02}" if year else f"@{number:02}-{int(day):02}"]


def _time(word: str, behind: str) -> list[str]:
    match = _TIME.fullmatch(word)
    if match is None:
        return []
    half = _HALVES.get(match[4] or behind)
    if (match[2] is None and half is None) or match[3] not in (None, "00"):
        return []
    hour, minute = int(match[1]), int(match[2] or 0)
    if half is not None:
        if not 1 <= hour <= 12:
            return []
        hour = hour % 12 + (12 if half == "pm" else 0)
    return [f"~{hour:02}:{minute:02}"] if hour < 24 and minute < 60 else []
