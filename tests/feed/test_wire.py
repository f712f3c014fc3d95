"""The feed over HTTP: who may speak there, what is refused, and what administrators see."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from ostiary.agent import Agent
from ostiary.authorization.budget import MAX_BUDGETS
from ostiary.client import TokenRefused
from ostiary.decision.feed import parse_message
from ostiary.decision.report import MAX_RECORDS
from ostiary.guard import Guard
from ostiary.protocol import jose
from ostiary.protocol.canonical import MAX_INT
from ostiary.protocol.jose import JwkSet

SPOOL = "0" * 32


@pytest.fixture(scope="module")
def resource(live_server: ServerFixture) -> tuple[str, Path]:
    return live_server.resource("https://wire.example.org/mcp")


def ask(live_server: ServerFixture, key: Path, method: str, path: str, **rest: Any) -> httpx2.Response:
    """A request with the credential in that file."""
    with Agent.from_credential(key) as caller:
        return caller.request(method, f"{live_server.server.url}{path}", resource=f"{caller.issuer}/api/v1", **rest)


def report(**changed: Any) -> dict[str, Any]:
    right = {"spool": SPOOL, "first": 1, "records": [record()]}
    return {**right, **changed}


def record(**changed: Any) -> dict[str, Any]:
    right = {
        "kind": "call",
        "at": 1,
        "token": "tok_1",
        "agent": "ag_1",
        "tool": "read_file",
        "outcome": "deny",
        "verdict": "deny",
    }
    return {**right, **changed}


def test_the_keys_of_the_feed_are_public(live_server: ServerFixture) -> None:
    response = httpx2.get(f"{live_server.server.url}/feed/v1/jwks")
    [key] = JwkSet.parse(response.json()).keys
    assert key.alg == "EdDSA"
    tokens = httpx2.get(f"{live_server.server.url}/jwks").json()["keys"]
    assert key.kid not in [token["kid"] for token in tokens]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/feed/v1/stream"),
        *(("POST", f"/feed/v1/{name}") for name in ("report", "applied", "draw", "give-back", "settle")),
    ],
)
def test_only_guards_may_use_the_feed(live_server: ServerFixture, method: str, path: str) -> None:
    assert httpx2.request(method, f"{live_server.server.url}{path}").status_code == 401
    _, agent_key = live_server.agent()
    assert ask(live_server, agent_key, method, path).status_code == 403


def test_a_guard_may_use_only_the_feed(live_server: ServerFixture, resource: tuple[str, Path]) -> None:
    assert ask(live_server, resource[1], "GET", "/api/v1/agents").status_code == 403
    assert (
        ask(live_server, resource[1], "POST", "/api/v1/revoke", json={"kind": "agent", "id": "admin"}).status_code
        == 403
    )
    with Agent.from_credential(resource[1]) as guard, pytest.raises(TokenRefused):
        guard.token(resource="https://wire.example.org/mcp", scope="files:read")


def test_a_stream_is_lines_of_signed_messages(live_server: ServerFixture, resource: tuple[str, Path]) -> None:
    keys = JwkSet.parse(httpx2.get(f"{live_server.server.url}/feed/v1/jwks").json())
    with Agent.from_credential(resource[1]) as guard:
        auth = guard.auth(f"{guard.issuer}/api/v1")
        query = {"stream": "a-number-that-was-thrown"}
        with (
            httpx2.Client(auth=auth) as http,
            http.stream("GET", f"{live_server.server.url}/feed/v1/stream", params=query) as response,
        ):
            assert response.headers["content-type"] == "application/jose-lines"
            assert response.headers["cache-control"] == "no-store"
            lines = response.iter_lines()
            opening = parse_message(next(lines).encode(), keys=keys)
            step = parse_message(next(lines).encode(), keys=keys)
    assert opening.snapshot
    assert opening.aud == guard.client_id
    assert step.prev == opening.seq
    eventually(
        lambda: not [one for one in live_server.api("GET", "/feeds")["guards"] if one["stream"] == query["stream"]]
    )


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"stream": "x" * 15},
        {"stream": "x" * 65},
        {"stream": "x" * 16, "after": "-1"},
        {"stream": "x" * 16, "after": "1" * 19},
        {"stream": "x" * 16, "after": "x"},
    ],
)
def test_an_invalid_stream_request_is_refused(
    live_server: ServerFixture, resource: tuple[str, Path], query: dict[str, str]
) -> None:
    response = ask(live_server, resource[1], "GET", "/feed/v1/stream", params=query)
    assert (response.status_code, response.json()["error"]) == (422, "invalid")


@pytest.mark.parametrize(("count", "status"), [(0, 400), (1, 200), (MAX_RECORDS, 200), (MAX_RECORDS + 1, 400)])
def test_a_report_has_a_limited_number_of_records(
    live_server: ServerFixture, resource: tuple[str, Path], count: int, status: int
) -> None:
    body = report(spool=os.urandom(16).hex(), records=[record()] * count)
    response = ask(live_server, resource[1], "POST", "/feed/v1/report", json=body)
    assert response.status_code == status
    if status == 200:
        assert response.json() == {"next": count + 1}


WRONG = {
    "a spool that is none": report(spool="0" * 31),
    "a number that is none": report(first=0),
    "a kind that is none": report(records=[record(kind="guess")]),
    "an outcome that is none": report(records=[record(outcome="perhaps")]),
    "more than a record has": report(records=[record(more=1)]),
    "less than a record has": report(records=[{"kind": "call"}]),
    "a tool's name without end": report(records=[record(tool="x" * 257)]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_malformed_report_is_refused(live_server: ServerFixture, resource: tuple[str, Path], what: str) -> None:
    assert ask(live_server, resource[1], "POST", "/feed/v1/report", json=WRONG[what]).status_code == 400


def test_a_confirmation_for_an_unknown_stream_is_not_found(
    live_server: ServerFixture, resource: tuple[str, Path]
) -> None:
    body = {"stream": "no-such-stream-here", "seq": 1, "ago": 0}
    assert ask(live_server, resource[1], "POST", "/feed/v1/applied", json=body).status_code == 404


@pytest.mark.parametrize(("ago", "status"), [(-1, 400), (0, 404), (60_000_000, 404), (60_000_001, 400)])
def test_the_age_of_a_confirmation_is_limited(
    live_server: ServerFixture, resource: tuple[str, Path], ago: int, status: int
) -> None:
    body = {"stream": "no-such-stream-here", "seq": 1, "ago": ago}
    assert ask(live_server, resource[1], "POST", "/feed/v1/applied", json=body).status_code == status


def test_administrators_see_the_connected_guards(
    live_server: ServerFixture, resource: tuple[str, Path], tmp_path: Path
) -> None:
    name, key = resource
    body = report(spool=os.urandom(16).hex(), records=[record()])
    assert ask(live_server, key, "POST", "/feed/v1/report", json=body).status_code == 200
    with Guard(key, spool_dir=tmp_path) as guard:
        [seen] = eventually(
            lambda: [one for one in live_server.api("GET", "/feeds")["guards"] if one["seq"] is not None]
        )
        assert seen["guard"] == name
        assert seen["seq"] == guard.feed.seq
        assert seen["applied"]
        assert seen["ms"] is None
        tested = live_server.api("POST", "/feeds/test")
        assert tested["seq"] == guard.feed.seq
        assert [(one["guard"], one["applied"], one["ms"] >= 0) for one in tested["guards"]] == [(name, True, True)]
        assert name not in [one["resource"] for one in live_server.api("GET", "/feeds/missing")["missing"]]
    eventually(lambda: live_server.api("GET", "/feeds")["guards"] == [])
    assert live_server.api("POST", "/feeds/test")["guards"] == []
    [missed] = [one for one in live_server.api("GET", "/feeds/missing")["missing"] if one["resource"] == name]
    assert missed["reported_at"] > 0
    assert live_server.entries(action="feed.test")[0]["agent"] == live_server.api("GET", "/agents/admin")["agent_id"]


@pytest.mark.parametrize("query", [{"seq": "x"}, {"seq": "-1"}, {"seq": 1, "since": "x"}, {"seq": 1, "wait_ms": "1.5"}])
def test_an_invalid_query_for_guards_is_refused(live_server: ServerFixture, query: dict[str, Any]) -> None:
    response = live_server.admin.get(
        f"{live_server.server.url}/api/v1/feeds", resource=f"{live_server.admin.issuer}/api/v1", params=query
    )
    assert response.status_code == 422


def test_a_credential_with_another_key_gets_no_token(
    live_server: ServerFixture, resource: tuple[str, Path], tmp_path: Path
) -> None:
    from ostiary.keys import load_key, save_key

    right = load_key(resource[1])
    save_key(tmp_path / "wrong.json", jose.generate("ES256"), client_id=right.client_id, issuer=right.issuer)
    with Agent.from_credential(tmp_path / "wrong.json") as thief, pytest.raises(TokenRefused):
        thief.token()


DRAW: dict[str, Any] = {"spool": SPOOL, "turn": 1, "token": "tok_1", "need": {"bu_1": 1}}
GIVE: dict[str, Any] = {"spool": SPOOL, "turn": 1, "keep": {"bu_1": 1}}
SETTLE: dict[str, Any] = {"spool": SPOOL, "told": 0}
MANY_DRAWN = {f"bu_{number}": 1 for number in range(MAX_BUDGETS + 1)}
MANY_KEPT = {f"bu_{number}": 1 for number in range(1001)}


ALL: tuple[tuple[str, dict[str, Any]], ...] = (("draw", DRAW), ("give-back", GIVE), ("settle", SETTLE))
NO_SPOOLS: list[Any] = ["0" * 31, "0" * 33, "G" * 32, SPOOL + "\n", None, 1]
NO_OBJECTS: list[Any] = [None, [], "x", 1]
NO_TURNS: list[Any] = [0, -1, MAX_INT + 1, 1.5, "1", True, None]
NO_UNITS: list[Any] = [-1, 1.5, "1", True, None, 2**53 + 1, 10**400]
NO_ACCOUNTS: list[Any] = [{}, [], None, 1, {"": 1}, {"b" * 81: 1}, *({"bu_1": units} for units in NO_UNITS)]
MALFORMED: list[tuple[str, Any]] = [
    *((verb, {**body, "spool": spool}) for verb, body in ALL for spool in NO_SPOOLS),
    *((verb, {**body, "more": 1}) for verb, body in ALL),
    *((verb, {key: value for key, value in body.items() if key != gone}) for verb, body in ALL for gone in body),
    *((verb, other) for verb, _ in ALL for other in NO_OBJECTS),
    *((verb, {**body, "turn": turn}) for verb, body in ALL[:2] for turn in NO_TURNS),
    *(("draw", {**DRAW, "need": need}) for need in (*NO_ACCOUNTS, MANY_DRAWN)),
    *(("give-back", {**GIVE, "keep": keep}) for keep in (*NO_ACCOUNTS, MANY_KEPT)),
    *(("draw", {**DRAW, "token": token}) for token in ("", "t" * 257, None, 1)),
    *(("settle", {**SETTLE, "told": told}) for told in NO_UNITS),
]


@pytest.mark.parametrize(("verb", "body"), MALFORMED)
def test_a_malformed_request_about_slices_is_refused(
    live_server: ServerFixture, resource: tuple[str, Path], verb: str, body: Any
) -> None:
    headers = {"content-type": "application/json"}
    response = ask(live_server, resource[1], "POST", f"/feed/v1/{verb}", content=json.dumps(body), headers=headers)
    assert (response.status_code, response.json()["error"]) == (400, "malformed"), response.text


@pytest.mark.parametrize("verb", ["draw", "give-back", "settle"])
def test_a_request_about_slices_has_a_maximum_size(
    live_server: ServerFixture, resource: tuple[str, Path], verb: str
) -> None:
    for content, statuses in (
        (b"{", [400]),
        (b"\xff", [400]),
        (b'{"spool":' + b"[" * 10_000, [400]),
        (b" " * (2 << 20), [413]),
    ):
        headers = {"content-type": "application/json"}
        response = ask(live_server, resource[1], "POST", f"/feed/v1/{verb}", content=content, headers=headers)
        assert response.status_code in statuses, response.text


def test_a_request_about_slices_may_have_the_maximum_number_of_budgets(
    live_server: ServerFixture, resource: tuple[str, Path]
) -> None:
    """Well-formed to the limit, and refused for what it says."""
    need = dict(list(MANY_DRAWN.items())[:MAX_BUDGETS])
    response = ask(live_server, resource[1], "POST", "/feed/v1/draw", json={**DRAW, "need": need})
    assert (response.status_code, response.json()["error"]) == (403, "foreign_token")
    keep = dict(list(MANY_KEPT.items())[:1000])
    spool = os.urandom(16).hex()
    response = ask(live_server, resource[1], "POST", "/feed/v1/give-back", json={**GIVE, "spool": spool, "keep": keep})
    assert (response.status_code, len(response.json()["closed"])) == (200, 1000)
    response = ask(live_server, resource[1], "POST", "/feed/v1/settle", json={"spool": spool, "told": 1})
    assert (response.status_code, response.json()["error"]) == (409, "conflict")
    for _ in range(2):
        assert (
            ask(live_server, resource[1], "POST", "/feed/v1/settle", json={"spool": spool, "told": 0}).status_code
            == 200
        )


def test_a_guard_cannot_change_the_slices_of_another_guard(
    live_server: ServerFixture, resource: tuple[str, Path]
) -> None:
    spool = os.urandom(16).hex()
    assert ask(live_server, resource[1], "POST", "/feed/v1/give-back", json={**GIVE, "spool": spool}).status_code == 200
    _, other = live_server.resource("https://other.wire.example.org/mcp")
    for verb, body in (("give-back", {**GIVE, "turn": 2}), ("settle", SETTLE)):
        response = ask(live_server, other, "POST", f"/feed/v1/{verb}", json={**body, "spool": spool})
        assert (response.status_code, response.json()["error"]) == (403, "forbidden")
    assert (
        ask(
            live_server, resource[1], "POST", "/feed/v1/give-back", json={**GIVE, "spool": spool, "turn": 2}
        ).status_code
        == 200
    )
