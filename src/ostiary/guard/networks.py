"""Networks of bearer tokens: a token that is used from two networks was probably stolen.

A bearer token is not bound to a key, so anyone who sees the token can use it. The token is valid for minutes, and an
agent seldom changes its network in this time. An IPv4 network and an IPv6 network do not count as two networks,
because a client with both protocols uses either.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ostiary.guard.call import Verified
from ostiary.provenance.noticing import Noticed

MAX_TOKENS = 10_000
"""Maximum number of tokens whose networks the guard remembers; beyond that, the oldest is deleted."""
POINTS = 60


class BearerNetworks:
    """The network from which each bearer token was used first, for each IP version. Thread-safe."""

    def __init__(self, *, limit: int = MAX_TOKENS) -> None:
        self._limit = limit
        self._mutex = threading.Lock()
        self._first: OrderedDict[tuple[str, bool], str] = OrderedDict()

    def notice(self, caller: Verified) -> tuple[Noticed, ...]:
        """Return a finding if a bearer token is used from a second network; an empty tuple otherwise, and for a token
        that is bound to a key.
        """
        claims = caller.principal.claims
        if claims.cnf is not None or not caller.network:
            return ()
        with self._mutex:
            first = self._first.setdefault((claims.jti, ":" in caller.network), caller.network)
            if len(self._first) > self._limit:
                self._first.popitem(last=False)
        if first == caller.network:
            return ()
        return (
            Noticed(
                detector="bearer_in_two_networks", points=POINTS, says="the bearer token comes from a second network"
            ),
        )
