"""The sessions of tasks whose calls this guard decides, for detectors (`ostiary.provenance.noticing.Session`).

A session contains results of the tools of this guard since its start. Tasks with the same memory share a session.
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
    """The sessions of a guard: for each task, the contents that detectors compare with later calls. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def of(self, memory: str) -> Session:
        """Return the session of the tasks with the memory `memory` (the claim of the token); an empty session if there
        is none.
        """
        return self._sessions.get(memory, BEGUN)

    def add_output(self, watched: Watched, memory: Memory | None, output: object) -> None:
        """Add the output of the call `watched` to the session of its task. `memory`: the memory of the task before the
        call. If there are more than MAX_SESSIONS sessions, the least recently used session is deleted.
        """
        with self._mutex:
            session = self.of(id := watched.principal.claims.memory)
            if (following := extend_session(session, memory, watched.ready.tool, watched.arguments, output)) is session:
                return
            self._sessions[id] = following
            self._sessions.move_to_end(id)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
