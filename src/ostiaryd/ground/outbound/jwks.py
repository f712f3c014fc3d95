"""Key sets that other parties publish at a URL (`jwks_uri`), kept for an hour.

A set is fetched with protection against SSRF and with limits of time and size. If a token has an unknown `kid`, its key
may be new: the caller then requests a set that is at most a minute old. New keys are therefore accepted immediately,
and many unknown ids cause only one fetch per minute. A set that cannot be fetched or parsed, or that contains a private
key, is not used; the previous set stays in use while it is fresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple
from weakref import WeakValueDictionary

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Malformed, Unavailable
from ostiaryd.ground.outbound.fetch import send_request

FETCH_S = 10
MAX_JWKS = 256 << 10
FRESH = 3_600_000_000
"""Time for which a set is used without another fetch, in microseconds."""
SOON = 60_000_000
"""Time after a fetch in which an unknown `kid` causes no further fetch, in microseconds."""
MAX_KEPT = 1024


class KeptSet(NamedTuple):
    """A key set, its URL, and the time of its fetch (microseconds)."""

    url: str
    keys: jose.JwkSet
    at: int


class KeySets:
    """The cached key sets of other parties. Use it only on the event loop. A slow party does not delay the others."""

    def __init__(self) -> None:
        self._kept: dict[str, KeptSet] = {}
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    async def get(
        self, owner: str, url: str, *, now: int, within: int = FRESH, private: Collection[str] = (), ca_pem: str = ""
    ) -> jose.JwkSet:
        """Return the key set at `url`, fetched at most `within` microseconds ago. Raises Invalid for a URL that the
        server must not call, Unavailable if the keys cannot be fetched or read.

        `owner` is the id of the party, which is never reused, so that a party that is registered again does not get
        cached keys. `ca_pem` has the meaning that it has in `fetch.send_request`.
        """
        async with self._locks.setdefault(owner, asyncio.Lock()):
            kept = self._kept.get(owner)
            if kept is None or kept.url != url or not kept.at <= now < kept.at + within:
                keys = await fetch_keys(url, private=private, ca_pem=ca_pem)
                self._make_room()
                kept = self._kept[owner] = KeptSet(url, keys, now)
            return kept.keys

    def _make_room(self) -> None:
        """Delete the oldest set if the cache is full."""
        if len(self._kept) >= MAX_KEPT:
            del self._kept[min(self._kept, key=lambda owner: self._kept[owner].at)]


async def fetch_keys(url: str, *, private: Collection[str] = (), ca_pem: str = "") -> jose.JwkSet:
    """Fetch and return the key set at `url`. `ca_pem` has the meaning that it has in `fetch.send_request`. Raises
    Invalid for a URL that the server must not call, Unavailable if the keys cannot be fetched or read.
    """
    headers = {"accept": "application/jwk-set+json, application/json"}
    answer = await send_request(
        "GET", url, headers=headers, within_s=FETCH_S, max_bytes=MAX_JWKS, private=private, ca_pem=ca_pem
    )
    if answer.status != 200:
        raise Unavailable(f"the remote server answers {answer.status}, not 200 with the keys of the issuer")
    try:
        return jose.JwkSet.parse(canonical.parse(answer.body, max_bytes=MAX_JWKS))
    except (Malformed, jose.InvalidKey) as error:
        raise Unavailable(f"the fetched keys of the issuer are malformed: {error.message}") from None
