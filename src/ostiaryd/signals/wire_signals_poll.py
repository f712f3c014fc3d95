"""Polls of issuers for signals: RFC 8936 as a receiver. Polls run in parallel, so that no issuer delays another.

    POST ENDPOINT    {"maxEvents", "returnImmediately": false, "ack": [jti], "setErrs": {jti: {"err", "description"}}}

The next poll acknowledges applied signals. If the server stops before that poll, the signals arrive again, and the
server recognises them by their `jti`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed, Refused, Unavailable
from ostiaryd.ground.outbound.fetch import send_request
from ostiaryd.ground.process.running import RunningTasks
from ostiaryd.ground.world import World
from ostiaryd.signals import store
from ostiaryd.signals.flows import issuers
from ostiaryd.signals.model.issuers import Issuer
from ostiaryd.signals.model.sets import MAX_SET_BYTES, POLL, SetRefused
from ostiaryd.signals.wire_signals import COST, IssuerBuckets, accept_token

log = logging.getLogger("ostiary")
AT_ONCE = 50
ROUNDS = 4
"""maximum number of polls of one issuer in sequence while new signals arrive; then other issuers are polled"""
MAX_ANSWER = AT_ONCE * (MAX_SET_BYTES + 1024)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class PendingAcknowledgements:
    """The acknowledgements that this server sends to an issuer with the next poll."""

    acks: list[str] = field(default_factory=list)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)


class Pollers(RunningTasks):
    """The running polls, by issuer."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.owed: dict[str, PendingAcknowledgements] = {}


async def poll_due(world: World) -> None:
    """Start a poll of each issuer whose poll is due and not running. Returns before the polls end."""
    now = world.now()
    for issuer in await world.db.scan(store.issuers.issuers):
        if issuer.method == POLL and now >= issuer.due_at and now >= issuer.busy_until:
            world.get_singleton(Pollers).begin(issuer.issuer_id, partial(_poll, world, issuer))


async def _poll(world: World, issuer: Issuer) -> None:
    """Poll an issuer until a poll returns no new signal, at most `ROUNDS` times."""
    try:
        for _ in range(ROUNDS):
            if not await poll_once(world, issuer):
                break
    except Exception:
        log.exception("polling the issuer %s failed", issuer.issuer_id)


async def poll_once(world: World, issuer: Issuer) -> bool:
    """Fetch the waiting signals of an issuer and apply them; return whether a signal was new. False also if the poll
    failed, and if there was no poll: the issuer has reached its limit, the poll is not due, or another process has the
    claim.
    """
    # the signals stay at the issuer until the next poll
    if not world.get_singleton(IssuerBuckets).of(issuer.issuer_id).has(AT_ONCE * COST):
        return False
    claimed = await world.writer.submit(lambda tx: issuers.begin_poll(tx, issuer))
    if claimed is None:
        return False
    try:
        sets = await _fetch(world, claimed)
        has_news = await _accept_all(world, claimed, sets)
    except Refused as refusal:
        why = refusal.message
        await world.writer.submit(lambda tx: issuers.end_poll(tx, claimed, why=why))
        return False
    await world.writer.submit(lambda tx: issuers.end_poll(tx, claimed))
    return has_news


async def _fetch(world: World, issuer: Issuer) -> dict[str, str]:
    """Acknowledge the tokens of the last poll; return the next tokens by their `jti`. Raises Unavailable if the issuer
    cannot be reached, or its response is malformed.
    """
    pollers = world.get_singleton(Pollers)
    owed = pollers.owed.get(issuer.issuer_id, PendingAcknowledgements())
    body = {"maxEvents": AT_ONCE, "returnImmediately": False, "ack": owed.acks, "setErrs": owed.errors}
    headers = {"content-type": "application/json", "accept": "application/json", "content-language": "en"}
    if issuer.sealed is not None:
        headers["authorization"] = issuers.open_authorization(issuer, world.keys)
    answer = await send_request(
        "POST",
        issuer.endpoint,
        body=_encode(body),
        headers=headers,
        within_s=issuers.POLL_S,
        max_bytes=MAX_ANSWER,
        private=world.config.private,
    )
    if answer.status != 200:
        raise Unavailable(f"the issuer answers the poll with {answer.status} instead of 200")
    pollers.owed[issuer.issuer_id] = PendingAcknowledgements()
    try:
        content = canonical.parse(answer.body, max_bytes=MAX_ANSWER)
    except Malformed as error:
        raise Unavailable(f"the response of the issuer to the poll is not JSON: {error.message}") from None
    sets = content.get("sets") if isinstance(content, dict) else None
    if not isinstance(sets, dict) or not all(isinstance(token, str) for token in sets.values()) or len(sets) > AT_ONCE:
        raise Unavailable(f"`sets` in the response of the issuer is not an object with at most {AT_ONCE} tokens")
    return sets


async def _accept_all(world: World, issuer: Issuer, sets: dict[str, str]) -> bool:
    """Apply each token; return whether a token was new. If a token is refused, the others are applied all the same.
    Raises Unavailable if the server cannot verify tokens now.
    """
    has_news = False
    owed = world.get_singleton(Pollers).owed.setdefault(issuer.issuer_id, PendingAcknowledgements())
    for id, unverified_set in sets.items():
        try:
            has_news = await accept_token(world, issuer, unverified_set) or has_news
        except SetRefused as refusal:
            owed.errors[id] = {"err": refusal.code, "description": refusal.message}
        else:
            owed.acks.append(id)
    return has_news
