"""Trusted issuers of signals, and their deliveries."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from harness.registry_fixtures import (
    ADMIN,
    create_person,
    register_agent,
)
from ostiary.protocol.errors import Refused
from ostiaryd.ground.http.edge import Call, render_admin
from ostiaryd.ground.world import World
from ostiaryd.signals import wire_signals
from ostiaryd.signals.wire_admin import issuers as admin
from tests.support.identity_provider import Idp, providing


@pytest.fixture
def idp() -> Iterator[Idp]:
    with providing() as made:
        yield made


@pytest.fixture
async def world(world: World) -> World:
    """Return a world with a person, two agents of this person and one agent of another person. The configuration
    permits issuers on this machine.
    """
    world = dataclasses.replace(world, config=msgspec.structs.replace(world.config, private_hosts="127.0.0.1"))
    await create_person(world, "alice", email="alice@example.org")
    await create_person(world, "bob", email="bob@example.org")
    await register_agent(world, "writer")
    await register_agent(world, "reader")
    await register_agent(world, "other", owner="bob")
    return world


async def ask(world: World, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Send a request of an administrator, and return status and JSON."""
    route, _, query = path.partition("?")
    wire, params = next(
        (one.wire, found.groupdict())
        for one in admin.ROUTES
        if one.method == method
        and (found := re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", one.path), f"/api/v1{route}"))
    )
    sent = b"" if body is None else json.dumps(body).encode()
    headers = [(b"content-type", b"application/json")]
    try:
        answer = await wire(Call(world, method, f"/api/v1{route}", params, query, headers, sent, "rq_1", ADMIN))
    except Refused as refusal:
        answer = render_admin(refusal)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)


async def trust(world: World, idp: Idp, **more: Any) -> dict[str, Any]:
    status, made = await ask(world, "POST", "/issuers", {"issuer": idp.issuer, "domains": ["Example.org"]} | more)
    assert status == 201, made
    return dict(made)


async def push(world: World, made: dict[str, Any], token: str | bytes, **changed: Any) -> tuple[int, Any]:
    """Return the answer to the transmitter: the status and the error."""
    headers = [
        (b"content-type", changed.get("kind", "application/secevent+jwt").encode()),
        (b"authorization", changed.get("shows", made["authorization_header"]).encode()),
    ]
    body = token if isinstance(token, bytes) else token.encode()
    id = changed.get("id", made["issuer_id"])
    call = Call(world, "POST", f"/api/v1/signals/{id}", {"id": id}, "", headers, body, "rq_1")
    try:
        answer = await wire_signals.receive(call)
    except Refused as refusal:
        answer = wire_signals.render(refusal)
        assert answer.status == 429 or (b"content-language", b"en") in answer.headers
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)["err"] if answer.body else ""
