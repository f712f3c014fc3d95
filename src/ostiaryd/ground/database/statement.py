"""SQL statements. Each is a constant of the module that uses it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_WRITES = re.compile(r"\b(?:insert|update|delete)\b")
_TABLE = re.compile(r"\b(?:from|join|into|update)\s+([a-z_]+)")


class Sql:
    """A statement in both dialects.

    `names` is the order in which `many` expects the values of a row; `places` is the position of each key in that
    order, and `key_names` are the keys as a set; `tables` are all tables in the statement. `adds` is true if the
    statement only inserts rows, or prunes. `opening` are the statements that PostgreSQL gets with the begin of each
    write transaction.
    """

    __slots__ = (
        "adds",
        "key_names",
        "keys",
        "lasting",
        "names",
        "places",
        "postgres",
        "sqlite",
        "steady",
        "tables",
        "writes",
    )
    opening: ClassVar[list[Sql]] = []

    def __init__(
        self, text: str, *, steady: bool = False, lasting: bool = False, prunes: bool = False, keys: str = ""
    ) -> None:
        self.names: tuple[str, ...] = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        number = {name: index for index, name in enumerate(self.names, 1)}
        self.sqlite = _PARAMETER.sub(lambda match: f"?{number[match[1]]}", text)
        self.postgres = _PARAMETER.sub(lambda match: f"%({match[1]})s", text.replace("%", "%%"))
        self.tables = frozenset(_TABLE.findall(text))
        begins = text.lstrip().partition(" ")[0]
        self.writes = begins != "select" and (begins != "with" or _WRITES.search(text) is not None)
        self.adds = prunes or (begins == "insert" and "on conflict" not in text)
        self.steady, self.lasting, self.keys = steady or lasting, lasting, tuple(keys.split())
        self.key_names = frozenset(self.keys)
        self.places = tuple((key, self.names.index(key)) for key in self.keys)


class Read(NamedTuple):
    """A statement with its parameters. `make` is the function that converts the first row, for a read that
    `Reader.one_as` makes; None for other reads.
    """

    statement: Sql
    params: dict[str, Any]
    make: Callable[..., Any] | None = None


def opening_sql(text: str) -> Sql:
    """Return a statement without parameters that nearly every batch reads once. On PostgreSQL, its rows arrive in the
    round trip that begins the write transaction.
    """
    Sql.opening.append(statement := Sql(text))
    return statement


def sql(text: str, *, steady: bool = False, lasting: bool = False, prunes: bool = False, keys: str = "") -> Sql:
    """Return a prepared statement. Call this at import, and never insert a value into the text.

    `steady`: the result changes rarely and is read often, so the writer caches it until one of the tables changes.
    `lasting`: like `steady`, but the insertion of rows does not invalidate a result, as with a read by key; empty
    results are not cached. `prunes`: the statement deletes only rows that have expired, so cached copies need not be
    deleted. `keys`: parameters that are compared with a column of the one table of the statement. For a read, name one
    of them; for a late write, name those by which the row is read.
    """
    return Sql(text, steady=steady, lasting=lasting, prunes=prunes, keys=keys)
