"""Data classes: how sensitive data are. Catalogues say which a tool handles, bounds and budgets speak of them.

`STANDARD` are always there; the server's configuration (`data_classes`) adds others, and refuses all else. A class is
compared letter by letter: a word of lower-case ASCII has no second spelling.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from ostiary.protocol.errors import Invalid

STANDARD = ("public", "internal", "confidential", "personal", "health", "payment", "secret")
MAX_CLASSES = 32
"""data classes of one tool, one detail, or one list of the configuration"""
_CLASS = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@lru_cache(maxsize=8)  # read for each request
def all_classes(others: str) -> tuple[str, ...]:
    """Return the standard classes and those of the configuration, which are separated by spaces."""
    return tuple(dict.fromkeys((*STANDARD, *others.split())))


def is_class(text: str) -> bool:
    """Return whether it is spelled like one."""
    return _CLASS.fullmatch(text) is not None


def check_known(names: Iterable[str], allowed: Collection[str], *, kind: type[Invalid] = Invalid) -> None:
    """Check that all names are allowed. Raises `kind`, with the allowed names in the hint, for the first other name."""
    for name in names:
        if name not in allowed:
            raise kind(f"{name[:64]!a} is not a configured data class", hint=f"one of {', '.join(allowed)}"[:500])
