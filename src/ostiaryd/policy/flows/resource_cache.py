"""A cache of resources that are prepared for decisions."""

from __future__ import annotations

from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.access import Protected
from ostiaryd.ground.database import Reader
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource

REMEMBERED = 256
_ready: dict[tuple[str | None, ...], Protected] = {}


def prepared_resource(reader: Reader, resource: Resource) -> Protected:
    """Return the resource in the form that decisions need: with its parsed catalogue. The form is cached until the
    catalogue, URI, segment or mode of the resource changes.
    """
    key = (resource.resource_id, resource.catalogue_hash, resource.uri, resource.segment, resource.mode.value)
    made = _ready.get(key)
    if made is None:
        text = registry.get_catalogue(reader, resource.resource_id)
        made = Protected(
            name=resource.name,
            uri=resource.uri,
            segment=resource.segment,
            catalogue=None if text is None else Catalogue.parse(text),
            mode=resource.mode.value,
            catalogue_hash=resource.catalogue_hash or "",
        )
        while len(_ready) >= REMEMBERED:
            _ready.pop(next(iter(_ready)), None)
        _ready[key] = made
    return made


def data_classes_of_tool(reader: Reader, id: str) -> list[str]:
    """Return the data classes (such as `personal`) of the tool with this id (such as `files/read_file`); empty if the
    tool is unknown.
    """
    name, _, tool = id.partition("/")
    resource = registry.get_resource(reader, name)
    ready = None if resource is None else prepared_resource(reader, resource).tools.get(tool)
    return [] if ready is None else ready.class_names
