"""Answers of an HTTP application behind a guard: challenges, denials, and only then its own."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from harness.clock import Clock
from harness.feeder import ISSUER, URI, Feeder
from harness.live_server import free_socket, serving
from harness.patience import PATIENCE_S
from ostiary.asgi import GuardASGI, Meter
from ostiary.authorization.assurance import KEY, TWO_KEYS
from ostiary.decision.access import Decision, Principal
from ostiary.decision.feed import PolicyFact
from ostiary.guard import Call, Guard, Verified
from ostiary.guard.rules import Rules
from ostiary.protocol.errors import Invalid, Malformed
from tests.guard.asgi_fixtures import ORIGIN, app, error, records, signed

METADATA = f"{ORIGIN}/.well-known/oauth-protected-resource/mcp"


@pytest.fixture
def http(guard: Guard, feeder: Feeder) -> httpx2.AsyncClient:
    rules = {"GET /files/{path*}": "read_file", "PUT /files/{path}": "write_file"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(GuardASGI(app, guard, tool=rules)), base_url=ORIGIN)


async def test_a_call_that_is_allowed_reaches_the_application(
    guard: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    response = await http.get("/files/a/b", headers=signed(guard, feeder, "GET", "/files/a/b"))
    assert response.status_code == 200
    assert response.text.startswith("ag_")
    call, result = records(guard)
    assert call["tool"] == "read_file"
    assert call["network"] == "127.0.0.0/24"
    assert (result["status"], result["bytes"]) == ("ok", len(response.content))


async def test_path_and_query_are_the_arguments(guard: Guard, feeder: Feeder, http: httpx2.AsyncClient) -> None:
    from ostiary.protocol import canonical

    target = "/files/a%20b/c?depth=1"
    await http.get(target, headers=signed(guard, feeder, "GET", target))
    assert records(guard)[0]["digest"] == canonical.digest({"path": "a b/c", "depth": "1"})


async def test_a_request_without_a_token_gets_a_dpop_challenge_without_an_error_code(http: httpx2.AsyncClient) -> None:
    response = await http.get("/files/a")
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("DPoP ")
    assert f'resource_metadata="{METADATA}"' in challenge
    assert 'algs="' in challenge
    assert error(response) is None


async def test_the_metadata_name_the_authorization_server_and_require_bound_tokens(http: httpx2.AsyncClient) -> None:
    response = await http.get(METADATA)
    assert response.status_code == 200
    metadata = response.json()
    assert metadata["resource"] == URI
    assert metadata["authorization_servers"] == [ISSUER]
    assert metadata["dpop_bound_access_tokens_required"] is True
    assert metadata["scopes_supported"] == ["files:read", "files:write"]


async def test_a_proof_without_a_nonce_is_refused_with_a_fresh_nonce(feeder: Feeder, http: httpx2.AsyncClient) -> None:
    token = feeder.token()
    proof = feeder.proof(token, nonce=None, method="GET", uri=f"{ORIGIN}/files/a")
    response = await http.get("/files/a", headers={"authorization": f"DPoP {token}", "dpop": proof})
    assert (response.status_code, error(response)) == (401, "use_dpop_nonce")
    proof = feeder.proof(token, nonce=response.headers["dpop-nonce"], method="GET", uri=f"{ORIGIN}/files/a")
    response = await http.get("/files/a", headers={"authorization": f"DPoP {token}", "dpop": proof})
    assert response.status_code == 200


async def test_a_response_replaces_an_aging_nonce(
    guard: Guard, feeder: Feeder, clock: Clock, http: httpx2.AsyncClient
) -> None:
    nonce = guard._proofs.nonce()
    clock.advance(200)
    feeder.say()
    token = feeder.token()
    proof = feeder.proof(token, nonce=nonce, method="GET", uri=f"{ORIGIN}/files/a")
    response = await http.get("/files/a", headers={"authorization": f"DPoP {token}", "dpop": proof})
    assert response.status_code == 200
    assert response.headers["dpop-nonce"] != nonce
    assert response.headers["cache-control"] == "no-store"


async def test_a_used_proof_is_refused(guard: Guard, feeder: Feeder, http: httpx2.AsyncClient) -> None:
    headers = signed(guard, feeder, "GET", "/files/a")
    assert (await http.get("/files/a", headers=headers)).status_code == 200
    response = await http.get("/files/a", headers=headers)
    assert (response.status_code, error(response)) == (401, "invalid_dpop_proof")


async def test_a_bearer_token_is_refused(feeder: Feeder, http: httpx2.AsyncClient) -> None:
    response = await http.get("/files/a", headers={"authorization": f"Bearer {feeder.token()}"})
    assert (response.status_code, error(response)) == (401, "invalid_token")


async def test_an_expired_token_is_refused(guard: Guard, feeder: Feeder, http: httpx2.AsyncClient) -> None:
    response = await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a", exp=1))
    assert (response.status_code, error(response)) == (401, "invalid_token")


async def test_a_missing_scope_is_named_in_the_challenge(
    guard: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    response = await http.put("/files/a", headers=signed(guard, feeder, "PUT", "/files/a"))
    assert (response.status_code, error(response)) == (403, "insufficient_scope")
    assert 'scope="files:write"' in response.headers["www-authenticate"]
    assert response.json()["error"] == "outside_task"
    assert response.json()["hint"]


async def test_a_request_that_no_rule_maps_to_a_tool_is_denied(
    guard: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    for method, path in (("DELETE", "/files/a"), ("GET", "/other"), ("PUT", "/files/a/b")):
        response = await http.request(method, path, headers=signed(guard, feeder, method, path))
        assert response.status_code == 403
        assert response.json()["error"] == "unknown_tool"


async def test_a_parameter_given_twice_is_malformed(guard: Guard, feeder: Feeder, http: httpx2.AsyncClient) -> None:
    for target in ("/files/a?depth=1&depth=2", "/files/a?path=b"):
        response = await http.get(target, headers=signed(guard, feeder, "GET", target))
        assert (response.status_code, error(response)) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("get /a", "`get /a` is not of the form `METHOD /path`"),
        ("GET a", "`GET a` is not of the form `METHOD /path`"),
        ("", "`` is not of the form `METHOD /path`"),
        ("GET /{a}/{a*}", "`GET /{a}/{a*}` has two parts of one name"),
    ],
)
def test_the_refusal_of_a_rule_names_the_fault(rule: str, fault: str) -> None:
    Rules({"GET /{a}/{b*}": "read"})
    with pytest.raises(Malformed) as refusal:
        Rules({rule: "read"})
    assert refusal.value.message == fault


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (b"a=1&a=2", "the parameter `a` was sent twice"),
        (b"=1&=2", "the parameter `` was sent twice"),
        (b"\xff=1", "the query is not ASCII"),
        (b"&".join(b"p%d=1" % number for number in range(101)), "the query has more than 100 parameters"),
    ],
)
def test_the_refusal_of_a_query_names_the_fault(query: bytes, fault: str) -> None:
    with pytest.raises(Malformed) as refusal:
        Rules({"GET /files": "list"})({"method": "GET", "path": "/files", "query_string": query})
    assert refusal.value.message == fault


@pytest.mark.parametrize(
    ("name", "answered"), [("authorization", (400, "invalid_request")), ("dpop", (401, "invalid_dpop_proof"))]
)
async def test_a_header_sent_twice_is_malformed(
    guard: Guard, feeder: Feeder, http: httpx2.AsyncClient, name: str, answered: tuple[int, str]
) -> None:
    headers = signed(guard, feeder, "GET", "/files/a")
    twice = [*headers.items(), (name, headers[name])]
    response = await http.get("/files/a", headers=twice)
    assert (response.status_code, error(response)) == answered


async def test_a_request_while_the_feed_is_stale_gets_503_with_retry_after(
    guard: Guard, feeder: Feeder, clock: Clock, http: httpx2.AsyncClient
) -> None:
    clock.advance(6)
    response = await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a"))
    assert response.status_code == 503
    assert response.json()["error"] == "feed_stale"
    assert response.headers["retry-after"] == "1"
    assert (await http.get(METADATA)).status_code == 503


async def test_a_failed_response_of_the_application_is_recorded_as_an_error(
    guard: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    await http.get("/files/gone", headers=signed(guard, feeder, "GET", "/files/gone"))
    with pytest.raises(ZeroDivisionError):
        await http.get("/files/bad", headers=signed(guard, feeder, "GET", "/files/bad"))
    assert [record["status"] for record in records(guard) if record["kind"] == "result"] == ["error", "error"]


async def test_a_websocket_is_closed_if_a_function_maps_requests_to_tools(guard: Guard) -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody listens")

    await GuardASGI(app, guard, tool=lambda scope: None)({"type": "websocket"}, receive, send)
    assert said[0]["type"] == "websocket.close"


async def test_the_public_origin_can_differ_from_the_origin_of_the_resource(guard: Guard, feeder: Feeder) -> None:
    front = GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file"}, origin="https://front.example.org")
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(front), base_url="http://10.0.0.1")
    token = feeder.token()
    uri = "https://front.example.org/files/a"
    proof = feeder.proof(token, nonce=guard._proofs.nonce(), method="GET", uri=uri)
    response = await http.get("/files/a", headers={"authorization": f"DPoP {token}", "dpop": proof})
    assert response.status_code == 200


@pytest.mark.parametrize("rule", ["/files", "get /files", "GET files"])
def test_a_malformed_mapping_rule_is_refused(guard: Guard, rule: str) -> None:
    with pytest.raises(Malformed):
        GuardASGI(app, guard, tool={rule: "read_file"})


async def test_a_step_up_is_challenged_in_the_form_of_rfc_9470(
    guard: Guard, feeder: Feeder, http: httpx2.AsyncClient
) -> None:
    """Section 3: 401, the error, and both requirements as quoted parameters."""
    weak = ["unary", "not", ["binary", "eq", ["get", ["var", "context"], "acr"], ["lit", TWO_KEYS]]]
    step_up = {"step_up": f"{TWO_KEYS} {KEY}", "max_age": "300", "reason": 'say "who" you are'}
    rules = [
        {"id": "all", "effect": "permit"},
        {"id": "strong", "effect": "forbid", "conditions": [weak], "annotations": step_up},
    ]
    feeder.say(PolicyFact("another-set", json.dumps({"version": 1, "policies": rules})))
    response = await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a", acr=KEY))
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith(
        'DPoP error="insufficient_user_authentication", error_description="say \'who\' you are", '
        f'acr_values="{TWO_KEYS} {KEY}", max_age="300"'
    )
    assert response.json()["error"] == "insufficient_user_authentication"
    (call,) = records(guard)
    assert (call["outcome"], call["reasons"][0]["code"]) == ("deny", "insufficient_user_authentication")
    stronger = await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a", acr=TWO_KEYS))
    assert stronger.status_code == 200


@pytest.mark.parametrize(("status", "ok"), [(199, False), (200, True), (399, True), (400, False), (500, False)])
async def test_a_call_counts_as_failed_by_the_http_status_of_its_response(
    guard: Guard, feeder: Feeder, status: int, ok: bool
) -> None:
    """A failed call has created no objects (`Guard.observe`)."""

    async def send(_: Any) -> None: ...

    call, meter = Call(Decision(True, True, ""), 1), Meter(send, Verified(Principal(feeder.claims())))
    meter.status = status
    await GuardASGI(app, guard, tool={})._remember(call, meter, "")
    assert call.ok is ok


def browser(guard: Guard, *origins: str) -> httpx2.AsyncClient:
    """Return a client of the application behind a guard for these origins."""
    guarded = GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file"}, origins=origins)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(guarded), base_url=ORIGIN)


def test_the_body_of_an_upgrade_request_is_not_read_as_a_second_request(guard: Guard) -> None:
    """uvicorn reads the body of such a request as the next request."""
    sock, port = free_socket()
    inner = b"GET /files/b HTTP/1.1\r\nhost: x\r\n\r\n"
    head = "PUT /files/a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n"
    guarded = GuardASGI(app, guard, tool={"PUT /files/{path}": "write_file"})
    with serving(guarded, sock), socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
        client.sendall((head % len(inner)).encode())
        answer = client.recv(1 << 16)
        with suppress(ConnectionError):
            client.sendall(inner)
            while more := client.recv(1 << 16):
                answer += more
    assert answer.count(b"HTTP/1.1 ") == 1


def test_only_an_upgrade_request_with_a_body_closes_its_connection(guard: Guard) -> None:
    sock, port = free_socket()
    with serving(GuardASGI(app, guard, tool={}), sock), httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
        offer = {"connection": "upgrade", "upgrade": "h2c"}
        plainly, offered = http.post("/files/a", content=b"x"), http.get("/files/a", headers=offer)
        both = http.post("/files/a", content=b"x", headers=offer)
    assert [one.headers.get("connection") for one in (plainly, offered, both)] == [None, None, "close"]


async def test_the_response_to_an_upgrade_request_keeps_the_headers_of_the_application(
    guard: Guard, feeder: Feeder
) -> None:
    async def open_app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"access-control-allow-origin", b"*")]})
        await send({"type": "http.response.body", "body": b""})

    guarded = GuardASGI(open_app, guard, tool={"GET /files/{path*}": "read_file"})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(guarded), base_url=ORIGIN) as http:
        offered = signed(guard, feeder, "GET", "/files/a") | {"upgrade": "h2c"}
        answer = await http.request("GET", "/files/a", headers=offered, content=b"x")
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]


PAGE = "https://app.example"
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "GET", "access-control-request-headers": "authorization"}


@pytest.mark.parametrize("origins", [("*",), (PAGE,), ("https://other.example", PAGE)])
async def test_a_script_of_an_allowed_origin_reads_answers_and_challenges(
    guard: Guard, feeder: Feeder, origins: tuple[str, ...]
) -> None:
    async with browser(guard, *origins) as http:
        preflight = await http.options("/files/a", headers=PREFLIGHT)
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-headers"] == "*, authorization"
        challenge = await http.get("/files/a", headers={"origin": PAGE})
        answer = await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a") | {"origin": PAGE})
    assert (challenge.status_code, answer.status_code) == (401, 200)
    for one in (preflight, challenge, answer):
        assert one.headers.get_list("access-control-allow-origin") == ["*" if "*" in origins else PAGE]
        assert "access-control-allow-credentials" not in one.headers
        assert {"www-authenticate", "dpop-nonce", "mcp-session-id"} <= set(
            one.headers["access-control-expose-headers"].split(", ")
        )


@pytest.mark.parametrize(
    "origin", [PAGE + ":8443", "http://app.example", "https://app.example.evil.example", "null", PAGE.upper()]
)
async def test_a_script_of_another_origin_is_refused_even_with_a_token(
    guard: Guard, feeder: Feeder, origin: str
) -> None:
    async with browser(guard, PAGE) as http:
        refused = [
            await http.options("/files/a", headers=PREFLIGHT | {"origin": origin}),
            await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a") | {"origin": origin}),
        ]
    for one in refused:
        assert (one.status_code, one.json()["error"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in one.headers
        assert one.headers["vary"] == "origin"
    assert records(guard) == []


async def test_a_request_without_an_origin_or_from_the_own_origin_is_accepted(guard: Guard, feeder: Feeder) -> None:
    async with browser(guard, PAGE) as http:
        for more in ({}, {"origin": ORIGIN}):
            answer = await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a") | more)
            assert answer.status_code == 200


async def test_two_origins_in_one_request_are_malformed(guard: Guard, feeder: Feeder) -> None:
    headers = [*signed(guard, feeder, "GET", "/files/a").items(), ("origin", PAGE), ("origin", "https://evil.example")]
    async with browser(guard, PAGE) as http:
        assert (await http.get("/files/a", headers=headers)).status_code == 400


async def test_only_the_metadata_are_readable_cross_origin_if_no_origins_are_allowed(
    guard: Guard, feeder: Feeder
) -> None:
    async with browser(guard) as http:
        for answer in (await http.options(METADATA, headers=PREFLIGHT), await http.get(METADATA)):
            assert answer.is_success
            assert answer.headers["access-control-allow-origin"] == "*"
        assert (await http.options("/files/a", headers=PREFLIGHT)).status_code == 401
        answer = await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a") | {"origin": PAGE})
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)


@pytest.mark.parametrize("origins", [["app.example"], ["https://app.example/"], ["https://A.b"], ["https://[::1"]])
def test_a_text_that_is_no_web_origin_is_refused(guard: Guard, origins: list[str]) -> None:
    with pytest.raises(Malformed, match="origin"):
        GuardASGI(app, guard, tool={}, origins=origins)
    with pytest.raises(Invalid, match="`origins` is one value instead of a list"):
        GuardASGI(app, guard, tool={}, origins=origins[0])
