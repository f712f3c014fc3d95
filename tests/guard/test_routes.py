"""A Starlette application whose routes are its tools: what the guard decides is what the router runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import anyio
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from harness.feeder import RESOURCE_ID, URI, Feeder
from ostiary.asgi import GuardASGI, Receive, Scope, Send
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.feed import ResourceFact
from ostiary.guard import Guard
from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict
from ostiary.routes import RouteTable
from tests.guard.asgi_fixtures import ORIGIN, error, records, signed


async def answer(request: Request) -> Response:
    """Say which route runs, and what it reads."""
    body = await request.body()
    return JSONResponse({"ran": request.scope["endpoint"].__name__, "body": body.decode("latin-1")})


def endpoint(name: str) -> Any:
    async def run(request: Request) -> Response:
        return await answer(request)

    run.__name__ = name
    return run


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"echo {text}")


async def ticks(request: Request) -> Response:
    async def parts() -> Any:
        for number in range(3):
            yield f"data: {number}\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"ran": "opaque", "body": scope["path"]})(scope, receive, send)


class Rewriting:
    """Middleware that leads a request to another path, as some that "clean" paths do."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "/innocent":
            scope = {**scope, "path": "/users/1", "raw_path": b"/users/1"}
        await self._app(scope, receive, send)


def application() -> Starlette:
    inner = Starlette(routes=[Route("/items/{name}", endpoint("inner_item")), Route("/all", endpoint("everything"))])
    return Starlette(
        routes=[
            Route("/users/{user:int}", endpoint("user"), methods=["GET"]),
            Route("/users/{user:int}", endpoint("change_user"), methods=["PUT", "PATCH"]),
            Route("/users/me", endpoint("me")),
            Route("/files/{path:path}", endpoint("file")),
            Route("/twice", endpoint("first")),
            Route("/twice", endpoint("second")),
            Route("/a/list", endpoint("same"), methods=["POST"]),
            Route("/b/list", endpoint("same"), methods=["POST"]),
            Route("/hidden", endpoint("hidden"), include_in_schema=False),
            Route("/innocent", endpoint("innocent")),
            Route("/ticks", ticks),
            WebSocketRoute("/chat", chat),
            Mount("/sub", app=inner),
            Mount("/named", routes=[Route("/x", endpoint("named_x"))], name="named"),
            Mount("/static", app=opaque, name="static"),
            Host("admin.example.org", app=Starlette(routes=[Route("/users/1", endpoint("admin_user"))])),
        ],
        middleware=[Middleware(Rewriting)],
    )


def catalogue(app: Any) -> str:
    return canonical.encode(Catalogue.from_mcp("files", RouteTable(app).listing).render(), floats=True).decode()


def known(feeder: Feeder, text: str) -> None:
    """Let the guard hear of another catalogue."""
    fact = ResourceFact(
        resource_id=RESOURCE_ID, name="files", uri=URI, mode="enforce", segment="default", catalogue=text
    )
    feeder.say(fact)


@pytest.fixture
def app(guard: Guard, feeder: Feeder) -> GuardASGI:
    app = application()
    known(feeder, catalogue(app))
    return GuardASGI(app, guard)


@pytest.fixture
def http(app: GuardASGI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ORIGIN)


async def send(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, method: str, target: str, **more: Any
) -> httpx2.Response:
    headers = signed(guard, feeder, method, target, scope="files:read files:write") | more.pop("headers", {})
    return await http.request(method, target, headers=headers, **more)


def called(guard: Guard) -> list[tuple[str, str]]:
    """Tool and digest of the arguments of each call on record."""
    return [(one["tool"], one["digest"]) for one in records(guard) if "tool" in one]


