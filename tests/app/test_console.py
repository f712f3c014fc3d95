"""The console at the server: its page for people who are signed in, its assets, and the session of a person."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from tests.support.api_fixtures import Answer, send
from tests.support.console import needs_console
from tests.support.page_client import PageClient, invite
from tests.support.sources import ROOT
from tests.support.world import PUBLIC_URL

DIST = Path(str(files("ostiaryd.console") / "dist"))
FIRST_LOAD = 200 << 10
"""Bytes: the compressed size of the page with all that it loads before the first paint."""


async def sign_in(world: World, *, role: str = "") -> PageClient:
    """Return the browser of a person, who has that role."""
    browser = PageClient(build_app(world))
    await browser.set_up(await invite(world))
    if role:

        def grant(act: Act) -> None:
            registry.grant_role(act, "ann", role)

        await act(world, "role.grant", grant)
    return browser


async def call(browser: PageClient, method: str, path: str, **headers: str) -> Answer:
    """Send a request of a script of our own page, with the session cookie of the browser; `headers` are others."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    sent = {"cookie": cookies, "origin": PUBLIC_URL, "sec_fetch_site": "same-origin"} | headers
    return await send(
        browser.app, method, path, headers=[(name.replace("_", "-"), value) for name, value in sent.items()]
    )


async def test_a_browser_without_a_session_is_redirected_to_the_login_with_a_return_path(world: World) -> None:
    browser = PageClient(build_app(world), follows=False)
    for path, back in (
        ("/console", "%2Fconsole"),
        ("/console/agents?state=active", "%2Fconsole%2Fagents%3Fstate%3Dactive"),
        ("/console/x/../../token", "%2Fconsole"),
        ("/console/a b", "%2Fconsole"),
    ):
        answer = await browser.get(path)
        assert (answer.status, answer.headers["location"]) == (303, f"/login?return_to={back}")


async def test_the_root_path_of_the_server_redirects_to_the_console(world: World) -> None:
    answer = await PageClient(build_app(world), follows=False).get("/")
    assert (answer.status, answer.headers["location"]) == (303, "/console")


async def test_a_server_without_the_console_states_how_to_build_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await sign_in(world)
    monkeypatch.setattr("ostiaryd.console.wire_assets.files", lambda _: Path("/nonexistent"))
    assert (await browser.get("/console")).status == 404
    assert "make console" in browser.text


@needs_console
async def test_the_console_page_has_a_strict_policy_and_its_assets_are_cached_and_compressed(world: World) -> None:
    browser = await sign_in(world)
    page = await browser.get("/console/agents")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert "data:" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", browser.text)
    names = re.findall(r'="/console/assets/([^"]+)"', browser.text)
    assert len(names) >= 3
    for name in names:
        path = f"/console/assets/{name}"
        plain, packed = await send(browser.app, "GET", path), await call(browser, "GET", path, accept_encoding="gzip")
        assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        small = await call(browser, "GET", path, accept_encoding="gzip, br;q=1.0, zstd")
        assert small.headers["content-encoding"] == "br"
        assert len(small.body) <= len(packed.body)
        refused = await call(browser, "GET", path, accept_encoding="br;q=0, gzip;q=0.000")
        assert "content-encoding" not in refused.headers
    assert (await send(browser.app, "GET", "/console/assets/index.html")).status == 404
    assert (await send(browser.app, "GET", f"/console/assets/{names[0]}.gz")).status == 404


@needs_console
def test_the_first_load_of_the_console_is_at_most_200_kib() -> None:
    page = (DIST / "index.html").read_text()
    names = re.findall(r'="\./(assets/[^"]+)"', page)
    [overview] = DIST.glob("assets/overview-*.js.gz")
    assert sum((DIST / f"{name}.gz").stat().st_size for name in names) + overview.stat().st_size <= FIRST_LOAD


@needs_console
@pytest.mark.slow
def test_the_built_console_matches_its_source(tmp_path: Path) -> None:
    vite = ROOT / "console/node_modules/.bin/vite"
    if not vite.exists():
        pytest.skip("the tools of the console are not installed: make console")
    environment = os.environ | {"CONSOLE_DIST": str(tmp_path)}
    built = subprocess.run(
        (vite, "build"), cwd=ROOT / "console", env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert built.returncode == 0, built.stderr
    again, present = ({path.name: path.read_bytes() for path in of.rglob("*.*")} for of in (tmp_path, DIST))
    assert again.keys() == present.keys(), "make console"
    assert [name for name in again if again[name] != present[name]] == [], "make console"


async def test_the_session_lists_the_operations_that_the_roles_of_the_person_permit(world: World) -> None:
    browser = await sign_in(world, role="viewer")
    answer = await call(browser, "GET", "/api/v1/session")
    session = json.loads(answer.body)
    assert (session["name"], session["roles"]) == ("ann", ["viewer"])
    operations = set(session["operations"])
    assert {"GET /api/v1/agents", "GET /api/v1/approvals", "POST /api/v1/approvals/{id}/deny"} <= operations
    assert not {"POST /api/v1/agents", "GET /api/v1/audit", "POST /api/v1/kill"} & operations
    assert (await call(browser, "GET", "/api/v1/agents")).status == 200
    assert (await call(browser, "GET", "/api/v1/audit")).status == 403


async def test_the_session_can_be_ended_only_by_a_page_of_the_same_origin(world: World) -> None:
    browser = await sign_in(world)
    assert (await call(browser, "DELETE", "/api/v1/session", origin="https://evil.example")).status == 403
    assert (await call(browser, "DELETE", "/api/v1/session", sec_fetch_site="cross-site")).status == 403
    assert (await call(browser, "GET", "/api/v1/session", sec_fetch_site="same-site")).status == 403
    ended = await call(browser, "DELETE", "/api/v1/session")
    assert ended.status == 200
    assert "Max-Age=0" in ended.headers["set-cookie"]
    assert (await call(browser, "GET", "/api/v1/session")).status == 401
