"""Dates and times of day in a text, in one spelling each: `@2026-11-25`, `@11-25` where no year is said, `~10:30`.

ISO 8601, the forms with dots and slashes, and English month names. What could be two dates is both.
"""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)(?:[a-z]{3,6})?\.?"
_FOUND = re.compile(
    rf"""(?<![\w.-])(?:
      (?P<year>\d{{4}})[-/](?P<month>\d{{1,2}})[-/](?P<day>\d{{1,2}})
    | (?P<one>\d{{1,2}})(?P<mark>[./-])(?P<two>\d{{1,2}})(?P=mark)(?P<year2>\d{{4}})
    | (?P<day3>\d{{1,2}})(?:st|nd|rd|th)?\ (?:of\ )?(?P<month3>{_MONTH})(?:,?\ (?P<year3>\d{{4}}))?
    | (?P<month4>{_MONTH})\ (?P<day4>\d{{1,2}})(?:st|nd|rd|th)?(?![\w:])(?:,?\ (?P<year4>\d{{4}}))?
    )(?!\d)
    | (?<![\d.:-])(?P<hour>\d{{1,2}})(?::(?P<minute>\d{{2}})(?::(?P<second>\d{{2}})(?:\.0+)?)?)?
      \ ?(?P<half>[ap]\.?m)?(?![\w:])""",
    re.IGNORECASE | re.VERBOSE,
)


def moments(text: str) -> list[str]:
    found: list[str] = []
    for match in _FOUND.finditer(text.replace("T", " ") if "T" in text else text):
        part = match.groupdict()
        if part["hour"] is not None:
            found += _time(part)
        elif part["one"] is not None:
            found += _date(part["year2"], part["two"], part["one"]) + _date(part["year2"], part["one"], part["two"])
        else:
            for end in ("", "3", "4"):
                if part[f"day{end}"] is not None:
                    found += _date(part[f"year{end}"], part[f"month{end}"], part[f"day{end}"])
    return list(dict.fromkeys(found))


def _date(year: str | None, month: str, day: str) -> list[str]:
    number = _MONTHS.index(month[:3].lower()) + 1 if month[0].isalpha() else int(month)
    if not (1 <= number <= 12 and 1 <= int(day) <= 31):
        return []
    return [f"@{year}-{number:02}-{int(day):02}" if year else f"@{number:02}-{int(day):02}"]


def _time(part: dict[str, str | None]) -> list[str]:
    if part["minute"] is None and part["half"] is None:
        return []
    hour, minute, half = int(part["hour"] or 0), int(part["minute"] or 0), (part["half"] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            return []
        hour = hour % 12 + (12 if half.startswith("p") else 0)
    if hour > 23 or minute > 59 or part["second"] not in (None, "00"):
        return []
    return [f"~{hour:02}:{minute:02}"]
