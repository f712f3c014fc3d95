"""An internal error has the form of its protocol and the id of its request, and reveals no detail of its cause."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from ostiary.protocol.jose import b64u
from ostiaryd import app
from ostiaryd.ground.database.line import SERVER, Lane, Priority, priority
from ostiaryd.ground.http.admission import Essentials, Reports, admit_essential, queue_proven, queue_unproven
from ostiaryd.ground.http.edge import RETRY_SPREAD_S, Call
from ostiaryd.ground.rounds import LoopUse
from ostiaryd.ground.world import World
from tests.support.api_fixtures import Answer, send

SECRET = "postgresql://ostiary:hunter2@db/ostiary"


async def fails(_: Any) -> Any:
    raise RuntimeError(SECRET)


HINT = "search the server's log for the `x-request-id` of this response"
ADMIN = {"error": "internal_error", "message": "the server failed", "hint": HINT}
FORMS: dict[str, Any] = {
    "/token": {"error": "server_error", "error_description": f"the server failed; {HINT}"},
    "/.well-known/authzen-configuration": "the server failed",
    "/access/v1/search/subject": "the server failed",
    "/api/v1/agents": ADMIN,
    "/feed/v1/jwks": ADMIN,
}


@pytest.mark.parametrize("path", FORMS)
async def test_an_internal_error_has_the_form_of_its_protocol_and_reveals_no_detail(
    world: World, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [replace(route, wire=fails, scope="", is_large=False) for route in app.ROUTES if route.path == path]
    method = failing[0].method
    with caplog.at_level(logging.ERROR, logger="ostiary"):
        answer = await send(app.build_app(world, failing), method, path, headers=[("x-request-id", "id-7")], body=b"")
    assert (answer.status, json.loads(answer.body)) == (500, FORMS[path])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "id-7"
    assert SECRET not in str(answer)
    assert f"{method} {path} failed (id-7)" in caplog.text, "the log says which request it was"


BUSY = "too many requests of this client are waiting for the database"
BUSY_FORMS: dict[str, Any] = {
    "/token": {"error": "temporarily_unavailable", "error_description": f"{BUSY}; try again later"},
    "/access/v1/evaluation": BUSY,
    "/access/v1/search/subject": BUSY,
    "/access/v1/requests": {
        "type": "about:blank",
        "title": "busy",
        "status": 503,
        "detail": f"{BUSY} (try again later)",
    },
    "/api/v1/tasks": {"error": "busy", "message": BUSY, "hint": "try again later"},
    "/feed/v1/draw": {"error": "busy", "message": BUSY, "hint": "try again later"},
    "/v1/logs": {"code": 14, "message": BUSY},
}


def stranger() -> Priority:
    """A client without an address that names nobody, as `send` is."""
    return Priority(("", ""), expires=True)


async def test_a_client_is_refused_in_the_form_of_its_protocol_while_the_writer_queue_is_crowded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything of the request is looked at, and so with no entry; stops and administrators get to the gate."""
    served = app.build_app(world)

    async def beside(job: Priority, method: str, path: str) -> Answer:
        """The answer to a request while a job of that priority waits."""
        token = priority.set(job)
        waiting = world.writer.submit(lambda tx: None)
        priority.reset(token)
        answer = await send(served, method, path, headers=[], body=b"")
        await asyncio.gather(waiting, return_exceptions=True)  # the job may be too old as well
        return answer

    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0)
    for path, form in BUSY_FORMS.items():
        answer = await beside(stranger(), "POST", path)
        assert (answer.status, json.loads(answer.body)) == (503, form), path
        assert 1 <= int(answer.headers["retry-after"]) <= RETRY_SPREAD_S
    assert (await beside(SERVER, "POST", "/token")).status == 415, "another client's job refuses nobody"
    for method, path in (
        ("GET", "/api/v1/agents"),
        ("POST", "/api/v1/agents/x/suspend"),
        ("POST", "/api/v1/revoke"),
        ("POST", "/api/v1/kill"),
        ("POST", "/api/v1/incidents/x/release"),
        ("POST", "/feed/v1/report"),
        ("POST", "/feed/v1/applied"),
    ):
        assert (await beside(stranger(), method, path)).status == 401, "it gets through to the gate"
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0.4)
    assert (await beside(stranger(), "POST", "/token")).status == 415, "a line that is not crowded refuses nobody"