def test_the_catalogue_has_a_tool_for_each_route_and_method() -> None:
    tools = {tool.name: tool.listed for tool in RouteTable(application()).tools}
    assert set(tools) == {
        "user",
        "change_user.put",
        "change_user.patch",
        "me",
        "file",
        "first",
        "second",
        "innocent",
        "ticks",
        "chat",
        "sub/inner_item",
        "sub/everything",
        "named/named_x",
        "static",
        "admin_example_org/admin_user",
        *(name for name in tools if name.startswith("post_")),
    }
    assert len([name for name in tools if name.startswith("post_")]) == 2, "two routes of one name have names of paths"
    assert tools["user"]["annotations"] == {"readOnlyHint": True}
    assert tools["change_user.put"]["annotations"] == {"readOnlyHint": False, "destructiveHint": False}
    assert tools["user"]["inputSchema"]["required"] == ["user"]


def test_names_do_not_depend_on_the_order_of_routes() -> None:
    app = application()
    before = {tool.name: tool.endpoint.path for tool in RouteTable(app).tools}
    app.router.routes.reverse()
    assert {tool.name: tool.endpoint.path for tool in RouteTable(app).tools} == before


@pytest.mark.parametrize(
    ("method", "target", "tool", "arguments"),
    [
        ("GET", "/users/7", "user", {"user": 7}),
        ("HEAD", "/users/7", "user", {"user": 7}),
        ("PATCH", "/users/7?q=a", "change_user.patch", {"user": 7, "q": "a"}),
        ("GET", "/users/me", "me", {}),
        ("GET", "/files/a/b%2Fc", "file", {"path": "a/b/c"}),
        ("GET", "/files/..%2Fx", "file", {"path": "../x"}),
        ("GET", "/twice", "first", {}),
        ("GET", "/sub/items/x%20y", "sub/inner_item", {"name": "x y"}),
        ("GET", "/named/x", "named/named_x", {}),
        ("GET", "/static/css/a.css", "static", {"path": "/css/a.css"}),
    ],
)
async def test_a_request_is_decided_as_the_route_that_runs(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, method: str, target: str, tool: str, arguments: Any
) -> None:
    response = await send(http, guard, feeder, method, target)
    assert response.status_code == 200, response.text
    assert called(guard) == [(tool, canonical.digest(arguments))]
    if method != "HEAD":
        ran = response.json()["ran"]
        assert ran == {"static": "opaque"}.get(tool, tool.rpartition("/")[2].partition(".")[0])


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/nosuch"),
        ("DELETE", "/users/7"),
        ("OPTIONS", "/users/7"),
        ("GET", "/users/7/"),
        ("GET", "/users/x"),
        ("GET", "/sub"),
        ("GET", "/sub/items/a/b"),
        ("GET", "/sub/nosuch"),
        ("TRACE", "/twice"),
        ("GET", "/%2e%2e/users/7"),
        ("GET", "/users/7;a=b"),
    ],
)
async def test_a_request_without_a_route_is_denied(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, method: str, target: str
) -> None:
    response = await send(http, guard, feeder, method, target)
    assert response.status_code == 403
    assert response.json()["error"] == "unknown_tool"
    assert f"no tool is mapped to `{method} /" in response.json()["message"]
    assert called(guard) == []


async def test_a_request_for_a_route_outside_the_catalogue_is_denied(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, app: GuardASGI
) -> None:
    for target in ("/hidden", "/added"):
        if target == "/added":
            app._app.router.routes.append(Route("/added", endpoint("added")))  # type: ignore[attr-defined]
        response = await send(http, guard, feeder, "GET", target)
        assert response.status_code == 403, response.text
        assert "catalogue" in response.json()["message"]
    assert [tool for tool, _ in called(guard)] == ["hidden", "added"]


async def test_middleware_cannot_redirect_a_decided_request_to_another_route(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder
) -> None:
    response = await send(http, guard, feeder, "GET", "/innocent")
    assert response.status_code == 403
    assert "changed after it was decided" in response.text


