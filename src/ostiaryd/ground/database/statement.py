"""Statements: constants of the modules that use them."""

from __future__ import annotations

import re

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_TABLE = re.compile(r"\b(?:from|join|into|update)\s+([a-z_]+)")


class Sql:
    """One statement in both spellings.

    `names` is the order in which `many` expects the columns of a row, `tables` are all that it mentions.
    """

    __slots__ = ("names", "postgres", "sqlite", "steady", "tables", "writes")

    def __init__(self, text: str, *, steady: bool = False) -> None:
        self.names: tuple[str, ...] = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        number = {name: index for index, name in enumerate(self.names, 1)}
        self.sqlite = _PARAMETER.sub(lambda match: f"?{number[match[1]]}", text)
        self.postgres = _PARAMETER.sub(lambda match: f"%({match[1]})s", text.replace("%", "%%"))
        self.tables = frozenset(_TABLE.findall(text))
        self.writes = not text.lstrip().startswith("select")
        self.steady = steady


def sql(text: str, *, steady: bool = False) -> Sql:
    """Prepare a statement; call it at import, never with a value spliced in.

    `steady`: what it reads seldom changes and is asked often: the writer asks once, and again only after something was
    written to its tables.
    """
    return Sql(text, steady=steady)
