"""Join tokens, bearer exemptions and client secrets for administrators, and `/enrol` for workloads without a key."""

from __future__ import annotations

from typing import Any

import msgspec

from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger.flows import act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import flows
from ostiaryd.trust.flows.client_secrets import DEFAULT_LIFETIME_S
from ostiaryd.trust.model import SECOND


class NewJoinToken(msgspec.Struct, forbid_unknown_fields=True):
    ttl: int = flows.DEFAULT_LIFETIME_S


class SecretRequest(msgspec.Struct, forbid_unknown_fields=True):
    ttl: int = DEFAULT_LIFETIME_S
    """seconds"""


class Enrolment(msgspec.Struct, forbid_unknown_fields=True):
    """`proof`: a JWT of type `enrol+jwt` by the key, with `aud` (the issuer), `iat`, `exp`, and `jth`, the base64url
    SHA-256 of the join token.
    """

    join_token: str
    jwk: dict[str, Any]
    proof: str


async def create_join_token(call: Call) -> Reply:
    """A token that enrols the first key of a pending agent, once; it is shown here and never again."""
    ttl = call.json(NewJoinToken).ttl
    made = await act_as(
        call, "join.create", lambda act: flows.create_join_token(act, call.params["name"], lifetime_s=ttl)
    )
    body = {"join_token": made.secret, "agent_id": made.agent, "expires_at": made.expires_at // SECOND}
    return reply(body, status=201, headers=[NO_STORE])


async def enrol(call: Call) -> Reply:
    """Trade a join token and the proof of a key for an identity."""
    request = call.json(Enrolment)
    issuer = call.world.config.issuer
    key = await act(
        call.world,
        "agent.enrol",
        lambda act: flows.enrol(act, request.join_token, request.jwk, unverified_proof=request.proof, issuer=issuer),
        request=call.request_id,
        network=call.network,
    )
    return reply({"agent_id": key.agent, "issuer": issuer, "kid": key.jkt}, status=201, headers=[NO_STORE])


async def show_bearer(call: Call) -> Reply:
    """The resources for which this agent may have bearer tokens."""
    secrets = flows.exemptions(call.world.db.read(), call.params["name"])
    shown = [{"resource": one.resource, "uri": one.uri, "since": one.since // SECOND} for one in secrets]
    return reply({"bearer": shown})


async def allow_bearer(call: Call) -> Reply:
    """Let this agent have bearer tokens for this resource, and its guards accept them."""
    agent, resource = call.params["name"], call.params["resource"]
    await act_as(call, "bearer.allow", lambda act: flows.allow_bearer(act, agent, resource))
    return await show_bearer(call)


async def forbid_bearer(call: Call) -> Reply:
    """Bind this agent's tokens for this resource again; the bearer tokens that it holds end now."""
    agent, resource = call.params["name"], call.params["resource"]
    await act_as(call, "bearer.forbid", lambda act: flows.forbid_bearer(act, agent, resource))
    return await show_bearer(call)


async def create_secret(call: Call) -> Reply:
    """Make a client secret for this agent, for bearer tokens where it is exempt; it is shown once."""
    ttl = call.json(SecretRequest).ttl
    made = await act_as(
        call, "secret.create", lambda act: flows.create_secret(act, call.params["name"], lifetime_s=ttl)
    )
    body = {
        "secret_id": made.id,
        "client_id": made.agent,
        "client_secret": made.secret,
        "expires_at": made.expires_at // SECOND,
    }
    return reply(body, status=201, headers=[NO_STORE])


async def list_secrets(call: Call) -> Reply:
    """The client secrets of this agent, by their ids and ends."""
    exemptions = flows.secrets_of(call.world.db.read(), call.params["name"])
    shown = [
        {"secret_id": one.id, "created_at": one.created_at // SECOND, "expires_at": one.expires_at // SECOND}
        for one in exemptions
    ]
    return reply({"secrets": shown})


async def revoke_secret(call: Call) -> Reply:
    """Revoke a client secret; the bearer tokens of its agent end now."""
    agent, id = call.params["name"], call.params["id"]
    await act_as(call, "secret.revoke", lambda act: flows.revoke_secret(act, agent, id))
    return await list_secrets(call)


ROUTES = (
    Route("POST", "/enrol", enrol, "", body=Enrolment, grants=True),
    Route("POST", "/api/v1/agents/{name}/join-token", create_join_token, ADMIN, body=NewJoinToken),
    Route("POST", "/api/v1/agents/{name}/secrets", create_secret, ADMIN, body=SecretRequest),
    Route("GET", "/api/v1/agents/{name}/secrets", list_secrets, READ),
    Route("DELETE", "/api/v1/agents/{name}/secrets/{id}", revoke_secret, ADMIN, stops=True),
    Route("GET", "/api/v1/agents/{name}/bearer", show_bearer, READ),
    Route("PUT", "/api/v1/agents/{name}/bearer/{resource}", allow_bearer, ADMIN),
    Route("DELETE", "/api/v1/agents/{name}/bearer/{resource}", forbid_bearer, ADMIN, stops=True),
)
