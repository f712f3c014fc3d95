"""Networks of bearer tokens: a token that is used from two networks was stolen.

A bearer token needs no key, so anyone who sees it can use it. It is valid for minutes, in which an agent seldom moves.
An IPv4 and an IPv6 network do not count as two, for a client on both uses either.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ostiary.guard.call import Verified
from ostiary.provenance.noticing import Noticed

MAX_TOKENS = 10_000
"""beyond which the token that came first is forgotten"""
POINTS = 60


class BearerNetworks:
    """The first network of each bearer token, by version of IP. Thread-safe."""

    def __init__(self, *, limit: int = MAX_TOKENS) -> None:
        self._limit = limit
        self._mutex = threading.Lock()
        self._first: OrderedDict[tuple[str, bool], str] = OrderedDict()

    def notice(self, who: Verified) -> tuple[Noticed, ...]:
        """Return what is odd about the network that a call comes from; nothing for a token that is bound to a key."""
        claims = who.principal.claims
        if claims.cnf is not None or not who.network:
            return ()
        with self._mutex:
            first = self._first.setdefault((claims.jti, ":" in who.network), who.network)
            if len(self._first) > self._limit:
                self._first.popitem(last=False)
        if first == who.network:
            return ()
        return (
            Noticed(
                detector="bearer_in_two_networks", points=POINTS, says="its bearer token comes from a second network"
            ),
        )
