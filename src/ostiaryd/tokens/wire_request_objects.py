"""The parameters of an authorization request, as they were sent or in a signed request object (RFC 9101)."""

from __future__ import annotations

from collections.abc import Mapping

from ostiary.protocol.jose import InvalidToken, parse_jws
from ostiaryd.ground.http.edge import Call
from ostiaryd.tokens.model import MAX_VALUE, InvalidRequest
from ostiaryd.tokens.model.authorization import RequestNotSupported
from ostiaryd.tokens.model.request_objects import InvalidRequestObject, RequestKeys, read_request_object
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.clients import OAuthClient

Parameters = Mapping[str, list[str]]


def read_one(parameters: Parameters, name: str) -> str:
    """Return the only value of a parameter; empty if there is none, or more than one."""
    values = parameters.get(name, [])
    return values[0] if len(values) == 1 else ""


async def open_request(call: Call, client: OAuthClient, parameters: Parameters) -> Parameters:
    """Return the parameters of an authorization request: those in its signed request object, if it has one, and only
    those (RFC 9101 section 5). Raises InvalidRequest if the client must sign and did not, InvalidRequestObject for an
    invalid object, RequestNotSupported for an object without a signature or of a client without keys, InvalidClient or
    Unavailable if the keys of the client cannot be read.
    """
    unverified = read_one(parameters, "request")
    if not unverified:
        if client.metadata.require_signed_request_object:
            raise InvalidRequest("this client must sign its authorization requests", hint="send `request` (RFC 9101)")
        return parameters
    if read_one(parameters, "request_uri"):
        raise InvalidRequest("`request` and `request_uri` cannot be used together")
    world = call.world
    try:
        unverified_jws = parse_jws(unverified, max_bytes=MAX_VALUE)
    except InvalidToken as error:
        raise InvalidRequestObject(f"`request`: {error.message}", hint="send a signed JWT") from None
    if unverified_jws.header["alg"] == "none":
        hint = "sign the request object with a registered key, or leave `request` out"
        raise RequestNotSupported("a request object without a signature is not supported", hint=hint)
    keys = await trust.find_request_keys(world, client, unverified_jws, network=call.network)
    if not keys:
        hint = "register `jwks`, or send the parameters without `request`"
        raise RequestNotSupported("`request` is not supported for a client without keys", hint=hint)
    return read_request_object(
        unverified,
        client_id=client.client_id,
        keys=RequestKeys(keys, client.metadata.request_object_signing_alg),
        issuer=world.config.issuer,
        now=world.now(),
    )
