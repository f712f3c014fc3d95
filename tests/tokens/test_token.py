"""A token from the first request to the claims, over the real forms and a real database."""

from __future__ import annotations

from ostiaryd.ground.world import World
from tests.support.api_fixtures import FILES, ISSUER, Client, claims_of, oauth_app, register


async def test_an_agent_gets_a_token_bound_to_its_key_for_the_resource_of_its_scopes(world: World) -> None:
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    first = await client.ask()
    assert (first.status, first.error) == (400, "use_dpop_nonce")
    got = await client.token()
    claims = claims_of(got["access_token"])
    assert (got["token_type"], got["expires_in"], got["scope"]) == ("DPoP", 300, "files:read files:write")
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, FILES, agent.agent_id)
    assert claims["cnf"] == {"jkt": key.public.thumbprint}
