"""Every route under generated requests: no input of any caller causes an internal error.

The bodies come from the type that a wire parses, with one or two members replaced by something hostile. Strangers meet
the application with its gates; administrators, agents, guards and persons meet each wire behind its renderer, with a
gate that lets them pass, so that what lies behind it is reached.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.http.edge import Call, Endpoint, Headers
from ostiaryd.ground.http.routes import Content, Route
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, APPROVE, READ, SELF, SSF_MANAGE, SSF_READ, Caller
from ostiaryd.registry.store import owners
from tests.support.api_fixtures import guard, register, send
from tests.support.world import Kind

TIMES = 12 * int(os.environ.get("OSTIARY_FAULT_ROUNDS", "1"))
"""Requests to each route by each kind of caller: one half on SQLite, the other half on PostgreSQL."""
SCOPES = frozenset({ADMIN, READ, APPROVE, SELF, SSF_MANAGE, SSF_READ, "ostiary:decide", "ostiary:feed", "files:read"})
TEXTS = (
    "",
    " ",
    "x",
    "files",
    "reader",
    "ann",
    "admin",
    "\0",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "\uffff",
    "\U0010ffff",
    "é" * 300,
    "x" * 5000,
    "x" * 40_000,
    "\n",
    "a\r\nb: c",
    "../../etc/passwd",
    "%",
    "%zz",
    "%00",
    "-1",
    "1e400",
    "NaN",
    "null",
    "9" * 30,
    "9" * 5000,
    "-" + "9" * 400,
    "0x10",
    "1.5",
    "2026-13-45",
    "2026-11-28T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "\u202e",
    "{",
    "[" * 2000,
    "a=b&a=b",
    "tk_" + "0" * 32,
    "ag_" + "0" * 32,
    "pe_x",
    "rs_x",
    "sha256:" + "0" * 64,
    "e30.e30.e30",
    "a.b.c",
    "....",
    "spiffe://example.org/agent/x",
    "https://127.0.0.1:1/x",
    "https://[::1",
    "https://a.invalid/\0",
    "mailto:a@b.c",
    "permit (principal, action, resource);",
    "x = 1979-05-27\ny = 1e999\nz = nan\n[a]\n",
    "*" * 3000,
)
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53 - 1,
    2**53,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
    float("inf"),
    float("nan"),
)
HEADERS = (
    "authorization",
    "dpop",
    "content-type",
    "content-encoding",
    "x-request-id",
    "x-forwarded-for",
    "accept",
    "host",
    "if-match",
    "cookie",
    "expect",
)


class Hostile:
    """Values that no honest client sends, from one seed."""

    def __init__(self, seed: str, names: dict[str, str]) -> None:
        self.random, self.names = Random(seed), names

    def text(self) -> str:
        return self.random.choice((*TEXTS, *self.names.values()))

    def value(self, depth: int = 0) -> Any:
        match self.random.randrange(7 if depth < 3 else 4):
            case 0:
                return self.random.choice((None, True, False))
            case 1:
                return self.random.choice(NUMBERS)
            case 2 | 3:
                return self.text()
            case 4:
                return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
            case 5:
                return {self.text(): self.value(depth + 1) for _ in range(self.random.randrange(4))}
        nested: Any = self.text()
        for _ in range(self.random.choice((5, 31, 33, 400))):
            nested = [nested] if self.random.random() < 0.5 else {"a": nested}
        return nested

    def of_type(self, kind: Any, depth: int = 0) -> Any:
        """A value that `kind` takes, or now and then another."""
        if self.random.random() < 0.08 or depth > 5:
            return self.value()
        match msgspec.inspect.type_info(kind) if not isinstance(kind, msgspec.inspect.Type) else kind:
            case msgspec.inspect.StructType(fields=fields):
                kept = [one for one in fields if one.required or self.random.random() < 0.6]
                return {one.encode_name: self.of_type(one.type, depth + 1) for one in kept}
            case msgspec.inspect.StrType() | msgspec.inspect.BytesType():
                return self.text()
            case msgspec.inspect.IntType(ge=ge, le=le):
                return self.random.choice((*NUMBERS[:11], ge or 0, le or 60))
            case msgspec.inspect.FloatType():
                return self.random.choice(NUMBERS)
            case msgspec.inspect.BoolType():
                return self.random.random() < 0.5
            case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
                return [self.of_type(item, depth + 1) for _ in range(self.random.randrange(4))]
            case msgspec.inspect.DictType(value_type=item):
                return {self.text(): self.of_type(item, depth + 1) for _ in range(self.random.randrange(3))}
            case msgspec.inspect.UnionType(types=types):
                return self.of_type(self.random.choice(types), depth + 1)
            case msgspec.inspect.LiteralType(values=values):
                return self.random.choice(values)
        return self.value()

    def headers(self) -> list[tuple[bytes, bytes]]:
        names = self.random.sample(HEADERS, self.random.randrange(3))
        return [(name.encode(), self.text().encode("utf-8", "surrogatepass")[:3000]) for name in names]


def body_of(hostile: Hostile, route: Route) -> tuple[bytes, bytes]:
    """Content type and body."""
    path, kind = route.path, None if isinstance(route.body, Content) else route.body
    random = hostile.random
    if (path in FORMS and random.random() < 0.9) or random.random() < 0.03:
        names = (*FORM_NAMES, hostile.text())
        pairs = [(random.choice(names), hostile.text()) for _ in range(random.randrange(12))]
        text = "&".join(f"{quote(name, errors='replace')}={quote(value, errors='replace')}" for name, value in pairs)
        return b"application/x-www-form-urlencoded", text.encode()
    value = hostile.value() if kind is None else hostile.of_type(kind)
    if kind is None and random.random() < 0.8:
        value = {name: hostile.value() for name in random.sample(MEMBERS, random.randrange(1, 8))}
    text = json.dumps(value)
    match random.randrange(20):
        case 0:
            text = text[: random.randrange(len(text) + 1)]
        case 1:
            text = text.replace("}", ',"a":1,"a":2}', 1)
        case 2:
            return b"application/json", text.encode("utf-16")
    media = b"application/secevent+jwt" if "signals" in path else b"application/json"
    return media, text.encode()


FORMS = frozenset({"/token", "/introspect", "/revoke", "/bc-authorize", "/authorize"})
FORM_NAMES = (
    "grant_type",
    "client_assertion_type",
    "client_assertion",
    "scope",
    "resource",
    "task",
    "token",
    "requested_expiry",
    "login_hint",
    "binding_message",
    "authorization_details",
    "subject_token",
    "subject_token_type",
    "acr_values",
    "max_age",
    "auth_req_id",
    "audience",
    "actor_token",
    "client_id",
)
MEMBERS = (
    "subject",
    "resource",
    "action",
    "context",
    "evaluations",
    "options",
    "page",
    "files",
    "tests",
    "question",
    "tool",
    "arguments",
    "token",
    "agent",
    "resourceSpans",
    "resourceLogs",
    "id",
    "type",
    "properties",
    "mode",
    "name",
    "since",
)


def path_of(hostile: Hostile, template: str) -> tuple[str, dict[str, str]]:
    """The path that a server hands on, and its parameters."""
    params = {name: hostile.text().encode("utf-8", "replace").decode() for name in re.findall(r"{(\w+)", template)}
    path = re.sub(r"{(\w+)[^}]*}", lambda found: params[found[1]], template)
    return path, params


def query_of(hostile: Hostile, route: Route) -> str:
    names = sorted({one.name for one in route.query} | {"limit", "after"})
    chosen = hostile.random.sample(names, hostile.random.randrange(len(names) + 1))
    pairs = [f"{name}={quote(hostile.text(), errors='replace')}" for name in chosen]
    return "&".join(pairs + hostile.random.choice(([], [], ["limit=1", "limit=2"], ["%zz"], ["a" * 3000])))


@pytest.fixture
async def names(world: World) -> dict[str, str]:
    """Things that are there: names and ids, so that requests get past looking them up."""
    agent, _ = await register(world)
    guard_id, _ = await guard(world)
    person = await act(world, "test", lambda act: owners.get_person(act.tx, "ann"))
    assert person is not None
    return {
        "agent": agent.agent_id,
        "guard": guard_id,
        "person": person.person_id,
        "admin": registry.find_agent(world.db.read(), "admin").agent_id,
    }


@pytest.fixture
def failures(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The failures of its own that the server has logged since the last call."""
    caplog.set_level(logging.ERROR)

    def take() -> list[str]:
        taken = [f"{one.getMessage()}: {one.exc_info and one.exc_info[1]!r:.200}" for one in caplog.records]
        caplog.clear()
        return taken

    return take


