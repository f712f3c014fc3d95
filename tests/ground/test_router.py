"""The tree of routes finds what a search of all routes in their order finds, and looks at few of them."""

from __future__ import annotations

import random
import re
from typing import Any
from urllib.parse import quote

import pytest
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from ostiaryd.app import ROUTES
from ostiaryd.ground.http.edge import Endpoint
from ostiaryd.ground.http.router import SegmentRouter, Target

MOST = 60
"""Routes with which one request is compared; those below `/api/v1/agents` are the most."""


class _Silent(Endpoint):
    """An endpoint that answers nothing: the tests read which route was chosen."""

    def __init__(self, *, streams: bool = False) -> None:
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


def _routes() -> list[Route]:
    return [Route(route.path, _Silent(streams=route.streams), methods=[route.method]) for route in ROUTES]


async def _choose(router: Router, method: str, path: str) -> Any:
    """Return the chosen route and its parameters, or the status of the refusal."""
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "app": router}
    try:
        await router(scope, None, None)  # type: ignore[arg-type]
    except HTTPException as refusal:
        return refusal.status_code
    return scope["route"], scope["path_params"]


def _requests() -> list[tuple[str, str]]:
    """Return a request for each route, and requests that differ from one by a segment, a slash or a method."""
    rng = random.Random(29)
    segments = sorted({segment for route in ROUTES for segment in route.path.split("/") if "{" not in segment})
    requests = [("GET", path) for path in ("", "/", "//", "/" * 2000)]
    for route in ROUTES:
        path = re.sub(r"{\w+:path}", "a/b", re.sub(r"{\w+}", "a", route.path))
        parts = path.split("/")
        at = rng.randrange(1, len(parts))
        other = [
            "/".join([*parts[:at], rng.choice(segments), *parts[at + 1 :]]),
            "/".join([*parts[:at], "", *parts[at:]]),
            "/".join(parts[:at]),
            f"{path}/",
            f"{path}x",
            path.upper(),
        ]
        requests += [(route.method, path), (rng.choice(("GET", "POST", "DELETE")), path)]
        requests += [(route.method, one) for one in rng.sample(other, 2)]
    return requests


async def test_the_tree_finds_the_route_that_a_search_of_all_routes_finds() -> None:
    routes = _routes()
    tree, every = SegmentRouter(routes), Router(routes, redirect_slashes=False)
    chosen = [(await _choose(tree, *request), await _choose(every, *request)) for request in _requests()]
    assert [one for one, _ in chosen] == [other for _, other in chosen]
    found = [one[0] for one, _ in chosen if isinstance(one, tuple)]
    assert all(route in found for route in routes)
    assert {one for one, _ in chosen if isinstance(one, int)} == {404, 405}


async def test_the_endpoint_of_a_request_is_the_same_directly_and_over_asgi() -> None:
    tree = SegmentRouter(_routes())
    for method, path in _requests():
        if not path.startswith("/"):  # no target of a request
            continue
        chosen = await _choose(tree, method, path)
        encoded = "".join("/" if byte == ord("/") else f"%{byte:02X}" for byte in path.encode())
        for url in (quote(path), encoded):
            target = tree.find_target(method, f"{url}?a=b".encode())
            if isinstance(chosen, tuple) and not chosen[0].endpoint.streams:
                assert target == Target(chosen[0].endpoint, path, chosen[1], "a=b", url)
            else:
                assert target is None, (method, path)


async def test_a_request_is_compared_with_a_bounded_number_of_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, compared, matches = SegmentRouter(_routes()), 0, Route.matches

    def count(route: Route, scope: Scope) -> Any:
        nonlocal compared
        compared += 1
        return matches(route, scope)

    monkeypatch.setattr(Route, "matches", count)
    for _, path in _requests():
        compared = 0
        await _choose(tree, "TRACE", path)
        assert compared <= MOST, path
    compared = 0
    await _choose(tree, "TRACE", "/v1/secret/data/agents/a/db")
    assert compared == len([route for route in ROUTES if route.path == "/v1/{path:path}"])
