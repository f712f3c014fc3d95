"""Signals from other systems: RFC 8935 as a receiver; tokens are verified with the keys that their issuers publish.

    POST /api/v1/signals/{issuer}    Content-Type: application/secevent+jwt    Authorization: the secret    the token
    202, empty; or 400 {"err", "description"}

A transmitter shows the secret of its stream before anything is parsed. A repeated token gets the same answer as a new
one. Keys come from the issuer's `jwks_uri` only, are fetched again each hour, and for an unknown `kid` at most once a
minute.

Each issuer has a limit of its own, in memory: SETS at once, a hundredth of that in a second; a token that concerns many
agents counts for more. A token above the limit gets 429, which transmitters retry, and leaves no entry. An issuer that
continues leaves an entry, which is reported to people. A push without the secret is refused, and counts as a refusal of
an unauthenticated caller (`ledger/model/sampling.py`).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import TypedDict

from ostiary.protocol.errors import NotFound, Refused
from ostiaryd.ground.http.buckets import Buckets, TooMuch
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply, status_of
from ostiaryd.ground.http.routes import Content, Route, RouteProtocol
from ostiaryd.ground.outbound.jwks import FRESH, SOON, KeySets
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.signals.flows import hearing
from ostiaryd.signals.model.issuers import Issuer
from ostiaryd.signals.model.sets import MEDIA_TYPE, SecurityEvent, SetRefused, parse_set
from ostiaryd.signals.store import issuers as store

SETS = 2000
"""tokens that an issuer may push at once"""
COST = 5
"""cost of a token; each agent that it concerns costs 1 more"""


class DeliveryError(TypedDict):
    """A refusal of a security event token (RFC 8935 section 2.3)."""

    err: str
    description: str


class IssuerBuckets(Buckets):
    """The allowances of issuers for tokens."""

    burst, per_second = SETS * COST, SETS * COST // 100


class IssuerKeys:
    """The key sets of trusted issuers in this world."""

    def __init__(self, _: World) -> None:
        self.sets = KeySets()


async def verified(world: World, issuer: Issuer, unverified_set: str) -> SecurityEvent:
    """Return the content of a token, verified with a key of its issuer. Raises SetRefused, Unavailable."""
    key_sets = world.keep(IssuerKeys).sets

    async def parse(within: int) -> SecurityEvent:
        private = world.config.private
        key_set = await key_sets.get(issuer.issuer_id, issuer.jwks_uri, now=world.now(), within=within, private=private)
        return parse_set(
            unverified_set, issuer=issuer.issuer, audience=issuer.audience, key_for=key_set.key_for, now=world.now()
        )

    try:
        return await parse(FRESH)
    except SetRefused as refusal:
        if refusal.code != "invalid_key":
            raise
    return await parse(SOON)


async def take(world: World, issuer: Issuer, unverified_set: str, *, request_id: str | None = None) -> bool:
    """Act on a token, and record it. Return False for a repeated token, which has no effect.

    Raises SetRefused, Unavailable, TooMuch.
    """
    flow: Callable[[Act], int]
    bucket = world.keep(IssuerBuckets).of(issuer.issuer_id)
    if not bucket.has(COST):
        if bucket.refuse():
            await act(world, "signal.flood", partial(hearing.flood, issuer=issuer, refused=bucket.refused))
        after_s = bucket.after_s(COST)
        raise TooMuch("the issuer sends more tokens than the server accepts", after_s=after_s, hint="try again later")
    bucket.take(COST)
    try:
        event = await verified(world, issuer, unverified_set)
    except SetRefused as refusal:
        flow = partial(hearing.refuse, issuer=issuer, refusal=refusal)
    else:
        if hearing.is_known(world.db.read(), issuer, event):
            return False
        flow = partial(hearing.hear, id=issuer.issuer_id, event=event, config=world.config)
    bucket.take(await act(world, "signal.receive", flow, request=request_id))
    return True


async def receive(call: Call) -> Reply:
    """Receive a signal from a trusted issuer (RFC 8935)."""
    issuer = store.get(call.world.db.read(), call.params["id"])
    if issuer is None or issuer.secret_digest is None:
        raise NotFound("issuer not found")
    shown = sha256((call.header(b"authorization") or "").encode()).digest()
    if not hmac.compare_digest(shown, issuer.secret_digest):
        await _refuse_stranger(call, issuer)
    call.expect(MEDIA_TYPE)
    await take(call.world, issuer, call.body.decode("latin-1"), request_id=call.request_id)
    return Reply(202, headers=[NO_STORE])


async def _refuse_stranger(call: Call, issuer: Issuer) -> None:
    """Record and refuse a signal of a sender without the secret of the stream. Raises SetRefused."""
    why = SetRefused("the transmitter did not send the secret of its stream", code="authentication_failed")
    flow = partial(hearing.refuse, issuer=issuer, refusal=why)
    await act(call.world, "signal.receive", flow, request=call.request_id, network=call.network)


def render(refusal: Refused) -> Reply:
    """RFC 8935 section 2.3: 400 and a code, for any defect of a token; another status for errors that are not the
    token's.
    """
    if isinstance(refusal, TooMuch):  # no error of a token, and so without a code that says to leave it
        return Reply(429, headers=[NO_STORE, (b"retry-after", str(refusal.after_s).encode())])
    code = refusal.code if isinstance(refusal, SetRefused) else "invalid_request"
    status = 400 if status_of(refusal) in (400, 413, 415, 422) else status_of(refusal)
    headers = [NO_STORE, (b"content-language", b"en")]
    return reply({"err": code, "description": refusal.message}, status=status, headers=headers)


SIGNALS = RouteProtocol("Security event delivery", render, DeliveryError)

ROUTES = (
    Route(
        "POST",
        "/api/v1/signals/{id}",
        receive,
        "",
        errors=(
            TooMuch("the issuer sends more than is accepted", hint="try again later"),
            SetRefused("the transmitter did not show its secret", code="authentication_failed"),
        ),
        stops=True,
        protocol=SIGNALS,
        body=Content(str, ("application/secevent+jwt",), example="eyJhbGciOiJFUzI1NiJ9.e30.c2ln"),
        answers={202: None},
    ),
)
