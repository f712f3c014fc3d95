"""Destinations and secrets, which the proxy gets from the Ostiary server with a key that the wrapped process does not
have.

The server decides each use of a secret. The decision is reused for the same request for USE_US, while the guard allows
the request under the same policies and the same token.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

from ostiary import ambient
from ostiary.protocol.destination import Destination
from ostiary.protocol.errors import Refused
from ostiary.proxy.egress.masking import Masks
from ostiary.run.gate import InjectedSecret, Injection

USE_US = 5_000_000
"""time in microseconds for which the server's decision on the use of a secret is reused for equal requests"""
REFRESH_US = 5_000_000
MAX_USES = 1000
KEPT_S = 3600
"""Seconds for which a secret is still masked after it has expired."""


class SecretServer(Protocol):
    """The requests about secrets that the guard of the proxy sends to the Ostiary server."""

    def list_destinations(self) -> list[Destination]:
        """Return all destinations of secrets that the server knows. Raises Refused if the server refuses, or does not
        answer.
        """

    def use_secret(self, injection: Injection) -> InjectedSecret:
        """Return the value of a destination's secret for one request. Raises Refused if the server refuses the use, or
        does not answer.
        """


class SecretSource:
    """Destinations and secrets of one run, and the masks of all secrets that were used in the run. Thread-safe."""

    def __init__(self, server: SecretServer, masks: Masks | None = None) -> None:
        """Create an empty source of secrets. `masks`: the masks of the run, if other parts of the program also search
        for its secrets.
        """
        self._server = server
        self._mutex = threading.Lock()
        self._destinations: dict[str, Destination] = {}
        self._until: int | None = None
        self._uses: OrderedDict[Injection, tuple[str, int]] = OrderedDict()
        self.masks = Masks() if masks is None else masks

    @property
    def known_destinations(self) -> dict[str, Destination] | None:
        """Return the stored destinations by name; None if they are too old, and the server must be asked."""
        return self._destinations if self._until is not None and ambient.tick() < self._until else None

    def destinations(self) -> dict[str, Destination]:
        """Return the destinations by name; if the server does not answer, the stored destinations. Raises Refused if
        the server does not answer and no destinations are stored.
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
        """Return the secret for a request if the server has decided an equal request in the last USE_US microseconds;
        None if the server must decide.
        """
        use = self._uses.get(injection)
        return use[0] if use is not None and ambient.tick() < use[1] else None

    def secret(self, injection: Injection) -> str:
        """Return the secret for a request. From now on, the secret is masked in every answer. Raises Refused if the
        server refuses the use, or does not answer.
        """
        secret, expires_at = self._server.use_secret(injection)
        with self._mutex:
            self.masks.forget(ambient.now() // 1_000_000 - KEPT_S)
            self.masks.add(secret, injection.host, expires_at)
            if injection.decided:
                self._uses[injection] = secret, ambient.tick() + USE_US
                self._uses.move_to_end(injection)
                while len(self._uses) > MAX_USES:
                    self._uses.popitem(last=False)
        return secret
