"""What is noticed of a call before it runs: by the task so far, and by what the agent usually does.

Only of calls that do something, or send something. Three rules, each of which gives points for itself; the points of
one call count as independent doubts do (`doubt`). What is usual for the agent takes away a part of them and never all:
an agent that was led to bad habits is still noticed.

    purpose_drift   the task is not for that: its bounds or its scopes refuse it
    origin_drift    what it names, or a link in what it sends, comes from strangers or from nowhere
    instructed      a text of somebody else asks for something, and has in it what the call names

What points are worth was measured on recorded runs (`benchmarks.detect`); docs/adr/0025 says how.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ostiary.core.watch.event import Event
from ostiary.core.watch.finding import Noticed
from ostiary.core.watch.profile import FOREIGN, Profile
from ostiary.core.watch.session import BIT, Session

GRAVE = frozenset({"pay", "destroy", "administer"})
DRIFT, DRIFT_AS_SAID = 60, 35
"""outside of the task; where all that it names is the person's, its bounds may have been drawn too narrow"""
ORIGIN = {"outside": 15, "nowhere": 18}
MORE_IF_GRAVE = 15
LINKS = 20
ASKED = {"strangers": 30, "named": 20}
TOLD = 20
"""strangers ask for such an effect, and what the call names is not the person's"""
CANARY = 95
HABIT = 0.6
"""the part of the points that a habit takes away at most"""
FIRM = 4
"""tasks without a habit that weigh against it"""
_SAID = frozenset({"person", "own", "endorsed"})


def notice(profile: Profile, session: Session, event: Event) -> list[Noticed]:
    """Of a call that is about to be decided, or is denied already because the task is not for it."""
    if event.canary:
        says = f"it calls {event.tool[:128]}, which is there for nobody"
        return [Noticed(detector="canary", points=CANARY, says=says)]
    if event.effect in ("", "read"):
        return []
    return [
        Noticed(detector=detector, points=points, says=says)
        for detector, points, says in _found(profile, session, event)
        if points
    ]


def doubt(noticed: Iterable[Noticed]) -> int:
    """The points of one call together, 0 to 100."""
    left = 1.0
    for one in noticed:
        left *= 1 - one.points / 100
    return round(100 * (1 - left))


def _found(profile: Profile, session: Session, event: Event) -> Iterator[tuple[str, int, str]]:
    tool, effect = event.tool[:128], event.effect
    is_foreign = event.worst in FOREIGN or event.links in FOREIGN
    if "outside_task" in event.reasons:
        as_said = event.worst in _SAID and not is_foreign
        yield (
            "purpose_drift",
            DRIFT_AS_SAID if as_said else DRIFT,
            f"it would {effect} by {tool}; its task is not for that",
        )
    if is_foreign:
        yield "origin_drift", _of_origins(profile, event), f"{tool} with {_foreign(event)}"
    asked = ASKED.get(event.asked_by, 0)
    if is_foreign and session.told & BIT.get(effect, 0):
        asked += (100 - asked) * TOLD // 100
    yield "instructed", asked, f"{tool} as {_asking(event)}"


def _of_origins(profile: Profile, event: Event) -> int:
    habit, left = profile.habit(event.tool), 1.0
    if base := ORIGIN.get(event.worst, 0):
        base += MORE_IF_GRAVE * (event.effect in GRAVE)
        left -= base / 100 * _unusual(habit.tasks, habit.outside if event.worst == "outside" else habit.nowhere)
    if event.links in FOREIGN:
        left *= 1 - LINKS / 100 * _unusual(habit.tasks, habit.linked)
    return round(100 * (1 - left))


def _unusual(tasks: int, times: int) -> float:
    return 1 - HABIT * times / (tasks + FIRM)


def _foreign(event: Event) -> str:
    """In words; no value is quoted."""
    where = {"outside": "what strangers wrote", "nowhere": "what nobody said and nothing read has"}
    named = [f"values from {where[event.worst]}"] if event.worst in where else []
    linked = [f"a link from {where[event.links]}"] if event.links in where else []
    return " and ".join(named + linked)


def _asking(event: Event) -> str:
    if event.asked_by == "named":
        return "a document asks that the person named"
    return "a text of strangers asks" if event.asked_by else "strangers ask for such things"