async def test_a_host_route_is_decided_by_the_host_of_the_request(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, app: GuardASGI
) -> None:
    routes = app._app.router.routes  # type: ignore[attr-defined]
    routes.insert(0, routes.pop())
    response = await send(http, guard, feeder, "GET", "/users/1", headers={"host": "admin.example.org"})
    assert response.json()["ran"] == "admin_user"
    assert called(guard)[0][0] == "admin_example_org/admin_user"


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b'{"amount": 5}', {"amount": 5}),
        ("application/problem+json; charset=utf-8", b"[1, 2]", [1, 2]),
        ("text/plain", b' {"amount": 5}', {"amount": 5}),
        ("application/x-www-form-urlencoded", b"amount=5&to=ada", {"amount": "5", "to": "ada"}),
    ],
)
async def test_a_body_is_an_argument_and_reaches_the_application_unchanged(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, kind: str, body: bytes, expected: Any
) -> None:
    response = await send(http, guard, feeder, "PUT", "/users/7", content=body, headers={"content-type": kind})
    assert response.status_code == 200, response.text
    assert response.json()["body"] == body.decode()
    assert called(guard) == [("change_user.put", canonical.digest({"user": 7, "body": expected}))]


@pytest.mark.parametrize(
    ("kind", "body", "more"),
    [
        ("application/json", b'{"to": "ada", "to": "eve"}', {}),
        ("application/json", b'{"to": ', {}),
        ("text/plain", b'{"to": "ada", "to": "eve"}', {}),
        ("application/json; charset=utf-7", b"{}", {}),
        ("application/json", '{"to": 1}'.encode("utf-16"), {}),
        ("application/json", '{"to": 1}'.encode("utf-16-le"), {}),
        ("text/plain", '{"to": 1}'.encode("utf-32-be"), {}),
        ("application/json", b"{}", {"content-encoding": "gzip"}),
        ("application/x-www-form-urlencoded", b"to=ada&to=eve", {}),
        ("application/json", b'{"a": NaN}', {}),
    ],
)
async def test_an_ambiguous_body_is_refused(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, kind: str, body: bytes, more: Mapping[str, str]
) -> None:
    headers = {"content-type": kind, **more}
    response = await send(http, guard, feeder, "PUT", "/users/7", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert called(guard) == []


async def test_a_body_without_a_content_type_is_refused(http: httpx2.AsyncClient, guard: Guard, feeder: Feeder) -> None:
    assert (await send(http, guard, feeder, "PUT", "/users/7", content=b"{}")).status_code == 400


@pytest.mark.parametrize("target", ["/users/7?user=8", "/users/7?q=1&q=2", "/users/7?body=x"])
async def test_a_parameter_in_two_places_is_refused(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder, target: str
) -> None:
    response = await send(http, guard, feeder, "GET", target)
    assert response.status_code == 400
    assert called(guard) == []


@pytest.mark.parametrize(("size", "status"), [(99, 200), (100, 200), (101, 400)])
async def test_a_body_longer_than_the_maximum_is_refused(guard: Guard, feeder: Feeder, size: int, status: int) -> None:
    app = application()
    known(feeder, catalogue(app))
    transport = httpx2.ASGITransport(GuardASGI(app, guard, max_body=100))
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        body = json.dumps({"a": "x" * (size - 9)}).encode()
        assert len(body) == size
        headers = {"content-type": "application/json"}
        response = await send(http, guard, feeder, "PUT", "/users/7", content=body, headers=headers)
        assert response.status_code == status


async def test_a_streamed_response_is_complete_and_recorded(
    http: httpx2.AsyncClient, guard: Guard, feeder: Feeder
) -> None:
    response = await send(http, guard, feeder, "GET", "/ticks")
    assert response.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    call, result = records(guard)
    assert (call["tool"], result["status"], result["bytes"]) == ("ticks", "ok", len(response.content))


async def test_a_request_without_a_token_is_challenged_even_on_an_unknown_path(http: httpx2.AsyncClient) -> None:
    response = await http.get("/nosuch")
    assert (response.status_code, error(response)) == (401, None)


def test_an_application_without_routes_needs_a_mapping(guard: Guard) -> None:
    with pytest.raises(Conflict, match="no list of routes"):
        GuardASGI(opaque, guard)


class Socket:
    """The server's side of one WebSocket: what the application has sent, and what the client sends next."""

    def __init__(self, app: GuardASGI, headers: Mapping[str, str], *texts: str, extensions: bool = True) -> None:
        self.sent: list[Any] = []
        self._app = app
        self._incoming = [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": text} for text in texts),
            {"type": "websocket.disconnect", "code": 1000},
        ]
        self._scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/chat",
            "raw_path": b"/chat",
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "extensions": {"websocket.http.response": {}} if extensions else {},
            "scheme": "wss",
            "subprotocols": [],
        }

    async def run(self) -> list[str]:
        async def receive() -> Any:
            return self._incoming.pop(0)

        async def send(message: Any) -> None:
            self.sent.append(message)

        await self._app(self._scope, receive, send)
        return [message["type"] for message in self.sent]


