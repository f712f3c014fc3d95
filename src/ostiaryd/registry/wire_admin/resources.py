"""Resources and their catalogues."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.classes import MAX_CLASSES, check_known
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import PAGE, PageBody, Route
from ostiaryd.ground.process.confined import Parser
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows, store
from ostiaryd.registry.engines.catalogues import Upload, encode_upload
from ostiaryd.registry.model import ADMIN, READ, Mode, Resource
from ostiaryd.registry.wire_admin import render
from ostiaryd.registry.wire_admin.render import ResourceBody

Classes = Annotated[list[str], Meta(max_length=MAX_CLASSES)]


TARGET = "ostiaryd.registry.engines.catalogues:answer"


class CatalogueParser(Parser):
    """The confined process of this server that parses catalogues."""

    def __init__(self, _: World) -> None:
        super().__init__(TARGET, of="the catalogue")


class NewResource(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    uri: str
    mode: Mode = Mode.ENFORCE
    segment: str = "default"
    jwk: dict[str, Any] | None = None
    catalogue: dict[str, Any] | None = None
    proposed: bool = False
    data_classes: Classes | None = None
    """Data classes of every tool, in addition to the classes of the tool itself."""


class NewMode(msgspec.Struct, forbid_unknown_fields=True):
    mode: Mode


class NewCatalogue(msgspec.Struct, forbid_unknown_fields=True):
    """A catalogue to set. `proposed`: the server proposed the catalogue, and no person has confirmed it."""

    catalogue: dict[str, Any]
    proposed: bool = False
    was: str | None = None
    """Hash of the catalogue on which this one is based. If another catalogue is in force, the request is refused."""


class NewClasses(msgspec.Struct, forbid_unknown_fields=True):
    data_classes: Classes


class NewResourceKey(msgspec.Struct, forbid_unknown_fields=True):
    jwk: dict[str, Any]


class ResourceDetail(ResourceBody):
    """A protected resource with its catalogue."""

    catalogue: Any


class ResourceClasses(ResourceBody):
    """A protected resource with the data classes that each of its tools handles."""

    data_classes: list[str]


async def create_resource(call: Call) -> Reply:
    """Register a protected resource, optionally with the key of its guard and a catalogue."""
    new, classes = call.json(NewResource), call.world.config.classes
    check_known(new.data_classes or (), classes)
    catalogue = None
    if new.catalogue is not None:
        catalogue = await _parse_catalogue(call.world, new.name, new.catalogue)
    if new.data_classes is not None:
        catalogue = replace(catalogue or Catalogue(new.name, {}), data_classes=tuple(new.data_classes))

    def create(act: Act) -> Resource:
        made = flows.create_resource(act, name=new.name, uri=new.uri, mode=new.mode, segment=new.segment, jwk=new.jwk)
        if catalogue is None:
            return made
        return flows.set_catalogue(act, made.resource_id, catalogue, is_proposed=new.proposed)

    return reply(render.resource(await flows.act_as(call, "resource.create", create)), status=201)


async def list_resources(call: Call) -> Reply:
    """List the protected resources."""
    return await reply_page(
        call,
        "resources",
        store.resources.list_resources,
        lambda _, resource: render.resource(resource),
        cursor=lambda resource: resource.resource_id,
    )


async def show_resource(call: Call) -> Reply:
    """Show a resource with its catalogue."""
    reader = call.world.db.read()
    resource = flows.find_resource(reader, call.params["name"])
    text = store.resources.get_catalogue(reader, resource.resource_id)
    body: ResourceDetail = {
        **render.resource(resource),
        "catalogue": None if text is None else msgspec.Raw(text.encode()),
    }
    return reply(body)


async def set_catalogue(call: Call) -> Reply:
    """Replace the catalogue of a resource.

    The body is a catalogue in Ostiary's own format, or the results of MCP's list methods.
    """
    name = flows.find_resource(call.world.db.read(), call.params["name"]).name
    new = call.json(NewCatalogue)
    catalogue = await _parse_catalogue(call.world, name, new.catalogue)
    changed = await flows.act_as(
        call,
        "resource.set_catalogue",
        lambda act: flows.set_catalogue(act, name, catalogue, is_proposed=new.proposed, was=new.was),
    )
    return reply(render.resource(changed))


async def set_classes(call: Call) -> Reply:
    """Set the data classes that every tool of the resource handles, in addition to the tool's own."""
    classes = call.json(NewClasses).data_classes
    check_known(classes, call.world.config.classes)
    changed = await flows.act_as(
        call, "resource.set_classes", lambda act: flows.set_classes(act, call.params["name"], classes)
    )
    body: ResourceClasses = {**render.resource(changed), "data_classes": classes}
    return reply(body)


async def set_mode(call: Call) -> Reply:
    """Set the mode of a resource: `enforce`, or `watch`, in which decisions are recorded and not enforced."""
    new = call.json(NewMode)
    changed = await flows.act_as(
        call, "resource.set_mode", lambda act: flows.set_mode(act, call.params["name"], new.mode)
    )
    return reply(render.resource(changed))


async def set_key(call: Call) -> Reply:
    """Replace the key of a resource's guard. The previous key is refused immediately."""
    new = call.json(NewResourceKey)
    changed = await flows.act_as(
        call, "resource.set_key", lambda act: flows.set_resource_key(act, call.params["name"], new.jwk)
    )
    return reply(render.resource(changed))


async def _parse_catalogue(world: World, resource: str, unverified: dict[str, Any]) -> Catalogue:
    """Parse a catalogue in a confined process, and return it. Raises Malformed or Invalid for a catalogue that is not
    valid, Invalid (`too_costly`) if parsing exceeds its limits, and Unavailable if too many uploads wait.
    """
    upload = Upload(resource, msgspec.Raw(msgspec.json.encode(unverified)), world.config.classes)
    text = await world.get_singleton(CatalogueParser).parse(encode_upload(upload))
    return await asyncio.to_thread(Catalogue.parse, text)


ROUTES = (
    Route(
        "POST",
        "/api/v1/resources",
        create_resource,
        ADMIN,
        body=NewResource,
        is_large=True,
        answers={201: ResourceBody},
    ),
    Route(
        "GET", "/api/v1/resources", list_resources, READ, answers={200: PageBody("resources", ResourceBody)}, query=PAGE
    ),
    Route("GET", "/api/v1/resources/{name}", show_resource, READ, answers={200: ResourceDetail}),
    Route(
        "PUT",
        "/api/v1/resources/{name}/catalogue",
        set_catalogue,
        ADMIN,
        body=NewCatalogue,
        is_large=True,
        answers={200: ResourceBody},
    ),
    Route(
        "PUT",
        "/api/v1/resources/{name}/data-classes",
        set_classes,
        ADMIN,
        body=NewClasses,
        answers={200: ResourceClasses},
    ),
    Route("PUT", "/api/v1/resources/{name}/mode", set_mode, ADMIN, body=NewMode, answers={200: ResourceBody}),
    Route("PUT", "/api/v1/resources/{name}/key", set_key, ADMIN, body=NewResourceKey, answers={200: ResourceBody}),
)
