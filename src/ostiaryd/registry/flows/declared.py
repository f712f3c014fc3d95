"""The scopes that registered resources declare. A resource with a catalogue declares the scopes that its catalogue
contains; a resource without a catalogue declares every scope that begins with its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ostiary.authorization.catalogue import scopes_of
from ostiary.protocol.errors import Invalid
from ostiary.protocol.nearest import nearest_hint
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry import store
from ostiaryd.registry.model import API_SCOPES, Resource

MAX_COMPARED = 200
"""Maximum number of resources whose scopes are compared with an undeclared scope, to suggest a similar scope."""


def check_declared(reader: Reader, scopes: Iterable[str]) -> None:
    """Check that a registered resource declares each scope. Only for administrators, because the error names similar
    declared scopes.

    Raises Invalid (`undeclared_scope`) if the check fails.
    """
    for scope in sorted(scopes):
        if not _is_declared(reader, scope):
            raise Invalid(
                f"no resource declares the scope `{scope}`",
                hint=f"{nearest_hint(scope, _all(reader))}; or register the resource first, or use --undeclared",
                code="undeclared_scope",
            )


def _is_declared(reader: Reader, scope: str) -> bool:
    if scope in API_SCOPES:
        return True
    name, _, _ = scope.partition(":")
    resource = store.resources.get_resource(reader, name)
    if resource is None or resource.name != name:
        return False
    declared = declared_scopes(reader, resource)
    return declared is None or scope in declared


def declared_scopes(reader: Reader, resource: Resource) -> frozenset[str] | None:
    """Return the scopes that the catalogue of a resource declares; None if the resource has no catalogue."""
    catalogue = store.resources.get_catalogue(reader, resource.resource_id)
    return None if catalogue is None else scopes_of(catalogue)


def _all(reader: Reader) -> Iterator[str]:
    yield from API_SCOPES
    for resource in store.resources.list_resources(reader, Page(after="", limit=MAX_COMPARED)):
        declared = declared_scopes(reader, resource)
        yield from (f"{resource.name}:read", f"{resource.name}:write") if declared is None else declared
