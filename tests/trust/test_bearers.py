"""Bearer tokens, which are bound to no key, for clients that an administrator has exempted by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import is_live, newest_entry
from ostiary.authorization.assurance import BEARER
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.feed.flows.snapshot import resource_fact
from ostiaryd.ground.config import load_config
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model import load
from ostiaryd.registry import flows as registry
from ostiaryd.trust import flows, store
from tests.support.api_fixtures import (
    ASSERTION_TYPE,
    FILES,
    ISSUER,
    SECOND,
    TOKEN,
    Answer,
    Client,
    claims_of,
    guard,
    oauth_app,
    reconfigured,
    register,
    send,
)
from tests.support.trust_fixtures import API, api_app, call


@pytest.fixture
async def client(world: World) -> Client:
    """An agent of a strict server, where only the exemption makes a client compatible."""
    strict = reconfigured(world, client_assertions="strict")
    agent, key = await register(strict)
    client = Client(oauth_app(strict), strict, agent.agent_id, key)
    await client.ask()
    return client


async def allow(client: Client, *, name: str = "reader", resource: str = "ostiary") -> None:
    await act(client.world, "bearer.allow", lambda act: flows.allow_bearer(act, name, resource))


def api_id(client: Client) -> str:
    return registry.find_resource(client.world.db.read(), "ostiary").resource_id


async def present(client: Client, token: str, scheme: str = "Bearer") -> Answer:
    return await send(api_app(client.world), "GET", "/api/v1/whoami", headers=[("authorization", f"{scheme} {token}")])


async def bearer_token(client: Client) -> str:
    answer = await client.ask(proof=None, resource=API)
    assert answer.json["token_type"] == "Bearer"
    return str(answer.json["access_token"])


async def test_an_exempt_agent_gets_and_uses_a_bearer_token(client: Client) -> None:
    assert (await client.ask(proof=None)).error == "invalid_dpop_proof"
    await allow(client)
    token = await bearer_token(client)
    assert "cnf" not in claims_of(token)
    answer = await present(client, token)
    assert (answer.status, answer.json["id"], answer.json["jkt"]) == (200, client.id, None)
    refused = await present(client, token, "DPoP")
    assert refused.status == 401
    assert "bound to no key" in refused.json["message"]


async def test_an_exempt_agent_that_sends_a_proof_gets_a_dpop_bound_token(client: Client) -> None:
    await allow(client)
    token = (await client.token(resource=API))["access_token"]
    assert claims_of(token)["cnf"] == {"jkt": client.key.public.thumbprint}
    assert (await present(client, token)).status == 401


async def test_the_exemption_of_an_agent_does_not_exempt_another_agent(client: Client) -> None:
    agent, key = await register(client.world, name="other")
    await allow(client, name="other")
    other = replace(client, id=agent.agent_id, key=key)
    assert (await other.ask(proof=None, resource=API)).status == 200
    assert (await client.ask(proof=None, resource=API)).error == "invalid_dpop_proof"


async def test_a_withdrawn_exemption_revokes_bearer_tokens_at_once_and_no_bound_tokens(client: Client) -> None:
    await allow(client)
    unbound, bound = await bearer_token(client), (await client.token(resource=API))["access_token"]
    await act(client.world, "bearer.forbid", lambda act: flows.forbid_bearer(act, client.id, "ostiary"))
    assert newest_entry(client.world).detail == {"name": "reader", "resource": "ostiary", "ended": {"token": 1}}
    assert (await present(client, unbound)).status == 401
    assert (await call(client, bound)).status == 200
    assert (await client.ask(proof=None, resource=API)).error == "invalid_dpop_proof"
    await allow(client)
    assert (await present(client, unbound)).status == 401


async def test_the_exemption_is_checked_again_at_each_request(client: Client) -> None:
    await allow(client)
    token = await bearer_token(client)
    await act(client.world, "test", lambda a: store.exemptions.set_exempt(a.tx, client.id, api_id(client), False))
    assert (await present(client, token)).status == 401


async def test_assertions_of_type_jwt_are_accepted_from_exempt_agents_only(client: Client) -> None:
    def typed(typ: str) -> str:
        return client.assertion(header={"typ": typ})

    assert (await client.ask(client_assertion=typed("JWT"))).error == "invalid_client"
    await allow(client)
    assert (await client.ask(client_assertion=typed("JWT"))).status == 200
    assert (await client.ask(client_assertion=typed("at+jwt"))).error == "invalid_client"


async def test_an_assertion_of_an_exempt_agent_may_name_an_endpoint_of_the_server_as_its_audience(
    client: Client,
) -> None:
    audiences: list[tuple[object, bool]] = [
        (TOKEN, True),
        ([TOKEN], True),
        ([TOKEN, ISSUER], True),
        (f"{ISSUER}/introspect", True),
        (ISSUER, True),
        ([ISSUER], True),
        (TOKEN + "/", False),
        ([], False),
        ("https://else.example/token", False),
        ([TOKEN, "https://else.example/token"], False),
    ]
    for aud, _ in audiences[:4]:
        assert (await client.ask(client_assertion=client.assertion(aud=aud))).error == "invalid_client"
    await allow(client)
    for aud, is_taken in audiences:
        answer = await client.ask(client_assertion=client.assertion(aud=aud))
        assert (answer.error == "") is is_taken, aud


async def test_a_long_lived_assertion_of_an_exempt_agent_is_accepted_once_within_five_minutes(
    client: Client, clock: Clock
) -> None:
    now = clock.now // SECOND
    longer = client.assertion(iat=now, exp=now + 3600)
    assert (await client.ask(client_assertion=longer)).error == "invalid_client"
    await allow(client)
    assert (await client.ask(client_assertion=longer)).status == 200
    assert (await client.ask(client_assertion=longer)).error == "invalid_client"
    unused, late = (client.assertion(iat=now, exp=now + 3600) for _ in range(2))
    clock.advance(us=300 * SECOND - 1)
    assert (await client.ask(proof=None, resource=API, client_assertion=unused)).status == 200
    clock.advance(us=1)
    assert (await client.ask(proof=None, resource=API, client_assertion=late)).error == "invalid_client"


async def test_an_assertion_without_a_dpop_proof_is_accepted_once(client: Client) -> None:
    await allow(client)
    assertion = client.assertion()
    asked = [await client.ask(proof=None, resource=API, client_assertion=assertion) for _ in range(2)]
    assert [answer.error for answer in asked] == ["", "invalid_client"]


async def test_only_administrators_allow_and_forbid_bearer_tokens_over_the_api(client: Client) -> None:
    agent, key = await register(client.world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = replace(client, id=agent.agent_id, key=key)
    token = (await chief.token())["access_token"]
    mine = (await client.token(resource=API))["access_token"]
    path = "/api/v1/agents/reader/bearer"
    assert (await call(client, mine, f"{path}/ostiary", method="PUT")).status == 403
    assert (await call(client, mine, path)).status == 403
    assert (await call(chief, token, path)).json == {"bearer": []}
    assert (await call(chief, token, f"{path}/ostiary", method="PUT")).status == 200
    [shown] = (await call(chief, token, path)).json["bearer"]
    assert (shown["resource"], shown["uri"]) == ("ostiary", API)
    assert (await call(chief, token, f"{path}/ostiary", method="DELETE")).json == {"bearer": []}
    assert store.exemptions.exemptions_of(client.world.db.read(), client.id) == []
    assert newest_entry(client.world).agent == chief.id


async def test_an_exemption_for_an_unknown_agent_is_refused_as_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        await allow(client, name="nobody")
    assert registry.find_agent(client.world.db.read(), "reader").agent_id == client.id


async def at_files(client: Client, **form: Any) -> Answer:
    return await client.ask(proof=None, resource=FILES, **form)


async def test_an_exemption_is_for_one_resource_and_the_error_states_the_command_that_grants_it(client: Client) -> None:
    await guard(client.world)
    await allow(client)
    refused = await at_files(client)
    assert refused.error == "invalid_dpop_proof"
    assert "ostiary agent allow-bearer reader --resource files" in refused.json["error_description"]
    await allow(client, resource="files")
    claims = claims_of((await at_files(client)).json["access_token"])
    assert (claims["aud"], claims["acr"], claims["amr"], "cnf" in claims) == (FILES, BEARER, ["swk"], False)
    await act(client.world, "bearer.forbid", lambda act: flows.forbid_bearer(act, client.id, "files"))
    assert (await at_files(client)).error == "invalid_dpop_proof"
    assert (await client.ask(proof=None, resource=API)).status == 200


async def test_no_bearer_token_is_issued_for_a_resource_without_a_guard(client: Client) -> None:
    with pytest.raises(Conflict, match="no guard") as refused:
        await allow(client, resource="files")
    assert refused.value.code == "no_guard"
    assert "ostiary resource key files" in refused.value.hint
    world = reconfigured(client.world, resources="any")
    anywhere = replace(client, world=world, app=oauth_app(world))
    answer = await anywhere.ask(proof=None, resource="https://else.example/mcp", scope="")
    assert answer.error == "invalid_dpop_proof"


async def test_a_resource_that_introspects_tokens_needs_no_guard_for_bearer_tokens(client: Client) -> None:
    made = await act(client.world, "secret.create", lambda act: flows.create_resource_secret(act, "files"))
    await allow(client, resource="files")
    answer = await client.ask(proof=None, resource=FILES)
    assert (answer.status, answer.json["token_type"]) == (200, "Bearer"), answer.body
    form = {"token": answer.json["access_token"], "client_id": made.holder, "client_secret": made.secret}
    assert (await client.post("/introspect", form)).json["active"]


async def test_an_expired_secret_of_a_resource_permits_no_bearer_tokens(client: Client, clock: Clock) -> None:
    await act(client.world, "secret.create", lambda act: flows.create_resource_secret(act, "files", lifetime_s=60))
    clock.advance(60)
    with pytest.raises(Conflict, match="has no guard"):
        await allow(client, resource="files")


async def test_the_number_of_exempt_agents_of_a_resource_is_limited(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.trust.flows.bearers.MAX_EXEMPT", 2)
    await register(client.world, name="second")
    await register(client.world, name="third")
    await allow(client)
    await allow(client, name="second")
    with pytest.raises(Conflict) as refused:
        await allow(client, name="third")
    assert refused.value.code == "too_many_exempt"
    await allow(client)  # is exempt already


@pytest.mark.parametrize(("configured", "seconds"), [(299, 299), (300, 300)])
async def test_a_bearer_token_has_a_maximum_lifetime_of_its_own(client: Client, configured: int, seconds: int) -> None:
    world = reconfigured(client.world, token_lifetime_s=3600, bearer_lifetime_s=configured)
    client = replace(client, world=world, app=oauth_app(world))
    await allow(client)
    claims = claims_of((await client.ask(proof=None, resource=API)).json["access_token"])
    assert claims["exp"] - claims["iat"] == seconds
    bound = claims_of((await client.token(resource=API))["access_token"])
    assert bound["exp"] - bound["iat"] == 3600


async def test_the_configured_lifetime_of_bearer_tokens_is_at_most_five_minutes() -> None:
    assert load_config(environ={}, data_dir="d", bearer_lifetime_s=300).bearer_lifetime_s == 300
    for seconds in (9, 301):
        with pytest.raises(Invalid, match="bearer_lifetime_s"):
            load_config(environ={}, data_dir="d", bearer_lifetime_s=seconds)


async def test_a_bearer_client_that_requests_further_scopes_gets_the_scopes_that_it_has(client: Client) -> None:
    await guard(client.world)
    await allow(client, resource="files")
    answer = await at_files(client, scope="files:read files:administer")
    assert (answer.json["scope"], claims_of(answer.json["access_token"])["scope"]) == ("files:read", "files:read")
    assert (await at_files(client, scope="files:administer")).error == "invalid_scope"
    assert (await client.ask(resource=FILES, scope="files:read files:administer")).error == "invalid_scope"  # bound


async def test_no_bearer_token_has_the_administrator_scope_of_this_server(client: Client) -> None:
    agent, key = await register(client.world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = replace(client, id=agent.agent_id, key=key)
    await allow(client, name="chief")
    assert (await chief.ask(proof=None, resource=API, scope="")).json["scope"] == "ostiary:read"
    refused = await chief.ask(proof=None, resource=API, scope="ostiary:admin")
    assert (refused.error, "never" in refused.json["error_description"]) == ("invalid_scope", True)
    assert "ostiary:admin" in (await chief.token(resource=API))["scope"]


async def test_issuance_policies_can_read_that_a_token_is_bound_to_no_key(client: Client) -> None:
    await guard(client.world)
    await allow(client, resource="files")
    rules = (
        "permit (principal, action, resource);\n"
        'forbid (principal, action == Action::"issue_token", resource == Resource::"files")\n'
        'unless { context.amr.contains("pop") };'
    )
    loaded = load({"rules.cedar": rules})
    await act(client.world, "policy.put", lambda act: policies.put(act, loaded, by=None))
    assert (await at_files(client)).error == "access_denied"
    assert (await client.ask(proof=None, resource=API, scope="")).error != "access_denied"
    assert (await client.ask(resource=FILES)).status == 200


async def test_the_ledger_entry_of_an_issue_states_that_the_token_is_bound_to_no_key(client: Client) -> None:
    await allow(client)
    await bearer_token(client)
    assert (newest_entry(client.world).detail or {})["acr"] == BEARER
    await client.token(resource=API)
    assert "acr" not in (newest_entry(client.world).detail or {})


async def test_introspection_states_that_a_token_is_bound_to_no_key(client: Client) -> None:
    await allow(client)
    token = await bearer_token(client)
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": client.assertion()}
    said = (await client.post("/introspect", {"token": token, **proof})).json
    assert (said["active"], said["token_type"], said["acr"]) == (True, "Bearer", BEARER)


async def test_an_exempt_registration_class_does_not_include_agents_that_administrators_registered(
    client: Client,
) -> None:
    reader, world = client.world.db.read, client.world
    with pytest.raises(Conflict, match="no guard"):
        await act(world, "bearer.allow", lambda act: flows.allow_bearer_class(act, "files", "document"))
    with pytest.raises(Conflict, match="no guard"):
        await act(world, "bearer.allow", lambda act: flows.allow_bearer_class(act, "ostiary", "document"))
    await guard(world)
    await act(world, "bearer.allow", lambda act: flows.allow_bearer_class(act, "files", "document"))
    fact = resource_fact(reader(), registry.find_resource(reader(), "files"))
    assert (fact.exempt, fact.exempt_classes) == ([], ["document"])
    id = registry.find_resource(reader(), "files").resource_id
    assert flows.may_have_bearer(reader(), client.id, id, registration="document")
    assert not flows.may_have_bearer(reader(), client.id, id, registration="dynamic")
    assert not flows.may_have_bearer(reader(), client.id, id, registration="")
    assert (await at_files(client)).error == "invalid_dpop_proof"


async def test_a_withdrawn_exemption_of_a_class_ends_the_bearer_tokens_that_rest_on_it(client: Client) -> None:
    await guard(client.world)
    other, key = await register(client.world, name="other")
    await allow(client, resource="files")
    await allow(client, name="other", resource="files")
    kept = claims_of((await at_files(client)).json["access_token"])["jti"]
    ended = claims_of((await at_files(replace(client, id=other.agent_id, key=key))).json["access_token"])["jti"]
    files = registry.find_resource(client.world.db.read(), "files").resource_id
    await act(client.world, "test", lambda a: store.exemptions.set_exempt(a.tx, other.agent_id, files, False))
    for allowed in (flows.allow_bearer_class, flows.forbid_bearer_class):
        await act(client.world, "bearer.class", lambda act, change=allowed: change(act, "files", "dynamic"))  # type: ignore[misc]
    lives = {id: is_live(client.world, id) for id in (kept, ended)}
    assert lives == {kept: True, ended: False}
