"""Requirements of the security best current practice (RFC 9700) that no other test is about."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from starlette.types import ASGIApp

from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.world import World
from tests.tokens.code_flow import CodeFlow, begin_flow


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    return await begin_flow(world, app)


async def test_the_password_grant_and_the_implicit_grant_are_refused(flow: CodeFlow) -> None:
    """Sections 2.4 and 2.1.2."""
    refused = await flow.token(grant_type="password", username="ann", password="x")
    assert (refused.status, refused.error) == (400, "unsupported_grant_type")
    for kind in ("token", "id_token", "code token", "code id_token token", "none"):
        flow.browser.left_to = ""
        await flow.open(response_type=kind)
        assert flow.arrived()["error"] == "unsupported_response_type", kind
        assert "#" not in flow.browser.left_to


async def test_a_redirect_after_a_form_has_status_303(flow: CodeFlow) -> None:
    """Section 4.12: a redirect after a form with credentials has the status 303, never 307 or 308."""
    assert not [route.path for route in ROUTES if {307, 308} & set(route.answers)]
    posted = await flow.browser.post("/authorize", **flow.query(prompt="none"))
    assert posted.status == 303


async def test_an_authorization_response_sends_no_referrer_and_no_token_in_its_url(flow: CodeFlow) -> None:
    """Sections 4.2 and 4.3."""
    await flow.answer()
    flow.browser.left_to = ""
    answer = await flow.browser.get(f"/authorize?{urlencode(flow.query())}")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "no-store" in answer.headers["cache-control"]
    assert "access_token" not in flow.browser.left_to
