"""Open connections: a request that is being served is cancelled as soon as the feed revokes its token.

Normal expiry does not close open connections: an accepted request may be finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from ostiary.decision import access
from ostiary.guard.call import Verified
from ostiary.protocol.jose import InvalidToken


@dataclass(slots=True, eq=False)
class Connection:
    """A connection whose request is served now. `cut`: function that cancels the request; `why`: the reason for the
    cut, None while the connection is not cut.
    """

    principal: access.Principal
    cut: Callable[[], None]
    why: access.Reason | None = None

    def check(self) -> None:
        """Check that the connection was not cut. Raises InvalidToken otherwise."""
        if self.why is not None:
            raise InvalidToken(self.why.message, hint=self.why.hint)


class Connections:
    """The open connections. Thread-safe. Each is served by a task of an event loop, and checked by the thread of the
    feed after each change of the facts.
    """

    def __init__(self) -> None:
        self._open: set[Connection] = set()

    @asynccontextmanager
    async def open(self, caller: Verified, current: Callable[[], access.Facts]) -> AsyncIterator[Connection]:
        """Serve the request of `caller` in this block, which is cancelled if the feed revokes the token. `current`
        returns the present facts. Raises InvalidToken if the connection was cut, and the errors of `current`.
        """
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(None)

        def cancel() -> None:
            if connection in self._open:
                limit.reschedule(loop.time())

        def cut() -> None:
            with suppress(RuntimeError):  # the event loop has ended, so the connection has ended too
                loop.call_soon_threadsafe(cancel)

        connection = Connection(caller.principal, cut)
        try:
            async with limit:
                self._open.add(connection)
                self._look_at(connection, current())  # facts may have changed since the token was verified
                yield connection
        except Exception:
            connection.check()  # a cut connection raises InvalidToken, not the error that the cut caused
            raise
        finally:
            self._open.discard(connection)

    def cut_revoked(self, facts: access.Facts) -> None:
        """Cut each open connection whose token is revoked or stopped, or whose task or agent has ended, by `facts`."""
        for connection in tuple(self._open):
            self._look_at(connection, facts)

    def _look_at(self, connection: Connection, facts: access.Facts) -> None:
        if connection.why is None and (why := access.check_liveness(connection.principal, facts, now=0)) is not None:
            connection.why = why
            connection.cut()
