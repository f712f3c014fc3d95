"""Query for retired signing keys."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, sql

_RETIRED = sql("select 1 from server_key where state = 'retired' and retired_at < :before limit 1")


def has_retired_keys(reader: Reader, *, before: int) -> bool:
    """Return whether any signing key of the server was retired before `before` (microseconds)."""
    return reader.one(_RETIRED, before=before) is not None
