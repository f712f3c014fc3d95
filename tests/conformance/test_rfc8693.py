"""RFC 8693: what a request to exchange says, what is answered, what the new token says."""

from __future__ import annotations

from typing import Any

from harness.registry_fixtures import newest_entry
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.tokens.model import CIBA
from tests.conformance.table import check_table, row
from tests.support.api_fixtures import FILES, ISSUER, Client, claims_of
from tests.support.delegation_fixtures import (
    ACCESS,
    EXCHANGE,
    MAIL,
    agents,
    chain_links,
    delegate_along,
    exchange,
    exchange_token,
    start,
    token_for,
    uri,
)

REQUEST, TARGET, SCOPE = "invalid_request", "invalid_target", "invalid_scope"
KIND = "urn:ietf:params:oauth:token-type:"
API = f"{ISSUER}/api/v1"
READ = '[{"type": "tool", "locations": ["https://files.example/mcp"], "actions": ["read_file"]}]'

TABLE = [
    row("no more than is needed"),
    row("the grant type in capitals", "unsupported_grant_type", grant_type=EXCHANGE.upper()),
    row("no subject_token", REQUEST, "`subject_token` is missing", subject_token=None),
    row("an empty subject_token is none", REQUEST, "`subject_token` is missing", subject_token=""),
    row("no subject_token_type", REQUEST, "`subject_token_type` is missing", subject_token_type=None),
    *(
        row(f"a subject_token of the type {kind}", REQUEST, subject_token_type=KIND + kind)
        for kind in ("refresh_token", "id_token", "saml1", "saml2", "jwt", "id-jag", "txn_token", "nonsense", "")
    ),
    row(
        "the type by its last word", REQUEST, "`subject_token_type` is not supported", subject_token_type="access_token"
    ),
    row(
        "a subject_token that is no token",
        REQUEST,
        "`subject_token`: the header of the token",
        subject_token="nonsense",
    ),
    row("subject_token twice", REQUEST, "was sent 2 times", subject_token=["a", "b"]),
    row("requested_token_type: the one that there is", requested_token_type=ACCESS),
    row(
        "requested_token_type: a JWT",
        REQUEST,
        "`requested_token_type` is not supported",
        requested_token_type=KIND + "jwt",
    ),
    row(
        "requested_token_type: a refresh token",
        REQUEST,
        "`requested_token_type` is not supported",
        requested_token_type=KIND + "refresh_token",
    ),
    row("an empty requested_token_type is none", requested_token_type=""),
    row(
        "actor_token_type without actor_token",
        REQUEST,
        "send both `actor_token` and `actor_token_type`, or neither",
        actor_token_type=ACCESS,
    ),
    row(
        "actor_token that is no token",
        REQUEST,
        "`actor_token`: the header of the token",
        actor_token="nonsense",
        actor_token_type=ACCESS,
    ),
    row("the resource", resource=FILES),
    row(
        "the resource that the scope is not of",
        TARGET,
        "these scopes do not belong to the resource `mail`",
        resource=MAIL,
    ),
    row("the resource twice", TARGET, "a token can be for only one `resource` or `audience`", resource=[FILES, FILES]),
    row("the audience: the name of a resource", audience="files"),
    row("the audience: the URI of a resource", audience=FILES),
    row(
        "the audience twice",
        TARGET,
        "a token can be for only one `resource` or `audience`",
        audience=["files", "files"],
    ),
    row("the audience: nobody", TARGET, "`audience` names no resource and no agent", audience="nobody"),
    row("resource and audience: the same", resource=FILES, audience="files"),
    row("resource and audience: two", TARGET, "name two different targets", resource=FILES, audience="mail"),
    row(
        "an unregistered resource that the subject token does not reach",
        TARGET,
        resource="https://else.example/",
        scope=None,
    ),
    row(
        "our own API, of which the subject token has no scope",
        TARGET,
        "has no scope and no bounds at this target",
        resource=API,
        scope=None,
    ),
    row("a resource with a fragment", TARGET, "the URI has a fragment", resource="https://else.example/#a"),
    row("a scope that the subject token does not have", SCOPE, "lacks the scopes mail:send", scope="mail:send"),
    row(
        "a scope that it has and one that it does not have",
        SCOPE,
        "lacks the scopes files:write",
        scope="files:read files:write",
    ),
    row("a scope that nobody has", SCOPE, "lacks the scopes files:all", scope="files:all"),
    row("a malformed scope", SCOPE, "a scope must be printable ASCII", scope="files:read  files:write"),
    row("no scope: all that the subject token has there", scope=None),
    row("bounds", authorization_details=READ),
    row(
        "bounds at another resource",
        "invalid_authorization_details",
        authorization_details=READ.replace("files.example", "else.example"),
    ),
    row(
        "bounds of another type",
        "invalid_authorization_details",
        "is not of the type `tool`",
        authorization_details='[{"type": "shell"}]',
    ),
    row(
        "bounds that are no JSON",
        "invalid_authorization_details",
        "`authorization_details`: not JSON",
        authorization_details="{",
    ),
    row("a task", REQUEST, "leave out `task`", task="tk_1"),
    row(
        "a client that does not authenticate",
        "invalid_client",
        "the client did not authenticate",
        client_assertion=None,
    ),
    row("no proof", "invalid_dpop_proof", "cannot be exchanged for a bearer token", proof=None),
]


