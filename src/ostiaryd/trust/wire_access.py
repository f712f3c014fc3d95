"""The gate of our own API: an access token in, a caller out (RFC 6750 section 3, RFC 9449 section 7, RFC 9728)."""

from __future__ import annotations

from ostiary.core.errors import Refused
from ostiaryd.ground.http import NO_STORE, Call
from ostiaryd.registry.model import SELF, Caller
from ostiaryd.trust import flows
from ostiaryd.trust.model import InsufficientScope, challenge


async def authenticate_access(call: Call, *, audience: str | None = None) -> Caller:
    """Who calls, by a token for `audience` (if it is not said: the admin API) and a DPoP proof, which is used up.

    Raises AccessRefused, InvalidProof, NonceNeeded, Unauthenticated, Malformed; whatever it is, the answer gets its
    `WWW-Authenticate` and, where a nonce is needed or ages, its `DPoP-Nonce`.
    """
    world = call.world
    resource = audience or world.config.api
    try:
        access = flows.verify_access(
            request_of(call), audience=resource, reader=world.db.read(), now=world.now(), keys=world.keys,
            config=world.config,
        )  # fmt: skip
        if access.proof is not None:
            await flows.spend_at_once(world, access.proof)
    except Refused as refusal:
        call.answer_headers += challenge(refusal, resource=resource)
        raise
    if access.next_nonce is not None:
        call.answer_headers += [(b"dpop-nonce", access.next_nonce.encode()), NO_STORE]
    return access.caller


def require_scope(call: Call, caller: Caller, scope: str) -> None:
    """Raises InsufficientScope, with the challenge that says which scope would do."""
    if scope not in ("", SELF) and scope not in caller.scopes:
        refusal = InsufficientScope(f"this needs the scope `{scope}`", hint="ask for a token that has it")
        call.answer_headers += challenge(refusal, resource=call.world.config.api, scope=scope)
        raise refusal


def request_of(call: Call) -> flows.Request:
    return flows.Request(call.method, call.uri, call.header(b"authorization"), call.header(b"dpop"))
