"""RFC 8707 section 2 and RFC 6749 section 3.3: for which resource a token is, and what it may there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ostiary.protocol.uri import MAX_URI
from ostiaryd.ground.world import World
from tests.conformance.table import check_table, row
from tests.support.api_fixtures import FILES, ISSUER, Client, claims_of, oauth_app, reconfigured, register

TARGET, SCOPE, REQUEST = "invalid_target", "invalid_scope", "invalid_request"
API = f"{ISSUER}/api/v1"
ELSEWHERE = "https://elsewhere.example/api"

TABLE = [
    row("neither resource nor scope, where all scopes are of one resource"),
    row("the resource", resource=FILES),
    row("the resource twice", TARGET, resource=[FILES, FILES]),
    row("two resources", TARGET, resource=[FILES, ELSEWHERE]),
    row("the resource with a slash after it is another one, not registered", resource=FILES + "/"),
    row("an unregistered https resource", resource=ELSEWHERE),
    row("the resource in a second spelling", TARGET, resource="https://FILES.example/mcp"),
    row("an unregistered http resource", TARGET, resource="http://elsewhere.example/api"),
    row("a URN", TARGET, resource="urn:example:files"),
    row("a path", TARGET, resource="/mcp"),
    row("a fragment", TARGET, resource=ELSEWHERE + "#part"),
    row("an empty fragment", TARGET, resource=ELSEWHERE + "#"),
    row("user information", TARGET, resource="https://user@elsewhere.example/"),
    row("no host", TARGET, resource="https:///api"),
    row("white space", TARGET, resource="https://elsewhere.example/a b"),
    row("letters beyond ASCII", TARGET, resource="https://elsewhere.example/\u00e4"),
    row("as long as it may be", resource="https://elsewhere.example/".ljust(MAX_URI, "x")),
    row("longer", TARGET, resource="https://elsewhere.example/".ljust(MAX_URI + 1, "x")),
    row("an empty resource is none", resource=""),
    row("one scope", scope="files:read"),
    row("both scopes in whatever order", scope="files:write files:read"),
    row("a scope twice", scope="files:read files:read"),
    row("a scope that the agent does not have", SCOPE, scope="files:delete"),
    row("one that it has and one that it has not", SCOPE, scope="files:read files:delete"),
    row("a scope in capitals", SCOPE, scope="FILES:READ"),
    row("two spaces", SCOPE, scope="files:read  files:write"),
    row("a space before", SCOPE, scope=" files:read"),
    row("a tab", SCOPE, scope="files:read\tfiles:write"),
    row("a quote", SCOPE, scope='files:"read"'),
    row("an empty scope is none", scope=""),
    row("a scope of a resource at another one", TARGET, scope="files:read", resource=ELSEWHERE),
    row("a scope that the agent has at our own API", TARGET, scope="files:read", resource=API),
    row("our own API without a scope", resource=API),
    row("an unknown parameter is ignored", audience="x", nonsense="y"),
    row("an unknown parameter twice", REQUEST, nonsense=["y", "z"]),
    row("scope twice", REQUEST, scope=["files:read", "files:read"]),
    row("grant_type twice", REQUEST, grant_type=["client_credentials", "client_credentials"]),
    row("no grant_type", REQUEST, grant_type=None),
    row("another grant_type", "unsupported_grant_type", grant_type="password"),
    row("grant_type in capitals", "unsupported_grant_type", grant_type="CLIENT_CREDENTIALS"),
]


async def test_each_rule_of_resources_and_scopes_holds(client: Client) -> None:
    await check_table(TABLE, client.ask)


async def test_the_audience_is_exactly_the_resource_and_scopes_are_those_of_the_resource(client: Client) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, FILES, "files:read files:write"),
        ({"scope": "files:read"}, FILES, "files:read"),
        ({"resource": FILES}, FILES, "files:read files:write"),
        ({"resource": FILES, "scope": "files:write"}, FILES, "files:write"),
        ({"resource": ELSEWHERE}, ELSEWHERE, ""),
        ({"resource": API}, API, ""),
    ]
    for said, audience, scope in cases:
        got = await client.token(**said)
        claims = claims_of(got["access_token"])
        assert (claims["aud"], claims.get("scope", ""), got["scope"]) == (audience, scope, scope), said


async def test_an_agent_with_scopes_of_two_resources_must_name_one_resource(world: World) -> None:
    await register(world)
    agent, key = await register(world, name="both", scopes=("files:read", "ostiary:read", "crm:read"))
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.token(resource=FILES)
    assert "a token can be for only one resource" in (await client.ask()).json["error_description"]
    await check_table(
        [
            row("nothing said", TARGET),
            row("scopes of both", TARGET, scope="files:read ostiary:read"),
            row("scopes of one", scope="ostiary:read"),
            row("a scope of a resource that nobody registered", TARGET, scope="crm:read"),
            row("the same with the resource", scope="crm:read", resource="https://crm.example"),
        ],
        client.ask,
    )


async def test_an_agent_without_scopes_gets_a_token_for_a_resource_that_it_names(world: World) -> None:
    agent, key = await register(world, scopes=())
    client = Client(oauth_app(world), world, agent.agent_id, key)
    assert (await client.token(resource=FILES))["scope"] == ""
    assert (await client.ask()).error == TARGET


async def test_unregistered_resources_are_refused_where_the_configuration_requires_registration(client: Client) -> None:
    strict = replace(client, app=oauth_app(reconfigured(client.world, resources="registered")))
    assert (await strict.ask(resource=ELSEWHERE)).error == TARGET
    assert (await strict.ask(resource=FILES)).status == 200
