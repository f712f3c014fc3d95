"""Destinations and secrets: the proxy gets both from the Ostiary server, with a key that the wrapped process has not.

The server decides each use of a secret. A decision holds for the same request during a few seconds, while the
guard, whose facts are current, would allow the request under the same policies and the same token.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

from ostiary import ambient
from ostiary.protocol.destination import Destination
from ostiary.protocol.errors import Refused
from ostiary.proxy.egress.masking import Masks
from ostiary.run.gate import Injection

USE_US = 5_000_000
"""microseconds for which a decision holds"""
REFRESH_US = 5_000_000
MAX_USES = 1000


class SecretServer(Protocol):
    """The server, as the guard of the proxy reaches it."""

    def list_destinations(self) -> list[Destination]:
        """Return all destinations. Raises Refused."""

    def use_secret(self, injection: Injection) -> str:
        """Return the secret for a request. Raises Refused."""


class SecretSource:
    """Destinations and secrets of one run, and the masks of all secrets that were used in it. Thread-safe."""

    def __init__(self, server: SecretServer, masks: Masks | None = None) -> None:
        """`masks`: those of the run, if others look for its secrets too."""
        self._server = server
        self._mutex = threading.Lock()
        self._destinations: dict[str, Destination] = {}
        self._until: int | None = None
        self._uses: OrderedDict[Injection, tuple[str, int]] = OrderedDict()
        self.masks = Masks() if masks is None else masks

    @property
    def known_destinations(self) -> dict[str, Destination] | None:
        """Return the destinations by name; None if they must be listed again."""
        return self._destinations if self._until is not None and ambient.tick() < self._until else None

    def destinations(self) -> dict[str, Destination]:
        """Return the destinations by name; the last known ones while the server does not answer. Raises Refused if none
        were known yet.
        """
        with self._mutex:
            if self.known_destinations is None:
                try:
                    self._destinations = {one.name: one for one in self._server.list_destinations()}
                except Refused:
                    if self._until is None:
                        raise
                self._until = ambient.tick() + REFRESH_US
            return self._destinations

    def known_secret(self, injection: Injection) -> str | None:
        """Return the secret for a request that was decided a moment ago; None if the server must decide."""
        use = self._uses.get(injection)
        return use[0] if use is not None and ambient.tick() < use[1] else None

    def secret(self, injection: Injection) -> str:
        """Return the secret for a request; from then on it is masked in every answer. Raises Refused."""
        secret = self._server.use_secret(injection)
        with self._mutex:
            self.masks.add(secret, injection.host)
            if injection.decided:
                self._uses[injection] = secret, ambient.tick() + USE_US
                self._uses.move_to_end(injection)
                while len(self._uses) > MAX_USES:
                    self._uses.popitem(last=False)
        return secret
