"""An encoded slash (`%2F`) in a path parameter leads to no other operation: every route, over a real socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial

import pytest

from ostiaryd import app
from ostiaryd.ground.http.protocol import Protocol
from ostiaryd.ground.world import World
from tests.ground.http_server import find_target, serving
from tests.support.world import Kind

REFUSED = b"the path contains an encoded slash (`%2F`)"
PARAMETER = re.compile(r"\{[a-z_]+\}")
ROUTES = [
    (route.method, route.path) for route in app.ROUTES if PARAMETER.search(route.path) and ":path" not in route.path
]
DOMAIN = "/api/v1/trust-domains/"


@pytest.fixture
def database() -> Kind:
    """SQLite alone, since these requests are refused before the database is read."""
    return "sqlite"


@pytest.fixture
async def port(world: World) -> AsyncIterator[int]:
    made = app.build_app(world)
    async with serving(made, partial(Protocol, find_target(made))) as port:
        yield port


async def request(port: int, method: str, path: str) -> tuple[int, bytes]:
    """Status and rest of the response to a request without credentials."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
    status, _, rest = (await reader.read()).removeprefix(b"HTTP/1.1 ").partition(b" ")
    writer.close()
    return int(status), rest


@pytest.mark.parametrize("slash", ["%2F", "%2f"])
@pytest.mark.parametrize(
    "name", ["partner.example{}agents{}bot", "partner.example{}", "{}partner.example", "a{}b", "a%{}b"]
)
async def test_the_name_of_a_trust_domain_with_an_encoded_slash_is_refused(port: int, name: str, slash: str) -> None:
    status, answer = await request(port, "DELETE", DOMAIN + name.replace("{}", slash))
    assert status in (400, 404)
    assert (REFUSED in answer) is (status == 400)
    assert (status == 400) is ("agents" in name), "no other name is the path of a DELETE"


async def test_the_name_of_a_trust_domain_without_an_encoded_slash_reaches_the_authentication(port: int) -> None:
    for name in ("partner.example", "partner.example%252Fagents", "partner.example/agents/bot"):
        assert (await request(port, "DELETE", DOMAIN + name))[0] == 401


async def test_no_route_takes_a_path_parameter_with_an_encoded_slash(port: int) -> None:
    assert ("DELETE", DOMAIN + "{name}") in ROUTES
    for method, path in ROUTES:
        for parameter in PARAMETER.finditer(path):
            begin, end = (PARAMETER.sub("x", part) for part in (path[: parameter.start()], path[parameter.end() :]))
            status, answer = await request(port, method, f"{begin}x%2Fy{end}")
            assert (status == 400 and REFUSED in answer) or status in (404, 405), (method, path, status)
            status, answer = await request(port, method, f"{begin}x{end}")
            assert REFUSED not in answer, (method, path)
