"""Schedule expressions of AWS Secrets Manager."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.schedule import DAY_S, HOUR_S, parse_cron, parse_schedule

BEGIN = int(datetime(2026, 1, 31, 8, tzinfo=UTC).timestamp()) * SECOND


def times(expression: str, count: int = 3) -> list[str]:
    """The first times of a cron expression after 2026-01-31 08:00."""

    found, at = list[str](), BEGIN
    for _ in range(count):
        at = parse_cron(expression).next(at)
        found.append(datetime.fromtimestamp(at // SECOND, UTC).strftime("%m-%d %H"))
    return found


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("8 * * ? *", ["02-01 08", "02-02 08", "02-03 08"]),
        ("0/6 * * ? *", ["01-31 12", "01-31 18", "02-01 00"]),
        ("*/12 * * ? *", ["01-31 12", "02-01 00", "02-01 12"]),
        ("/8 * * ? *", ["01-31 16", "02-01 00", "02-01 08"]),
        ("9-17/4 * * ? *", ["01-31 09", "01-31 13", "01-31 17"]),
        ("8,20 * * ? *", ["01-31 20", "02-01 08", "02-01 20"]),
        ("0 1,15 * ? *", ["02-01 00", "02-15 00", "03-01 00"]),
        ("0 L * ? *", ["02-28 00", "03-31 00", "04-30 00"]),
        ("0 31 * ? *", ["03-31 00", "05-31 00", "07-31 00"]),
        ("0 1 */3 ? *", ["04-01 00", "07-01 00", "10-01 00"]),
        ("0 1 JAN,JUL ? *", ["07-01 00", "01-01 00", "07-01 00"]),
        ("0 ? * 1 *", ["02-01 00", "02-08 00", "02-15 00"]),
        ("0 ? * MON-WED *", ["02-02 00", "02-03 00", "02-04 00"]),
        ("0 ? * TUE#1 *", ["02-03 00", "03-03 00", "04-07 00"]),
        ("0 ? * 6L *", ["02-27 00", "03-27 00", "04-24 00"]),
    ],
)
def test_a_cron_expression_yields_the_expected_times(fields: str, expected: list[str]) -> None:
    assert times(f"cron(0 {fields})") == expected


def test_a_schedule_has_the_shortest_and_the_longest_time_between_rotations() -> None:
    for expression, shortest, longest in (
        ("rate(1 hour)", HOUR_S, HOUR_S),
        ("rate(1000 days)", 1000 * DAY_S, 1000 * DAY_S),
        ("cron(0 8 1 * ? *)", 28 * DAY_S, 31 * DAY_S),
        ("cron(0 0,4 * * ? *)", 4 * HOUR_S, 20 * HOUR_S),
        ("cron(0 4-22/6 ? * MON-FRI *)", 6 * HOUR_S, 54 * HOUR_S),
        ("cron(0 0 ? * 1 *)", 7 * DAY_S, 7 * DAY_S),
    ):
        schedule = parse_schedule(expression, "1h")
        assert (schedule.shortest, schedule.period) == (shortest, longest), expression


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "rate(0 days)",
        "rate(1001 days)",
        "rate(1 minute)",
        "cron(0 8 * * ?)",
        "cron(0 8 * * ? 2027)",
        "cron(5 8 * * ? *)",
        "cron(* 8 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 8 32 * ? *)",
        "cron(0 8 30 2 ? *)",
        "cron(0 8 29 2 ? *)",
        "cron(0 8 0 * ? *)",
        "cron(0 8 * 13 ? *)",
        "cron(0 8 * FEBR ? *)",
        "cron(0 8 ? * 8 *)",
        "cron(0 8 ? * MON#6 *)",
        "cron(0 8 ? * ? *)",
        "cron(0 8 * * * *)",
        "cron(0 8-4 * * ? *)",
        "cron(0 */0 * * ? *)",
        "cron(0 8, * * ? *)",
        "cron(0 *-4 * * ? *)",
        "cron(0 -4 * * ? *)",
        "cron(0 / * * ? *)",
        "cron(0 8 1W * ? *)",
        "cron(0 8 * * ? *) ",
    ],
)
def test_a_malformed_schedule_expression_is_refused(expression: str) -> None:
    with pytest.raises(Invalid, match="ScheduleExpression"):
        parse_schedule(expression)


@pytest.mark.parametrize("window", ["0h", "25h", "3", "h", "-1h", "999h", "3d", "17h"])
def test_a_rotation_window_that_overlaps_the_next_window_or_day_is_refused(window: str) -> None:
    with pytest.raises(Invalid, match="Duration"):
        parse_schedule("cron(0 8 1 * ? *)", window)
    assert parse_schedule("cron(0 8 1 * ? *)", "16h").window == "16h"
