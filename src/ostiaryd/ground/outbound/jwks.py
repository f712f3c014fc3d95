"""Key sets that other parties publish at a URL (`jwks_uri`), kept for an hour.

A set is fetched by the SSRF-safe fetcher, in bounded time and size. A token with an unknown `kid` may be of a new key:
then the caller asks for a set that is at most a minute old, so a party that rotates its keys is followed at once, and a
stream of unknown ids causes one request a minute. A set that cannot be fetched or parsed, or that publishes a private
key, verifies nothing; the set before stays for as long as it is fresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple
from weakref import WeakValueDictionary

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Malformed, Unavailable
from ostiaryd.ground.outbound.fetch import request

FETCH_S = 10
MAX_JWKS = 256 << 10
FRESH = 3_600_000_000
"""microseconds for which a set is used without another fetch"""
SOON = 60_000_000
"""microseconds after a fetch during which an unknown `kid` causes no other fetch"""
MAX_KEPT = 1024


class KeptSet(NamedTuple):
    """A key set, its URL, and the time of its fetch (microseconds)."""

    url: str
    keys: jose.JwkSet
    at: int


class KeySets:
    """The key sets of other parties. Lives on the event loop; a slow party delays no other."""

    def __init__(self) -> None:
        self._kept: dict[str, KeptSet] = {}
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    async def get(
        self, owner: str, url: str, *, now: int, within: int = FRESH, private: Collection[str] = (), ca_pem: str = ""
    ) -> jose.JwkSet:
        """Return the set of `owner` at `url`, fetched within that time (microseconds). Raises Unavailable.

        An `owner` is an id that is never reused: a party that is registered again has the keys that it publishes now.
        `ca_pem` as in `fetch.request`.
        """
        async with self._locks.setdefault(owner, asyncio.Lock()):
            kept = self._kept.get(owner)
            if kept is None or kept.url != url or not kept.at <= now < kept.at + within:
                keys = await fetch_keys(url, private=private, ca_pem=ca_pem)
                self._make_room()
                kept = self._kept[owner] = KeptSet(url, keys, now)
            return kept.keys

    def _make_room(self) -> None:
        """Delete the oldest set if there are too many."""
        if len(self._kept) >= MAX_KEPT:
            del self._kept[min(self._kept, key=lambda owner: self._kept[owner].at)]


async def fetch_keys(url: str, *, private: Collection[str] = (), ca_pem: str = "") -> jose.JwkSet:
    """Return the key set that `url` publishes. `ca_pem` as in `fetch.request`. Raises Unavailable."""
    headers = {"accept": "application/jwk-set+json, application/json"}
    answer = await request(
        "GET", url, headers=headers, within_s=FETCH_S, max_bytes=MAX_JWKS, private=private, ca_pem=ca_pem
    )
    if answer.status != 200:
        raise Unavailable(f"the keys of the issuer: the remote server answers {answer.status}")
    try:
        return jose.JwkSet.parse(canonical.parse(answer.body, max_bytes=MAX_JWKS))
    except (Malformed, jose.InvalidKey) as error:
        raise Unavailable(f"the keys of the issuer: {error.message}") from None
