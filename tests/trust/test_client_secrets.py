"""Client secrets: for bearer tokens where the agent is exempt, and for nothing else."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest

from harness.clock import Clock
from harness.registry_fixtures import is_live, newest_entry
from ostiary.authorization.assurance import SECRET
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.trust import flows, store
from ostiaryd.trust.flows.client_secrets import LONGEST_LIFETIME_S, MOST, NewSecret
from ostiaryd.trust.model import SECRET_PREFIX
from tests.support.api_fixtures import ASSERTION_TYPE, FILES, Answer, Client, claims_of, guard, register
from tests.support.trust_fixtures import API, call


async def create(client: Client, *, name: str = "reader", **more: Any) -> NewSecret:
    return await act(client.world, "secret.create", lambda act: flows.create_secret(act, name, **more))


async def allow(client: Client, resource: str = "files") -> None:
    if resource == "files":
        await guard(client.world)
    await act(client.world, "bearer.allow", lambda act: flows.allow_bearer(act, client.id, resource))


@pytest.fixture
async def secret(client: Client) -> str:
    """The client secret of an agent that is exempt at `files`."""
    await allow(client)
    return (await create(client)).secret


def basic(client_id: str, secret: str) -> str:
    return "Basic " + b64encode(f"{quote(client_id)}:{quote(secret)}".encode()).decode()


async def by_post(client: Client, secret: str, **form: Any) -> Answer:
    asked = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": secret, "resource": FILES}
    return await client.post("/token", asked | form)


async def by_basic(client: Client, secret: str, **form: Any) -> Answer:
    asked = {"grant_type": "client_credentials", "resource": FILES}
    return await client.post("/token", asked | form, authorization=basic(client.id, secret))


@pytest.mark.parametrize("ask", [by_post, by_basic])
async def test_a_client_secret_gets_a_bearer_token_of_the_secret_level_if_the_agent_is_exempt(
    client: Client, secret: str, ask: Any
) -> None:
    answer = await ask(client, secret)
    assert (answer.status, answer.json["token_type"]) == (200, "Bearer")
    claims = claims_of(answer.json["access_token"])
    assert (claims["acr"], claims["amr"], claims["aud"]) == (SECRET, ["pwd"], FILES)
    assert "cnf" not in claims
    assert claims["exp"] - claims["iat"] <= 300
    assert (newest_entry(client.world).detail or {})["acr"] == SECRET


@pytest.mark.parametrize("ask", [by_post, by_basic])
async def test_a_wrong_secret_is_refused(client: Client, secret: str, ask: Any) -> None:
    agent, _ = await register(client.world, name="other")
    others = (await create(client, name="other")).secret
    for wrong in (secret[:-1], secret + "x", SECRET_PREFIX, "x", others):
        answer = await ask(client, wrong)
        assert (answer.status, answer.error) == (401, "invalid_client"), wrong
        assert ("www-authenticate" in answer.headers) is (ask is by_basic)
    assert newest_entry(client.world).agent is None
    assert (await by_post(client, others, client_id=agent.agent_id)).error == "invalid_dpop_proof"  # not exempt
    for unknown in ("", "ag_" + "0" * 32, "pe_" + "0" * 32, "rs_" + "0" * 32, "x"):
        assert (await by_post(client, secret, client_id=unknown)).error == "invalid_client"


async def test_a_client_secret_gets_no_token_if_the_agent_is_not_exempt(client: Client) -> None:
    made = await create(client)
    answer = await by_post(client, made.secret)
    assert answer.error == "invalid_dpop_proof"
    assert "ostiary agent allow-bearer reader --resource files" in answer.json["error_description"]


async def test_a_secret_gets_no_token_for_this_server(client: Client, secret: str) -> None:
    await allow(client, "ostiary")
    assert (await by_post(client, secret, resource=API)).error == "invalid_target"


async def test_a_secret_gets_no_bound_token(client: Client, secret: str) -> None:
    form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": secret, "resource": FILES}
    assert (await client.post("/token", form, dpop=client.proof())).error == "invalid_request"


async def test_a_request_with_two_kinds_of_client_authentication_is_refused(client: Client, secret: str) -> None:
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": client.assertion()}
    for more in (proof, {}):
        form = {"grant_type": "client_credentials", "client_secret": secret, "resource": FILES} | more
        headers = {} if more else {"authorization": basic(client.id, secret)}
        assert (await client.post("/token", form, **headers)).error == "invalid_request"


async def test_an_authorization_header_without_a_client_credential_is_refused(client: Client, secret: str) -> None:
    form = {"grant_type": "client_credentials", "resource": FILES}
    cases: list[str] = ["Basic", "Basic !", "Basic ZW5k", "Basic w7w=", "Digest x", "Bearer x"]
    for authorization in cases:
        answer = await client.post("/token", form, authorization=authorization)
        assert (answer.status, answer.error) == (401, "invalid_client"), authorization
        assert answer.headers["www-authenticate"], authorization


async def test_a_client_secret_revokes_only_tokens_of_its_own_agent(client: Client, secret: str) -> None:
    token = (await by_post(client, secret)).json["access_token"]
    other, _ = await register(client.world, name="other")
    theirs = {"client_id": other.agent_id, "client_secret": (await create(client, name="other")).secret}
    own = {"client_id": client.id, "client_secret": secret}
    assert (await client.post("/revoke", theirs | {"token": token})).error == "invalid_grant"
    assert (await client.post("/revoke", own | {"token": token, "client_secret": "x"})).error == "invalid_client"
    jti = claims_of(token)["jti"]
    assert is_live(client.world, jti)
    assert (await client.post("/revoke", own | {"token": token})).status == 200
    assert not is_live(client.world, jti)


async def test_a_client_secret_cannot_exchange_tokens_or_start_a_ciba_request(client: Client, secret: str) -> None:
    named = {"client_id": client.id, "client_secret": secret}
    token = (await by_post(client, secret)).json["access_token"]
    exchange = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    poll = {"grant_type": "urn:openid:params:grant-type:ciba", "auth_req_id": "x"}
    for path, form in (
        ("/token", exchange),
        ("/token", poll),
        ("/bc-authorize", {"login_hint": "ann", "scope": "files:read"}),
    ):
        for proof in ({}, {"dpop": client.proof()}):
            answer = await client.post(path, form | named, **proof)
            assert answer.error == "invalid_client", (path, answer.body)


async def test_an_expired_secret_is_refused_and_deleted_when_a_new_secret_is_created(
    client: Client, clock: Clock
) -> None:
    await allow(client)
    secret = (await create(client, lifetime_s=60)).secret
    clock.advance(us=60_000_000 - 1)
    refused = await by_post(client, secret)
    assert refused.error == "invalid_grant"  # the token would end within a second
    clock.advance(us=1)
    assert (await by_post(client, secret)).error == "invalid_client"
    await create(client)
    assert len(store.client_secrets.secrets(client.world.db.read(), client.id)) == 1  # the expired one is gone


async def test_a_bearer_token_ends_with_the_secret_behind_it(client: Client, clock: Clock) -> None:
    await allow(client)
    secret = (await create(client, lifetime_s=100)).secret
    claims = claims_of((await by_post(client, secret)).json["access_token"])
    assert claims["exp"] - claims["iat"] == 100


async def test_the_lifetime_and_the_number_of_secrets_of_an_agent_are_limited(client: Client) -> None:
    for lifetime_s in (59, LONGEST_LIFETIME_S + 1):
        with pytest.raises(Invalid):
            await create(client, lifetime_s=lifetime_s)
    made = [await create(client, lifetime_s=lifetime_s) for lifetime_s in (60, LONGEST_LIFETIME_S)]
    assert len(made) == MOST
    with pytest.raises(Conflict):
        await create(client)
    await act(client.world, "secret.revoke", lambda act: flows.revoke_secret(act, "reader", made[0].id))
    await create(client)


async def test_a_revoked_secret_gets_no_token_and_its_tokens_are_revoked(client: Client, secret: str) -> None:
    assert (await by_post(client, secret)).status == 200
    [known] = store.client_secrets.secrets(client.world.db.read(), client.id)
    assert secret not in str(known)
    await act(client.world, "secret.revoke", lambda act: flows.revoke_secret(act, client.id, known.id))
    assert (newest_entry(client.world).detail or {})["ended"] == {"token": 1}
    assert (await by_post(client, secret)).error == "invalid_client"
    with pytest.raises(NotFound):
        await act(client.world, "secret.revoke", lambda act: flows.revoke_secret(act, client.id, known.id))


async def test_a_suspended_agent_gets_no_token_with_its_secret(client: Client, secret: str) -> None:
    await act(client.world, "agent.suspend", lambda act: registry.set_agent_state(act, client.id, Verb.SUSPEND))
    answer = await by_post(client, secret)
    assert (answer.error, "suspended" in answer.json["error_description"]) == ("invalid_client", True)


async def test_administrators_make_list_and_revoke_secrets(client: Client) -> None:
    agent, key = await register(client.world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = Client(client.app, client.world, agent.agent_id, key)
    token = (await chief.token())["access_token"]
    mine = (await client.token(resource=API))["access_token"]
    path = "/api/v1/agents/reader/secrets"
    assert (await call(client, mine, path, method="POST")).status == 403
    made = await call(chief, token, path, method="POST", body={"ttl": 3600})
    assert (made.status, made.json["client_id"], made.headers["cache-control"]) == (201, client.id, "no-store")
    listed = (await call(chief, token, path)).json["secrets"]
    assert [one["secret_id"] for one in listed] == [made.json["secret_id"]]
    assert made.json["client_secret"] not in str(listed)
    assert made.json["client_secret"] not in str(newest_entry(client.world))
    ended = await call(chief, token, f"{path}/{made.json['secret_id']}", method="DELETE")
    assert (ended.status, ended.json) == (200, {"secrets": []})


async def test_administrators_make_list_and_revoke_secrets_of_resources(client: Client) -> None:
    agent, key = await register(client.world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = Client(client.app, client.world, agent.agent_id, key)
    files, _ = await guard(client.world)
    token = (await chief.token())["access_token"]
    path = "/api/v1/resources/files/secrets"
    made = await call(chief, token, path, method="POST", body={"ttl": 3600})
    assert (made.status, made.json["client_id"], made.headers["cache-control"]) == (201, files, "no-store")
    listed = (await call(chief, token, path)).json["secrets"]
    assert [one["secret_id"] for one in listed] == [made.json["secret_id"]]
    assert made.json["client_secret"] not in str(listed) + str(newest_entry(client.world))
    assert (await call(chief, token, path, method="POST", body={"ttl": 60})).status == 201
    assert (await call(chief, token, path, method="POST", body={"ttl": 60})).error == "too_many_secrets"
    ended = await call(chief, token, f"{path}/{made.json['secret_id']}", method="DELETE")
    assert len(ended.json["secrets"]) == 1
    assert (await call(chief, token, f"{path}/{made.json['secret_id']}", method="DELETE")).status == 404
    assert flows.secret_holders(client.world.db.read()) == [], "no agent has a secret"
