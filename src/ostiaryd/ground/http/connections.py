"""Bounds on connections of callers that have proved nothing: for each address, in all, and on the bytes they hold.

A connection counts until a request on it succeeds that needs a proof.

If an address has too many connections, one of them is closed, in the order of `Rank`. A client that proves itself
after one challenge therefore keeps its connection in a flood. Behind a proxy that the configuration names, each request
counts under the address that the proxy forwards, while the request is under way.

Lives on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

from ostiary.protocol.proxies import Network, is_within, origin
from ostiaryd.ground.http.turns import ParsingTurns

OF_ADDRESS = 256
TIMES_IN_ALL = 16
"""Anonymous connections in all, as a multiple of those of one address."""
MAX_HELD = 64 << 20
"""Maximum number of bytes of heads and bodies of anonymous requests, over all connections."""
FRESH_S = 0.25
"""Seconds for which a new connection counts as fresh: it has not had the time to send, so its silence means nothing."""
_FORWARDED = b"x-forwarded-for"


class AnonymousConnection(Protocol):
    """A connection of an unproven caller, which may be closed to make room.

    `is_answering`: bytes of it wait to be parsed or answered; `answered`: the number of answered requests; `is_fresh`:
    opened less than `FRESH_S` ago.
    """

    @property
    def is_idle(self) -> bool:
        """Return whether no part of a request has arrived, and no answer is due."""
        ...

    @property
    def is_fresh(self) -> bool:
        """Return whether the connection was opened less than `FRESH_S` ago."""
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
        """Close the connection; if part of a request is there, answer 503 first."""


class Rank(IntEnum):
    """The order in which connections are closed; within a rank, the oldest entry is closed first."""

    IDLE_AGAIN = 0
    """idle after two answers or more: HTTP lets a server close such a connection, and clients expect it"""
    SILENT = 1
    """idle, and without an answer so far; fresh connections come after `ANSWERED_OFTEN`"""
    ARRIVING = 2
    """no answer so far, and the first request is still arriving"""
    ANSWERED_OFTEN = 3
    """has a request under way, after two answers or more"""
    ANSWERED_ONCE = 4
    """may be about to answer a challenge"""
    FIRST_ANSWER = 5
    """waits for its first answer: such a connection is closed only if it is the newest and all others wait as well"""


def rank_of(connection: AnonymousConnection) -> Rank:
    """Return the rank of a connection as it is now."""
    answered = connection.answered
    if answered >= 2:
        return Rank.IDLE_AGAIN if connection.is_idle else Rank.ANSWERED_OFTEN
    if answered:
        return Rank.ANSWERED_ONCE
    if connection.is_answering:
        return Rank.FIRST_ANSWER
    return Rank.SILENT if connection.is_idle else Rank.ARRIVING


class _AddressConnections:
    """The connections of one address, by rank."""

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
        """Return the connection that makes room for the newest one."""
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
    """The connections of one server that count, and the turns in which all its connections parse."""

    def __init__(self, *, of_address: int = OF_ADDRESS, proxies: Sequence[Network] = ()) -> None:
        self._of_address, self._in_all, self._proxies = of_address, TIMES_IN_ALL * of_address, proxies
        self._by_address: dict[str, _AddressConnections] = {}
        self._places: dict[AnonymousConnection, tuple[str, Rank]] = {}
        self.turns = ParsingTurns()
        self.held = 0
        """Number of bytes that anonymous requests hold."""

    def __len__(self) -> int:
        return len(self._places)

    def is_proxy(self, address: str) -> bool:
        """Return whether the address is that of a trusted reverse proxy."""
        return bool(self._proxies) and is_within(address, self._proxies)

    def add(self, connection: AnonymousConnection, address: str) -> None:
        """Count a connection, or count it under another address; turn one away if that is one too many.

        The empty address is that of proxies between two requests: only the bound in all applies to it.
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
        """Record that a request on a connection has begun, has arrived, or was answered."""
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
        if (place := self._places.pop(connection, None)) is not None:
            address, rank = place
            of_address = self._by_address[address]
            of_address.remove(connection, rank)
            if not of_address.count:
                del self._by_address[address]

    def forwarded_address(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return the address from which the request of a proxy at `address` came."""
        forwarded = [value.decode("latin-1") for name, value in headers if name == _FORWARDED]
        return origin(address, forwarded, self._proxies)

    def _turn_away(self, among: _AddressConnections, newest: AnonymousConnection) -> None:
        connection = among.first_to_close(newest)
        self.remove(connection)
        connection.turn_away()
