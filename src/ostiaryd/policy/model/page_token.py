"""Page tokens of a search, which only this server can read or issue (Authorization API 1.0, section 8.2).

A token is AES-256-GCM over the end of the page, with the caller as associated data: no other caller can use the token.
It continues only the search that it was issued for, under the same policies, for one hour.
"""

from __future__ import annotations

import hmac

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u

LIFETIME = 3_600_000_000
MAX_TOKEN = 4096
_NONCE = 12
_ANEW = "begin the search anew, without a token"
_SAME = "send the same search and the same `page.limit` as for the first page, with the new `page.token`"


class Place(msgspec.Struct, frozen=True, array_like=True):
    """The end of a page of search results, from which the next page continues. `after`: the last examined candidate;
    `search` and `policies`: the digest of the search and the hash of the policy set; `limit`: the maximum number of
    results of the page; `made_at`: microseconds since the epoch.
    """

    after: str
    search: str
    policies: str
    limit: int
    made_at: int


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Place)


def page_key(secret: bytes) -> bytes:
    """Return the key that encrypts page tokens, derived from a secret of the server."""
    return hmac.digest(secret, b"ostiary authzen page", "sha256")


def seal_place(place: Place, *, key: bytes, caller: str, nonce: bytes) -> str:
    """Return the page token: the place, encrypted for one caller. `nonce`: 12 random bytes."""
    return b64u(nonce + AESGCM(key).encrypt(nonce, _encode(place), caller.encode()))


def open_place(unverified_token: str, *, key: bytes, caller: str, now: int) -> Place:
    """Return the place in a page token that this server issued to `caller` at most an hour before `now`. Raises Invalid
    for any other token, and for an expired token.
    """
    try:
        if len(unverified_token) > MAX_TOKEN:
            raise ValueError
        sealed = unb64u(unverified_token)
        place = _decode(AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], caller.encode()))
    except (ValueError, Malformed, InvalidTag, msgspec.DecodeError):
        raise Invalid(
            "the page token was not issued to this caller by this server", hint=_ANEW, code="invalid_page_token"
        ) from None
    if not 0 <= now - place.made_at < LIFETIME:
        raise Invalid("the page token is more than an hour old", hint=_ANEW, code="invalid_page_token")
    return place


def check_same(place: Place, *, search: str, policies: str, limit: int | None) -> None:
    """Check that a request for the next page has the same search, policies and limit as its page token; `limit` None
    means the limit of the token. Raises Invalid otherwise.
    """
    if place.search != search:
        raise Invalid("the search differs from the search of the page token", hint=_SAME, code="page_changed")
    if limit is not None and limit != place.limit:
        raise Invalid(
            f"`page.limit` was {place.limit} on the page before, and is {limit}", hint=_SAME, code="page_changed"
        )
    if place.policies != policies:
        raise Invalid("the policies have changed since the page before", hint=_ANEW, code="page_changed")
