"""Bounds on connections of callers that have proved nothing: for each address, in all, and on the bytes they hold.

A connection counts until a request on it succeeds that needs a proof.

If an address has too many, one of those that had no answer yet is closed: the oldest idle one, else the oldest whose
request is still arriving. If there is none, the one that had the most answers is closed; if all wait for their first
answer, the new connection. A client that proves itself after one challenge therefore keeps its connection in a flood.
Behind a proxy that the configuration names, each request counts under the address that the proxy forwards, while the
request is under way.

Lives on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ostiaryd.ground.proxies import Network, is_within, origin

OF_ADDRESS = 256
TIMES_IN_ALL = 8
"""Anonymous connections in all, as a multiple of those of one address."""
MAX_HELD = 64 << 20
"""Bytes of heads and bodies of anonymous requests that are kept at once, over all connections."""
_FORWARDED = b"x-forwarded-for"


class Connection(Protocol):
    """What a connection offers. `is_answering`: a whole request is there and its answer is not sent yet;
    `answered`: the requests that it had answers to."""

    @property
    def is_idle(self) -> bool: ...

    @property
    def is_answering(self) -> bool: ...

    @property
    def answered(self) -> int: ...

    def turn_away(self) -> None:
        """Close the connection; if part of a request is there, answer 503 first."""


class Connections:
    """The connections of one server that count."""

    def __init__(self, *, of_address: int = OF_ADDRESS, proxies: Sequence[Network] = ()) -> None:
        self._of_address, self._in_all, self._proxies = of_address, TIMES_IN_ALL * of_address, proxies
        self._by_address: dict[str, dict[Connection, None]] = {}
        self._address: dict[Connection, str] = {}
        self.held = 0
        """Bytes that anonymous requests hold."""

    def __len__(self) -> int:
        return len(self._address)

    def is_proxy(self, address: str) -> bool:
        return bool(self._proxies) and is_within(address, self._proxies)

    def add(self, connection: Connection, address: str) -> None:
        """Count a connection, or count it under another address; turn one away if that is one too many.

        The empty address is that of proxies between two requests: only the bound in all applies to it.
        """
        self.remove(connection)
        self._address[connection] = address
        of_address = self._by_address.setdefault(address, {})
        of_address[connection] = None
        if address and len(of_address) > self._of_address:
            self._turn_away(of_address, connection)
        elif len(self._address) > self._in_all:
            self._turn_away(max(self._by_address.values(), key=len), connection)

    def remove(self, connection: Connection) -> None:
        """Count a connection no longer: it has proved something, or is closed."""
        if (address := self._address.pop(connection, None)) is not None:
            del self._by_address[address][connection]
            if not self._by_address[address]:
                del self._by_address[address]

    def forwarded_address(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return the address from which the request of a proxy at `address` came."""
        forwarded = [value.decode("latin-1") for name, value in headers if name == _FORWARDED]
        return origin(address, forwarded, self._proxies)

    def _turn_away(self, among: dict[Connection, None], newest: Connection) -> None:
        arriving: Connection | None = None
        busiest, most = newest, 0
        for one in among:
            if one is newest:
                continue
            if (answered := one.answered) > most:
                busiest, most = one, answered
            elif not answered and not one.is_answering:
                if one.is_idle:
                    chosen = one
                    break
                arriving = arriving or one
        else:
            chosen = arriving or busiest
        self.remove(chosen)
        chosen.turn_away()
