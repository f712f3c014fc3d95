"""What is noticed of a call before it runs: by what the agent usually does, and by the task so far.

Each rule gives points for itself; together they count as independent doubts do (`Risk.raised`). What is usual for the
agent takes away a part of them and never all: an agent that was led to bad habits is still noticed.
"""

from __future__ import annotations

from ostiary.core.watch.event import Event
from ostiary.core.watch.finding import Noticed
from ostiary.core.watch.profile import Profile
from ostiary.core.watch.session import BIT, Session

GRAVE = frozenset({"pay", "destroy", "administer"})
ORIGIN = {"outside": 15, "nowhere": 18, "known": 4}
WITHIN = 25
LINKS = 12
PURPOSE = 60
TOLD, TOLD_ALONE = 30, 8
CANARY = 95
HABIT = 0.6
"""the part of the points that a habit takes away at most"""
FIRM = 4
"""tasks without a habit that weigh against it"""
_FOREIGN = frozenset({"outside", "nowhere"})


def notice(profile: Profile, session: Session, event: Event) -> list[Noticed]:
    """Of a call that is about to be decided, or was denied already because the task is not for that."""
    found: list[Noticed] = []
    does = event.effect != "read"
    if event.canary:
        found.append(Noticed(detector="canary", points=CANARY, says=f"it calls {event.tool}, which nobody should"))
    if does and "outside_task" in event.reasons:
        says = f"it wants to {event.effect} with {event.tool}, which its task is not for"
        found.append(Noticed(detector="purpose_drift", points=PURPOSE, says=says))
    if does and (points := _of_origins(profile, event)):
        says = f"{event.tool} is called with values from {event.worst or event.links}"
        found.append(Noticed(detector="origin_drift", points=points, says=says))
    if does and session.told & BIT.get(event.effect, 0):
        is_foreign = event.worst in _FOREIGN or event.links in _FOREIGN
        says = f"somebody outside asked it to {event.effect}, and it does"
        found.append(Noticed(detector="instructed", points=TOLD if is_foreign else TOLD_ALONE, says=says))
    return found


def _of_origins(profile: Profile, event: Event) -> int:
    habit = profile.habit(event.tool)
    left = 1.0
    if base := ORIGIN.get(event.worst, 0):
        base += WITHIN if event.within else 0
        times = habit.outside if event.worst == "outside" else habit.nowhere if event.worst == "nowhere" else 0
        left -= base / 100 * (1 - HABIT * times / (habit.tasks + FIRM))
    if event.links in _FOREIGN:
        left *= 1 - LINKS / 100 * (1 - HABIT * habit.linked / (habit.tasks + FIRM))
    return round(100 * (1 - left))
