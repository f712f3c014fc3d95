"""Findings about a call before it runs, from the origins of its values and the agent's usual behaviour.

Only calls that have an effect or send data are judged, and calls of decoys. Each rule gives points; the points of one
call combine like independent risks (`total_points`). A habit of the agent removes a part of the points and never all,
so that an agent that was led to bad habits still raises findings. No rule interprets the words of the person, of a
tool or of untrusted sources.

    purpose_drift   the bounds of the task, or the agent's scopes, refuse the call
    origin_drift    a value that identifies an object or recipient, or a link in outgoing text, is from untrusted
                    content or from nowhere
    instructed      one untrusted text contains several values of the call
    flow_drift      data flows in a way that honest tasks do not need (`SIGNS`)

The points were measured (`benchmarks.detect`); docs/adr/0063-narrowing-within-a-budget.md describes the method.
"""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.authorization.catalogue import GRAVE
from ostiary.provenance.noticing.event import Event
from ostiary.provenance.noticing.finding import Noticed
from ostiary.provenance.noticing.profile import Habit, Profile
from ostiary.provenance.noticing.session import Session
from ostiary.provenance.origins.memory import SETTLED, UNTRUSTED

DRIFT, DRIFT_AS_SAID = 60, 35
"""points of a call outside its task; the second number applies if all identifying values come from the person, because
the bounds of the task may then be too narrow
"""
ORIGIN = {"outside": 20, "nowhere": 25}
"""points by the least trusted origin of a value; a value from nowhere may have been hidden in content that was read"""
MORE_IF_GRAVE = 15
LINKS = 35
TOGETHER = (0, 30, 30, 70)
"""points by the number of values of the call in one untrusted text: 0, 1, 2, and 3 or more"""
MIXED, NAMED = 0.6, 0.5
"""MIXED: factor on the points of untrusted values and of signs, if the call also has values from the person. NAMED:
factor on the points of values in one text, if the text is from a document that the person named.
"""
_SOURCES = {"outside": "untrusted content", "nowhere": "no known source"}
SIGNS = {"substituted": 30, "reveals": 30, "unplanned": 20, "unrequested": 10, "carries": 10}
CANARY = 95
HABIT = 0.6
"""the largest fraction of the points that a habit can remove"""
FIRM = 4
"""number of tasks after which a habit removes half of the fraction `HABIT` of the points"""


def notice(profile: Profile, session: Session, event: Event) -> list[Noticed]:
    """Return the findings about a call that is about to be decided, or that was denied as outside its task. A call that
    only reads has none, unless its tool is a decoy.
    """
    if event.canary:
        says = f"calls {event.tool[:128]}, which is a decoy"
        return [Noticed(detector="canary", points=CANARY, says=says)]
    if event.effect in ("", "read"):
        return []
    return _score(profile, session, event)


def total_points(noticed: Iterable[Noticed]) -> int:
    """Return the combined points of the findings about one call, 0 to 100."""
    return combine_points(one.points for one in noticed)


def combine_points(points: Iterable[int]) -> int:
    """Return the combined points of independent risks, 0 to 100: points are combined like probabilities in per cent, so
    50 and 50 make 75.
    """
    left = 1.0
    for one in points:
        left *= 1 - one / 100
    return round(100 * (1 - left))


def _score(profile: Profile, session: Session, event: Event) -> list[Noticed]:
    """Return the findings of the detectors that give points to a call."""
    noticed: list[Noticed] = []
    tool, effect = event.tool[:128], event.effect
    is_foreign = event.worst in UNTRUSTED or event.links in UNTRUSTED
    if "outside_task" in event.reasons:
        as_said = event.worst in SETTLED and not is_foreign
        says = f"tried to {effect} with {tool}, outside its task"
        noticed.append(Noticed(detector="purpose_drift", points=DRIFT_AS_SAID if as_said else DRIFT, says=says))
    habit = profile.habit(event.tool)
    if is_foreign and (points := _score_origins(habit, event)):
        says = f"{tool} with {_describe_foreign(event)}"
        noticed.append(Noticed(detector="origin_drift", points=points, says=says))
    count, mixed = event.values_in_text, MIXED if event.is_mixed else 1
    if count:
        left = (NAMED if event.is_named else 1) * mixed
        left *= _unusual(habit.tasks, habit.instructed)
        if points := round(left * TOGETHER[min(count, len(TOGETHER) - 1)]):
            texts = f"one of {len(session.texts)} untrusted texts"
            source = "a document that the person named" if event.is_named else texts
            says = f"{tool} with {count} values of {source}"
            noticed.append(Noticed(detector="instructed", points=points, says=says))
    if event.signs and (is_foreign or count):
        signs = [name for name in event.signs if name in SIGNS]
        left = _unusual(habit.tasks, habit.flowed) * mixed
        if points := round(left * combine_points(SIGNS[name] for name in signs)):
            noticed.append(Noticed(detector="flow_drift", points=points, says=f"{tool}: {', '.join(signs)}"))
    return noticed


def _score_origins(habit: Habit, event: Event) -> int:
    left = 1.0
    if base := ORIGIN.get(event.worst, 0):
        base += MORE_IF_GRAVE * (event.effect in GRAVE)
        left -= base / 100 * _unusual(habit.tasks, habit.outside if event.worst == "outside" else habit.nowhere)
    if event.links in UNTRUSTED:
        left *= 1 - LINKS / 100 * _unusual(habit.tasks, habit.linked)
    return round(100 * (1 - left) * (MIXED if event.is_mixed else 1))


def _unusual(tasks: int, times: int) -> float:
    """Return the fraction of the points that remains: the more of its tasks did the same, the less."""
    return 1 - HABIT * times / (tasks + FIRM)


def _describe_foreign(event: Event) -> str:
    """Return a description of the untrusted origins of a call, in words. The description quotes no value."""
    named = [f"values from {_SOURCES[event.worst]}"] if event.worst in _SOURCES else []
    linked = [f"a link from {_SOURCES[event.links]}"] if event.links in _SOURCES else []
    return " and ".join(named + linked)
