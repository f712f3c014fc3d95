"""Join tokens, bearer exemptions and client secrets for administrators; and `/enrol`, where a workload without a
registered key redeems a join token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, cast, get_args

import msgspec

from ostiary.protocol.errors import NotFound, Unauthenticated
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import CONFLICT, FORBIDDEN, NOT_FOUND, Route
from ostiaryd.ledger.flows import act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import flows
from ostiaryd.trust.flows.client_secrets import DEFAULT_LIFETIME_S, NewSecret
from ostiaryd.trust.model import SECOND, Secret


class NewJoinToken(msgspec.Struct, forbid_unknown_fields=True):
    """A request for a join token. `ttl`: its lifetime in seconds."""

    ttl: int = flows.DEFAULT_LIFETIME_S


class SecretRequest(msgspec.Struct, forbid_unknown_fields=True):
    ttl: int = DEFAULT_LIFETIME_S
    """Lifetime of the client secret, in seconds."""


class Enrolment(msgspec.Struct, forbid_unknown_fields=True):
    """A request to register the first key of an agent. `proof`: a JWT of type `enrol+jwt`, signed with the key,
    with `aud` (the issuer), `iat`, `exp`, and `jth`, the base64url SHA-256 of the join token.
    """

    join_token: str
    jwk: dict[str, Any]
    proof: str


class JoinTokenBody(TypedDict):
    """A join token; it is shown once."""

    join_token: str
    agent_id: str
    expires_at: int


class EnrolledBody(TypedDict):
    """The identity of an enrolled workload."""

    agent_id: str
    issuer: str
    kid: str


class BearerExemption(TypedDict):
    """A resource at which an agent may use tokens that are bound to no key."""

    resource: str
    uri: str
    since: int


class BearerBody(TypedDict):
    """The bearer exemptions of an agent."""

    bearer: list[BearerExemption]


class ClientSecretBody(TypedDict):
    """A client secret; it is shown once."""

    secret_id: str
    client_id: str
    client_secret: str
    expires_at: int


class ClientSecret(TypedDict):
    """A client secret without its value."""

    secret_id: str
    created_at: int
    expires_at: int


class ClientSecretsBody(TypedDict):
    """The client secrets of an agent or a resource."""

    secrets: list[ClientSecret]


async def create_join_token(call: Call) -> Reply:
    """Create a join token, with which a workload registers the first key of a pending agent.

    Only this response shows the token.
    """
    ttl = call.json(NewJoinToken).ttl
    made = await act_as(
        call, "join.create", lambda act: flows.create_join_token(act, call.params["name"], lifetime_s=ttl)
    )
    body: JoinTokenBody = {"join_token": made.secret, "agent_id": made.agent, "expires_at": made.expires_at // SECOND}
    return reply(body, status=201, headers=[NO_STORE])


async def enrol(call: Call) -> Reply:
    """Register the first key of an agent with a join token and a proof of the key, and return the agent's identity."""
    request = call.json(Enrolment)
    issuer = call.world.config.issuer
    key = await act(
        call.world,
        "agent.enrol",
        lambda act: flows.enrol(act, request.join_token, request.jwk, unverified_proof=request.proof, issuer=issuer),
        request=call.request_id,
        network=call.network,
    )
    body: EnrolledBody = {"agent_id": key.agent, "issuer": issuer, "kid": key.jkt}
    return reply(body, status=201, headers=[NO_STORE])


