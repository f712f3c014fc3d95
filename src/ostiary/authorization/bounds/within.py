"""Narrowing: checks that bounds lie within other bounds, and selection of the granted bounds."""

from __future__ import annotations

from collections.abc import Sequence

from ostiary.authorization.bounds.conditions import InvalidDetails
from ostiary.authorization.bounds.details import ToolDetail


def is_within(inner: Sequence[ToolDetail], outer: Sequence[ToolDetail]) -> bool:
    """Return whether `outer` permits every call that `inner` permits. True is always correct; False may be wrong.

    Each pair of a resource and a tool (or all tools) of `inner` must lie within one detail of `outer`. If only several
    details of `outer` together cover such a pair, each for some arguments, the result is False.
    """
    return all(_outside(detail, outer) is None for detail in inner)


def narrow(outer: Sequence[ToolDetail], requested: Sequence[ToolDetail]) -> tuple[ToolDetail, ...]:
    """Return the bounds to grant: `requested` if `outer` permits all of it, or all of `outer` if nothing is requested.
    Raises InvalidDetails if the request is wider than `outer`.
    """
    for detail in requested:
        if (outside := _outside(detail, outer)) is not None:
            raise InvalidDetails(
                f"the requested bounds are wider than the available ones: {outside}",
                hint="request only tools, data classes and values of arguments that the available bounds permit",
            )
    return tuple(requested) or tuple(outer)


def _outside(inner: ToolDetail, outer: Sequence[ToolDetail]) -> str | None:
    """Return, in words, the first resource and tool that `inner` permits and no detail of `outer` covers; None
    if there is none.
    """
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
    """Return whether `inner` is at least as strict as `outer`: its data classes are among those of `outer`, and
    each condition of `outer` follows from a condition of `inner` on the same argument.
    """
    if outer.datatypes is not None and not (inner.datatypes and set(inner.datatypes).issubset(outer.datatypes)):
        return False
    return all(
        path in inner.arguments and inner.arguments[path].is_within(condition)
        for path, condition in outer.arguments.items()
    )
