"""Policy sets in force, and requests at the policy endpoints."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.registry_fixtures import ADMIN
from ostiary.protocol.errors import Refused
from ostiaryd.ground.http.edge import Call, Reply, render_admin
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows, wire_admin, wire_authzen, wire_search
from ostiaryd.policy.model import load
from ostiaryd.registry.model import Caller

HERE = Path(__file__).parents[1] / "policy"


ROUTES = wire_authzen.ROUTES + wire_search.ROUTES + wire_admin.ROUTES


Ask = Callable[..., Awaitable[tuple[int, Any]]]


def certification() -> dict[str, str]:
    """The policy set of the AuthZEN certification scenario."""
    return {path.name: path.read_text("utf-8") for path in (HERE / "certification").iterdir()}


@pytest.fixture
def ask(world: World) -> Ask:
    """`status, body = await ask(path, json or bytes)`: the wire functions behind their own renderer, without a gate."""
    by_route = {(route.method, route.path): route.wire for route in ROUTES}

    async def send(
        path: str, body: Any = None, *, method: str = "POST", by: Caller | None = ADMIN, **params: str
    ) -> tuple[int, Any]:
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        route, _, query = path.partition("?")
        headers = [(b"content-type", b"application/json")]
        call = Call(world, method, route.format(**params), params, query, headers, sent, "rq_test", by)
        try:
            reply = await by_route[method, route](call)
        except Refused as refusal:
            reply = render_admin(refusal) if route.startswith("/api") else wire_authzen.render(refusal)
        assert isinstance(reply, Reply)
        assert isinstance(reply.body, bytes)
        return reply.status, json.loads(reply.body)

    return send


async def put(world: World, files: dict[str, str]) -> str:
    """Activate that policy set, and return its hash."""
    loaded = load(files)
    return (await act(world, "policy.put", lambda act: flows.put(act, loaded, by=None))).hash
