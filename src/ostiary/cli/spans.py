"""Times as people write them: `2026-01-31T12:00:00Z`, or a span back from now such as `15m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ostiary.cli.session import Usage

SECOND = 1_000_000
_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND, "w": 7 * 86_400 * SECOND}
_SPAN = re.compile(r"(?:\d{1,9}[smhdw])+")


def parse_time(text: str, *, now: int) -> int:
    """Microseconds since the epoch; a time without a zone is in UTC. Raises Usage."""
    if _SPAN.fullmatch(text):
        return now - sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([smhdw])", text))
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f"cannot read {text!r} as a time", hint="try 15m, 24h, 7d, 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    return round(given.replace(tzinfo=given.tzinfo or UTC).timestamp() * SECOND)
