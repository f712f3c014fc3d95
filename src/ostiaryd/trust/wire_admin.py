"""Join tokens and the bearer exemption for administrators, and `/enrol` for a workload that has no key yet."""

from __future__ import annotations

from typing import Any

import msgspec

from ostiaryd.ground.http import NO_STORE, Call, Reply, reply
from ostiaryd.ledger.flows import act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import flows
from ostiaryd.trust.model import SECOND


class NewJoinToken(msgspec.Struct, forbid_unknown_fields=True):
    ttl: int = flows.DEFAULT_LIFETIME_S


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
    asked = call.json(Enrolment)
    issuer = call.world.config.issuer
    key = await act(
        call.world,
        "agent.enrol",
        lambda act: flows.enrol(act, asked.join_token, asked.jwk, unverified_proof=asked.proof, issuer=issuer),
        request=call.request_id,
        network=call.network,
    )
    return reply({"agent_id": key.agent, "issuer": issuer, "kid": key.jkt}, status=201, headers=[NO_STORE])


async def show_bearer(call: Call) -> Reply:
    """The resources for which this agent may have bearer tokens."""
    found = flows.exemptions(call.world.db.read(), call.params["name"])
    shown = [{"resource": one.resource, "uri": one.uri, "since": one.since // SECOND} for one in found]
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


ROUTES = (
    ("POST", "/enrol", enrol, ""),
    ("POST", "/api/v1/agents/{name}/join-token", create_join_token, ADMIN),
    ("GET", "/api/v1/agents/{name}/bearer", show_bearer, READ),
    ("PUT", "/api/v1/agents/{name}/bearer/{resource}", allow_bearer, ADMIN),
    ("DELETE", "/api/v1/agents/{name}/bearer/{resource}", forbid_bearer, ADMIN),
)
