"""The gate of every route: a request without a token with the scope of the route is refused and recorded."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.protocol import dpop
from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.http.health import Health
from ostiaryd.ground.http.html import PAGES
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.registry.model import ADMIN, APPROVE, READ, SELF, SSF_MANAGE, SSF_READ
from tests.support.api_fixtures import ISSUER, Answer, Client, client, oauth_app, reconfigured, register, send
from tests.support.role_fixtures import administrator
from tests.support.role_fixtures import ask as ask_as
from tests.support.sources import ROOT
from tests.support.trust_fixtures import API, proof_of

__all__ = ["client"]
GATED = [(route.method, route.path, route.scope) for route in ROUTES if route.scope]
QUESTION = {"subject": {"type": "user", "id": "x"}, "action": {"name": "see"}, "resource": {"type": "user", "id": "y"}}


def test_no_route_hides_another_route() -> None:
    """Of two routes with one method and path, only the first would answer."""
    count = Counter((route.method, re.sub(r"{[^}]*}", "{}", route.path)) for route in ROUTES)
    assert [route for route, times in count.items() if times > 1] == []


async def ask(world: World, method: str, template: str, *headers: tuple[str, str]) -> Answer:
    kind = ("content-type", "application/json")
    path = re.sub(r"{[^}]*}", "x", template)
    return await send(build_app(world), method, path, headers=[kind, *headers], body=json.dumps(QUESTION).encode())


async def show(client: Client, token: str, method: str, template: str, **said: Any) -> Answer:
    path = re.sub(r"{[^}]*}", "x", template)
    proof = proof_of(client, token, path, method=method, **said)
    return await ask(client.world, method, template, ("authorization", f"DPoP {token}"), ("dpop", proof))


def size(world: World) -> int:
    return ledger.get_head(world.db.read())[0].size


@pytest.mark.parametrize("database", ["sqlite"])  # the gate decides, on either database
async def test_each_route_refuses_a_request_without_a_token_and_records_the_refusal(world: World, clock: Clock) -> None:
    assert len(GATED) > 40
    for method, path, _ in GATED:
        clock.advance(60)  # strangers have a budget of entries for each minute
        before = size(world)
        answer = await ask(world, method, path)
        assert (answer.status, "DPoP " in answer.headers["www-authenticate"]) == (401, True), (method, path)
        assert (size(world) - before, newest_entry(world).outcome) == (1, "refused"), (method, path)


@pytest.mark.parametrize("database", ["sqlite"])  # the gate decides, on either database
async def test_each_route_refuses_a_token_without_its_scope_and_records_the_refusal(client: Client) -> None:
    token = (await client.token(resource=API))["access_token"]
    for method, path, scope in GATED:
        if scope == SELF:
            continue
        before = size(client.world)
        answer = await show(client, token, method, path)
        assert answer.status == 403, (method, path)
        assert f'scope="{scope}"' in answer.headers["www-authenticate"], (method, path)
        entry = newest_entry(client.world)
        assert (size(client.world) - before, entry.outcome) == (1, "refused"), (method, path)
        assert client.id in (entry.agent, entry.reporter), "it is known who was turned away"


async def test_a_refused_request_is_recorded_with_its_method_and_path(world: World) -> None:
    await ask(world, "GET", "/api/v1/agents")
    entry = newest_entry(world)
    assert (entry.action, entry.detail) == ("api.call", {"method": "GET", "path": "/api/v1/agents"})
    assert [reason.code for reason in entry.reasons] == ["unauthenticated"]


async def test_a_nonce_challenge_is_not_recorded_and_a_proof_with_its_nonce_is_accepted(client: Client) -> None:
    token = (await client.token(resource=API))["access_token"]
    before = size(client.world)
    challenged = await show(client, token, "GET", "/api/v1/tasks", nonce=None)
    assert (challenged.status, size(client.world)) == (401, before)
    nonce = challenged.headers["dpop-nonce"]
    assert dpop.is_fresh_nonce(client.world.keys.secret("nonce"), b"rs", nonce, client.world.now(), 1)
    assert (await show(client, token, "GET", "/api/v1/tasks", nonce=nonce)).status == 200


async def test_an_unknown_path_is_404_and_an_unknown_method_is_405(world: World) -> None:
    nowhere = await send(build_app(world), "GET", "/api/v1/nothing", headers=[("x-request-id", "mine")])
    assert (nowhere.status, nowhere.error, nowhere.headers["x-request-id"]) == (404, "not_found", "mine")
    assert "allow" not in nowhere.headers
    other = await send(build_app(world), "DELETE", "/api/v1/persons")
    assert (other.status, other.error, other.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD, POST")
    assert (await send(build_app(world), "GET", "/token")).headers["allow"] == "POST"
    assert (await send(build_app(world), "GET", "/openapi.json\n")).status == 404, "no route has a line end"


CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"


@pytest.mark.parametrize("path", ["/nothing-here", "/login/nothing/", "/api/v1/nothing"])
async def test_a_browser_at_an_unknown_path_gets_a_page_with_a_link_to_the_account(world: World, path: str) -> None:
    app = build_app(reconfigured(world, public_url=ISSUER + "/id"))
    page = await send(app, "GET", path, headers=[("accept", CHROMIUM), ("x-request-id", "mine")])
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such page" in page.body.decode()
    assert 'href="/id/account"' in page.body.decode()
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert (page.headers["x-frame-options"], page.headers["x-request-id"]) == ("DENY", "mine")


@pytest.mark.parametrize("accept", ["application/xhtml+xml, text/html; q=0.9", "text/html;level=1;q=0.01", "Text/HTML"])
async def test_a_browser_that_prefers_other_types_to_html_still_gets_a_page(world: World, accept: str) -> None:
    page = await send(build_app(world), "GET", "/nothing-here", headers=[("accept", accept)])
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")


async def test_an_api_client_at_an_unknown_path_gets_json(world: World) -> None:
    app = build_app(world)
    cases: list[str | None] = [
        None,
        "*/*",
        "application/json",
        "application/json, text/plain, */*",
        "text/html;q=0",
        "text/html; q=0.00, text/htmlx",
        "text/html;q=0;x=1",
    ]
    for accept in cases:
        headers = [] if accept is None else [("accept", accept)]
        answer = await send(app, "GET", "/nothing-here", headers=headers)
        assert (answer.status, answer.json) == (404, {"error": "not_found", "message": "not found"}), accept
        assert answer.headers["cache-control"] == "no-store", accept


async def test_a_browser_that_reloads_the_target_of_a_form_gets_a_page(world: World) -> None:
    targets = {route.path for route in ROUTES if route.protocol is PAGES and route.method == "POST"}
    targets -= {route.path for route in ROUTES if route.method == "GET"}
    assert "/account/logout" in targets
    for path in targets:
        answer = await send(build_app(world), "GET", path, headers=[("accept", CHROMIUM)])
        assert (answer.status, answer.headers["content-type"]) == (405, "text/html; charset=utf-8"), path
        assert 'href="/account"' in answer.body.decode()


async def test_the_path_of_a_decision_point_follows_the_well_known_path(world: World) -> None:
    elsewhere = build_app(reconfigured(world, public_url=ISSUER + "/id"))
    at = "/.well-known/authzen-configuration"  # AuthZEN 9.2: the path goes after it
    assert (await send(elsewhere, "GET", at + "/id")).json["policy_decision_point"] == ISSUER + "/id"
    for path in (at + "/other", at + "/id/"):
        assert (await send(elsewhere, "GET", path)).status == 404


async def test_a_host_header_never_causes_a_redirect(world: World) -> None:
    answer = await send(build_app(world), "POST", "/token/", headers=[("host", "evil.example")])
    assert (answer.status, "location" in answer.headers) == (404, False)


def test_each_route_that_changes_something_requires_the_admin_scope_except_the_listed_routes() -> None:
    less = {(method, path): scope for method, path, scope in GATED if method != "GET" and scope != ADMIN}
    assert less == {
        ("POST", "/api/v1/policies/whatif"): READ,  # changes nothing
        ("POST", "/api/v1/elevations"): SELF,  # within what its operator lists
        ("POST", "/api/v1/agents/{name}/suspend"): SELF,  # its owner may
        ("POST", "/api/v1/tasks"): SELF,  # one's own
        ("POST", "/api/v1/tasks/{id}/renew"): SELF,
        ("POST", "/api/v1/tasks/{id}/end"): SELF,
        ("POST", "/api/v1/revoke"): SELF,
        ("POST", "/api/v1/decide"): "ostiary:decide",
        ("POST", "/access/v1/requests"): "ostiary:decide",
        ("POST", "/access/v1/requests/{id}/cancel"): "ostiary:decide",
        ("POST", "/access/v1/evaluation"): "ostiary:decide",
        ("POST", "/access/v1/evaluations"): "ostiary:decide",
        ("POST", "/access/v1/search/subject"): "ostiary:decide",
        ("POST", "/access/v1/search/resource"): "ostiary:decide",
        ("POST", "/access/v1/search/action"): "ostiary:decide",
        ("POST", "/feed/v1/report"): "ostiary:feed",
        ("POST", "/feed/v1/applied"): "ostiary:feed",
        **{("POST", f"/api/v1/tasks/{{id}}/{verb}"): "self" for verb in ("hold", "beat", "leave")},
        ("POST", "/feed/v1/ask"): "ostiary:feed",
        ("POST", "/feed/v1/approval"): "ostiary:feed",
        ("POST", "/feed/v1/pace"): "ostiary:feed",
        ("POST", "/api/v1/approvals/{id}/approve"): APPROVE,  # a person
        ("POST", "/api/v1/approvals/{id}/deny"): APPROVE,
        ("POST", "/api/v1/approvals/answers"): APPROVE,
        ("POST", "/api/v1/tasks/{id}/plan-question"): SELF,  # about one's own task
        **{
            ("POST", f"/api/v1/incidents/{{id}}/{verb}"): APPROVE
            for verb in ("take", "release", "narrow", "decommission", "notes")
        },
        ("POST", "/feed/v1/draw"): "ostiary:feed",
        ("POST", "/feed/v1/give-back"): "ostiary:feed",
        ("POST", "/feed/v1/settle"): "ostiary:feed",
        ("POST", "/feed/v1/stops"): "ostiary:feed",
        ("POST", "/feed/v1/memory"): "ostiary:feed",
        ("POST", "/feed/v1/find-secret"): "ostiary:feed",
        ("POST", "/feed/v1/use-secret"): "ostiary:feed",
        ("POST", "/v1/logs"): SELF,  # what an agent says of itself
        ("POST", "/v1/traces"): SELF,
        # a receiver, its own streams
        **{(method, "/api/v1/ssf/streams"): SSF_MANAGE for method in ("POST", "PATCH", "PUT", "DELETE")},
        **{("POST", f"/api/v1/ssf/{what}"): SSF_MANAGE for what in ("status", "verify")},
        **{("POST", f"/api/v1/ssf/subjects/{verb}"): SSF_MANAGE for verb in ("add", "remove")},
        ("POST", "/api/v1/ssf/poll/{id}"): SSF_READ,
        ("POST", "/api/v1/certificates"): SELF,  # one's own, or of an agent for which one answers
        ("POST", "/api/v1/certificates/batch"): SELF,
        ("POST", "/api/v1/certificates/{serial}/revoke"): SELF,
        ("DELETE", "/api/v1/session"): SELF,  # one's own
        ("POST", "/api/v1/push"): SELF,  # a person, for a browser of their own
        ("DELETE", "/api/v1/push/{id}"): SELF,
        ("POST", "/api/v1/clock/accept"): SELF,  # an administrator or a person: checked in the wire
    }


def test_each_route_that_only_reads_requires_the_read_scope_except_the_listed_routes() -> None:
    less = {path: scope for method, path, scope in GATED if method == "GET" and scope != READ}
    assert less == {
        "/api/v1/certificates": SELF,
        "/api/v1/certificates/{serial}": SELF,
        "/api/v1/clock": SELF,
        "/api/v1/tasks": SELF,
        "/api/v1/tasks/{id}": SELF,
        "/api/v1/tasks/{id}/tree": SELF,
        "/api/v1/approvals": SELF,
        "/api/v1/approvals/{id}": SELF,
        "/api/v1/tasks/{id}/approvals": SELF,
        "/api/v1/incidents": SELF,
        "/api/v1/incidents/{id}": SELF,
        "/api/v1/incidents/{id}/timeline": SELF,  # of the ledger no more than the policy lets the caller read
        "/api/v1/session": SELF,
        "/api/v1/push": SELF,  # one's own
        "/api/v1/elevations": SELF,
        "/feed/v1/stream": "ostiary:feed",
        "/feed/v1/destinations": "ostiary:feed",
        "/access/v1/requests/{id}": "ostiary:decide",
        "/api/v1/webhooks": ADMIN,  # a URL may hold a secret
        "/api/v1/issuers/{id}/links": ADMIN,  # whom persons are elsewhere
        "/api/v1/ssf/streams": SSF_READ,
        "/api/v1/ssf/status": SSF_READ,  # a receiver, its own
    }


def test_only_the_listed_routes_require_no_scope() -> None:
    assert {route.path for route in ROUTES if not route.scope} == {
        "/token",
        "/introspect",
        "/revoke",
        "/authorize",
        "/bc-authorize",
        "/jwks",
        "/enrol",
        "/feed/v1/jwks",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/{path:path}",
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/{path:path}",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/{path:path}",
        "/.well-known/authzen-configuration",
        "/.well-known/authzen-configuration/{path:path}",
        "/.well-known/ssf-configuration",
        "/.well-known/ssf-configuration/{path:path}",
        "/api/v1/signals/{id}",  # an issuer, by what we gave it
        "/ledger/v1/checkpoint",
        "/ledger/v1/key",
        "/ledger/v1/tile/{path:path}",
        "/livez",
        "/readyz",
        "/openapi.json",
        # people, by their session, a setup link, or an identity provider
        "/login",
        "/login/code",
        "/login/done",
        "/login/passkey",
        "/login/with/{provider}",
        "/login/callback/{provider}",
        "/login/saml/{provider}",
        "/login/saml/{provider}/metadata",
        "/setup",
        "/setup/passkey",
        "/assets/{name}",
        "/account",
        "/account/logout",
        "/account/passkeys",
        "/account/passkeys/remove",
        "/account/password",
        "/account/password/remove",
        "/account/recovery",
        "/account/sessions",
        "/account/totp",
        "/account/totp/remove",
        "/",  # a redirect to the console
        "/console",
        "/console/{path:path}",
        "/console/assets/{name}",
        "/console/worker.js",
        "/alerts/{token}",  # a signed link, which leads to the login
        "/accounts",
        "/accounts/{provider}",
        "/accounts/{provider}/callback",
        "/accounts/{provider}/end",
        "/consent",
        "/consents",
        "/device",
        "/device/consent",
        "/logout",
        "/logout/confirm",
        # certificates: facts for relying parties, and the ACME server, whose requests are signed
        "/ca/bundle.pem",
        "/ca/{id}.crt",
        "/ca/{id}/crl",
        "/ca/{id}/crl/{shard}",
        "/ocsp",
        "/ocsp/{request:path}",
        "/spiffe/bundle",
        "/acme/directory",
        "/acme/new-nonce",
        "/acme/new-account",
        "/acme/new-order",
        "/acme/key-change",
        "/acme/revoke-cert",
        "/acme/account/{id}",
        "/acme/account/{id}/orders",
        "/acme/order/{id}",
        "/acme/order/{id}/finalize",
        "/acme/order/{id}/certificate",
        "/acme/authorization/{id}",
        "/acme/authorization/{id}/{type}",
        "/acme/renewal-info/{id}",
        # clients and tokens, which prove themselves
        "/v1/{path:path}",  # the Vault API, whose clients log in or send a token
        "/aws",
        "/aws/",  # whose requests are signed
        "/par",
        "/device_authorization",
        "/userinfo",
        "/register",
        "/register/{client_id}",
    }


async def test_a_change_with_an_unknown_query_parameter_is_refused_and_a_suspension_is_not(world: World) -> None:
    admin = await administrator(world)
    for path, name in (("/policies", "dryrun"), ("/persons", "dry_run"), ("/policies", "Dry_run")):
        answer = await ask_as(admin, "POST", f"/api/v1{path}?{name}=true", {})
        assert (answer.status, answer.error) == (400, "malformed"), answer.body
        assert answer.json["message"] == f"the query parameter '{name}' is unknown, so nothing was changed"
    answer = await ask_as(admin, "POST", "/api/v1/persons", {"name": "alice", "email": "alice@example.org"})
    assert answer.status == 201, answer.body
    stopped = await ask_as(admin, "POST", "/api/v1/agents/root/suspend?why=theft", {})
    assert stopped.status < 300, stopped.body


READS = [
    route
    for route in ROUTES
    if route.method == "GET" and route.path.startswith("/api/v1/") and route.scope in (READ, ADMIN)
]


async def test_a_read_with_an_unknown_query_parameter_is_refused_with_a_list_of_the_known_parameters(
    world: World,
) -> None:
    agent, key = await register(world, name="root", scopes=(ADMIN, READ))
    admin = Client(oauth_app(world), world, agent.agent_id, key)
    for route in READS:
        path = re.sub(r"{[^}]*}", "x", route.path)
        answer = await ask_as(admin, "GET", f"{path}?afterr=x")
        assert (answer.status, answer.error) == (400, "malformed"), (path, answer.body)
        assert answer.json["message"] == "the query parameter 'afterr' is unknown"
        named = ", ".join(sorted(one.name for one in route.query))
        assert answer.json["hint"] == (f"use one of {named}" if named else "send the request without query parameters")
    assert (await ask_as(admin, "GET", "/api/v1/persons?limit=1")).status == 200
    assert len(READS) > 70


async def test_the_documentation_of_health_checks_lists_each_check(world: World) -> None:
    page = (ROOT / "docs" / "how-to" / "health.md").read_text("utf-8")
    [example] = re.findall(r"^```json\n(.*)\n```$", page, re.M)
    checks = list(Health(world).checks)
    assert re.findall(r"^- `(\w+)`: ", page, re.M) == list(json.loads(example)["checks"]) == checks
