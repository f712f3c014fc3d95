"""What is odd about a call before it runs: by where its values came from, and by what the agent usually does.

Only calls that do something or send something are looked at. Each rule gives points; the points of one call combine as
independent doubts do (`doubt`). A habit takes away a part of the points and never all: an agent that was led to bad
habits is still noticed. No rule reads words: neither the person's, nor a tool's, nor a stranger's.

    purpose_drift   bounds that somebody wrote, or the agent's scopes, refuse the call
    origin_drift    what the call names, or a link in what it sends, comes from strangers or from nowhere
    instructed      one text of strangers has several values of the call in it
    flow_drift      data flows as no honest task needs it (`SIGNS`)

What points are worth was measured (`benchmarks.detect`); docs/adr/0063-narrowing-within-a-budget.md says how.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ostiary.provenance.noticing.event import Event
from ostiary.provenance.noticing.finding import Noticed
from ostiary.provenance.noticing.profile import FOREIGN, Profile
from ostiary.provenance.noticing.session import Session

GRAVE = frozenset({"pay", "destroy", "administer"})
DRIFT, DRIFT_AS_SAID = 60, 35
"""outside of the task; where all that it names is the person's, its bounds may have been drawn too narrow"""
ORIGIN = {"outside": 20, "nowhere": 25}
"""a value that nothing read has may be one that was hidden in what was read"""
MORE_IF_GRAVE = 15
LINKS = 50
TOGETHER = (0, 30, 30, 70)
"""by how many values of the call stand in one text: none, one, two, more"""
MIXED, NAMED = 0.6, 0.5
"""the part that is left of the points for values of strangers where the call names something of the person's, too; of
those for what stands together in one text, where that is of a document that the person named
"""
SIGNS = {"substituted": 30, "reveals": 30, "unrequested": 20, "unplanned": 20, "carries": 10}
CANARY = 95
HABIT = 0.6
"""the part of the points that a habit takes away at most"""
FIRM = 4
"""tasks without a habit that weigh against it"""
_SAID = frozenset({"person", "own", "endorsed"})


def notice(profile: Profile, session: Session, event: Event) -> list[Noticed]:
    """Of a call that is about to be decided, or is denied already because the task is not for it."""
    if event.canary:
        says = f"it calls {event.tool[:128]}, which is a decoy"
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
    return combined(one.points for one in noticed)


def combined(points: Iterable[int]) -> int:
    """Points of independent doubts together, 0 to 100."""
    left = 1.0
    for one in points:
        left *= 1 - one / 100
    return round(100 * (1 - left))


def _found(profile: Profile, session: Session, event: Event) -> Iterator[tuple[str, int, str]]:
    tool, effect = event.tool[:128], event.effect
    is_foreign = event.worst in FOREIGN or event.links in FOREIGN
    if "outside_task" in event.reasons:
        as_said = event.worst in _SAID and not is_foreign
        yield (
            "purpose_drift",
            DRIFT_AS_SAID if as_said else DRIFT,
            f"tried to {effect} with {tool}, outside its task",
        )
    if is_foreign:
        yield "origin_drift", _of_origins(profile, event), f"{tool} with {_foreign(event)}"
    left = (NAMED if event.is_named else 1) * (MIXED if event.is_mixed else 1)
    points = round(left * TOGETHER[min(event.together, len(TOGETHER) - 1)])
    whose = "a document that the person named" if event.is_named else f"one of {len(session.texts)} texts of strangers"
    yield "instructed", points, f"{tool} with {event.together} values of {whose}"
    if is_foreign or event.together:
        signs = [name for name in event.signs if name in SIGNS]
        yield "flow_drift", combined(SIGNS[name] for name in signs), f"{tool}: {', '.join(signs)}"


def _of_origins(profile: Profile, event: Event) -> int:
    habit, left = profile.habit(event.tool), 1.0
    if base := ORIGIN.get(event.worst, 0):
        base += MORE_IF_GRAVE * (event.effect in GRAVE)
        left -= base / 100 * _unusual(habit.tasks, habit.outside if event.worst == "outside" else habit.nowhere)
    if event.links in FOREIGN:
        left *= 1 - LINKS / 100 * _unusual(habit.tasks, habit.linked)
    return round(100 * (1 - left) * (MIXED if event.is_mixed else 1))


def _unusual(tasks: int, times: int) -> float:
    return 1 - HABIT * times / (tasks + FIRM)


def _foreign(event: Event) -> str:
    """In words; no value is quoted."""
    where = {"outside": "what strangers wrote", "nowhere": "what nobody said and nothing read has"}
    named = [f"values from {where[event.worst]}"] if event.worst in where else []
    linked = [f"a link from {where[event.links]}"] if event.links in where else []
    return " and ".join(named + linked)
