"""What tokens must know of resources and of retired keys, and no more."""

from __future__ import annotations

from collections.abc import Iterable

from ostiaryd.ground.database import Reader, sql
from ostiaryd.tokens.model import Target

_BY_URI = sql("select uri, name from resource where uri = :key")
_RETIRED = sql("select 1 from server_key where state = 'retired' and retired_at < :before limit 1")
_BY_NAME = sql("select uri, name from resource where name = :key")


def target_by_uri(reader: Reader, uri: str) -> Target | None:
    """Letter by letter: RFC 8707 leaves no room for a second spelling."""
    row = reader.one(_BY_URI, key=uri)
    return None if row is None else Target(*row)


def target_by_name(reader: Reader, name: str) -> Target | None:
    row = reader.one(_BY_NAME, key=name)
    return None if row is None else Target(*row)


def registered(reader: Reader, names: Iterable[str]) -> list[str]:
    """Those of the names that a resource has."""
    return [name for name in names if reader.one(_BY_NAME, key=name) is not None]


def has_retired_keys(reader: Reader, *, before: int) -> bool:
    """Whether a key of ours was retired before that instant."""
    return reader.one(_RETIRED, before=before) is not None
