"""The ticket of a what-if: its sealed result. A caller who puts the set sends the ticket, which proves the result to
the gate.

A ticket is for one caller and one set, and is valid for ten minutes. It has an HMAC-SHA256 with a key for tickets only.
"""

from __future__ import annotations

import hmac

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u

LIFETIME = 600_000_000
MAX_TICKET = 1024
_TAG = 32


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """The counts of a what-if over the entries from `first` to below `stop`: changed verdicts, and unknown ones."""

    policy: str
    first: int
    stop: int
    changed: int
    not_known: int
    made_at: int


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Ticket)


def ticket_key(secret: bytes) -> bytes:
    """Return a key for tickets only, derived from a secret of the server."""
    return hmac.digest(secret, b"ostiary what-if ticket", "sha256")


def seal_ticket(ticket: Ticket, *, key: bytes, caller: str) -> str:
    """Return the ticket as text, bound to its caller by the key."""
    body = _encode(ticket)
    return b64u(_tag(key, caller, body) + body)


def open_ticket(unverified_ticket: str, *, key: bytes, caller: str, now: int) -> Ticket:
    """Open a ticket that this server issued to this caller. Raises Invalid, also for an expired ticket."""
    hint = "ask again what would change"
    try:
        if len(unverified_ticket) > MAX_TICKET:
            raise ValueError
        sealed = unb64u(unverified_ticket)
        body = sealed[_TAG:]
        if not hmac.compare_digest(sealed[:_TAG], _tag(key, caller, body)):
            raise ValueError
        ticket = _decode(body)
    except (ValueError, Malformed, msgspec.DecodeError):
        raise Invalid("the ticket was not issued to this caller", hint=hint, code="foreign_ticket") from None
    if not 0 <= now - ticket.made_at < LIFETIME:
        raise Invalid("the ticket is more than ten minutes old", hint=hint, code="old_ticket")
    return ticket


def _tag(key: bytes, caller: str, body: bytes) -> bytes:
    return hmac.digest(key, caller.encode() + b"\0" + body, "sha256")
