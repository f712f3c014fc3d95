"""Times on the command line: `2026-01-31T12:00:00Z`, or a span before now, such as `15m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ostiary.cli.usage import Usage

SECOND = 1_000_000
_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND, "w": 7 * 86_400 * SECOND}
_SPAN = re.compile(r"(?:\d{1,9}[smhdw])+")


def parse_time(text: str, *, now: int) -> int:
    """Return the time in microseconds since the epoch; a time without a zone is in UTC. Raises Usage for other text."""
    if _SPAN.fullmatch(text):
        return now - parse_span(text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f"cannot read {text!r} as a time", hint="try 15m, 24h, 7d, 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    return round(parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp() * SECOND)


def parse_span(text: str) -> int:
    """Return the length of a span such as `90d` or `1h30m` in microseconds. Raises Usage for other text."""
    if not _SPAN.fullmatch(text):
        raise Usage(f"cannot read {text!r} as a span of time", hint="try 15m, 24h or 90d")
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([smhdw])", text))
