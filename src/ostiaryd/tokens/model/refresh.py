"""Refresh tokens: one current token for each grant, rotated with each use (RFC 9700 section 4.14.2).

A refresh token is `rt_<grant>.<sequence>.<mac>`. Because the sequence number is authenticated, the server recognises
every earlier token of a grant without storing it: it notices each reuse, and can repeat a response that the client
lost.
"""

from __future__ import annotations

import hmac
import re
from enum import Enum
from typing import NamedTuple

import msgspec

from ostiary.protocol.jose import b64u
from ostiaryd.ground.crypto.keyed_hash import KeyedHash
from ostiaryd.tokens.model.authorization import AuthorizationRequest
from ostiaryd.tokens.model.grants import SECOND

GRANT_KIND = "grant"
"""Kind under which grants are stored as holdings."""
GRACE = 30 * SECOND
"""Time after a rotation during which the previous refresh token is still accepted from the same client, in
microseconds.
"""
_TOKEN = re.compile(r"rt_([0-9a-f]{32})\.([0-9]{1,10})\.([A-Za-z0-9_-]{43})")


class PersonGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The grant of a person to a client, on which refresh tokens are issued.

    `request` is the authorization request, reduced to the granted access. `jkt` is the thumbprint of the key that a
    refresh must prove; empty if none. `sequence` is the number of the current refresh token. A grant with `is_offline`
    continues after the end of the login session. `rotated_from` is the network of the last refresh; empty if unknown.
    Times are in microseconds.
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
    rotated_from: str = ""


class RefreshToken(NamedTuple):
    """The grant id and the sequence number in a refresh token of this server."""

    grant: str
    sequence: int


class Use(Enum):
    """The kind of use of a refresh token: the first use, a repetition because the client lost the response, or a reuse,
    which ends the grant.
    """

    FIRST = "first"
    AGAIN = "again"
    REUSE = "reuse"


def make_refresh_token(keyed_hash: KeyedHash, grant: str, sequence: int) -> str:
    """Return the refresh token (`rt_...`) with the number `sequence` for the grant with the id `grant` (`gr_...`)."""
    return f"rt_{grant.removeprefix('gr_')}.{sequence}.{_mac(keyed_hash, grant, sequence)}"


def read_refresh_token(keyed_hash: KeyedHash, unverified_token: str) -> RefreshToken | None:
    """Return the grant id and the sequence number of a refresh token with a valid MAC; None for any other text."""
    if (match := _TOKEN.fullmatch(unverified_token)) is None:
        return None
    grant, sequence = f"gr_{match[1]}", int(match[2])
    if str(sequence) != match[2] or not hmac.compare_digest(_mac(keyed_hash, grant, sequence), match[3]):
        return None
    return RefreshToken(grant, sequence)


def judge_use(grant: PersonGrant, sequence: int, *, is_proved: bool, network: str, now: int) -> Use:
    """Return the kind of use of the refresh token with number `sequence`, which came from `network`. A repetition is
    accepted only within `GRACE`, from a client that proved its key or its secret (`is_proved`), or from the network of
    the last refresh.
    """
    if sequence == grant.sequence:
        return Use.FIRST
    is_same = is_proved or grant.rotated_from == network != ""
    if sequence == grant.sequence - 1 and is_same and now - grant.rotated_at <= GRACE:
        return Use.AGAIN
    return Use.REUSE


def _mac(keyed_hash: KeyedHash, grant: str, sequence: int) -> str:
    return b64u(keyed_hash.digest(f"{grant}|{sequence}".encode()))
