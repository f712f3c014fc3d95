"""Access keys of agents for the API of AWS Secrets Manager, in the admin API."""

from __future__ import annotations

from functools import partial
from typing import TypedDict

import msgspec

from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import NOT_FOUND, EmptyBody, Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets.flows import access_keys
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.store.access_keys import AccessKey


class AccessKeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request for an access key: the networks from which the key is accepted, with spaces between, and its lifetime
    in seconds.
    """

    network: str
    ttl: int = access_keys.LONGEST_S


class AccessKeyBody(TypedDict):
    """An access key without its secret key. Times are seconds since the epoch."""

    access_key_id: str
    network: str
    created_at: int
    expires_at: int


class NewAccessKeyBody(AccessKeyBody):
    """A new access key with its secret key. Only this response contains the secret key."""

    secret_access_key: str
    region: str
    endpoint: str


class AccessKeysBody(TypedDict):
    """The access keys of an agent."""

    keys: list[AccessKeyBody]


async def create_access_key(call: Call) -> Reply:
    """Create an access key for the API of AWS Secrets Manager. Only this response contains the secret key."""
    body, config = call.json(AccessKeyRequest), call.world.config
    made = await act_as(
        call,
        "secret.create_access_key",
        lambda act: access_keys.create_access_key(
            act, call.params["name"], network=body.network, lifetime_s=body.ttl, config=config
        ),
    )
    shown: NewAccessKeyBody = {
        **_show_key(made.key),
        "secret_access_key": made.secret,
        "region": config.aws_region,
        "endpoint": f"{config.public_url}/aws",
    }
    return reply(shown, status=201, headers=[NO_STORE])


async def list_access_keys(call: Call) -> Reply:
    """List the access keys of an agent."""
    keys = access_keys.list_access_keys(call.world.db.read(), call.params["name"])
    return reply({"keys": [_show_key(one) for one in keys]})


async def revoke_access_key(call: Call) -> Reply:
    """Revoke an access key. The next request with the key is refused."""
    revoke = partial(access_keys.revoke_access_key, agent=call.params["name"], id=call.params["access_key_id"])
    await act_as(call, "secret.revoke_access_key", revoke)
    return reply({})


def _show_key(key: AccessKey) -> AccessKeyBody:
    return {
        "access_key_id": key.id,
        "network": key.network,
        "created_at": key.created_at // SECOND,
        "expires_at": key.expires_at // SECOND,
    }


ROUTES = (
    Route(
        "POST",
        "/api/v1/agents/{name}/access-keys",
        create_access_key,
        ADMIN,
        body=AccessKeyRequest,
        grants=True,
        answers={201: NewAccessKeyBody},
        errors=(NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/agents/{name}/access-keys",
        list_access_keys,
        READ,
        answers={200: AccessKeysBody},
        errors=(NOT_FOUND,),
    ),
    Route(
        "DELETE",
        "/api/v1/agents/{name}/access-keys/{access_key_id}",
        revoke_access_key,
        ADMIN,
        stops=True,
        answers={200: EmptyBody},
        errors=(NOT_FOUND,),
    ),
)
