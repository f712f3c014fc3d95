"""Details of type `tool`: parsing, rendering, and checks of calls against them. RFC 9396 sections 2 and 5.

Stricter than the RFC: null is refused everywhere, because a reader could take it for "no condition".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from ostiary.authorization.bounds.conditions import Condition, InvalidDetails
from ostiary.authorization.classes import MAX_CLASSES, check_known, is_class
from ostiary.protocol.decoding import convert

MAX_DETAILS = 32
MAX_LOCATIONS = 32
MAX_ACTIONS = 256
MAX_ARGUMENTS = 32
MAX_NAME = 256
MAX_LOCATION = 2048
MAX_PATH = 8

_TOOL: Literal["tool"] = "tool"
ABSENT = object()
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")


class ToolDetail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    # `omit_defaults` does not omit the value of a factory, so `type` is always rendered
    type: Literal["tool"] = msgspec.field(default_factory=lambda: _TOOL)
    locations: tuple[str, ...]
    """URIs of resources, compared character by character"""
    actions: tuple[str, ...] | None = None
    """names of tools; None: all tools"""
    datatypes: tuple[str, ...] | None = None
    """permitted data classes: a tool must have at least one class, and all its classes must be in this list;
    None: any classes
    """
    arguments: dict[str, Condition] = {}
    """conditions by name or dotted path of the argument"""

    def __post_init__(self) -> None:
        """Check the limits that the types do not express, such as the number of conditions. Raises InvalidDetails for
        details beyond a limit.
        """
        if not 0 < len(self.locations) <= MAX_LOCATIONS:
            raise InvalidDetails(f"`locations` must have 1 to {MAX_LOCATIONS} members")
        for location in self.locations:
            if len(location) > MAX_LOCATION:
                raise InvalidDetails(f"`locations`: {location[:64]!a}... has more than {MAX_LOCATION} characters")
            if not _URI.fullmatch(location):
                raise InvalidDetails(f"`locations`: {location[:64]!a} is not a URI")
        if self.actions is not None:
            if not 0 < len(self.actions) <= MAX_ACTIONS:
                raise InvalidDetails(
                    f"`actions` must have 1 to {MAX_ACTIONS} members", hint="leave `actions` out for all tools"
                )
            if not all(0 < len(action) <= MAX_NAME for action in self.actions):
                raise InvalidDetails(f"each member of `actions` must have 1 to {MAX_NAME} characters")
        if self.datatypes is not None:
            if not 0 < len(self.datatypes) <= MAX_CLASSES:
                raise InvalidDetails(
                    f"`datatypes` must have 1 to {MAX_CLASSES} members", hint="leave `datatypes` out for all data"
                )
            for name in self.datatypes:
                if not is_class(name):
                    raise InvalidDetails(
                        f"`datatypes`: {name[:64]!a} is not spelled like a data class",
                        hint="use 1 to 63 lower-case letters, digits, `.`, `_` and `-`",
                    )
        if len(self.arguments) > MAX_ARGUMENTS:
            raise InvalidDetails(f"`arguments` has more than {MAX_ARGUMENTS} members")
        for path in self.arguments:
            names = path.split(".")
            if len(path) > MAX_NAME:
                raise InvalidDetails(f"`arguments`: {path[:64]!a}... has more than {MAX_NAME} characters")
            if len(names) > MAX_PATH or not all(names):
                raise InvalidDetails(f"`arguments`: {path[:64]!a} is not 1 to {MAX_PATH} names with dots between them")

    def covers(self, resource_uri: str, tool: str) -> bool:
        """Return whether the detail applies to this tool of the resource."""
        return resource_uri in self.locations and (self.actions is None or tool in self.actions)

    def admits(self, classes: frozenset[str]) -> bool:
        """Return whether the detail permits a tool that handles the data classes `classes`. If the detail lists data
        classes, all of `classes` must be among them, and a tool without a data class is not permitted.
        """
        return self.datatypes is None or (bool(classes) and classes.issubset(self.datatypes))

    def limited_to(self, classes: Sequence[str]) -> ToolDetail | None:
        """Return the detail with `datatypes` limited to the classes in `classes`; None if the detail lists data classes
        and `classes` has none of them.
        """
        left = classes if self.datatypes is None else [name for name in self.datatypes if name in classes]
        return None if self.datatypes and not left else msgspec.structs.replace(self, datatypes=tuple(left))

    def failure(self, arguments: Mapping[str, object]) -> str | None:
        """Return, in words, the first condition that the arguments do not meet; None if they meet all. The text
        quotes no values of arguments.
        """
        for path, condition in self.arguments.items():
            value = argument_at(arguments, path)
            if value is ABSENT:
                return f"the argument `{path}` is missing"
            if (reason := condition.failure(value)) is not None:
                return f"the argument `{path}` {reason}"
        return None


def parse_details(value: object, *, classes: Collection[str] | None = None) -> tuple[ToolDetail, ...]:
    """Return the details in the parsed JSON array `authorization_details`. `classes`: all known data classes; None: not
    checked. Raises InvalidDetails for malformed details, or details beyond a limit.
    """
    if not isinstance(value, list):
        raise InvalidDetails("`authorization_details` is not a JSON array")
    if not value:
        return ()
    if len(value) > MAX_DETAILS:
        raise InvalidDetails(f"`authorization_details` has more than {MAX_DETAILS} members")
    if not all(isinstance(detail, dict) and detail.get("type") == _TOOL for detail in value):
        raise InvalidDetails("a member of `authorization_details` is not of the type `tool`")
    try:
        if _has_null(value):
            raise InvalidDetails("`authorization_details` contains null", hint="leave the member out instead")
        details = convert(value, tuple[ToolDetail, ...])
    except msgspec.ValidationError as error:
        wrong = str(error)[:200]
        hint = "send a number with a fraction as a string" if "float" in wrong else ""
        if "unknown field" in wrong:
            members = Condition if ".arguments" in wrong else ToolDetail
            hint = f"the members are {', '.join(members.__struct_encode_fields__)}"
        raise InvalidDetails(f"`authorization_details`: {wrong}", hint=hint) from None
    except RecursionError:
        raise InvalidDetails("`authorization_details` is nested too deeply") from None
    if classes is not None:
        check_known((name for one in details for name in one.datatypes or ()), classes, kind=InvalidDetails)
    return details


def render_details(details: Iterable[ToolDetail]) -> list[dict[str, object]]:
    """Return the details as a JSON array, from which `parse_details` returns the same details."""
    rendered: list[dict[str, object]] = msgspec.json.decode(msgspec.json.encode(list(details)))
    return rendered


def datatypes(details: Iterable[ToolDetail]) -> frozenset[str] | None:
    """Return all data classes to which the details are limited; None if a detail is not limited."""
    names: set[str] = set()
    for detail in details:
        if detail.datatypes is None:
            return None
        names.update(detail.datatypes)
    return frozenset(names)


def permits(
    details: Iterable[ToolDetail],
    *,
    resource_uri: str,
    tool: str,
    arguments: Mapping[str, object],
    classes: frozenset[str] = frozenset(),
) -> bool:
    """Return whether at least one of the details permits a call of the tool `tool`, which handles the data classes
    `classes`, with these arguments at the resource.
    """
    return any(
        detail.covers(resource_uri, tool) and detail.admits(classes) and detail.failure(arguments) is None
        for detail in details
    )


def explain(
    details: Iterable[ToolDetail],
    *,
    resource_uri: str,
    tool: str,
    arguments: Mapping[str, object],
    classes: frozenset[str] = frozenset(),
) -> str:
    """Return, in words for people, why the details do not permit a call; empty if they do. The text quotes no
    values of arguments.
    """
    local = [detail for detail in details if resource_uri in detail.locations]
    if not local:
        return f"the task does not reach the resource {resource_uri}"
    covering = [detail for detail in local if detail.covers(resource_uri, tool)]
    if not covering:
        return f"the task does not allow the tool `{tool}`"
    failures = [detail.failure(arguments) for detail in covering if detail.admits(classes)]
    if not failures:
        return _explain_classes(tool, classes, covering)
    return "" if None in failures else "; or ".join(filter(None, failures))


def _explain_classes(tool: str, classes: frozenset[str], details: Iterable[ToolDetail]) -> str:
    if not classes:
        return f"the task is limited to some data classes, and `{tool}` has none in its catalogue"
    allowed = "; or ".join(" ".join(detail.datatypes or ()) for detail in details)
    return f"`{tool}` handles {' '.join(sorted(classes))}, and the task is limited to {allowed}"[:500]


def argument_at(arguments: Mapping[str, object], path: str) -> object:
    """Return the value at a dotted path; ABSENT if there is none.

    Elements of arrays have no path. The path `a.b` is also absent if the object has a member `a` and a member `a.b`,
    because it is unknown which of the two the tool reads.
    """
    value: object = arguments
    rest = path
    while rest:
        name, _, after = rest.partition(".")
        if not isinstance(value, dict) or name not in value:
            return ABSENT
        if after and any("." in key and f"{rest}.".startswith(f"{key}.") for key in value):
            return ABSENT
        value, rest = value[name], after
    return value


def _has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None