async def test_an_opened_websocket_is_recorded_as_a_call(app: GuardASGI, guard: Guard, feeder: Feeder) -> None:
    socket = Socket(app, signed(guard, feeder, "GET", "/chat", scope="files:read files:write"), "hello")
    assert await socket.run() == ["websocket.accept", "websocket.send"]
    call, result = records(guard)
    assert (call["tool"], result["status"], result["bytes"]) == ("chat", "ok", len("echo hello"))


async def test_a_websocket_without_a_token_is_refused_with_the_challenge(app: GuardASGI, guard: Guard) -> None:
    socket = Socket(app, {}, "hello")
    assert await socket.run() == ["websocket.http.response.start", "websocket.http.response.body"]
    assert socket.sent[0]["status"] == 401
    assert await Socket(app, {}, extensions=False).run() == ["websocket.close"]


async def test_a_websocket_without_the_scope_is_refused(app: GuardASGI, guard: Guard, feeder: Feeder) -> None:
    socket = Socket(app, signed(guard, feeder, "GET", "/chat", scope="files:read"), "hello")
    assert await socket.run() == ["websocket.http.response.start", "websocket.http.response.body"]
    assert socket.sent[0]["status"] == 403


# --- random routes and requests -----------------------------------------------------------------------------------

SEGMENTS = st.sampled_from(["a", "b", "{x}", "{y:int}", "{z:path}", "7"])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3, unique=True).map(lambda parts: "/" + "/".join(parts))
ROUTES = st.lists(st.tuples(PATHS, st.sampled_from(["GET", "POST", "MOUNT"])), min_size=1, max_size=6)
TARGETS = st.lists(st.sampled_from(["a", "b", "7", "%2F", "x%2Fy", "", "."]), min_size=0, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@settings(max_examples=150)
@given(
    routes=ROUTES, targets=st.lists(TARGETS, min_size=1, max_size=4), method=st.sampled_from(["GET", "HEAD", "POST"])
)
def test_the_route_that_runs_is_the_route_that_was_decided(routes: Any, targets: list[str], method: str) -> None:
    ran: list[tuple[Any, Mapping[str, Any]]] = []

    def noting(number: int) -> Any:
        async def run(request: Request) -> Response:
            ran.append((number, dict(request.path_params)))
            return Response()

        run.__name__ = f"r{number}"
        return run

    def made(number: int, path: str, kind: str) -> Any:
        if kind != "MOUNT":
            return Route(path, noting(number), methods=[kind])
        return Mount(path.replace("{z:path}", "z"), routes=[Route("/a", noting(number)), Route("/", noting(number))])

    app = Starlette(routes=[made(number, *route) for number, route in enumerate(routes)])
    table = RouteTable(app)

    async def one(target: str) -> None:
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(target),
            "raw_path": target.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"files.example.org")],
            "scheme": "https",
            "http_version": "1.1",
            "server": ("files.example.org", 443),
            "client": ("127.0.0.1", 1),
        }
        ran.clear()
        matched = table.find(scope)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def sending(_: Any) -> None:
            return None

        await app(scope, receive, sending)
        assert (matched is not None) == bool(ran), f"{target} is decided exactly when something runs"
        if matched is not None:
            number, path_params = ran[0]
            assert matched.tool.endpoint.route.name == f"r{number}"
            assert dict(matched.path_params) == path_params

    for target in targets:
        anyio.run(one, target)
