"""The gate of our own API: an access token in, a caller out (RFC 6750 section 3, RFC 9449 section 7, RFC 9728)."""

from __future__ import annotations

from urllib.parse import urlsplit

from ostiary.core import dpop
from ostiary.core.errors import Forbidden, Refused, Unauthenticated
from ostiary.core.jose import ALGS
from ostiaryd.ground.http import NO_STORE, Call
from ostiaryd.registry.model import Caller
from ostiaryd.trust import flows
from ostiaryd.trust.model import AccessRefused, NonceNeeded

_ALGS = " ".join(sorted(ALGS))


class InsufficientScope(Forbidden):
    """RFC 6750 section 3.1."""

    code = "insufficient_scope"


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
        if (proof := access.proof) is not None:
            await world.writer.submit(lambda tx: flows.spend_access(tx, proof))
    except Refused as refusal:
        challenge(call, refusal, resource=resource)
        raise
    if access.next_nonce is not None:
        call.answer_headers += [(b"dpop-nonce", access.next_nonce.encode()), NO_STORE]
    return access.caller


def require_scope(call: Call, caller: Caller, scope: str) -> None:
    """Raises InsufficientScope, with the challenge that says which scope would do."""
    if scope and scope not in caller.scopes:
        refusal = InsufficientScope(f"this needs the scope `{scope}`", hint="ask for a token that has it")
        challenge(call, refusal, resource=call.world.config.api, scope=scope)
        raise refusal


def request_of(call: Call) -> flows.Request:
    return flows.Request(call.method, call.uri, call.header(b"authorization"), call.header(b"dpop"))


def challenge(call: Call, refusal: Refused, *, resource: str, scope: str = "") -> None:
    """Put on the answer what would have helped."""
    parts = [f'algs="{_ALGS}"', f'resource_metadata="{metadata_url(resource)}"']
    if isinstance(refusal, (AccessRefused, dpop.InvalidProof, dpop.UseNonce, InsufficientScope)):
        parts.insert(0, f'error="{refusal.code}"')
    if scope:
        parts.append(f'scope="{scope}"')
    if isinstance(refusal, NonceNeeded):
        call.answer_headers.append((b"dpop-nonce", refusal.nonce.encode()))
    if isinstance(refusal, (Unauthenticated, InsufficientScope)):
        call.answer_headers.append((b"www-authenticate", f"DPoP {', '.join(parts)}".encode()))


def metadata_url(resource: str) -> str:
    """Where a resource describes itself: the well-known path goes between host and path (RFC 9728 section 3.1)."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"
