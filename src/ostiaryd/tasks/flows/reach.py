"""The check that the bounds of a task lie within the access of its agent."""

from __future__ import annotations

from collections.abc import Sequence

from ostiary.authorization.bounds import InvalidDetails, ToolDetail
from ostiary.authorization.bounds.details import MAX_LOCATIONS
from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol.errors import Forbidden
from ostiary.protocol.nearest import nearest_hint
from ostiaryd.ground.database import Reader
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource
from ostiaryd.tasks.model import Task

OWN_API = "ostiary"
"""Name of the resource that stands for the server's API. Every agent may call this API for its secrets, without a
scope.
"""


def check_reach(reader: Reader, task: Task, *, unregistered: bool) -> None:
    """Check the bounds of a task. Each location must be the server's API, a registered resource of which the task has a
    scope, or, if `unregistered`, any https URI. Each tool must be in the catalogue, and the task must have its scope.
    Raises InvalidDetails if a location or a tool is unknown, Forbidden if the task lacks a scope.
    """
    for detail in task.bounds:
        for location in detail.locations:
            resource = registry.get_resource_by_uri(reader, location)
            if resource is None:
                _check_unregistered(location, unregistered=unregistered)
                continue
            _check_registered(resource, registry.catalogue_of(reader, resource), detail.actions or (), task.scopes)


def bounds_of(reader: Reader, task: Task, *, classes: Sequence[str]) -> tuple[ToolDetail, ...]:
    """Return the bounds of a task limited to the data classes `classes`. If the task has no bounds, start from the
    bounds that correspond to its scopes.

    Raises InvalidDetails if nothing is left, because empty bounds would permit everything.
    """
    limited = [one.limited_to(classes) for one in task.bounds or _reached(reader, task)]
    if not (left := tuple(one for one in limited if one is not None)):
        raise InvalidDetails("no resource of this task has these data classes", hint="use other data classes")
    return left


def _reached(reader: Reader, task: Task) -> list[ToolDetail]:
    names = sorted({scope.partition(":")[0] for scope in task.scopes})
    uris = [resource.uri for name in names if (resource := registry.get_resource(reader, name)) is not None]
    parts = [tuple(uris[at : at + MAX_LOCATIONS]) for at in range(0, len(uris), MAX_LOCATIONS)]
    return [ToolDetail(locations=part) for part in parts]


def _check_unregistered(location: str, *, unregistered: bool) -> None:
    if not unregistered or not location.startswith("https://"):
        raise InvalidDetails(
            f"{location} is not a registered resource",
            hint=f"register the resource: ostiary resource create NAME --uri {location}",
        )


def _check_registered(
    resource: Resource, catalogue: Catalogue | None, tools: tuple[str, ...], scopes: frozenset[str]
) -> None:
    if resource.name != OWN_API and not any(scope.startswith(f"{resource.name}:") for scope in scopes):
        raise Forbidden(
            f"the task has no scope of `{resource.name}`",
            hint="leave the location out: a task only narrows",
            code="widens",
        )
    if catalogue is None:
        return
    for name in tools:
        if (tool := catalogue.tools.get(name)) is None:
            may_list = (one.name for one in catalogue.tools.values() if catalogue.scope(one) in scopes)
            raise InvalidDetails(f"`{resource.name}` has no tool {name[:70]!a}", hint=nearest_hint(name, may_list))
        if (scope := catalogue.scope(tool)) not in scopes:
            raise Forbidden(
                f"the task lacks the scope {scope}", hint="leave the tool out: a task only narrows", code="widens"
            )
