"""Statements: constants of the modules that use them."""

from __future__ import annotations

import re

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_TABLE = re.compile(r"\b(?:from|join|into|update)\s+([a-z_]+)")


class Sql:
    """One statement in both spellings.

    `names` is the order in which `many` expects the columns of a row, `tables` are all that it mentions.
    """

    __slots__ = ("for_good", "names", "postgres", "sqlite", "steady", "tables", "writes")

    def __init__(self, text: str, *, for_good: bool = False, steady: bool = False) -> None:
        self.names: tuple[str, ...] = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        number = {name: index for index, name in enumerate(self.names, 1)}
        self.sqlite = _PARAMETER.sub(lambda match: f"?{number[match[1]]}", text)
        self.postgres = _PARAMETER.sub(lambda match: f"%({match[1]})s", text.replace("%", "%%"))
        self.tables = frozenset(_TABLE.findall(text))
        self.writes = not text.lstrip().startswith("select")
        self.for_good = for_good
        self.steady = steady


def sql(text: str, *, for_good: bool = False, steady: bool = False) -> Sql:
    """Prepare a statement; call it at import, never with a value spliced in.

    `for_good`: what it writes stays though the act be refused, unless the act has written something else before.
    `steady`: what it reads seldom changes and is asked often: the writer asks once, and again only after something was
    written to its tables.
    """
    return Sql(text, for_good=for_good, steady=steady)
