"""A failure of our own has the form of the protocol too, the id of its request, and reveals nothing of what it was."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from ostiaryd import app
from ostiaryd.ground.http import Render
from ostiaryd.ground.world import World
from tests.tokens.party import send

SECRET = "postgresql://ostiary:hunter2@db/ostiary"


async def fails(_: Any) -> Any:
    raise RuntimeError(SECRET)


HINT = "its log says why, by the `x-request-id` of this answer"
ADMIN = {"error": "internal_error", "message": "the server failed", "hint": HINT}
FORMS: dict[str, Any] = {
    "/token": {"error": "server_error", "error_description": f"the server failed; {HINT}"},
    "/.well-known/authzen-configuration": "the server failed",
    "/access/v1/search/subject": "the server failed",
    "/api/v1/agents": ADMIN,
    "/feed/v1/jwks": ADMIN,
}


@pytest.mark.parametrize("path", FORMS)
async def test_a_failure_has_the_form_of_its_protocol(
    world: World, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(lines: tuple[app.Line, ...]) -> tuple[app.Line, ...]:
        return tuple((method, at, fails if at == path else wire, "") for method, at, wire, _ in lines)

    routes: tuple[tuple[tuple[app.Line, ...], Render], ...] = tuple(
        (failing(lines), render) for lines, render in app.ROUTES
    )
    monkeypatch.setattr(app, "ROUTES", routes)
    method = next(method for lines, _ in routes for method, at, _, _ in lines if at == path)
    with caplog.at_level(logging.ERROR, logger="ostiary"):
        answer = await send(app.build_app(world), method, path, headers=[("x-request-id", "id-7")], body=b"")
    assert (answer.status, json.loads(answer.body)) == (500, FORMS[path])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "id-7"
    assert SECRET not in str(answer)
    assert f"{method} {path} failed (id-7)" in caplog.text, "the log says which request it was"


async def test_every_protocol_has_a_form_for_it() -> None:
    from ostiaryd.ground.http import Failed

    for _, render in app.ROUTES:
        assert render(Failed()).status == 500
