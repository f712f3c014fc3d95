"""Requests to the routes of the ledger, and acts that leave entries."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.http.edge import Endpoint, render_admin
from ostiaryd.ground.world import World
from ostiaryd.ledger import wire_admin, wire_tlog
from ostiaryd.ledger.flows import Act, act
from tests.support.api_fixtures import Answer, send

ROUTES = (*wire_admin.ROUTES, *wire_tlog.ROUTES)


async def ask(world: World, path: str) -> Answer:
    routes = [Route(one.path, Endpoint(world, one.wire, render=render_admin), methods=[one.method]) for one in ROUTES]
    return await send(Starlette(routes=routes), "GET", path)


async def write(world: World, action: str, *, refuse: bool = False, **fields: Any) -> None:
    def flow(a: Act) -> None:
        for name, value in fields.items():
            setattr(a.entry, name, value)
        if refuse:
            raise Conflict("no")

    if refuse:
        with pytest.raises(Conflict):
            await act(world, action, flow)
    else:
        await act(world, action, flow)
