"""Stored backchannel requests (CIBA), which persons answer on another device."""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.tokens.model import Backchannel, Wish

_COLUMNS = (
    "request, approval, client, person, asked, digest, interval_s, polled_at, expires_at, answered_at, is_approved"
)
_GET = sql(f"select {_COLUMNS} from backchannel where request = :request")
_PUT = sql(
    """insert into backchannel (request, approval, client, person, asked, digest, interval_s, polled_at, expires_at,
         answered_at, is_approved)
       values (:request, :approval, :client, :person, :asked, :digest, :interval_s, 0, :expires_at, null, 0)
       on conflict (approval) do update set request = excluded.request, asked = excluded.asked,
         interval_s = excluded.interval_s, polled_at = 0, expires_at = excluded.expires_at"""
)
_SETTLE = sql("update backchannel set answered_at = :now, is_approved = :is_approved where approval = :approval")
_POLLED = sql("update backchannel set polled_at = :now, interval_s = interval_s + :more where request = :request")
_PRUNE = sql("delete from backchannel where expires_at < :before")
_decode = json_decoder(Wish)


def backchannel(reader: Reader, request: str) -> Backchannel | None:
    """Return a backchannel request by its digest; None if there is none."""
    row = reader.one(_GET, request=request)
    if row is None:
        return None
    request, approval, client, person, wish, digest, interval_s, polled_at, expires_at, answered_at, approved = row
    return Backchannel(
        request=request,
        approval=approval,
        client=client,
        person=person,
        wish=_decode(wish),
        digest=digest,
        interval_s=interval_s,
        polled_at=polled_at,
        expires_at=expires_at,
        answered_at=answered_at,
        is_approved=bool(approved),
    )


def put_backchannel(tx: Tx, one: Backchannel) -> None:
    """Store a backchannel request, and replace an earlier request about the same approval request."""
    tx.send(
        _PUT,
        request=one.request,
        approval=one.approval,
        client=one.client,
        person=one.person,
        asked=msgspec.json.encode(one.wish).decode(),
        digest=one.digest,
        interval_s=one.interval_s,
        expires_at=one.expires_at,
    )


def settle_backchannel(tx: Tx, approval: str, *, is_approved: bool) -> int:
    """Record the person's answer on all backchannel requests of an approval request; return their number."""
    return tx.run(_SETTLE, approval=approval, is_approved=int(is_approved), now=tx.now)


def note_poll(tx: Tx, request: str, *, more_s: int) -> None:
    """Record a poll now, and add `more_s` seconds to the minimum interval between two polls."""
    tx.send(_POLLED, request=request, more=more_s, now=tx.now)


def prune_backchannel(tx: Tx, *, before: int) -> int:
    """Delete backchannel requests that expired before `before` (microseconds); return their number."""
    return tx.run(_PRUNE, before=before)
