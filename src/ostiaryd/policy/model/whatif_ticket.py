"""The ticket of a what-if: its result with a MAC. A caller who puts the set sends the ticket, so that the server can
refuse a set that would change too many verdicts.

A ticket is for one caller and one set, and is valid for ten minutes. Its HMAC-SHA256 has a key that is used only for
tickets.
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
    """The result of a what-if, with which its caller can activate the set under a limit of changes. `policy`: the hash
    of the set; `first`, `stop`: the replayed ledger entries, without `stop`; `changed`: the number of changed verdicts;
    `not_known`: the number of decisions that could not be replayed; `made_at`: microseconds since the epoch.
    """

    policy: str
    first: int
    stop: int
    changed: int
    not_known: int
    made_at: int


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Ticket)


def ticket_key(secret: bytes) -> bytes:
    """Return the key for the MACs of tickets, derived from a secret of the server."""
    return hmac.digest(secret, b"ostiary what-if ticket", "sha256")


def seal_ticket(ticket: Ticket, *, key: bytes, caller: str) -> str:
    """Return the text of a ticket for `caller`, with its MAC."""
    body = _encode(ticket)
    return b64u(_tag(key, caller, body) + body)


def open_ticket(unverified_ticket: str, *, key: bytes, caller: str, now: int) -> Ticket:
    """Return the ticket in a text that this server issued to `caller` at most ten minutes before `now` (microseconds).
    Raises Invalid for any other text, and for an expired ticket.
    """
    hint = "run the what-if again"
    try:
        if len(unverified_ticket) > MAX_TICKET:
            raise ValueError
        sealed = unb64u(unverified_ticket)
        body = sealed[_TAG:]
        if not hmac.compare_digest(sealed[:_TAG], _tag(key, caller, body)):
            raise ValueError
        ticket = _decode(body)
    except (ValueError, Malformed, msgspec.DecodeError):
        raise Invalid(
            "the ticket of the what-if was not issued to this caller by this server", hint=hint, code="foreign_ticket"
        ) from None
    if not 0 <= now - ticket.made_at < LIFETIME:
        raise Invalid("the ticket of the what-if is more than ten minutes old", hint=hint, code="old_ticket")
    return ticket


def _tag(key: bytes, caller: str, body: bytes) -> bytes:
    return hmac.digest(key, caller.encode() + b"\0" + body, "sha256")
