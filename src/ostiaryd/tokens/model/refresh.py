"""Refresh tokens: one current token for each grant, rotated with each use (RFC 9700 section 4.14.2).

A refresh token is `rt_<grant>.<sequence>.<mac>`: the server recognises each token that it ever issued for a grant, so
the reuse of any of them is noticed, and an answer that was lost is given again instead of forking the grant.
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
"""microseconds after a rotation within which the token before is still accepted from the same key"""
_TOKEN = re.compile(r"rt_([0-9a-f]{32})\.([0-9]{1,10})\.([A-Za-z0-9_-]{43})")


class PersonGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The grant of a person to a client, which its refresh tokens stand for.

    `request` is the request as it was granted. `jkt` is the key that must refresh; empty for none. `sequence` numbers
    the current refresh token. A grant that `is_offline` survives the end of the session. Times in microseconds.
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
    """The parts of a refresh token of ours."""

    grant: str
    sequence: int


class Use(Enum):
    """The kind of a use of a refresh token: the first one, a repetition after a lost answer, or a reuse."""

    FIRST = "first"
    AGAIN = "again"
    REUSE = "reuse"


def make_refresh_token(secret: bytes, grant: str, sequence: int) -> str:
    """Return the refresh token of that number of a grant (`gr_...`)."""
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
    """Return the kind of the use of a token of that number. Only a client that proves a key may repeat a request."""
    if sequence == grant.sequence:
        return Use.FIRST
    if sequence == grant.sequence - 1 and jkt and now - grant.rotated_at <= GRACE:
        return Use.AGAIN
    return Use.REUSE


def _mac(secret: bytes, grant: str, sequence: int) -> str:
    return b64u(hmac.digest(secret, f"{grant}|{sequence}".encode(), sha256))
