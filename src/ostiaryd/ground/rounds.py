"""The rounds of background loops: the end and the error of each loop's last round. Also measures the use of the event
loop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ostiary.protocol.errors import Conflict, Refused
from ostiaryd.ground.world import World

MAX_LATE_S = 10
"""Maximum delay of a round before the loop counts as late, in seconds."""
SECOND = 1_000_000


@dataclass(slots=True)
class Round:
    """The last round of a background loop, or the start of the loop: the time of its end in microseconds, and its
    error, empty without one.
    """

    every_s: float
    at: int
    error: str = ""


@dataclass(slots=True)
class Rounds:
    """The last round of each background loop. Use it only on the event loop."""

    world: World
    last: dict[str, Round] = field(default_factory=dict)

    def record_round(self, loop: str, *, every_s: float, error: BaseException | None = None) -> None:
        """Record that the loop with this name and the interval `every_s` (seconds) has ended a round, and the error of
        the round; None without one.
        """
        cause = error.message_with_detail if isinstance(error, Refused) else error
        message = "" if error is None else f"{type(error).__name__}: {cause}"[:200]
        self.last[loop] = Round(every_s, self.world.now(), message)

    def examine(self) -> str:
        """Return a description of the loops for `doctor`. Raises Conflict if a loop is late or its last
        round failed.
        """
        now = self.world.now()
        if failed := [f"{name} ({round.error})" for name, round in self.last.items() if round.error]:
            raise Conflict(f"the last round of {', '.join(failed)} failed", hint="see the server's log")
        if late := [name for name, one in self.last.items() if now - one.at > (one.every_s + MAX_LATE_S) * SECOND]:
            raise Conflict(
                f"background loops are more than {MAX_LATE_S} s late: {', '.join(late)}", hint="restart the server"
            )
        return f"{len(self.last)} background loops are on time"


@dataclass(slots=True)
class LoopUse:
    """Measures the use of the event loop, by the processor time of its thread. Use it only on the event loop."""

    world: World
    used_s: float = 0.0
    at_s: float = 0.0

    def take_share(self) -> float:
        """Return the share of time, from 0 to 1, in which the event loop used the processor since the last call. At the
        first call, the time counts from the start of the machine.
        """
        before_s, since_s = self.used_s, self.at_s
        self.used_s, self.at_s = time.thread_time(), time.perf_counter()
        return (self.used_s - before_s) / (self.at_s - since_s)
