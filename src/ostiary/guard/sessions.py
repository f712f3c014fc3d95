"""The sessions of tasks whose calls are decided here, for detectors (`ostiary.provenance.noticing.Session`).

Each guard knows the results of its own tools since its start; tasks with one memory share a session.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ostiary.guard.memories import Watched
from ostiary.provenance.noticing import BEGUN, Session, extend_session
from ostiary.provenance.origins import Memory

MAX_SESSIONS = 256
"""maximum number of sessions; each has at most about 12 KB"""


class Sessions:
    """The sessions of one guard. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def of(self, memory: str) -> Session:
        """Return the session of the tasks with this memory."""
        return self._sessions.get(memory, BEGUN)

    def tell(self, watched: Watched, memory: Memory | None, output: object) -> None:
        """Add the result of a call; `memory` is the memory of its task before the call. Beyond the limit, the
        session that was idle for longest is deleted.
        """
        with self._mutex:
            session = self.of(id := watched.principal.claims.memory)
            if (following := extend_session(session, memory, watched.ready.tool, watched.arguments, output)) is session:
                return
            self._sessions[id] = following
            self._sessions.move_to_end(id)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
