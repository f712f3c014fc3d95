"""Limits for connections of unauthenticated callers: their number for each address and in total, and the bytes that
they hold.

A connection counts until an authenticated request on it succeeds.

If an address has too many connections, one of them is closed, in the order of `Rank`. A client that authenticates after
one challenge therefore keeps its connection during a flood. On a connection of a configured proxy, each request counts
under the address that the proxy forwards, while the request is in progress.

Use it only on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

from ostiary.protocol.proxies import Network, client_address, is_within
from ostiaryd.ground.http.turns import ParsingTurns

OF_ADDRESS = 256
TIMES_IN_ALL = 16
"""Factor between the maximum number of unauthenticated connections of one address and the maximum in total."""
LINGERING = 4
"""Part of the maximum in total that may linger: refused connections that are still open, because their clients have not
closed them yet (with TLS also idle ones), or because a response is due.
"""
MAX_HELD = 64 << 20
"""Maximum total size of the heads and bodies of unauthenticated requests, over all connections, in bytes."""
FRESH_S = 0.25
"""Age up to which a connection counts as fresh, in seconds: a client may not have had time to send anything."""
_FORWARDED = b"x-forwarded-for"


class AnonymousConnection(Protocol):
    """A connection of an unauthenticated caller, which may be closed to make room for another."""

    @property
    def is_idle(self) -> bool:
        """Return whether no part of a request has arrived, and no response is due."""
        ...

    @property
    def is_fresh(self) -> bool:
        """Return whether the connection was opened less than `FRESH_S` seconds ago."""
        ...

    @property
    def is_answering(self) -> bool:
        """Return whether bytes of the connection wait to be parsed or answered."""
        ...

    @property
    def answered(self) -> int:
        """Return the number of requests that were answered."""
        ...

    def turn_away(self) -> None:
        """Close the connection. If a part of a request has arrived, send the response 503 first."""

    def end(self) -> None:
        """Close the connection without waiting for the client."""


class Rank(IntEnum):
    """The order in which connections are closed, the lowest rank first. Within a rank, the connection that has been in
    it longest is closed first.
    """

    IDLE_AGAIN = 0
    """Idle after two or more responses: HTTP permits a server to close such a connection, and clients expect this."""
    SILENT = 1
    """Idle without a response so far. Fresh connections of this rank are closed only after those of
    `ANSWERED_OFTEN`.
    """
    ARRIVING = 2
    """The first request is arriving, and no response was sent so far."""
    ANSWERED_OFTEN = 3
    """A request is in progress, after two or more responses."""
    ANSWERED_ONCE = 4
    """The client may be about to respond to a challenge: one response was sent."""
    FIRST_ANSWER = 5
    """Waits for its first response. Such a connection is closed only if it is the newest and all others have this rank
    too.
    """


def rank_of(connection: AnonymousConnection) -> Rank:
    """Return the rank of an anonymous connection now, which decides how early the connection is closed under load."""
    answered = connection.answered
    if answered >= 2:
        return Rank.IDLE_AGAIN if connection.is_idle else Rank.ANSWERED_OFTEN
    if answered:
        return Rank.ANSWERED_ONCE
    if connection.is_answering:
        return Rank.FIRST_ANSWER
    return Rank.SILENT if connection.is_idle else Rank.ARRIVING


class _AddressConnections:
    """The connections of one address, ordered by rank."""

    __slots__ = ("by_rank", "count")

    def __init__(self) -> None:
        self.by_rank: list[dict[AnonymousConnection, None]] = [{} for _ in Rank]
        self.count = 0

    def add(self, connection: AnonymousConnection, rank: Rank) -> None:
        self.by_rank[rank][connection] = None
        self.count += 1

    def remove(self, connection: AnonymousConnection, rank: Rank) -> None:
        del self.by_rank[rank][connection]
        self.count -= 1

    def first_to_close(self, newest: AnonymousConnection) -> AnonymousConnection:
        """Return the connection to close in order to make room for the newest connection."""
        fresh = newest
        for rank in (Rank.IDLE_AGAIN, Rank.SILENT, Rank.ARRIVING, Rank.ANSWERED_OFTEN):
            if (connection := self._first(rank, newest)) is not None:
                if rank is not Rank.SILENT or not connection.is_fresh:
                    return connection
                fresh = connection
        return fresh if fresh is not newest else self._first(Rank.ANSWERED_ONCE, newest) or newest

    def _first(self, rank: Rank, newest: AnonymousConnection) -> AnonymousConnection | None:
        return next((one for one in self.by_rank[rank] if one is not newest), None)


class Connections:
    """The unauthenticated connections of one server, and the turns in which all its connections are parsed."""

    def __init__(
        self, *, of_address: int = OF_ADDRESS, in_all: int | None = None, proxies: Sequence[Network] = ()
    ) -> None:
        """The maximum in total is `TIMES_IN_ALL` times `of_address`, or `in_all` if that is less."""
        most = TIMES_IN_ALL * of_address
        self._of_address, self._proxies = of_address, proxies
        self._in_all = most if in_all is None else min(in_all, most)
        self._by_address: dict[str, _AddressConnections] = {}
        self._places: dict[AnonymousConnection, tuple[str, Rank]] = {}
        self._lingering: dict[AnonymousConnection, None] = {}
        """Refused connections that are still open, the oldest first."""
        self.turns = ParsingTurns()
        self.held = 0
        """Number of bytes that unauthenticated requests hold at present."""

    def __len__(self) -> int:
        return len(self._places)

    def is_proxy(self, address: str) -> bool:
        """Return whether the address is that of a trusted reverse proxy."""
        return bool(self._proxies) and is_within(address, self._proxies)

    def add(self, connection: AnonymousConnection, address: str) -> None:
        """Count a connection under an address, or move it to another address. If there are then too many connections of
        the address, or in total, close one of them.

        The empty address stands for connections of proxies between two requests: for them only the total limit applies.
        """
        self.remove(connection)
        place = self._places[connection] = address, rank_of(connection)
        if (of_address := self._by_address.get(address)) is None:
            of_address = self._by_address[address] = _AddressConnections()
        of_address.add(connection, place[1])
        if address and of_address.count > self._of_address:
            self._turn_away(of_address, connection)
        elif len(self._places) > self._in_all:
            self._turn_away(max(self._by_address.values(), key=lambda one: one.count), connection)

    def update(self, connection: AnonymousConnection) -> None:
        """Update the rank of a connection, after a request on it has begun, has arrived, or was answered."""
        if (place := self._places.get(connection)) is None:
            return
        address, before = place
        if (rank := rank_of(connection)) is not before:
            of_address = self._by_address[address]
            of_address.remove(connection, before)
            of_address.add(connection, rank)
            self._places[connection] = address, rank

    def remove(self, connection: AnonymousConnection) -> None:
        """Stop counting a connection: its caller has authenticated, or the connection is closed."""
        self._lingering.pop(connection, None)
        if (place := self._places.pop(connection, None)) is not None:
            address, rank = place
            of_address = self._by_address[address]
            of_address.remove(connection, rank)
            if not of_address.count:
                del self._by_address[address]

    def linger(self, connection: AnonymousConnection) -> None:
        """Note a refused connection, until it is closed. If too many linger, end the oldest one."""
        self._lingering[connection] = None
        if len(self._lingering) > self._in_all // LINGERING:
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            oldest.end()

    def forwarded_address(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return the client address of a request that a proxy at `address` has forwarded."""
        forwarded = [value.decode("latin-1") for name, value in headers if name == _FORWARDED]
        return client_address(address, forwarded, self._proxies)

    def _turn_away(self, among: _AddressConnections, newest: AnonymousConnection) -> None:
        connection = among.first_to_close(newest)
        self.remove(connection)
        connection.turn_away()
        self.linger(connection)
