"""Resources: register a protected server, set its catalogue, switch it between watching and enforcing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.flows.find import find_resource
from ostiaryd.registry.flows.holdings import end_holdings
from ostiaryd.registry.flows.keys import check_unknown_key
from ostiaryd.registry.model import Mode, Resource, ResourceDelta, ResourceId, Root, agent_uri, check_name, check_uri

MAX_PARSED = 256
_parsed: dict[str, Catalogue | None] = {}
"""Parsed catalogues by their hash, because consecutive requests often need the same catalogue."""


def create_resource(
    act: Act, *, name: str, uri: str, mode: Mode = Mode.ENFORCE, segment: str = "default", jwk: object = None
) -> Resource:
    """Register and return a resource. `jwk` is the public key of its guard (None for no guard). Raises Invalid for a
    malformed name or URI, InvalidKey for an unusable key, Conflict for a taken name, URI or key.
    """
    public = None if jwk is None else jose.parse_public_jwk(jwk)
    resource = Resource(
        resource_id=ResourceId(act.new_id("rs")),
        name=check_name(name),
        uri=check_uri(uri),
        mode=mode,
        segment=check_name(segment, of="segment"),
        jkt=None if public is None else public.thumbprint,
        jwk=None if public is None else dict(public.jwk),
        catalogue_hash=None,
        catalogue_version=0,
        created_at=act.now,
    )
    fill_entry(
        act, object=resource.resource_id, name=resource.name, uri=resource.uri, mode=mode.value, key=resource.jkt
    )
    if store.resources.get_resource(act.tx, resource.name) is not None:
        raise Conflict(
            f"the name `{resource.name}` is taken",
            hint="names cannot be reused, even after deletion",
            code="name_taken",
        )
    if resource.uri.startswith(agent_uri(store.resources.get_public_url(act.tx), "")):
        raise Conflict(
            "the URI belongs to this server; a guard for it would receive tokens meant for the server", code="uri_taken"
        )
    if store.resources.get_resource_by_uri(act.tx, resource.uri) is not None:
        raise Conflict(
            "this URI is already registered", hint="list the resources: ostiary resource list", code="uri_taken"
        )
    if resource.jkt is not None:
        check_unknown_key(act, resource.jkt)
    store.resources.insert(act.tx, resource)
    queue_for_guards(act, ResourceDelta(resource.name))
    return resource


def set_mode(act: Act, id_or_name: str, mode: Mode) -> Resource:
    """Set the mode of a resource, `enforce` or `watch` (decisions are recorded and not enforced), and return the
    resource. Raises NotFound for an unknown resource.
    """
    resource = find_resource(act.tx, id_or_name)
    fill_entry(act, object=resource.resource_id, name=resource.name, was=resource.mode.value, mode=mode.value)
    store.resources.set_mode(act.tx, resource.resource_id, mode)
    queue_for_guards(act, ResourceDelta(resource.name))
    return replace(resource, mode=mode)


def set_resource_key(act: Act, id_or_name: str, jwk: object) -> Resource:
    """Replace the key of a resource's guard, end the tokens of the old key, and return the resource. Raises NotFound
    for an unknown resource, InvalidKey for an unusable key, Conflict for a key that was registered before.
    """
    resource = find_resource(act.tx, id_or_name)
    public = jose.parse_public_jwk(jwk)
    fill_entry(act, object=resource.resource_id, name=resource.name, key=public.thumbprint)
    check_unknown_key(act, public.thumbprint)
    if resource.jkt is not None:
        end_holdings(act, Root.KEY, resource.jkt, why="rotated")
    key: dict[str, Any] = dict(public.jwk)
    store.resources.set_key(act.tx, resource.resource_id, jkt=public.thumbprint, jwk=key)
    queue_for_guards(act, ResourceDelta(resource.name))
    return replace(resource, jkt=public.thumbprint, jwk=key)


def catalogue_of(reader: Reader, resource: Resource) -> Catalogue | None:
    """Return the parsed catalogue (the tools) of a resource; None if it has none."""
    if (hash := resource.catalogue_hash) is None:
        return None
    if (catalogue := _parsed.get(hash)) is None:
        text = store.resources.get_catalogue_by_hash(reader, hash)
        catalogue = None if text is None else Catalogue.parse(text)
        while len(_parsed) >= MAX_PARSED:
            _parsed.pop(next(iter(_parsed)), None)
        _parsed[hash] = catalogue
    return catalogue


def set_catalogue(
    act: Act, id_or_name: str, catalogue: Catalogue, *, is_proposed: bool = False, was: str | None = None
) -> Resource:
    """Replace the catalogue of a resource, and return the resource. If the tools are the same, only `is_proposed`
    changes.

    Members that the new catalogue leaves out, such as data classes, keep their values. `is_proposed`: the server made
    the catalogue, and no person has confirmed it. `was`: the hash of the catalogue on which the new one is based; None
    to replace any. Raises NotFound for an unknown resource, Invalid for the catalogue of another resource, Conflict if
    the present catalogue does not have the hash `was`.
    """
    resource = find_resource(act.tx, id_or_name)
    if (before := store.resources.get_catalogue(act.tx, resource.resource_id)) is not None:
        catalogue = catalogue.after(Catalogue.parse(before))
    digest = catalogue.digest
    fill_entry(
        act,
        object=resource.resource_id,
        name=resource.name,
        catalogue=digest,
        tools=len(catalogue.tools),
        proposed=is_proposed,
    )
    if was is not None and was != resource.catalogue_hash:
        raise Conflict(
            f"the catalogue of `{resource.name}` was replaced in the meantime",
            hint="review the present catalogue first",
            code="changed_meanwhile",
        )
    if catalogue.resource != resource.name:
        raise Invalid(f"the catalogue is that of `{catalogue.resource}`, not of `{resource.name}`")
    if is_proposed != resource.is_proposed:
        store.resources.set_proposed(act.tx, resource.resource_id, is_proposed=is_proposed)
        resource = replace(resource, is_proposed=is_proposed)
    if digest == resource.catalogue_hash:
        return resource
    text = canonical.encode(catalogue.render(), floats=True).decode()
    store.resources.set_catalogue(act.tx, resource.resource_id, catalogue=text, hash=digest)
    queue_for_guards(act, ResourceDelta(resource.name))
    return replace(resource, catalogue_hash=digest, catalogue_version=resource.catalogue_version + 1)


def set_classes(act: Act, id_or_name: str, classes: Sequence[str]) -> Resource:
    """Set the data classes that every tool of the resource handles in addition to those of the tool, and return the
    resource. Raises NotFound for an unknown resource.
    """
    resource = find_resource(act.tx, id_or_name)
    fill_entry(act, object=resource.resource_id, name=resource.name, data_classes=list(classes))
    text = store.resources.get_catalogue(act.tx, resource.resource_id)
    tools = {} if text is None else Catalogue.parse(text).tools
    catalogue = Catalogue(resource.name, tools, tuple(classes))
    return set_catalogue(act, resource.resource_id, catalogue, is_proposed=resource.is_proposed)
