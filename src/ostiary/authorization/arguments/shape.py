"""The shape of a schema: the member names and the values that the schema lists at each place.

All branches of `anyOf`, `oneOf`, `allOf` and `$ref` count together: a name is listed if any branch lists it. The shape
does not state which values are valid; `Arguments` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_BRANCHES = 256
"""maximum number of branches that are read at one place; further branches are ignored"""


class Shape:
    """The names and the values that a schema lists at one place, which is a position in the arguments such as
    `filter.name`. The branches of the schema at this place are the schema itself and all schemas that it combines
    (`anyOf`, `oneOf`, `allOf`) or refers to (`$ref`).
    """

    __slots__ = ("_elements", "_members", "_root", "_schemas", "choices", "names")

    def __init__(self, schemas: list[Mapping[str, Any]], root: Mapping[str, Any]) -> None:
        self._schemas, self._root = schemas, root
        self._members: dict[str, Shape | None] = {}
        self._elements: Shape | None = None
        self.names: Mapping[str, None] = {name: None for one in schemas for name in properties_of(one)}
        """Member names that the branches list, each once."""
        self.choices: list[Any] = [one["const"] for one in schemas if "const" in one]
        """Values that the branches list."""
        for one in schemas:
            enum = one.get("enum")
            self.choices += enum if isinstance(enum, list) else []

    def member(self, name: str) -> Shape | None:
        """Return the shape of the member `name` of an object; None if no branch lists this name."""
        if name not in self.names:
            return None
        if name not in self._members:
            inner = [one for schema in self._schemas if (one := properties_of(schema).get(name)) is not None]
            self._members[name] = shape_of(inner, self._root) if inner else None
        return self._members[name]

    def lists(self, value: object) -> bool:
        """Return whether a branch lists exactly this value (`enum`, `const`)."""
        return bool(self.choices) and any(
            one == value and isinstance(one, bool) is isinstance(value, bool) for one in self.choices
        )

    @property
    def elements(self) -> Shape:
        """Return the one shape of all elements of a list (`items` and `prefixItems` together)."""
        if self._elements is None:
            values: list[Any] = []
            for one in self._schemas:
                values += [one["items"]] if "items" in one else []
                prefix = one.get("prefixItems")
                values += prefix if isinstance(prefix, list) else []
            self._elements = shape_of(values, self._root)
        return self._elements


def shape_of(schemas: list[Any], root: Mapping[str, Any]) -> Shape:
    """Return the shape at a place. `schemas`: the schemas that describe this place, whose names and values all count;
    `root`: the schema in which references (`$ref`) are resolved.
    """
    return Shape(list(branches(schemas, root)), root)


def branches(schemas: list[Any], root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas at a place, and all schemas that they refer to or combine, each once, at most MAX_BRANCHES."""
    todo, visited = [*reversed(schemas)], set[int]()
    while todo and len(visited) < MAX_BRANCHES:
        one = todo.pop()
        if not isinstance(one, Mapping) or id(one) in visited:
            continue
        visited.add(id(one))
        yield one
        for word in ("anyOf", "oneOf", "allOf"):
            inner = one.get(word)
            todo += reversed(inner) if isinstance(inner, list) else []
        if isinstance(ref := one.get("$ref"), str):
            todo.append(_resolve(ref, root))


def _resolve(ref: str, root: Mapping[str, Any]) -> object:
    target: object = root
    for step in ref[2:].split("/") if ref != "#" else ():
        step = step.replace("~1", "/").replace("~0", "~")
        target = target.get(step) if isinstance(target, Mapping) else None
    return target


def properties_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `properties` of a schema; empty if they are absent or malformed."""
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}