async def test_reports_of_a_guard_within_its_rate_do_not_expire_in_the_writer_queue(world: World) -> None:
    def expires(id: str, *, reports: bool = True) -> bool:
        call = Call(world, "POST", "/feed/v1/report", {}, "", [], b"", "id-7")
        queue_unproven(call, wants=Lane.ORDINARY, reports=reports)
        assert priority.get().expires, "nothing is known of the caller yet"
        queue_proven(call, id, is_privileged=False, is_guard=id.startswith("rs_"))
        return priority.get().expires

    assert [expires("rs_1") for _ in range(Reports.burst)] == [False] * Reports.burst
    assert expires("rs_1"), "a guard cannot fill the line"
    assert not expires("rs_2")
    assert expires("rs_2", reports=False)
    assert expires("ag_1")
    reporting = {route.path for route in app.ROUTES if route.reports}
    assert reporting == {f"/feed/v1/{name}" for name in ("report", "stops", "give-back", "settle")}


async def test_a_token_request_that_names_a_guard_does_not_expire_within_the_rate_of_its_network(world: World) -> None:
    def expires(name: str) -> bool:
        assertion = f"e30.{b64u(json.dumps({'sub': name}).encode())}.e30"
        call = Call(world, "POST", "/token", {}, "", [], f"client_assertion={assertion}".encode(), "id-7")
        queue_unproven(call, wants=Lane.ORDINARY)
        is_essential = admit_essential(call, lambda id: id == "rs_1")
        assert is_essential is not priority.get().expires
        return priority.get().expires

    assert expires("ag_1")
    assert [expires("rs_1") for _ in range(Essentials.burst)] == [False] * Essentials.burst
    assert expires("rs_1")


def test_each_route_that_stops_something_has_the_method_post_or_delete() -> None:
    stops = [route for route in app.ROUTES if route.stops]
    assert len(stops) > 40
    assert all(route.method in ("POST", "DELETE") for route in stops)


async def test_every_protocol_renders_an_internal_error_with_status_500() -> None:
    from ostiaryd.ground.http.edge import Failed

    for route in app.ROUTES:
        assert route.protocol.render(Failed()).status == 500


async def test_reference_cycles_are_collected_while_the_event_loop_is_quiet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, shares = list[int](), itertools.repeat(app.QUIET_SHARE)
    monkeypatch.setattr(LoopUse, "take_share", lambda _: next(shares))
    monkeypatch.setattr(gc, "collect", searched.append)
    for objects, expected in ((app.QUIET_GARBAGE, []), (app.QUIET_GARBAGE + 1, [1])):
        monkeypatch.setattr(gc, "get_count", lambda objects=objects: (objects, 0, 0))
        await app.collect_garbage(world)
        assert searched == expected
    waiting = world.writer.submit(lambda tx: None)
    await app.collect_garbage(world)
    assert searched == [1], "a search would delay the request"
    await waiting
    shares = itertools.repeat(app.QUIET_SHARE + 0.01)
    await app.collect_garbage(world)
    assert searched == [1], "the loop is busy, and its connections have many objects"
    shares = itertools.repeat(app.QUIET_SHARE)
    await app.collect_garbage(world)
    assert searched == [1, 1]


async def test_the_use_of_the_event_loop_is_measured_in_processor_time(world: World) -> None:
    use = LoopUse(world)
    use.take_share()
    spent = time.thread_time() + 0.2
    while time.thread_time() < spent:
        pass
    busy = use.take_share()
    used = time.thread_time()
    await asyncio.sleep(0.5)
    quiet = use.take_share()
    assert 0 < busy <= 1.01
    assert quiet < (time.thread_time() - used + 0.01) / 0.5
