"""The known name that is nearest to an unknown one, for hints of errors.

Show a hint only to callers that may list the names.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_LISTED = 8
MAX_COMPARED = 1000
"""Names that are compared; a comparison costs about 10 microseconds."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`; None if none is alike."""
    names = sorted(known)[:MAX_COMPARED]
    return next(iter(get_close_matches(name[:200], names, n=1)), None)


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return "did you mean .." or, without a similar name, the first known names."""
    names = sorted(known)
    if (name_found := nearest(name, names)) is not None:
        return f"did you mean `{name_found}`?"
    if not names:
        return ""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"known: {', '.join(names[:MAX_LISTED])}{more}"
