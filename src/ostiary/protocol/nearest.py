"""The known name that is nearest to an unknown one, for hints of errors.

Show a hint only to callers that may list the names.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_LISTED = 8
MAX_COMPARED = 1000
"""Maximum number of names to compare; a comparison costs about 10 microseconds."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that is most similar to `name`; None if none is similar."""
    names = sorted(candidates)[:MAX_COMPARED]
    return next(iter(get_close_matches(name[:200], names, n=1)), None)


def nearest_hint(name: str, candidates: Iterable[str]) -> str:
    """Return "did you mean .." or, without a similar name, the first candidates."""
    names = sorted(candidates)
    if (name_found := nearest(name, names)) is not None:
        return f"did you mean `{name_found}`?"
    if not names:
        return ""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"known: {', '.join(names[:MAX_LISTED])}{more}"