async def show_bearer(call: Call) -> Reply:
    """List the resources at which an agent may use bearer tokens."""
    exemptions = flows.exemptions(call.world.db.read(), call.params["name"])
    shown: list[BearerExemption] = [
        {"resource": one.resource, "uri": one.uri, "since": one.since // SECOND} for one in exemptions
    ]
    return reply({"bearer": shown})


async def allow_bearer(call: Call) -> Reply:
    """Allow an agent to use bearer tokens at a resource; the guards of the resource then accept these tokens."""
    agent, resource = call.params["name"], call.params["resource"]
    await act_as(call, "bearer.allow", lambda act: flows.allow_bearer(act, agent, resource))
    return await show_bearer(call)


async def forbid_bearer(call: Call) -> Reply:
    """Forbid an agent to use bearer tokens at a resource, and revoke its bearer tokens for the resource."""
    agent, resource = call.params["name"], call.params["resource"]
    await act_as(call, "bearer.forbid", lambda act: flows.forbid_bearer(act, agent, resource))
    return await show_bearer(call)


async def create_secret(call: Call) -> Reply:
    """Create a client secret for an agent.

    Only this response shows the secret. For itself, an agent gets with a secret only bearer tokens, at resources where
    the agent has a bearer exemption.
    """
    ttl = call.json(SecretRequest).ttl
    made = await act_as(
        call, "secret.create", lambda act: flows.create_secret(act, call.params["name"], lifetime_s=ttl)
    )
    return _answer_secret(made)


def _answer_secret(made: NewSecret) -> Reply:
    body: ClientSecretBody = {
        "secret_id": made.id,
        "client_id": made.holder,
        "client_secret": made.secret,
        "expires_at": made.expires_at // SECOND,
    }
    return reply(body, status=201, headers=[NO_STORE])


async def list_secrets(call: Call) -> Reply:
    """List the client secrets of an agent by id and expiry."""
    return _list_secrets(flows.secrets_of(call.world.db.read(), call.params["name"]))


def _list_secrets(secrets: Sequence[Secret]) -> Reply:
    shown: list[ClientSecret] = [
        {"secret_id": one.id, "created_at": one.created_at // SECOND, "expires_at": one.expires_at // SECOND}
        for one in secrets
    ]
    return reply({"secrets": shown})


async def create_resource_secret(call: Call) -> Reply:
    """Create a client secret with which a resource, such as one without a guard, introspects the tokens that it gets.

    Only this response shows the secret.
    """
    ttl = call.json(SecretRequest).ttl
    made = await act_as(
        call, "secret.create", lambda act: flows.create_resource_secret(act, call.params["name"], lifetime_s=ttl)
    )
    return _answer_secret(made)


async def list_resource_secrets(call: Call) -> Reply:
    """List the client secrets of a resource by id and expiry."""
    return _list_secrets(flows.secrets_of_resource(call.world.db.read(), call.params["name"]))


async def revoke_resource_secret(call: Call) -> Reply:
    """Revoke a client secret of a resource."""
    resource, id = call.params["name"], call.params["id"]
    await act_as(call, "secret.revoke", lambda act: flows.revoke_resource_secret(act, resource, id))
    return await list_resource_secrets(call)


async def revoke_secret(call: Call) -> Reply:
    """Revoke a client secret, all bearer tokens of its agent, and the tokens that the agent got with a secret."""
    agent, id = call.params["name"], call.params["id"]
    await act_as(call, "secret.revoke", lambda act: flows.revoke_secret(act, agent, id))
    return await list_secrets(call)


class BearerClassesBody(TypedDict):
    """Classes of registration whose clients may use bearer tokens at a resource."""

    bearer: list[flows.BearerClass]


def _class_of(call: Call) -> flows.BearerClass:
    """Return the class of registration in the path. Raises NotFound for an unknown class."""
    for name in get_args(flows.BearerClass):
        if call.params["registration"] == name:
            return cast(flows.BearerClass, name)
    raise NotFound("class of registration not found", hint="use document or dynamic")


async def show_bearer_classes(call: Call) -> Reply:
    """List the classes of registration whose clients may use bearer tokens at a resource."""
    return reply({"bearer": flows.exempt_classes(call.world.db.read(), call.params["name"])})


async def allow_bearer_class(call: Call) -> Reply:
    """Allow all clients of a class of registration to use bearer tokens at a resource.

    `document` are clients with a metadata document, `dynamic` are clients that registered at `/register`.
    """
    resource, registration = call.params["name"], _class_of(call)
    await act_as(call, "bearer.allow", lambda act: flows.allow_bearer_class(act, resource, registration))
    return await show_bearer_classes(call)


async def forbid_bearer_class(call: Call) -> Reply:
    """Forbid a class of registration to use bearer tokens at a resource, and revoke the bearer tokens there.

    The bearer tokens of agents with their own exemption at the resource stay valid.
    """
    resource, registration = call.params["name"], _class_of(call)
    await act_as(call, "bearer.forbid", lambda act: flows.forbid_bearer_class(act, resource, registration))
    return await show_bearer_classes(call)


ROUTES = (
    Route("GET", "/api/v1/resources/{name}/bearer", show_bearer_classes, READ, answers={200: BearerClassesBody}),
    Route(
        "PUT",
        "/api/v1/resources/{name}/bearer/{registration}",
        allow_bearer_class,
        ADMIN,
        answers={200: BearerClassesBody},
    ),
    Route(
        "DELETE",
        "/api/v1/resources/{name}/bearer/{registration}",
        forbid_bearer_class,
        ADMIN,
        stops=True,
        answers={200: BearerClassesBody},
    ),
    Route(
        "POST",
        "/enrol",
        enrol,
        "",
        errors=(Unauthenticated("the join token is not valid"), FORBIDDEN, NOT_FOUND, CONFLICT),
        body=Enrolment,
        grants=True,
        answers={201: EnrolledBody},
    ),
    Route(
        "POST",
        "/api/v1/agents/{name}/join-token",
        create_join_token,
        ADMIN,
        body=NewJoinToken,
        answers={201: JoinTokenBody},
    ),
    Route(
        "POST",
        "/api/v1/agents/{name}/secrets",
        create_secret,
        ADMIN,
        body=SecretRequest,
        answers={201: ClientSecretBody},
    ),
    Route("GET", "/api/v1/agents/{name}/secrets", list_secrets, READ, answers={200: ClientSecretsBody}),
    Route(
        "DELETE",
        "/api/v1/agents/{name}/secrets/{id}",
        revoke_secret,
        ADMIN,
        stops=True,
        answers={200: ClientSecretsBody},
    ),
    Route(
        "POST",
        "/api/v1/resources/{name}/secrets",
        create_resource_secret,
        ADMIN,
        body=SecretRequest,
        answers={201: ClientSecretBody},
    ),
    Route("GET", "/api/v1/resources/{name}/secrets", list_resource_secrets, READ, answers={200: ClientSecretsBody}),
    Route(
        "DELETE",
        "/api/v1/resources/{name}/secrets/{id}",
        revoke_resource_secret,
        ADMIN,
        stops=True,
        answers={200: ClientSecretsBody},
    ),
    Route("GET", "/api/v1/agents/{name}/bearer", show_bearer, READ, answers={200: BearerBody}),
    Route("PUT", "/api/v1/agents/{name}/bearer/{resource}", allow_bearer, ADMIN, answers={200: BearerBody}),
    Route(
        "DELETE", "/api/v1/agents/{name}/bearer/{resource}", forbid_bearer, ADMIN, stops=True, answers={200: BearerBody}
    ),
)