def caller_of(kind: str, names: dict[str, str]) -> Caller:
    id = names[{"administrator": "admin"}.get(kind, kind)]
    scopes = SCOPES if kind == "administrator" else SCOPES - {ADMIN}
    said: Any = kind if kind in ("guard", "person") else "agent"
    name = {"agent": "reader", "guard": "files", "person": "ann"}.get(kind, "admin")
    owner = names["person"] if said == "agent" else None
    return Caller(kind=said, id=id, name=name, owner=owner, scopes=scopes, jkt="x" * 43, task=None, token="tok_1")


def passing(caller: Caller) -> Callable[[Call], Awaitable[Caller]]:
    async def gate(call: Call) -> Caller:
        return caller

    return gate


def faults_of(status: int, body: bytes, headers: Headers) -> list[str]:
    """The faults of an answer: it is a failure, is without bound, or has not the form of its protocol."""
    wrong = []
    if status == 500 or b"Traceback" in body:
        wrong.append(f"failed: {body[:200]!r}")
    if len(body) > 1 << 20:
        wrong.append(f"{len(body)} bytes")
    if status >= 400 and body:
        media_type = dict(headers).get(b"content-type")
        if media_type == b"text/html; charset=utf-8" and b'<html lang="en">' in body:
            return wrong  # a page
        if media_type not in (b"application/json", b"application/problem+json", b"application/x-amz-json-1.1"):
            wrong.append(f"the form of {body[:200]!r}")
        elif not isinstance(json.loads(body), (dict, str)):
            wrong.append(f"no object: {body[:200]!r}")
    return wrong


