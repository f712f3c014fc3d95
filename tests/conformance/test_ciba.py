"""CIBA Core 1.0, mode poll: sections 7 (request), 10.1 (token request), 11 and 13 (errors); effect of an approval."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.clock import Clock
from harness.patience import eventually_async
from ostiary.authorization.assurance import KEY, PERSON
from ostiary.protocol.errors import Refused
from ostiaryd.approvals import flows
from ostiaryd.approvals import store as approvals
from ostiaryd.approvals.model import Says
from ostiaryd.ground.http.pages import parse_page
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import MAX_TASK_BYTES
from ostiaryd.tokens.flows import forget_requests
from ostiaryd.tokens.flows.backchannel import INTERVAL_S, SLOWER_S
from ostiaryd.tokens.model import CIBA
from ostiaryd.trust.model.oidc_login import hash_access_token
from tests.support.api_fixtures import (
    FILES,
    ISSUER,
    SECOND,
    Answer,
    Client,
    claims_of,
    guard,
    oauth_app,
    register,
    send,
)
from tests.support.watch_fixtures import found, watching

DETAIL = {"type": "tool", "locations": [FILES], "actions": ["read_file"], "arguments": {"path": {"prefix": "/q3/"}}}


@pytest.fixture
async def client(world: World) -> Client:
    agent, key = await register(world)
    await act(world, "test.person", lambda act: registry.create_person(act, name="bea"))
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.ask()
    return client


async def begin(client: Client, **said: Any) -> Answer:
    """An authentication request, right but for what is said."""
    right = {"login_hint": "ann", "scope": "openid files:read", "binding_message": "report W7"}
    form = client.form(**right | said)
    del form["grant_type"]
    return await client.post("/bc-authorize", form)


async def poll(client: Client, id: str, **said: Any) -> Answer:
    return await client.ask(grant_type=CIBA, auth_req_id=id, **said)


def approval_of(client: Client, name: str = "ann") -> str:
    person = registry.find_person(client.world.db.read(), name).person_id
    rows = approvals.page(
        client.world.db.read(), agent="", is_open=False, now=client.world.now(), page=parse_page("1", None)
    )
    assert rows[0].about.sole == person
    return rows[0].approval_id


async def answer(client: Client, says: str = "approve", by: str = "ann") -> str:
    """The code of the refusal, or nothing."""
    id = approval_of(client)
    person = registry.find_person(client.world.db.read(), by)
    who = Caller(kind="person", id=person.person_id, name=by, owner=None, scopes=frozenset({APPROVE}), jkt="key")
    config = client.world.config

    def flow(act: Act) -> None:
        flows.answer(act, id, Says(says), reason="go on", by=who, config=config)

    try:
        await act(client.world, f"approval.{says}", flow)
    except Refused as refusal:
        return refusal.code
    return ""


async def test_an_approved_request_gives_a_token_on_behalf_of_the_person(client: Client, clock: Clock) -> None:
    asked = await begin(client, authorization_details=json.dumps([DETAIL]))
    assert asked.status == 200
    assert asked.headers["cache-control"] == "no-store"
    assert set(asked.json) == {"auth_req_id", "expires_in", "interval"}
    assert (asked.json["interval"], len(asked.json["auth_req_id"])) == (INTERVAL_S, 43)
    id = asked.json["auth_req_id"]
    shown = approvals.get_question(client.world.db.read(), approval_of(client))
    assert shown is not None
    assert shown.about.arguments == {
        "scope": "files:read",
        "resource": FILES,
        "details": [DETAIL],
        "message": "report W7",
    }
    assert (await poll(client, id)).error == "authorization_pending"
    clock.advance(INTERVAL_S)
    assert await answer(client) == ""
    answered = client.world.now() // SECOND
    clock.advance(INTERVAL_S)
    got = await poll(client, id)
    assert got.status == 200, got.body
    claims = claims_of(got.json["access_token"])
    person = registry.find_person(client.world.db.read(), "ann").person_id
    assert (claims["sub"], claims["act"], claims["scope"]) == (person, {"sub": client.id}, "files:read")
    assert (claims["acr"], claims["auth_time"], claims["amr"]) == (PERSON, answered, ["mca", "pop", "swk"])
    assert claims["authorization_details"] == [DETAIL]
    assert claims["cnf"] == {"jkt": client.key.public.thumbprint}
    task = tasks.find_task(client.world.db.read(), claims["task"])
    assert task.expires_at == client.world.now() + 3600 * SECOND
    assert (task.person, task.scopes, task.purpose) == (person, frozenset({"files:read"}), "report W7")
    about = claims_of(got.json["id_token"])
    assert (about["iss"], about["aud"], about["sub"]) == (ISSUER, client.id, person)
    assert (about["acr"], about["auth_time"]) == (PERSON, answered)
    assert about["at_hash"] == hash_access_token(got.json["access_token"], "RS256")
    assert not {"name", "email", "nonce"} & set(about), "the person approved no claims"
    again = claims_of((await client.token(task=claims["task"]))["access_token"])
    assert (again["sub"], again["acr"], again["authorization_details"]) == (person, KEY, [DETAIL])
    clock.advance(INTERVAL_S)
    assert (await poll(client, id)).error == "invalid_grant", "a yes is spent once"


async def test_polling_too_fast_lengthens_the_interval_by_five_seconds_each_time(client: Client, clock: Clock) -> None:
    id = (await begin(client)).json["auth_req_id"]
    assert (await poll(client, id)).error == "authorization_pending"
    clock.advance(us=INTERVAL_S * SECOND - 1)
    assert (await poll(client, id)).error == "slow_down"
    clock.advance(us=(INTERVAL_S + SLOWER_S) * SECOND - 1)
    assert (await poll(client, id)).error == "slow_down"
    clock.advance(INTERVAL_S + 2 * SLOWER_S)
    assert (await poll(client, id)).error == "authorization_pending"


async def test_a_denied_request_gets_access_denied(client: Client, clock: Clock) -> None:
    id = (await begin(client)).json["auth_req_id"]
    assert await answer(client, "deny") == ""
    assert (await poll(client, id)).error == "access_denied"
    refused = await begin(client)
    assert (refused.status, refused.error) == (403, "access_denied"), "a no holds"


async def test_a_request_expires_at_its_requested_expiry(client: Client, clock: Clock) -> None:
    asked = (await begin(client, requested_expiry="60")).json
    assert asked["expires_in"] == 60
    clock.advance(us=60 * SECOND - 1)
    assert (await poll(client, asked["auth_req_id"])).error == "authorization_pending"
    clock.advance(us=1)
    assert (await poll(client, asked["auth_req_id"])).error == "expired_token"


async def test_a_request_is_deleted_a_day_after_its_expiry(client: Client, clock: Clock) -> None:
    id = (await begin(client, requested_expiry="60")).json["auth_req_id"]
    clock.advance(60 + 86_400)
    await client.ask()  # for a nonce of today
    await forget_requests(client.world)
    assert (await poll(client, id)).error == "expired_token"
    clock.advance(us=1)
    await forget_requests(client.world)
    assert (await poll(client, id)).error == "invalid_grant"


async def test_two_concurrent_polls_get_one_token(client: Client, clock: Clock) -> None:
    id = (await begin(client)).json["auth_req_id"]
    assert await answer(client) == ""
    both = await asyncio.gather(*(poll(client, id) for _ in range(2)))
    assert sorted(one.error for one in both) == ["", "invalid_grant"]


async def test_only_the_named_person_can_approve_a_request(client: Client) -> None:
    await begin(client)
    assert await answer(client, by="bea") == "another_person"
    assert await answer(client, by="ann") == ""


async def test_only_the_client_of_a_request_redeems_it_and_only_with_a_proof(client: Client, clock: Clock) -> None:
    id = (await begin(client)).json["auth_req_id"]
    assert await answer(client) == ""
    other, key = await register(client.world, name="other")
    thief = Client(client.app, client.world, other.agent_id, key, client.nonce)
    assert (await poll(thief, id)).error == "invalid_grant"
    assert (await poll(client, id[:-1] + ("A" if id[-1] != "A" else "B"))).error == "invalid_grant"
    assert (await poll(client, id, proof=None)).error == "invalid_dpop_proof"
    assert (await poll(client, id)).error == ""


async def test_a_guard_can_neither_send_nor_redeem_a_request(client: Client) -> None:
    files = Client(client.app, client.world, *await guard(client.world))
    await files.ask()
    id = (await begin(client)).json["auth_req_id"]
    assert await answer(client) == ""
    for refused in (await begin(files), await poll(files, id)):
        said = (refused.error, refused.json["error_description"])
        assert said == ("unauthorized_client", "only agents can send a backchannel request")
    assert (await poll(client, id)).error == ""


async def test_an_equal_request_reuses_the_approval_request_and_ends_the_older_request(client: Client) -> None:
    first = (await begin(client)).json["auth_req_id"]
    question = approval_of(client)
    second = (await begin(client)).json["auth_req_id"]
    assert approval_of(client) == question
    assert (await poll(client, first)).error == "invalid_grant"
    assert (await poll(client, second)).error == "authorization_pending"


async def test_an_approved_request_ends_when_the_agent_loses_the_scope(client: Client) -> None:
    id = (await begin(client)).json["auth_req_id"]
    assert await answer(client) == ""
    await act(client.world, "agent.change", lambda act: registry.set_scopes(act, client.id, ["files:write"]))
    assert (await poll(client, id)).error == "expired_token", "with the scopes the yes has ended"


async def test_an_invalid_request_is_refused(client: Client) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"login_hint": None}, "invalid_request", "`login_hint` is missing"),
        ({"login_hint": "nobody"}, "unknown_user_id", "`login_hint` does not name an active person"),
        ({"scope": None}, "invalid_request", "`scope` is missing"),
        ({"scope": "openid"}, "invalid_request", "`scope` contains no scope that a person could approve"),
        ({"scope": "files:admin"}, "invalid_scope", "the agent lacks the scopes files:admin"),
        ({"resource": "http://elsewhere.example"}, "invalid_target", "`resource`: the URI must begin with https://"),
        (
            {"authorization_details": "[{}]"},
            "invalid_authorization_details",
            "a member of `authorization_details` is not of the type `tool`",
        ),
        (
            {"binding_message": "x" * 201},
            "invalid_binding_message",
            "`binding_message` must have at most 200 characters",
        ),
        (
            {"binding_message": "a\u202eb"},
            "invalid_binding_message",
            "`binding_message` must have at most 200 characters",
        ),
        (
            {"requested_expiry": "0"},
            "invalid_request",
            "`requested_expiry` must be a whole number of seconds from 1 to",
        ),
        (
            {"requested_expiry": "-1"},
            "invalid_request",
            "`requested_expiry` must be a whole number of seconds from 1 to",
        ),
        (
            {"requested_expiry": "1" * 5000},
            "invalid_request",
            "`requested_expiry` must be a whole number of seconds from 1 to",
        ),
        (
            {"requested_expiry": "0" * 11 + "1" + "9" * 4400},
            "invalid_request",
            "`requested_expiry` must be a whole number of seconds from 1 to",
        ),
        (
            {"requested_expiry": "1000000001"},
            "invalid_request",
            "`requested_expiry` must be a whole number of seconds from 1 to",
        ),
        (
            {"requested_expiry": "\u0661"},
            "invalid_request",
            "`requested_expiry` must be a whole number of seconds from 1 to",
        ),
        (
            {"acr_values": KEY},
            "unmet_authentication_requirements",
            "none of the requested `acr_values` can be met by a backchannel request",
        ),
        ({"request": "a.b.c"}, "invalid_request", "`request` is not supported"),
        ({"id_token_hint": "a.b.c"}, "invalid_request", "`id_token_hint` is not supported"),
        ({"user_code": "1234"}, "invalid_request", "`user_code` is not supported"),
        ({"client_assertion": "a.b.c"}, "invalid_client", "the client assertion: the header of the token"),
    ]
    for said, due, why in cases:
        refused = await begin(client, **said)
        assert (refused.error, refused.status) == (due, 401 if due == "invalid_client" else 400), said
        assert refused.json["error_description"].startswith(why), said


async def test_a_valid_request_is_accepted(client: Client) -> None:
    person = registry.find_person(client.world.db.read(), "ann").person_id
    right: list[dict[str, Any]] = [
        {"login_hint": person},
        {"scope": "files:read files:write"},
        {"binding_message": "x" * 200},
        {"requested_expiry": "1", "scope": "files:write"},
        {"acr_values": f"{KEY} {PERSON}"},
    ]
    for said in right:
        assert (await begin(client, **said)).error == "", said


async def test_the_metadata_lists_the_backchannel_authentication_endpoint(client: Client) -> None:
    metadata = (await send(client.app, "GET", "/.well-known/openid-configuration")).json
    assert metadata["backchannel_authentication_endpoint"] == f"{client.world.config.issuer}/bc-authorize"
    assert metadata["backchannel_token_delivery_modes_supported"] == ["poll"]
    assert metadata["backchannel_user_code_parameter_supported"] is False
    assert CIBA in metadata["grant_types_supported"]
    assert PERSON in metadata["acr_values_supported"]


async def test_a_request_too_large_for_a_task_is_refused_before_a_person_is_asked(client: Client) -> None:
    """The limit of a task (`task_too_large`) counts when the question is asked, not after the person has approved."""
    detail = {"type": "tool", "locations": [FILES], "actions": ["read_file"]}

    message = "m" * 200
    fixed = len(json.dumps([detail | {"arguments": {"path": {"one_of": []}}}], separators=(",", ":")))
    limit = MAX_TASK_BYTES - len(message) - len("[]")
    for over, status in ((0, 200), (1, 400)):
        left = limit + over - fixed
        values = [f"{number:03}" + "x" * 497 for number in range(left // 503)]
        values[-1] += "y" * (left - 503 * len(values) + 1)  # one comma fewer than values
        text = json.dumps([detail | {"arguments": {"path": {"one_of": values}}}], separators=(",", ":"))
        assert len(text) == limit + over
        asked = await begin(client, authorization_details=text, binding_message=message)
        assert asked.status == status, asked.body
        assert status == 200 or f"the limit is {MAX_TASK_BYTES}" in asked.json["error_description"]


@pytest.mark.parametrize("is_openid", [True, False])
async def test_the_newest_of_equal_requests_decides_about_the_id_token(client: Client, is_openid: bool) -> None:
    """Equal requests share one approval request."""
    scopes = ("files:read", "openid files:read")
    first = (await begin(client, scope=scopes[not is_openid])).json["auth_req_id"]
    second = (await begin(client, scope=scopes[is_openid])).json["auth_req_id"]
    assert await answer(client) == ""
    assert (await poll(client, first)).error == "invalid_grant"
    got = await poll(client, second)
    assert ("id_token" in got.json) is is_openid, got.body


async def test_requests_with_guessed_persons_count_as_denials_of_the_agent(client: Client) -> None:
    """The agent sends the request itself, unlike a request about a call, which a guard sends."""
    async with watching(client.world):
        for number in range(12):
            assert (await begin(client, login_hint=f"guess-{number}")).error == "unknown_user_id"
        [one] = await eventually_async(lambda: found(client.world))
        assert (one.detector, one.agent) == ("denied_burst", client.id)
