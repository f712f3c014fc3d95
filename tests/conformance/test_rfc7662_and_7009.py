"""RFC 7662 section 2 and RFC 7009 section 2: who may know of a token, what is said of it, and its end by its client."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import feed_messages
from ostiary.authorization.bounds import parse_details
from ostiary.authorization.budget import parse_limits
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.claims import ACCESS_TYP
from ostiary.decision.access.restrictions import MINUTE, RestrictionKind
from ostiary.protocol import dpop, jose
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb, is_agent_id
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows.client_secrets import NewSecret
from tests.conformance.table import check_table, row
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
    sign,
)
from tests.support.delegation_fixtures import agents, delegate_along, exchange_token

API = f"{ISSUER}/api/v1"
UNKNOWN = {"active": False}
NOBODY = "invalid_client"


async def another(client: Client, *, name: str = "other", scopes: tuple[str, ...] = ("files:read",)) -> Client:
    agent, key = await register(client.world, name=name, scopes=scopes)
    return replace(client, id=agent.agent_id, key=key)


async def about(asker: Client, token: str, /, *, at: str = "/introspect", **said: Any) -> Answer:
    """Ask about a token, or end it, as that client."""
    said = {"client_assertion": asker.assertion()} | said
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return await asker.post(at, {"token": token, "client_assertion_type": kind} | said)


async def is_active(asker: Client, token: str) -> bool:
    answer = await about(asker, token)
    assert answer.status == 200, answer.body
    assert answer.json["active"] or answer.json == UNKNOWN
    return bool(answer.json["active"])


async def test_a_client_introspects_every_claim_of_its_own_token(client: Client) -> None:
    got = await client.token(scope="files:read")
    answer = await about(client, got["access_token"])
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {"active": True, "token_type": "DPoP", **claims_of(got["access_token"])}


async def test_a_token_is_introspected_by_its_client_its_resource_and_administrators(client: Client) -> None:
    token = (await client.token())["access_token"]
    here = (await client.token(resource=API))["access_token"]
    guard_id, guard_key = await guard(client.world)
    files = replace(client, id=guard_id, key=guard_key)
    admin = await another(client, name="chief", scopes=("ostiary:admin",))
    reader = await another(client, name="auditor", scopes=("ostiary:read",))
    other = await another(client)
    assert [await is_active(who, token) for who in (client, files, admin, reader, other)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert [await is_active(who, here) for who in (client, files, admin, reader, other)] == [
        True,
        False,
        True,
        False,
        False,
    ]


async def test_a_token_that_the_server_did_not_issue_is_not_active(client: Client) -> None:
    token = (await client.token())["access_token"]
    claims = claims_of(token)
    head, _, signature = token.rpartition(".")
    flipped = "B" if signature[9] == "A" else "A"
    feed_key = client.world.keys.signer("feed")
    signer = client.world.keys.signer("token", "ES256")
    assertion = client.assertion()
    unknown = jose.sign_jwt(signer, typ=ACCESS_TYP, claims=claims | {"jti": "tok_" + "0" * 32})
    other_type = jose.sign_jwt(signer, typ="JWT", claims=claims)
    other_issuer = jose.sign_jwt(signer, typ=ACCESS_TYP, claims=claims | {"iss": "https://other.example"})
    wrong = {
        "garbage": "garbage",
        "the dots alone": "..",
        "a letter of the signature": f"{head}.{signature[:9]}{flipped}{signature[10:]}",
        "no signature": head + ".",
        "by the client's key": sign(client.key, {"typ": ACCESS_TYP}, claims),
        "by the client's key under our kid": sign(client.key, {"typ": ACCESS_TYP, "kid": signer.public.kid}, claims),
        "by our key for something else": jose.sign_jwt(feed_key, typ=ACCESS_TYP, claims=claims),
        "of another type": other_type,
        "of another issuer": other_issuer,
        "that nobody holds": unknown,
        "an assertion": assertion,
        "long": "a" * 16_000,
    }
    assert {what: await is_active(client, value) for what, value in wrong.items()} == dict.fromkeys(wrong, False)
    assert await is_active(client, token)


async def test_a_token_is_active_until_it_expires(client: Client, clock: Clock) -> None:
    token = (await client.token())["access_token"]
    clock.now = claims_of(token)["exp"] * SECOND - 1
    assert await is_active(client, token)
    clock.advance(us=1)
    assert not await is_active(client, token)


async def test_introspection_and_revocation_require_client_authentication(client: Client) -> None:
    token = (await client.token())["access_token"]
    for path in ("/introspect", "/revoke"):

        async def ask(path: str = path, **said: Any) -> Answer:
            return await about(client, token, at=path, **said)

        used = client.assertion()
        await check_table(
            [
                row("no assertion", NOBODY, client_assertion=None),
                row("a password", NOBODY, client_assertion=None, client_secret="secret"),
                row("an assertion for another audience", NOBODY, client_assertion=client.assertion(aud=API)),
                row("no token", "invalid_request", token=None),
                row("an empty token", "invalid_request", token=""),
                row("two tokens", "invalid_request", token=[token, token]),
                row("an assertion", client_assertion=used, token_type_hint="refresh_token"),
                row("an assertion twice", NOBODY, client_assertion=used),
            ],
            ask,
        )


async def with_token(
    asker: Client, access: str, form: dict[str, str], *, at: str = "/introspect", **said: Any
) -> Answer:
    """Ask with an access token for our own API and a proof of its key."""
    nonce = dpop.make_nonce(asker.world.keys.secret("nonce"), b"rs", asker.world.now())
    proof = asker.proof(uri=ISSUER + at, access_token=access, **{"nonce": nonce} | said)
    return await asker.post(at, form, authorization=f"DPoP {access}", dpop=proof)


async def test_an_access_token_for_the_api_authenticates_an_introspection(client: Client) -> None:
    token = (await client.token())["access_token"]
    access = (await client.token(resource=API))["access_token"]
    assert (await with_token(client, access, {"token": token})).json["active"]
    elsewhere = await with_token(client, token, {"token": token})
    assert (elsewhere.status, elsewhere.error) == (401, "invalid_token")
    assert elsewhere.headers["www-authenticate"].startswith('DPoP error="invalid_token"')
    without = await with_token(client, access, {"token": token}, nonce=None)
    assert (without.status, without.error) == (401, "use_dpop_nonce")
    assert without.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
    assert len(without.headers["dpop-nonce"]) == 32
    stranger = await with_token(client, access, {"token": token}, key=jose.generate("ES256"))
    assert (stranger.status, stranger.error) == (401, "invalid_dpop_proof")
    as_bearer = await client.post("/introspect", {"token": token}, authorization=f"Bearer {access}")
    assert (as_bearer.status, as_bearer.error) == (401, "invalid_token")


async def test_an_access_token_together_with_an_assertion_is_refused(client: Client) -> None:
    access = (await client.token(resource=API))["access_token"]
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    form = {"token": access, "client_assertion": client.assertion(), "client_assertion_type": kind}
    assert (await with_token(client, access, form)).error == "invalid_request"


async def test_a_revocation_of_an_own_token_and_of_an_unknown_token_has_the_same_response(client: Client) -> None:
    token = (await client.token())["access_token"]
    kept = (await client.token())["access_token"]
    for value in (token, token, "garbage", token + "x"):
        answer = await about(client, value, at="/revoke")
        assert (answer.status, answer.json) == (200, {})
    assert (await is_active(client, token), await is_active(client, kept)) == (False, True)


async def test_a_token_that_its_client_revoked_is_sent_to_guards(client: Client) -> None:
    token = (await client.token())["access_token"]
    await about(client, token, at="/revoke")
    claims = claims_of(token)
    assert feed_messages(client.world)[-1] == {"kind": "token", "jti": claims["jti"], "until": claims["exp"] * SECOND}


async def test_a_client_does_not_end_the_token_of_another(client: Client) -> None:
    token = (await client.token())["access_token"]
    other = await another(client)
    assert (await about(other, token, at="/revoke")).error == "invalid_grant"
    assert await is_active(client, token)


async def test_the_revocation_of_an_expired_token_succeeds(client: Client, clock: Clock) -> None:
    token = (await client.token())["access_token"]
    clock.now = claims_of(token)["exp"] * SECOND
    assert (await about(client, token, at="/revoke")).status == 200


@pytest.mark.parametrize("end", ["agent", "key", "resume", "decommission"])
async def test_a_token_ends_with_its_agent_and_its_key(client: Client, end: str) -> None:
    token = (await client.token())["access_token"]
    admin = await another(client, name="chief", scopes=("ostiary:admin",))
    flows = {
        "agent": lambda act: registry.revoke_agent(act, client.id),
        "key": lambda act: registry.revoke_key(act, client.key.public.thumbprint),
        "resume": lambda act: [registry.set_agent_state(act, client.id, verb) for verb in (Verb.SUSPEND, Verb.RESUME)],
        "decommission": lambda act: registry.set_agent_state(act, client.id, Verb.DECOMMISSION),
    }
    assert await is_active(admin, token)
    await act(client.world, f"test.{end}", flows[end])
    assert not await is_active(admin, token)


async def test_a_token_ends_with_the_key_that_obtained_it_though_bound_to_another(client: Client) -> None:
    other = jose.generate("ES256")
    token = (await client.token(proof=client.proof(key=other)))["access_token"]
    admin = await another(client, name="chief", scopes=("ostiary:admin",))
    assert (claims_of(token)["cnf"]["jkt"], await is_active(admin, token)) == (other.public.thumbprint, True)
    await act(client.world, "test.key", lambda act: registry.revoke_key(act, client.key.public.thumbprint))
    assert not await is_active(admin, token)


async def test_a_guard_introspects_only_tokens_with_exactly_its_resource_as_audience(client: Client) -> None:
    guard_id, guard_key = await guard(client.world)
    files = replace(client, id=guard_id, key=guard_key)
    there = (await client.token(resource=FILES + "/x"))["access_token"]
    assert not await is_active(files, there)


async def secret_of(client: Client, holder: str, **more: int) -> NewSecret:
    create = trust.create_secret if is_agent_id(holder) else trust.create_resource_secret
    return await act(client.world, "secret.create", lambda act: create(act, holder, **more))


def by_post(client_id: str, secret: str) -> dict[str, dict[str, str]]:
    return {"form": {"client_id": client_id, "client_secret": secret}, "headers": {}}


def by_basic(client_id: str, secret: str) -> dict[str, dict[str, str]]:
    pair = b64encode(f"{client_id}:{secret}".encode()).decode()
    return {"form": {}, "headers": {"authorization": f"Basic {pair}"}}


@pytest.mark.parametrize("proof", [by_post, by_basic])
async def test_a_resource_with_a_secret_introspects_only_tokens_for_it(
    client: Client, clock: Clock, proof: Callable[[str, str], dict[str, dict[str, str]]]
) -> None:
    token = (await client.token())["access_token"]
    here = (await client.token(resource=API))["access_token"]
    there = (await client.token(resource=FILES + "/x"))["access_token"]
    files, _ = await guard(client.world)
    await act(
        client.world,
        "test.resource",
        lambda act: registry.create_resource(act, name="other", uri="https://other.example/mcp"),
    )
    other, _ = await guard(client.world, name="other")
    made, others = [await secret_of(client, one, lifetime_s=60) for one in (files, other)]

    async def ask(token: str, holder: str, secret: str, at: str = "/introspect") -> Answer:
        sent = proof(holder, secret)
        return await client.post(at, {"token": token} | sent["form"], **sent["headers"])

    seen = await ask(token, files, made.secret)
    assert seen.json == {"active": True, "token_type": "DPoP", **claims_of(token)}
    for unseen in (here, there, "garbage"):
        assert (await ask(unseen, files, made.secret)).json == UNKNOWN
    assert (await ask(token, other, others.secret)).json == UNKNOWN
    for holder, secret in ((files, others.secret), (other, made.secret), (files, made.secret[:-1]), (files, "x")):
        refused = await ask(token, holder, secret)
        assert (refused.status, refused.error) == (401, NOBODY)
        assert ("www-authenticate" in refused.headers) is (proof is by_basic)
    assert (await ask(token, files, made.secret, "/revoke")).error == "invalid_grant", "another client got the token"
    assert await is_active(client, token)
    clock.advance(60)
    assert (await ask(token, files, made.secret)).error == NOBODY


async def test_the_secret_of_a_resource_is_refused_at_other_endpoints(client: Client) -> None:
    files, _ = await guard(client.world)
    made = await secret_of(client, files)
    named = {"client_id": files, "client_secret": made.secret}
    whole = replace(client, app=build_app(client.world))
    for path, form in (
        ("/token", {"grant_type": "client_credentials", "resource": FILES}),
        ("/token", {"grant_type": "refresh_token", "refresh_token": "x"}),
        ("/bc-authorize", {"login_hint": "ann", "scope": "openid files:read"}),
        ("/par", {"response_type": "code", "redirect_uri": "https://app.example/callback"}),
        ("/device_authorization", {"scope": "files:read"}),
    ):
        answer = await whole.post(path, form | named)
        assert (answer.status, answer.error) == (401, NOBODY), (path, answer.body)


async def test_a_revoked_secret_of_a_resource_is_refused(client: Client) -> None:
    token = (await client.token())["access_token"]
    files, _ = await guard(client.world)
    made = await secret_of(client, files)
    form = {"token": token, "client_id": files, "client_secret": made.secret}
    assert (await client.post("/introspect", form)).json["active"]
    await act(client.world, "secret.revoke", lambda act: trust.revoke_resource_secret(act, files, made.id))
    assert (await client.post("/introspect", form)).error == NOBODY


async def test_an_agent_with_a_secret_introspects_only_its_own_tokens(client: Client) -> None:
    token = (await client.token())["access_token"]
    chief = await another(client, name="chief", scopes=("ostiary:admin",))
    own, chiefs = [await secret_of(client, one.id) for one in (client, chief)]
    assert (
        await client.post("/introspect", {"token": token, "client_id": client.id, "client_secret": own.secret})
    ).json["active"]
    form = {"token": token, "client_id": chief.id, "client_secret": chiefs.secret}
    assert (await client.post("/introspect", form)).json == UNKNOWN


@pytest.mark.parametrize(
    "target", ["resource", "holder", "agent above", "task above", "owner above", "segment", "everything"]
)
async def test_introspection_reports_every_stop_to_a_resource_without_a_guard(world: World, target: str) -> None:
    (two,) = await agents(world, "two")
    await act(world, "test.person", lambda act: registry.create_person(act, name="bob"))
    above, key = await register(world, name="one", owner="bob")
    one = replace(two, id=above.agent_id, key=key)
    made = await secret_of(one, "files")
    handed = await delegate_along((one, "one"), (two, "two"))
    token = await exchange_token(two, handed, resource=FILES, scope="files:read")
    form = {"token": token, "client_id": made.holder, "client_secret": made.secret}
    assert (await one.post("/introspect", form)).json["active"]

    def stop(act: Act) -> None:
        match target:
            case "resource":
                registry.stop(act, "resource", FILES, why="a test", by=None)
            case "segment" | "everything":
                agent = registry.find_agent(act.tx, "one")
                value = agent.segment if target == "segment" else ""
                registry.stop(act, target, value, why="a test", by=None)
            case "task above":
                registry.stop(act, "task", claims_of(token)["chain"][0][2], why="a test", by=None)
            case "owner above":
                registry.stop(act, "owner", registry.find_agent(act.tx, "one").owner, why="a test", by=None)
            case "holder":
                registry.set_agent_state(act, "two", Verb.SUSPEND)
            case _:
                registry.set_agent_state(act, "one", Verb.SUSPEND)

    await act(world, "test.stop", stop)
    assert (await one.post("/introspect", form)).json == UNKNOWN


TOOLS = [
    {"name": "read_file", "effect": "read"},
    {"name": "list_files", "effect": "read"},
    {"name": "write_file", "effect": "write"},
    {"name": "archive", "effect": "destroy", "scope": "archive"},
]
WHOLE = "files:archive files:read files:write"


async def restrict(world: World, agent: str, kind: RestrictionKind, limit: int = 0) -> None:
    await act(
        world,
        "test.restrict",
        lambda act: registry.put_restriction(act, agent, kind, until=act.now + 3600 * SECOND, limit=limit),
    )


async def resource_asks(client: Client, token: str) -> dict[str, Any]:
    """Ask as the resource `files`, which has no guard and a catalogue."""
    made = await secret_of(client, "files")
    answer = await client.post("/introspect", {"token": token, "client_id": made.holder, "client_secret": made.secret})
    await act(client.world, "secret.revoke", lambda act: trust.revoke_resource_secret(act, "files", made.id))
    seen: dict[str, Any] = answer.json
    return seen


@pytest.fixture
async def reader(world: World) -> Client:
    agent, key = await register(world, scopes=tuple(WHOLE.split()))
    reader = Client(oauth_app(world), world, agent.agent_id, key)
    await reader.token()
    await catalogue(world, TOOLS)
    return reader


async def catalogue(world: World, tools: list[dict[str, Any]]) -> None:
    parsed = Catalogue.parse(json.dumps({"resource": "files", "tools": tools}))
    await act(world, "test.catalogue", lambda act: registry.set_catalogue(act, "files", parsed))


async def test_introspection_reports_the_bounds_of_the_task_to_a_resource_without_a_guard(reader: Client) -> None:
    bounds = [
        {"type": "tool", "locations": [FILES], "actions": ["read_file"], "arguments": {"path": {"prefix": "/a/"}}}
    ]
    spec = TaskSpec(agent=reader.id, purpose="reads", bounds=parse_details(bounds))
    task = await act(reader.world, "task.start", lambda act: tasks.start(act, spec))
    token = (await reader.token(task=task.task_id, scope=None))["access_token"]
    seen = await resource_asks(reader, token)
    assert (seen["task"], seen["scope"], seen["authorization_details"]) == (task.task_id, WHOLE, bounds)
    await restrict(reader.world, reader.id, "narrow")
    seen = await resource_asks(reader, token)
    assert (seen["scope"], seen["authorization_details"]) == ("files:read", bounds)


async def test_introspection_reports_only_read_access_of_a_narrowed_agent(reader: Client) -> None:
    token = (await reader.token(scope=None))["access_token"]
    assert "authorization_details" not in await resource_asks(reader, token)
    await restrict(reader.world, reader.id, "narrow")
    seen = await resource_asks(reader, token)
    reads = {"type": "tool", "locations": [FILES], "actions": ["list_files", "read_file"]}
    seen["authorization_details"][0]["actions"].sort()
    assert (seen["scope"], seen["authorization_details"]) == ("files:read", [reads])
    assert (await about(reader, token)).json["scope"] == "files:read", "the client hears the same"
    await catalogue(reader.world, [*TOOLS, {"name": "touch", "effect": "write", "scope": "read"}])
    assert await resource_asks(reader, token) == UNKNOWN, "a scope that permits a write is no scope for reading"
    await catalogue(reader.world, TOOLS[2:])
    assert await resource_asks(reader, token) == UNKNOWN, "no tool reads"
    await act(reader.world, "test.lift", lambda act: registry.lift_restrictions(act, reader.id))
    assert (await resource_asks(reader, token))["scope"] == WHOLE


async def test_a_token_with_write_bounds_of_a_narrowed_agent_is_not_active(reader: Client) -> None:
    details = json.dumps([{"type": "tool", "locations": [FILES], "actions": ["write_file"]}])
    token = (await reader.token(scope=None, authorization_details=details))["access_token"]
    assert (await resource_asks(reader, token))["active"]
    await restrict(reader.world, reader.id, "narrow")
    assert await resource_asks(reader, token) == UNKNOWN


async def test_introspections_by_a_resource_count_as_calls_of_a_throttled_agent(reader: Client, clock: Clock) -> None:
    token = (await reader.token())["access_token"]
    clock.advance(us=MINUTE - clock() % MINUTE)
    await restrict(reader.world, reader.id, "throttle", 2)
    assert [(await resource_asks(reader, token))["active"] for _ in range(3)] == [True, True, False]
    assert await is_active(reader, token), "the client makes no call"
    clock.advance(us=MINUTE)
    assert (await resource_asks(reader, token))["active"]


async def test_a_token_from_before_a_step_up_of_an_agent_in_its_chain_is_not_active(world: World, clock: Clock) -> None:
    one, two = await agents(world, "one", "two")
    handed = await delegate_along((one, "one"), (two, "two"))
    token = await exchange_token(two, handed, resource=FILES, scope="files:read")
    assert (await resource_asks(one, token))["active"]
    clock.advance(1)
    await restrict(world, one.id, "step_up")
    assert await resource_asks(one, token) == UNKNOWN


async def test_a_token_whose_budget_for_calls_is_spent_is_not_active_for_a_resource(reader: Client) -> None:
    budget = parse_limits([{"kind": "calls", "limit": 1}])
    spec = TaskSpec(agent=reader.id, purpose="reads once", budget=budget)
    task = await act(reader.world, "task.start", lambda act: tasks.start(act, spec))
    token = (await reader.token(task=task.task_id))["access_token"]
    assert (await resource_asks(reader, token))["active"]
    await act(
        reader.world,
        "test.spend",
        lambda act: tasks.spend(act, tasks.in_force(act.tx, task), "files/read_file", {}, classes=frozenset()),
    )
    assert await resource_asks(reader, token) == UNKNOWN
