"""Data classes, which state how sensitive data are. Catalogues state the data classes of each tool; bounds and budgets
refer to them.

The classes in `STANDARD` always exist. The server's configuration (`data_classes`) adds others, and all other names are
refused. Names of classes are lower-case ASCII and are compared exactly.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from ostiary.protocol.errors import Invalid

STANDARD = ("public", "internal", "confidential", "personal", "health", "payment", "secret")
MAX_CLASSES = 32
"""maximum number of data classes of one tool, one detail, or one list in the configuration"""
_CLASS = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@lru_cache(maxsize=8)  # called for each request
def all_classes(others: str) -> tuple[str, ...]:
    """Return the standard classes together with those of the configuration. `others`: the names of the latter,
    separated by spaces.
    """
    return tuple(dict.fromkeys((*STANDARD, *others.split())))


def is_class(text: str) -> bool:
    """Return whether the text has the form of the name of a data class."""
    return _CLASS.fullmatch(text) is not None


def check_known(names: Iterable[str], allowed: Collection[str], *, kind: type[Invalid] = Invalid) -> None:
    """Check that all names of data classes are in `allowed`. Raises an error of the class `kind` for the first unknown
    name, with the allowed names in the hint.
    """
    for name in names:
        if name not in allowed:
            raise kind(f"{name[:64]!a} is not a configured data class", hint=f"use one of {', '.join(allowed)}"[:500])
