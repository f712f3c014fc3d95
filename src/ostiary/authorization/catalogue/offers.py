"""Offers: the URIs and URI templates of the resources that an MCP server lists, which a call may name.

A value that equals an offer comes from the server, so its origin does not matter. If a value is an expansion of a
template (RFC 6570), each variable is judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

MAX_OFFERS = 1000
MAX_OFFER = 2048
"""maximum length in characters of one offer, and of a value that is compared with templates"""
MAX_VARIABLES = 16
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_SIMPLE = re.compile(r"[A-Za-z0-9_]+")
_NAMED = re.compile(r"[^A-Za-z0-9_%]?[A-Za-z0-9_%].*", re.DOTALL)
"""An expression with at least one name behind its operator (RFC 6570 section 2.2)."""
_SEPARATORS = frozenset("/?#&")


class Variable(NamedTuple):
    """The value of one expression of a URI template, taken from a URI. `is_simple`: true for a plain `{name}`, whose
    value contains no separator of a URI.
    """

    value: str
    is_simple: bool


class _Template(NamedTuple):
    literals: tuple[str, ...]
    """the texts around the expressions; their number is that of the expressions plus one"""
    simple: tuple[bool, ...]

    def variables(self, value: str) -> list[Variable] | None:
        """Return the variables for which the template expands to `value`, each as short as possible; None if
        there are none.
        """
        first, *between, last = self.literals
        if not (value.startswith(first) and value.endswith(last) and len(value) >= len(first) + len(last)):
            return None
        at, end, values = len(first), len(value) - len(last), list[str]()
        for literal in between:
            until = value.find(literal, at, end)
            if until < 0:
                return None
            values.append(value[at:until])
            at = until + len(literal)
        values.append(value[at:end])
        pairs = list(zip(values, self.simple, strict=True))
        if any(is_simple and not _SEPARATORS.isdisjoint(text) for text, is_simple in pairs):
            return None
        return [Variable(unquote(text), is_simple) for text, is_simple in pairs]


class Offers:
    """The offers of one tool, prepared once for all of its calls: the URIs, URI templates and names that the server
    lists, and that a call may name.
    """

    __slots__ = ("_templates", "_values")

    def __init__(self, offers: Iterable[str]) -> None:
        offered = list(offers)
        self._values = frozenset(offered)
        """All offers, templates included, because completion names a template literally."""
        self._templates = [made for one in offered if "{" in one and (made := _template(one)) is not None]

    def __bool__(self) -> bool:
        return bool(self._values)

    def variables(self, value: str) -> list[Variable] | None:
        """Return the variables of `value` by the first template that expands to `value`; empty if `value`
        equals an offer; None if no offer covers `value`.
        """
        if value in self._values:
            return []
        if len(value) > MAX_OFFER:
            return None
        return next((variables for one in self._templates if (variables := one.variables(value)) is not None), None)


def _template(text: str) -> _Template | None:
    """Return the parsed template; None if the end of a variable would be ambiguous, or if the syntax is not
    supported.
    """
    literals, expressions = _EXPRESSION.split(text)[::2], _EXPRESSION.findall(text)
    if not 0 < len(expressions) <= MAX_VARIABLES or "" in literals[1:-1]:
        return None
    if not all(map(_NAMED.fullmatch, expressions)):
        return None
    if any(mark in literal for literal in literals for mark in "{}"):
        return None
    return _Template(tuple(literals), tuple(_SIMPLE.fullmatch(one) is not None for one in expressions))
