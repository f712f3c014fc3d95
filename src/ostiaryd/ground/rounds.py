"""What the background loops say of themselves: when each ended its last round, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from ostiaryd.ground.world import World


@dataclass(slots=True)
class Round:
    """The last round of a background loop, or its start: when it ended (microseconds), and what went wrong."""

    every_s: float
    at: int
    error: str = ""


@dataclass(slots=True)
class Rounds:
    """What the background loops say of themselves; lives on the event loop."""

    world: World
    last: dict[str, Round] = field(default_factory=dict)

    def note(self, loop: str, *, every_s: float, error: BaseException | None = None) -> None:
        said = "" if error is None else f"{type(error).__name__}: {error}"[:200]
        self.last[loop] = Round(every_s, self.world.now(), said)
