"""RFC 8414 sections 2 and 3, OpenID Connect Discovery 1.0 sections 3 and 4, RFC 9728 sections 2 and 3, RFC 7517."""

from __future__ import annotations

import pytest

from ostiary.core import jose
from ostiaryd.ground.world import World
from ostiaryd.tokens.wire_metadata import openid_metadata, resource_metadata, server_metadata
from tests.tokens.party import ISSUER, Client, enter, oauth_app, reconfigured, send

AS, OPENID, RS = (
    f"/.well-known/{name}"
    for name in ("oauth-authorization-server", "openid-configuration", "oauth-protected-resource")
)


async def test_the_issuer_is_to_the_letter_the_one_of_the_url(world: World) -> None:
    for path in (AS, OPENID):
        answer = await send(oauth_app(world), "GET", path)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json["issuer"] == ISSUER


async def test_the_server_says_what_it_can_and_nothing_empty_but_what_must_be_there(world: World) -> None:
    said = (await send(oauth_app(world), "GET", AS)).json
    assert said["token_endpoint"] == ISSUER + "/token"
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    assert said["grant_types_supported"] == ["client_credentials", exchange, "urn:openid:params:grant-type:ciba"]
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert said["authorization_details_types_supported"] == ["tool"]
    assert said["dpop_signing_alg_values_supported"] == sorted(jose.ALGS)
    for endpoint in ("token", "introspection", "revocation"):
        assert said[f"{endpoint}_endpoint_auth_methods_supported"] == ["private_key_jwt"]
        algs = said[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert algs == sorted(jose.ALGS)
        assert not {"none", "HS256"} & set(algs)
    assert "scopes_supported" not in said, "clients that know no better ask for all of them"
    assert [name for name, value in said.items() if value in ([], "", {}, None)] == ["response_types_supported"]


async def test_every_endpoint_that_is_named_is_there(world: World) -> None:
    app = oauth_app(world)
    said = (await send(app, "GET", OPENID)).json
    for name, url in said.items():
        if name.endswith("_endpoint"):
            assert (await send(app, "POST", url.removeprefix(ISSUER))).status in (400, 415), name
    assert (await send(app, "GET", said["jwks_uri"].removeprefix(ISSUER))).status == 200


async def test_the_authorization_endpoint_is_there_for_readers_that_demand_one_and_refuses(world: World) -> None:
    answer = await send(oauth_app(world), "GET", "/authorize?response_type=code&client_id=x")
    assert (answer.status, answer.error) == (400, "unsupported_response_type")


async def test_our_own_api_describes_itself_with_its_path_after_the_well_known_one(world: World) -> None:
    app = oauth_app(world)
    answer = await send(app, "GET", RS + "/api/v1")
    assert answer.json == (await send(app, "GET", RS)).json == resource_metadata(world.config)
    assert answer.json["resource"] == ISSUER + "/api/v1"
    assert answer.json["authorization_servers"] == [ISSUER]
    assert answer.json["dpop_bound_access_tokens_required"] is True
    assert answer.json["resource"] in server_metadata(world.config)["protected_resources"]


@pytest.mark.parametrize("path", [AS + "/other", OPENID + "/other", RS + "/api", RS + "/api/v1/", RS + "/api/v2"])
async def test_whom_we_are_not_we_do_not_describe(world: World, path: str) -> None:
    assert (await send(oauth_app(world), "GET", path)).status == 404


async def test_an_issuer_with_a_path_has_it_after_the_well_known_one(world: World) -> None:
    elsewhere = reconfigured(world, public_url=ISSUER + "/id")
    app, config = oauth_app(elsewhere), elsewhere.config
    assert (await send(app, "GET", AS + "/id")).json == server_metadata(config)
    assert (await send(app, "GET", OPENID + "/id")).json == openid_metadata(config)
    assert (await send(app, "GET", RS + "/id/api/v1")).json["resource"] == ISSUER + "/id/api/v1"


async def test_the_keys_are_public_have_one_algorithm_each_and_verify_a_token(world: World) -> None:
    agent, key = await enter(world)
    app = oauth_app(world)
    keys = jose.JwkSet.parse((await send(app, "GET", "/jwks")).json)
    assert sorted(key.alg for key in keys.keys) == ["ES256", "EdDSA", "RS256"]
    token = (await Client(app, world, agent.agent_id, key).token())["access_token"]
    claims = jose.verify_jwt(token, key_for=keys.key_for, typ={"at+jwt"}, now=world.now(), issuer=ISSUER)
    assert claims["client_id"] == agent.agent_id
