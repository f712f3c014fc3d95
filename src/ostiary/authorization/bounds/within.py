"""Narrowing: whether bounds lie within other bounds, and the part that is granted."""

from __future__ import annotations

from collections.abc import Sequence

from ostiary.authorization.bounds.conditions import InvalidDetails
from ostiary.authorization.bounds.details import ToolDetail


def is_within(inner: Sequence[ToolDetail], outer: Sequence[ToolDetail]) -> bool:
    """Return whether every call that `inner` permits is permitted by `outer`. Never true otherwise.

    Each pair of a resource and a tool (or all tools) of `inner` must lie within one detail of `outer`: that several of
    them cover it only together, each a part of its arguments, is not seen (and denied).
    """
    return all(_outside(detail, outer) is None for detail in inner)


def narrow(outer: Sequence[ToolDetail], requested: Sequence[ToolDetail]) -> tuple[ToolDetail, ...]:
    """Return the requested part of `outer`: all of it if nothing is requested. Raises InvalidDetails for a wider
    request.
    """
    for detail in requested:
        if (outside := _outside(detail, outer)) is not None:
            raise InvalidDetails(f"the requested bounds are wider than the available ones: {outside}")
    return tuple(requested) or tuple(outer)


def _outside(inner: ToolDetail, outer: Sequence[ToolDetail]) -> str | None:
    """Return the first resource and tool that `inner` allows and no detail of `outer` does."""
    binding = [detail for detail in outer if _binds(inner, detail)]
    for location in inner.locations:
        local = [detail for detail in binding if location in detail.locations]
        if any(detail.actions is None for detail in local):
            continue
        if inner.actions is None:
            return f"all tools of {location}"
        allowed = {action for detail in local for action in detail.actions or ()}
        if refused := next((action for action in inner.actions if action not in allowed), None):
            return f"the tool `{refused}` of {location}"
    return None


def _binds(inner: ToolDetail, outer: ToolDetail) -> bool:
    """Return whether `inner` is inside `outer`: no further data classes, and each condition of `outer` follows from the
    condition of `inner` on the same argument.
    """
    if outer.datatypes is not None and not (inner.datatypes and set(inner.datatypes).issubset(outer.datatypes)):
        return False
    return all(
        path in inner.arguments and inner.arguments[path].is_within(condition)
        for path, condition in outer.arguments.items()
    )
