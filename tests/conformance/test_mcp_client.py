"""The OAuth client of the MCP SDK, made by others: it finds us from a protected server and gets its token.

It knows neither DPoP nor a type for its assertions, so an administrator has to make it an exception.
"""

from __future__ import annotations

import pytest
from httpx2 import ASGITransport, AsyncBaseTransport, AsyncClient, Request, Response
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider, SignedJWTParameters
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.trust import flows as trust
from tests.support.api_fixtures import FILES, ISSUER, SECOND, claims_of, guard, oauth_app, register
from tests.support.pem import pem

METADATA = "https://files.example/.well-known/oauth-protected-resource/mcp"


class Memory:
    """The storage that the SDK asks for."""

    def __init__(self) -> None:
        self.token: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.token

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.token = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("nobody registers here")


class Internet(AsyncBaseTransport):
    """Two servers: a protected resource that takes any bearer token, and ours."""

    def __init__(self, world: World) -> None:
        self._ours = ASGITransport(app=oauth_app(world))

    async def handle_async_request(self, request: Request) -> Response:
        if request.url.host != "files.example":
            return await self._ours.handle_async_request(request)
        if str(request.url) == METADATA:
            return Response(200, json={"resource": FILES, "authorization_servers": [ISSUER]}, request=request)
        if request.headers.get("authorization", "").startswith("Bearer "):
            return Response(200, json={"ok": True}, request=request)
        return Response(401, headers={"www-authenticate": f'Bearer resource_metadata="{METADATA}"'}, request=request)


@pytest.mark.parametrize("is_exempt", [False, True])
async def test_the_mcp_sdk_gets_a_token_only_where_its_client_is_exempt(world: World, is_exempt: bool) -> None:
    agent, key = await register(world)
    if is_exempt:
        await guard(world)
        await act(world, "bearer.allow", lambda act: trust.allow_bearer(act, agent.agent_id, "files"))
    now = world.now() // SECOND
    parameters = SignedJWTParameters(
        issuer=agent.agent_id,
        subject=agent.agent_id,
        signing_key=pem(key),
        signing_algorithm="ES256",
        additional_claims={"iat": now, "exp": now + 300},
    )
    memory = Memory()
    provider = PrivateKeyJWTOAuthProvider(
        FILES, memory, agent.agent_id, parameters.create_assertion_provider(), issuer=ISSUER
    )
    async with AsyncClient(transport=Internet(world), auth=provider) as http:
        if not is_exempt:
            with pytest.raises(Exception, match="invalid_dpop_proof"):
                await http.post(FILES)
            return
        answer = await http.post(FILES)
    assert answer.json() == {"ok": True}
    assert memory.token is not None
    claims = claims_of(memory.token.access_token)
    assert (claims["aud"], claims["client_id"]) == (FILES, agent.agent_id)
    assert memory.token.token_type == "Bearer"
