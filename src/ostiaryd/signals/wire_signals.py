"""Signals from other systems: RFC 8935 as a receiver; tokens are verified with the keys that their issuers publish.

    POST /api/v1/signals/{issuer}    Content-Type: application/secevent+jwt    Authorization: the secret    the token
    202, empty; or 400 {"err", "description"}

The server checks the secret of the transmitter's stream before it parses the token. A repeated token gets the same
response as a new token. Keys come only from the issuer's `jwks_uri`. The server fetches the keys again each hour, and
also when a token has an unknown `kid`, at most once a minute.

Each issuer has a limit of its own, in memory: `SETS` tokens at once, and a hundredth of this number per second. A token
that concerns many agents counts as several tokens. A token above the limit gets 429, so that the transmitter retries,
and writes no entry. If the issuer continues, one entry is written, and people get an alert. A push without the secret
is refused, and counts as a refusal of an unauthenticated caller (`ledger/model/sampling.py`).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import TypedDict

from ostiary.protocol.errors import NotFound, Refused
from ostiaryd.ground.http.buckets import Buckets, TooMuch
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply, retry_headers, status_of
from ostiaryd.ground.http.routes import Content, Route, RouteProtocol
from ostiaryd.ground.outbound.jwks import FRESH, SOON, KeySets
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.signals import store
from ostiaryd.signals.flows import reception
from ostiaryd.signals.model.issuers import Issuer
from ostiaryd.signals.model.sets import MEDIA_TYPE, SecurityEvent, SetRefused, parse_set

SETS = 2000
"""number of tokens that an issuer may push at once"""
COST = 5
"""units of the issuer's limit (`SETS` times `COST` at once) that a token takes; each agent that the token changes takes
1 more unit
"""


class DeliveryError(TypedDict):
    """A refusal of a security event token (RFC 8935 section 2.3)."""

    err: str
    description: str


class IssuerBuckets(Buckets):
    """The limits on the rate at which each trusted issuer may deliver security event tokens, by the issuer's id."""

    burst, per_second = SETS * COST, SETS * COST // 100


class IssuerKeys:
    """The key sets of trusted issuers, cached in this server process."""

    def __init__(self, _: World) -> None:
        self.sets = KeySets()


async def verify_token(world: World, issuer: Issuer, unverified_set: str) -> SecurityEvent:
    """Return the content of a security event token, verified with a key of its issuer. Raises SetRefused for a token
    that is not valid, Unavailable if the issuer's keys cannot be fetched.
    """
    key_sets = world.get_singleton(IssuerKeys).sets

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


async def accept_token(world: World, issuer: Issuer, unverified_set: str, *, request_id: str | None = None) -> bool:
    """Verify a security event token, apply its event, and write a ledger entry. Return false if the token was received
    before: its event is not applied again, and no entry is written.

    Raises SetRefused for a token that is not valid, Unavailable if the issuer's keys cannot be fetched, and TooMuch
    above the limit of the issuer.
    """
    flow: Callable[[Act], int]
    bucket = world.get_singleton(IssuerBuckets).of(issuer.issuer_id)
    if not bucket.has(COST):
        if bucket.refuse():
            await act(world, "signal.flood", partial(reception.record_flood, issuer=issuer, refused=bucket.refused))
        after_s = bucket.after_s(COST)
        raise TooMuch("the issuer sends more tokens than the server accepts", after_s=after_s, hint="try again later")
    bucket.take(COST)
    try:
        event = await verify_token(world, issuer, unverified_set)
    except SetRefused as refusal:
        flow = partial(reception.refuse_signal, issuer=issuer, refusal=refusal)
    else:
        if reception.was_received(world.db.read(), issuer, event):
            return False
        flow = partial(reception.apply_event, id=issuer.issuer_id, event=event, config=world.config)
    bucket.take(await act(world, "signal.receive", flow, request=request_id))
    return True


async def receive(call: Call) -> Reply:
    """Receive a signal from a trusted issuer (RFC 8935)."""
    issuer = store.issuers.get(call.world.db.read(), call.params["id"])
    if issuer is None or issuer.secret_digest is None:
        raise NotFound("no trusted issuer with this id delivers by push")
    shown = sha256((call.header(b"authorization") or "").encode()).digest()
    if not hmac.compare_digest(shown, issuer.secret_digest):
        await _refuse_stranger(call, issuer)
    call.expect(MEDIA_TYPE)
    await accept_token(call.world, issuer, call.body.decode("latin-1"), request_id=call.request_id)
    return Reply(202, headers=[NO_STORE])


async def _refuse_stranger(call: Call, issuer: Issuer) -> None:
    """Record that a sender without the secret of the stream was refused. Always raises SetRefused."""
    why = SetRefused("the transmitter did not send the secret of its stream", code="authentication_failed")
    flow = partial(reception.refuse_signal, issuer=issuer, refusal=why)
    await act(call.world, "signal.receive", flow, request=call.request_id, network=call.network)


def render(refusal: Refused) -> Reply:
    """Return the response to a refusal: 400 with a code for a defect of the token (RFC 8935 section 2.3), another
    status for other errors.
    """
    if isinstance(refusal, TooMuch):  # not a defect of the token: without an error code, the transmitter retries
        return Reply(status_of(refusal), headers=[NO_STORE, *retry_headers(refusal)])
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
            TooMuch("the issuer sends more tokens than the server accepts", hint="try again later"),
            SetRefused("the transmitter did not send the secret of its stream", code="authentication_failed"),
        ),
        stops=True,
        protocol=SIGNALS,
        body=Content(str, ("application/secevent+jwt",), example="eyJhbGciOiJFUzI1NiJ9.e30.c2ln"),
        answers={202: None},
    ),
)
