"""Refresh tokens: one current token for each grant, rotated with each use (RFC 9700 section 4.14.2).

A refresh token is `rt_<grant>.<sequence>.<mac>`. The server recognises each token that it ever issued for a grant. It
therefore notices the reuse of any token, and can repeat a lost response instead of issuing a second current token.
"""

from __future__ import annotations

import hmac
import re
from enum import Enum
from hashlib import sha256
from typing import NamedTuple

import msgspec

from ostiary.protocol.jose import b64u
from ostiaryd.tokens.model.authorization import AuthorizationRequest
from ostiaryd.tokens.model.grants import SECOND

GRANT_KIND = "grant"
"""kind of the holding of a grant"""
GRACE = 30 * SECOND
"""time after a rotation in which the token before is still accepted with the same key, in microseconds"""
_TOKEN = re.compile(r"rt_([0-9a-f]{32})\.([0-9]{1,10})\.([A-Za-z0-9_-]{43})")


class PersonGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The grant of a person to a client, which its refresh tokens represent.

    `request` is the request as it was granted. `jkt` is the key that must refresh; empty for none. `sequence` is the
    number of the current refresh token. A grant that `is_offline` continues after the end of the session. Times are in
    microseconds.
    """

    grant_id: str
    consent: str
    client_id: str
    agent: str
    person: str
    session: str
    task: str
    request: AuthorizationRequest
    acr: str
    amr: tuple[str, ...]
    authenticated_at: int
    jkt: str
    is_offline: bool
    sequence: int
    rotated_at: int
    created_at: int
    expires_at: int


class RefreshToken(NamedTuple):
    """The parts of a refresh token of this server."""

    grant: str
    sequence: int


class Use(Enum):
    """The kind of a use of a refresh token: the first use, a repetition after a lost response, or a reuse."""

    FIRST = "first"
    AGAIN = "again"
    REUSE = "reuse"


def make_refresh_token(secret: bytes, grant: str, sequence: int) -> str:
    """Return the refresh token with that sequence number of a grant (`gr_...`)."""
    return f"rt_{grant.removeprefix('gr_')}.{sequence}.{_mac(secret, grant, sequence)}"


def read_refresh_token(secret: bytes, unverified_token: str) -> RefreshToken | None:
    """Return the parts of a genuine refresh token; None for any other text."""
    if (match := _TOKEN.fullmatch(unverified_token)) is None:
        return None
    grant, sequence = f"gr_{match[1]}", int(match[2])
    if str(sequence) != match[2] or not hmac.compare_digest(_mac(secret, grant, sequence), match[3]):
        return None
    return RefreshToken(grant, sequence)


def judge_use(grant: PersonGrant, sequence: int, *, jkt: str, now: int) -> Use:
    """Return the kind of a use of the token with that sequence number. Only a client that proves a key may
    repeat a request.
    """
    if sequence == grant.sequence:
        return Use.FIRST
    if sequence == grant.sequence - 1 and jkt and now - grant.rotated_at <= GRACE:
        return Use.AGAIN
    return Use.REUSE


def _mac(secret: bytes, grant: str, sequence: int) -> str:
    return b64u(hmac.digest(secret, f"{grant}|{sequence}".encode(), sha256))