@pytest.mark.parametrize("kind", ["administrator", "agent", "guard", "person"])
async def test_no_request_of_an_authenticated_caller_causes_an_internal_error(
    world: World, database: Kind, names: dict[str, str], failures: Callable[[], list[str]], kind: str
) -> None:
    caller, wrong = caller_of(kind, names), list[str]()
    for route in ROUTES:
        method, template = route.method, route.path
        endpoint = Endpoint(
            world, route.wire, render=route.protocol.render, gate=passing(caller), check=passing(caller)
        )
        for number in range(0 if database == "sqlite" else 1, TIMES, 2):
            seed = f"{kind} {method} {template} {number}"
            hostile = Hostile(seed, names)
            path, params = path_of(hostile, template)
            media, body = body_of(hostile, route) if method not in ("GET", "DELETE") else (b"", b"")
            sent = [*hostile.headers(), *([(b"content-type", media)] if hostile.random.random() < 0.95 else [])]
            answer, headers = await endpoint.answer(
                method,
                path,
                params=params,
                query=query_of(hostile, route),
                headers=sent,
                body=body,
                address="192.0.2.1",
            )
            if answer.status not in route.statuses:
                wrong.append(f"{seed}: {answer.status} is not documented: {answer.body!r:.200}")
            if isinstance(answer.body, bytes):
                wrong += [f"{seed}: {why}" for why in faults_of(answer.status, answer.body, headers)]
            else:
                await answer.body.aclose()
            wrong += [f"{seed}: {why}" for why in failures()]
    assert wrong == []


async def test_no_request_of_an_unauthenticated_client_causes_an_internal_error(
    world: World, database: Kind, names: dict[str, str], failures: Callable[[], list[str]]
) -> None:
    app, wrong = build_app(world), list[str]()
    for route in ROUTES:
        method, template = route.method, route.path
        for number in range(0 if database == "sqlite" else 1, TIMES, 2):
            seed = f"stranger {method} {template} {number}"
            hostile = Hostile(seed, names)
            path = quote(path_of(hostile, template)[0], safe="/:", errors="replace").replace("%00", "\0")
            media, body = body_of(hostile, route)
            raw = [(name.decode(), value.decode("latin-1")) for name, value in hostile.headers()]
            sent = [*raw, ("content-type", media.decode()), ("content-length", str(len(body)))]
            answer = await send(app, method, f"{path}?{query_of(hostile, route)}", headers=sent, body=body)
            said = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
            wrong += [f"{seed}: {why}" for why in faults_of(answer.status, answer.body, said) + failures()]
            wrong += [] if answer.status in route.statuses else [f"{seed}: {answer.status} is not documented"]
            wrong += [] if "x-request-id" in answer.headers else [f"{seed}: no id of the request"]
    assert wrong == []
