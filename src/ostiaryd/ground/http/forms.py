"""Parses forms and query strings to text, strictly and with limits."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_plus

from ostiary.protocol.errors import Malformed

MAX_PARAMETERS = 100


def parse_form(body: bytes) -> dict[str, list[str]]:
    """Parse application/x-www-form-urlencoded, a form body or a query: strict UTF-8, at most 100 parameters; a
    parameter without `=` has the empty value. Raises Malformed for other text.
    """
    form: dict[str, list[str]] = {}
    try:
        pairs = body.decode("ascii").split("&") if body else []
        if len(pairs) > MAX_PARAMETERS:
            raise ValueError(f"more than {MAX_PARAMETERS} parameters")
        for pair in filter(None, pairs):
            name, _, value = pair.partition("=")
            if "%" in pair or "+" in pair:  # no escapes are in tokens, which are the longest values
                name, value = _unquote(name), _unquote(value)
            if name in form:
                form[name].append(value)
            else:
                form[name] = [value]
    except ValueError as error:
        raise Malformed(f"the form or query cannot be parsed: {error}") from None
    return form


def _unquote(text: str) -> str:
    return _decode(text) if len(text) <= 256 else unquote_plus(text, errors="strict")


@lru_cache(maxsize=1024)
def _decode(text: str) -> str:
    """Return a percent-decoded text. Short texts are cached, because names of grants, assertion types and resources
    repeat.
    """
    return unquote_plus(text, errors="strict")
