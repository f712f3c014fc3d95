"""The gate of our own API: an access token in, a caller out (RFC 6750 section 3, RFC 9449 section 7, RFC 9728)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ostiary.core.dpop import InvalidProof
from ostiary.core.errors import Refused
from ostiaryd.ground.admission import queue_proven
from ostiaryd.ground.http import NO_STORE, Call
from ostiaryd.ledger.flows import Act
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
    with _challenging(call, resource):
        access = flows.verify_access(
            request_of(call), audience=resource, reader=world.db.read(), now=world.now(), keys=world.keys,
            config=world.config,
        )  # fmt: skip
        caller = access.caller
        is_privileged = caller.may_read or caller.kind == "person"
        queue_proven(call, caller.id, is_privileged=is_privileged, is_guard=caller.kind == "guard")
        if access.proof is not None:
            await flows.spend_at_once(world, access.proof)
    return _welcome(call, access)


def check_access(call: Call) -> Caller:
    """Return the caller of the admin API without using up the proof. Raises what `authenticate_access` raises."""
    world = call.world
    with _challenging(call, world.config.api):
        access = flows.verify_access(
            request_of(call), audience=world.config.api, reader=world.db.read(), now=world.now(), keys=world.keys,
            config=world.config,
        )  # fmt: skip
    return access.caller


def authenticate_in_act(call: Call, act: Act) -> Caller:
    """The same within an act: one transaction, one fsync, for what is asked often."""
    config = call.world.config
    with _challenging(call, config.api):
        access = flows.verify_access(
            request_of(call), audience=config.api, reader=act.tx, now=act.now, keys=act.tx.keys, config=config
        )
        if access.proof is not None:
            flows.spend_proof(act.tx, access.proof)
    return _welcome(call, access)


@contextmanager
def _challenging(call: Call, resource: str) -> Iterator[None]:
    try:
        yield
    except Refused as refusal:
        call.answer_headers += challenge(refusal, resource=resource)
        raise


def _welcome(call: Call, access: flows.Access) -> Caller:
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
    """Raises Malformed, and InvalidProof for more than one proof (RFC 9449 section 4.3)."""
    unverified_proof = call.header(b"dpop", twice=InvalidProof)
    return flows.Request(call.method, call.uri, call.header(b"authorization"), unverified_proof)