async def test_each_rule_of_an_exchange_request_holds(world: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")

    async def run(**said: Any) -> Any:
        return await exchange(two, said.pop("subject_token", token), **said)

    await check_table(TABLE, run)


async def test_the_exchange_response_has_the_members_of_section_2_2_1(world: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read files:write")
    answer = await exchange(two, token, authorization_details=READ)
    body = answer.json
    assert body.pop("access_token").count(".") == 2
    assert body == {
        "issued_token_type": ACCESS,
        "token_type": "DPoP",
        "expires_in": 300,
        "scope": "files:read",
        "authorization_details": [{"type": "tool", "locations": [FILES], "actions": ["read_file"]}],
    }
    assert answer.headers["cache-control"] == "no-store"
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.agent, entry.resource) == ("token.exchange", "ok", two.id, FILES)
    assert entry.actors == [two.id]
    assert entry.policies == ["delegate-within-segment", "issue-token"]


async def test_the_newest_actor_is_outermost_and_the_first_agent_is_the_subject(world: World) -> None:
    """Section 4.1."""
    one, two, three = await agents(world, "one", "two", "three")
    token = await delegate_along((one, "one"), (two, "two"), (three, "three"))
    claims = claims_of(await exchange_token(three, token))
    assert (claims["sub"], claims["client_id"]) == (one.id, three.id)
    assert claims["act"] == {"sub": three.id, "act": {"sub": two.id}}
    standing = f"tk_{one.id[3:]}"
    owner = registry.find_person(world.db.read(), "ann").person_id
    assert claims["chain"] == [[client.id, 0, standing, owner, "default", "", "medium"] for client in (two, one)]
    assert "may_act" not in claims
    assert claims["cnf"] == {"jkt": three.key.public.thumbprint}


async def test_every_agent_is_an_actor_where_the_task_is_on_behalf_of_a_person(world: World) -> None:
    one, two = await agents(world, "one", "two")
    task = await start(world, agent="one", on_behalf_of="ann")
    claims = claims_of(await exchange_token(two, await token_for(one, "two", task=task.task_id, scope="files:read")))
    assert (claims["sub"], claims["act"]) == (task.person, {"sub": two.id, "act": {"sub": one.id}})
    assert (claims["task"], [link[:3] for link in claims["chain"]]) == (task.task_id, [[one.id, 0, task.task_id]])
    assert newest_entry(world).person == task.person


async def test_a_token_of_a_subtask_has_the_chain_without_an_exchange(world: World) -> None:
    one, two = await agents(world, "one", "two")
    whole = await start(world, agent="one")
    part = await start(world, agent="two", parent=whole.task_id)
    token = (await two.token(task=part.task_id, scope="files:read"))["access_token"]
    claims = claims_of(token)
    assert (claims["sub"], claims["act"], claims["task"]) == (one.id, {"sub": two.id}, part.task_id)
    assert chain_links(token) == [[one.id, 0, whole.task_id]]


async def test_a_token_for_an_agent_is_exchanged_only_by_that_agent(world: World) -> None:
    """Section 4.4: `may_act`."""
    one, two, three = await agents(world, "one", "two", "three")
    token = await token_for(one, "two")
    claims = claims_of(token)
    assert (claims["aud"], claims["may_act"]) == (uri("two"), {"sub": two.id})
    assert claims["scope"] == "files:read files:write mail:send"
    answer = await exchange(three, token)
    assert (answer.error, "`aud`" in answer.json["error_description"]) == (REQUEST, True)
    assert claims_of(await exchange_token(two, token))["aud"] == FILES
    assert claims_of(await exchange_token(two, token, scope="mail:send"))["aud"] == MAIL


async def test_a_token_for_an_unknown_or_own_agent_is_refused(world: World) -> None:
    one, _ = await agents(world, "one", "two")
    cases: list[str] = ["nobody", "one", "", "two/", "ag_" + "0" * 32]
    for name in cases:
        assert (await one.ask(resource=uri(name))).error == TARGET, name


async def test_an_agent_is_addressed_by_name_as_resource_or_by_client_id_as_audience(world: World) -> None:
    one, two, three = await agents(world, "one", "two", "three")
    assert (await one.ask(resource=uri(two.id))).error == TARGET
    token = await token_for(one, "two", scope="files:read")
    assert claims_of(await exchange_token(two, token, audience=three.id))["may_act"] == {"sub": three.id}
    assert (await exchange(two, token, audience=two.id)).error == TARGET
    assert (await exchange(two, token, audience="ag_" + "0" * 32)).error == TARGET


async def test_an_actor_token_must_be_a_token_of_the_client(world: World) -> None:
    one, two, three = await agents(world, "one", "two", "three")
    token = await token_for(one, "two", scope="files:read")

    async def own(client: Client, **said: Any) -> str:
        return str((await client.token(**({"resource": API} | said)))["access_token"])

    for_person = await start(world, agent="two", on_behalf_of="ann")
    part = await start(world, agent="two", parent=(await start(world, agent="one")).task_id)
    table = [
        row("its own", actor_token=await own(two)),
        row(
            "without a type",
            REQUEST,
            "send both `actor_token` and `actor_token_type`, or neither",
            actor_token=await own(two),
            actor_token_type=None,
        ),
        row(
            "of the type of a JWT",
            REQUEST,
            "`actor_token_type` is not supported",
            actor_token=await own(two),
            actor_token_type=KIND + "jwt",
        ),
        row(
            "of the agent that handed on", REQUEST, "the token was issued to another client", actor_token=await own(one)
        ),
        row("of a third", REQUEST, "the token was issued to another client", actor_token=await own(three)),
        row(
            "for a resource",
            REQUEST,
            "the audience is not this server (`aud`)",
            actor_token=await own(two, resource=FILES),
        ),
        row(
            "for another agent",
            REQUEST,
            "the audience is not this server (`aud`)",
            actor_token=await own(two, resource=uri("three")),
        ),
        row(
            "on behalf of a person",
            REQUEST,
            "the token was issued through another agent",
            actor_token=await own(two, task=for_person.task_id),
        ),
        row(
            "of a task that came from another",
            REQUEST,
            "the token was issued through another agent",
            actor_token=await own(two, task=part.task_id),
        ),
        row("the subject token itself", REQUEST, "the token was issued to another client", actor_token=token),
    ]

    async def run(**said: Any) -> Any:
        return await exchange(two, token, **{"actor_token_type": ACCESS} | said)

    await check_table(table, run)


async def test_the_metadata_lists_the_grant(world: World) -> None:
    from tests.support.api_fixtures import oauth_app, send

    answer = await send(oauth_app(world), "GET", "/.well-known/oauth-authorization-server")
    assert {EXCHANGE, CIBA} <= set(answer.json["grant_types_supported"])


async def test_an_agent_in_may_act_can_introspect_the_token(world: World) -> None:
    one, two, three = await agents(world, "one", "two", "three")
    token = await token_for(one, "two")

    async def ask(client: Client) -> Any:
        form = client.form(token=token) | {"grant_type": None}
        return (await client.post("/introspect", form)).json

    assert (await ask(two))["may_act"] == {"sub": two.id}
    assert (await ask(one))["active"] is True
    assert await ask(three) == {"active": False}
