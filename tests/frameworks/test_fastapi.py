"""FastAPI: a real application behind a guard, called by an agent over HTTP and over a WebSocket, through uvicorn."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
import websockets.sync.client
from fastapi import APIRouter, Cookie, Depends, FastAPI, File, Form, Header, Query, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness.cli import Commands
from harness.live_server import ServerFixture, free_socket, serving
from harness.patience import PATIENCE_S, eventually
from ostiary import Agent, Guard
from ostiary.asgi import GuardASGI
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision import access
from ostiary.fastapi import catalogue_of, protect
from ostiary.keys import load_key
from ostiary.protocol import dpop
from ostiary.protocol.errors import Forbidden
from ostiary.routes import RouteTable
from tests.frameworks.environment import ROOT


class Payment(BaseModel):
    to: str
    amount: int
    parts: list[Payment] = []


def application(ran: list[Any]) -> FastAPI:
    """Each route notes what FastAPI gave it."""
    api = FastAPI()
    router = APIRouter(prefix="/v1")
    nested = APIRouter(prefix="/deep")

    @api.get("/items/{item}")
    def read_item(item: int, q: str = "all", tags: Annotated[list[str], Query()] = [], big: bool = False) -> str:  # noqa: B006
        ran.append(("read_item", item, q, tags, big))
        return "an item"

    @api.post("/payments")
    def pay(payment: Payment, x_reason: Annotated[str, Header()] = "none") -> str:
        ran.append(("pay", payment.to, payment.amount, x_reason))
        return "paid"

    @api.post("/forms")
    def fill(to: Annotated[str, Form()], session: Annotated[str, Cookie()] = "none") -> str:
        ran.append(("fill", to, session))
        return "filled"

    @api.post("/uploads")
    def upload(file: Annotated[UploadFile, File()]) -> str:
        ran.append(("upload", file.filename))
        return "kept"

    @router.get("/list")
    def included() -> str:
        ran.append(("included",))
        return "included"

    @nested.get("/list/{name:path}")
    def deep(name: str) -> str:
        ran.append(("deep", name))
        return "deep"

    @api.get("/hidden", include_in_schema=False)
    def hidden() -> str:
        ran.append(("hidden",))
        return "hidden"

    @api.get("/stream")
    def stream() -> StreamingResponse:
        ran.append(("stream",))
        return StreamingResponse(iter(["a", "b", "c"]), media_type="text/plain")

    @api.websocket("/talk/{room}")
    async def talk(websocket: WebSocket, room: str, dep: Annotated[str, Depends(lambda: "x")]) -> None:
        await websocket.accept()
        ran.append(("talk", room))
        async for text in websocket.iter_text():
            await websocket.send_text(f"{room}: {text}")

    router.include_router(nested)
    api.include_router(router)
    sub = FastAPI()

    @sub.get("/things/{thing}")
    def thing(thing: str) -> str:
        ran.append(("thing", thing))
        return "a thing"

    api.mount("/sub", sub)
    return api


class Stand:
    """The application, its guard, and an agent that may call all of it."""

    def __init__(self, live_server: ServerFixture, folder: Path) -> None:
        self.live_server, self.ran = live_server, list[Any]()
        self.api = application(self.ran)
        self._socket, port = free_socket()
        self.url = f"http://127.0.0.1:{port}"
        tools = Catalogue.from_mcp("made", catalogue_of(self.api)).render()["tools"]
        self.resource, key = live_server.resource(f"{self.url}/", tools)
        _, agent_key = live_server.agent(f"{self.resource}:read", f"{self.resource}:write")
        self.credential = load_key(agent_key)
        self.guard = Guard(key, spool_dir=folder / "spool").start()
        self.agent = Agent.from_credential(agent_key)
        self.app = protect(self.api, self.guard)

    @contextmanager
    def open(self) -> Iterator[None]:
        with serving(self.app, self._socket):
            yield

    def close(self) -> None:
        self.agent.close()
        self.guard.close()

    def __call__(self, method: str, path: str, **more: Any) -> Any:
        return self.agent.request(method, f"{self.url}{path}", resource=f"{self.url}/", **more)

    def handshake(self, path: str, headers: dict[str, str] | None = None) -> websockets.sync.client.ClientConnection:
        return websockets.sync.client.connect(
            f"{self.url.replace('http', 'ws')}{path}", additional_headers=headers or {}, open_timeout=PATIENCE_S
        )

    def proved(self, path: str) -> dict[str, str]:
        """The headers of a handshake: the token, and a proof with the nonce that the guard asks for."""
        token = str(self.agent.token(resource=f"{self.url}/")["access_token"])
        nonce: str | None = None
        while True:
            proof = dpop.make_proof(
                self.credential.key,
                method="GET",
                uri=f"{self.url}{path}",
                now=self.guard._now(),
                jti=f"proof-{path}-{nonce}",
                nonce=nonce,
                access_token=token,
            )
            headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
            if nonce is not None:
                return headers
            with pytest.raises(InvalidStatus) as refused:
                self.handshake(path, headers)
            assert refused.value.response.status_code == 401
            nonce = refused.value.response.headers["DPoP-Nonce"]


@pytest.fixture(scope="module")
def stand(live_server: ServerFixture, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(live_server, tmp_path_factory.mktemp("fastapi"))
    with stand.open():
        yield stand
    stand.close()


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch, stand: Stand) -> list[Any]:
    """The tools and arguments that are decided on from now on."""
    stand.ran.clear()
    seen, decide = list[Any](), access.decide

    def listening(call: access.ResolvedCall, *inputs: access.DecisionInputs) -> access.Decision:
        seen.append((call.tool, call.arguments))
        return decide(call, *inputs)

    monkeypatch.setattr("ostiary.decision.access.decide", listening)
    return seen


def arguments(decided: list[Any]) -> list[Any]:
    return [one for _, one in decided]


def test_the_catalogue_is_derived_from_the_openapi_document(stand: Stand) -> None:
    tools = {tool["name"]: tool for tool in catalogue_of(stand.api)["tools"]}
    assert set(tools) == {"read_item", "pay", "fill", "upload", "included", "deep", "stream", "talk", "sub/thing"}
    schema = tools["pay"]["inputSchema"]
    assert schema["properties"]["body"] == {"$ref": "#/$defs/Payment"}
    assert "Payment" in schema["$defs"]
    assert schema["required"] == ["body"]
    assert tools["read_item"]["annotations"] == {"readOnlyHint": True}
    assert tools["read_item"]["inputSchema"]["properties"]["q"]["default"] == "all"


def test_parameters_are_decided_as_fastapi_reads_them(stand: Stand, decided: list[Any]) -> None:
    assert stand("GET", "/items/7?tags=a&tags=b&big=true").text == '"an item"'
    assert arguments(decided) == [{"item": 7, "q": "all", "tags": ["a", "b"], "big": True}]
    assert stand.ran == [("read_item", 7, "all", ["a", "b"], True)]
    entries = eventually(lambda: stand.live_server.entries(resource=f"{stand.url}/", action="tool.call", limit=1))
    assert [entry["outcome"] for entry in entries] == ["allow"]


def test_a_body_is_decided_as_fastapi_reads_it(stand: Stand, decided: list[Any]) -> None:
    body = {"to": "ada", "amount": 5}
    assert stand("POST", "/payments", json=body, headers={"X-Reason": "rent"}).status_code == 200
    assert arguments(decided) == [{"body": body | {"parts": []}, "x-reason": "rent"}], "defaults are filled in"
    assert stand.ran == [("pay", "ada", 5, "rent")]


def test_form_fields_and_cookies_are_arguments_of_the_decision(stand: Stand, decided: list[Any]) -> None:
    sent = stand("POST", "/forms", data={"to": "ada"}, headers={"Cookie": "session=s1; other=1"})
    assert sent.status_code == 200, sent.text
    assert arguments(decided) == [{"body": {"to": "ada"}, "session": "s1"}]
    assert stand.ran == [("fill", "ada", "s1")]


def test_an_upload_is_decided_by_its_digest(stand: Stand, decided: list[Any]) -> None:
    assert stand("POST", "/uploads", files={"file": ("a.txt", b"text")}).status_code == 200
    [sent] = arguments(decided)
    assert set(sent["body"]) == {"type", "bytes", "sha256"}
    assert stand.ran == [("upload", "a.txt")]


def test_included_routers_and_mounted_applications_are_decided(stand: Stand, decided: list[Any]) -> None:
    assert stand("GET", "/v1/list").status_code == 200
    assert stand("GET", "/v1/deep/list/a%2Fb").status_code == 200
    assert stand("GET", "/sub/things/x").status_code == 200
    assert arguments(decided) == [{}, {"name": "a/b"}, {"thing": "x"}]
    assert stand.ran == [("included",), ("deep", "a/b"), ("thing", "x")]


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/items/7/", {}, 403),
        ("GET", "/nosuch", {}, 403),
        ("HEAD", "/items/7", {}, 403),
        ("OPTIONS", "/items/7", {}, 403),
        ("POST", "/items/7", {}, 403),
        ("GET", "/hidden", {}, 403),
        ("GET", "/docs", {}, 403),
        ("GET", "/openapi.json", {}, 403),
        ("GET", "/sub/openapi.json", {}, 403),
        ("GET", "/anything/things/x", {}, 403),
        ("GET", "/items/7.0", {}, 400),
        ("GET", "/items/%207", {}, 400),
        ("GET", "/items/7?big=yes", {}, 400),
        ("GET", "/items/7?undeclared=1", {}, 403),
        ("GET", "/items/7?q=a&q=b", {}, 400),
        ("GET", "/items/7?item=8", {}, 400),
        ("POST", "/payments?body=x", {"json": {"to": "a", "amount": 1}}, 400),
        ("POST", "/payments?x-reason=x", {"json": {"to": "a", "amount": 1}}, 400),
        ("POST", "/payments", {"json": {"to": "a", "amount": "5"}}, 403),
        (
            "POST",
            "/payments",
            {"content": b'{"to": "a", "to": "b", "amount": 1}', "headers": {"Content-Type": "application/json"}},
            400,
        ),
        (
            "POST",
            "/payments",
            {
                "content": json.dumps({"to": "a", "amount": 1}).encode("utf-16"),
                "headers": {"Content-Type": "application/json"},
            },
            400,
        ),
        ("POST", "/payments", {"content": b'{"to": "a", "amount": 1}'}, 400),
    ],
)
def test_a_request_that_the_openapi_document_does_not_declare_runs_no_endpoint(
    stand: Stand, decided: list[Any], method: str, path: str, more: dict[str, Any], status: int
) -> None:
    assert stand(method, path, **more).status_code == status
    assert stand.ran == []


def test_bounds_of_a_task_limit_members_of_the_body(stand: Stand, decided: list[Any]) -> None:
    bounds = [
        {"type": "tool", "locations": [f"{stand.url}/"], "actions": ["pay"], "arguments": {"body.amount": {"max": 10}}}
    ]
    with stand.agent.task("pay little", bounds=bounds) as task:
        url = f"{stand.url}/payments"
        assert task.post(url, json={"to": "a", "amount": 10}, resource=f"{stand.url}/").status_code == 200
        refused = task.post(url, json={"to": "a", "amount": 11}, resource=f"{stand.url}/")
    assert refused.status_code == 403
    assert "body.amount" in refused.json()["message"]
    assert [one[2] for one in stand.ran] == [10]


def test_a_route_that_was_added_later_is_denied(stand: Stand, decided: list[Any]) -> None:
    @stand.api.get("/later")
    def later() -> str:
        stand.ran.append(("later",))
        return "later"

    stand.api.openapi_schema = None
    assert stand("GET", "/later").status_code == 403
    assert stand.ran == []
    assert isinstance(stand.api.routes[-1], APIRoute)


def test_a_streaming_response_reaches_the_agent(stand: Stand, decided: list[Any]) -> None:
    assert stand("GET", "/stream").text == "abc"


def test_a_websocket_is_decided_as_a_call_and_closes_when_its_agent_is_revoked(
    stand: Stand, live_server: ServerFixture, decided: list[Any]
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        stand.handshake("/talk/red")
    assert refused.value.response.status_code == 401
    assert "DPoP" in refused.value.response.headers["WWW-Authenticate"]
    with stand.handshake("/talk/red", stand.proved("/talk/red")) as socket:
        socket.send("hello")
        assert socket.recv(PATIENCE_S) == "red: hello"
        assert arguments(decided)[-1] == {"room": "red"}
        assert stand.ran == [("talk", "red")]
        live_server.api("POST", "/revoke", {"kind": "agent", "id": stand.credential.client_id})
        with pytest.raises(ConnectionClosed):
            socket.recv(PATIENCE_S)
    live_server.api("POST", f"/agents/{stand.credential.client_id}/resume", {})


def test_guard_asgi_without_a_mapping_derives_the_same_tools(stand: Stand) -> None:
    assert isinstance(stand.app, GuardASGI)
    tools = [tool["name"] for tool in catalogue_of(stand.api)["tools"]]
    assert [tool.name for tool in GuardASGI(stand.api, stand.guard)._table.tools] == tools  # type: ignore[union-attr]


def test_the_quick_start_of_the_documentation_page_runs(
    live_server: ServerFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (ROOT / "docs/how-to/adapters/fastapi.md").read_text("utf-8")
    [program] = re.findall(r"```python\n(# quick start.*?)```", page, re.S)
    sock, port = free_socket()
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "docs_api.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = live_server.name("docs")
    Commands(live_server.server.folder).json("protect", "docs_api:api", "--name", name, "--uri", f"{url}/", "--yes")
    shutil.copy(f"{name}.json", "docs.json")
    module = sys.modules.pop("docs_api")
    app: GuardASGI = module.app()
    _, agent_key = live_server.agent(f"{name}:read")
    try:
        with serving(app, sock), Agent.from_credential(agent_key) as agent:
            assert agent.get(f"{url}/documents/1?limit=3", resource=f"{url}/").text == '"min"'
            refused = agent.request("PUT", f"{url}/documents/1", resource=f"{url}/", json={"text": "x"})
            assert refused.status_code == 403
            assert module.documents == {1: "minutes"}
    finally:
        app._guard.close()


def test_a_route_is_not_decided_by_the_parameters_of_another_with_the_same_path() -> None:
    """FastAPI's document has one operation for each path and method: that of the last route."""
    api, router = FastAPI(), APIRouter()

    @api.get("/items/{item:int}")
    def number(item: int, x_level: Annotated[int, Header()] = 1) -> None: ...

    @api.get("/items/{item}")
    def name(item: str, q: int = 0) -> None: ...

    @api.post("/pay", include_in_schema=False)
    def hidden(x_to: Annotated[str, Header()] = "a") -> None: ...

    @api.post("/pay")
    def pay(amount: int = 0) -> None: ...

    @router.get("/in/{item:int}")
    def inner(item: int, x_level: Annotated[int, Header()] = 1) -> None: ...

    @router.get("/in/{item}")
    def other(item: str) -> None: ...

    api.include_router(router)
    table = RouteTable(api)
    assert {tool.name for tool in table.tools} == {"name", "pay", "other"}

    def find(method: str, path: str) -> Any:
        return table.find(
            {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "root_path": ""}
        )

    for path in ("/items/7", "/in/7"):
        with pytest.raises(Forbidden, match="two routes answer `GET"):
            find("GET", path)
    assert (find("GET", "/items/a").tool.name, find("GET", "/in/a").tool.name) == ("name", "other")
    assert (find("POST", "/pay").tool.name, find("POST", "/pay").tool.operation) == ("hidden", None)
