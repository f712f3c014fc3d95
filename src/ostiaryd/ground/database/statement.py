"""Statements: constants of the modules that use them."""

from __future__ import annotations

import re

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_WRITES = re.compile(r"\b(?:insert|update|delete)\b")
_TABLE = re.compile(r"\b(?:from|join|into|update)\s+([a-z_]+)")


class Sql:
    """A statement in both dialects.

    `names`: the order in which `many` expects the columns of a row; `places`: the place of each key in that order;
    `tables`: all tables in the statement; a statement that `adds` inserts rows and changes none, or prunes.
    """

    __slots__ = ("adds", "keys", "lasting", "names", "places", "postgres", "sqlite", "steady", "tables", "writes")

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
        self.places = tuple((key, self.names.index(key)) for key in self.keys)


def sql(text: str, *, steady: bool = False, lasting: bool = False, prunes: bool = False, keys: str = "") -> Sql:
    """Prepare a statement; call it at import, never with a value spliced in.

    `steady`: the result seldom changes and is read often, so the writer caches it until one of its tables changes.
    `lasting`: steady, and a result stays true while rows are only added, as a read by key does; an empty result is not
    cached. `prunes`: deletes only rows that their own date has made worthless, so a cached copy does no harm. `keys`:
    parameters that equal a column of each row of the one table that the statement is about. A read names one of them.
    A late write names those by which its row is read.
    """
    return Sql(text, steady=steady, lasting=lasting, prunes=prunes, keys=keys)
