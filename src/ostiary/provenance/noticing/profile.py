"""The usual behaviour of an agent, in at most 512 bytes: the tools that it calls, and the origins of their arguments.

The profile counts tasks, not calls, so that no single task, however long, makes a behaviour usual. Only allowed calls
count. After MAX_TASKS tasks all counters are halved, so that the profile follows changes of the agent.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2s

import msgspec

from ostiary.protocol.errors import Malformed
from ostiary.provenance.noticing.event import Event
from ostiary.provenance.origins.memory import UNTRUSTED

VERSION = 2
MAX_PROFILE = 512
MAX_TOOLS = 44
MAX_TASKS = 64
"""maximum number of counted tasks; at the next task, all counters are halved"""
RECENT = 4
_HEAD = struct.Struct(f"<BBB{RECENT}I")
_ROW = struct.Struct("<IBBBBBBB")
_CALLED, _OUTSIDE, _NOWHERE, _LINKED, _INSTRUCTED, _FLOWED = 1, 2, 4, 8, 16, 32
"""bits of `Habit.marks`, one for each counter"""


class Habit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An agent's usual behaviour with one tool. `tasks`: the number of tasks in which the agent called the tool; the
    other counters: the numbers of these tasks in which a call had a value from untrusted content (`outside`), a value
    from nowhere, an untrusted link (`linked`), or a finding of the detector `instructed` or `flow_drift` (`flowed`).
    `marks`: bits of the counters that the current task has already raised.
    """

    tasks: int = 0
    outside: int = 0
    nowhere: int = 0
    linked: int = 0
    instructed: int = 0
    flowed: int = 0
    marks: int = 0


NEVER = Habit()


class Profile(msgspec.Struct, frozen=True, gc=False):
    tasks: int = 0
    recent: tuple[int, ...] = (0,) * RECENT
    """digests of the most recently counted tasks"""
    tools: dict[int, Habit] = {}
    """habits by digest of the tool; the least recently changed one first"""

    def habit(self, tool: str) -> Habit:
        """Return how often the agent has used a tool, and with which origins; NEVER (all counters 0) if the profile
        does not have the tool.
        """
        return self.tools.get(digest(tool), NEVER)


NEW = Profile()


@lru_cache(maxsize=4096)
def digest(name: str) -> int:
    """Return a 32-bit digest of a name."""
    return int.from_bytes(blake2s(name.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")


def learn(profile: Profile, event: Event) -> Profile:
    """Return the profile after an event. An allowed call of a tool raises the counters of the tool, each at most once
    for one task; any other event leaves the profile unchanged.
    """
    if event.action != "tool.call" or not event.tool or event.outcome not in ("allow", "ok"):
        return profile
    tasks, recent, tools = profile.tasks, profile.recent, profile.tools
    task, tool = digest(event.task), digest(event.tool)
    is_new = task not in recent
    if is_new:
        tasks, recent = tasks + 1, (*recent[1:], task)
        tools = {name: msgspec.structs.replace(habit, marks=0) for name, habit in tools.items()}
        if tasks > MAX_TASKS:
            tasks, tools = tasks // 2, {name: half for name, habit in tools.items() if (half := _halved(habit)).tasks}
    habit = tools.get(tool, NEVER)
    counters = _CALLED | _OUTSIDE * (event.worst == "outside") | _NOWHERE * (event.worst == "nowhere")
    detectors = {one.detector for one in event.noticed}
    counters |= _LINKED * (event.links in UNTRUSTED)
    counters |= _INSTRUCTED * ("instructed" in detectors) | _FLOWED * ("flow_drift" in detectors)
    fresh = counters & ~habit.marks
    if not fresh and not is_new:
        return profile
    tools = {name: one for name, one in tools.items() if name != tool}
    tools[tool] = Habit(
        habit.tasks + bool(fresh & _CALLED),
        habit.outside + bool(fresh & _OUTSIDE),
        habit.nowhere + bool(fresh & _NOWHERE),
        habit.linked + bool(fresh & _LINKED),
        habit.instructed + bool(fresh & _INSTRUCTED),
        habit.flowed + bool(fresh & _FLOWED),
        habit.marks | counters,
    )
    if len(tools) > MAX_TOOLS:
        del tools[next(iter(tools))]
    return Profile(tasks, recent, tools)


def _halved(habit: Habit) -> Habit:
    return Habit(
        habit.tasks // 2,
        habit.outside // 2,
        habit.nowhere // 2,
        habit.linked // 2,
        habit.instructed // 2,
        habit.flowed // 2,
    )


def pack(profile: Profile) -> bytes:
    """Return a profile in its stored form."""
    head = _HEAD.pack(VERSION, profile.tasks, len(profile.tools), *profile.recent)
    rows = (
        _ROW.pack(name, one.tasks, one.outside, one.nowhere, one.linked, one.instructed, one.flowed, one.marks)
        for name, one in profile.tools.items()
    )
    return head + b"".join(rows)


def unpack(packed: bytes) -> Profile:
    """Return the profile that `pack` packed. Raises Malformed for other bytes."""
    try:
        version, tasks, count, *recent = _HEAD.unpack_from(packed)
        rows = [_ROW.unpack_from(packed, _HEAD.size + at * _ROW.size) for at in range(count)]
    except struct.error:
        raise Malformed("the bytes are not a profile") from None
    if version != VERSION or len(packed) != _HEAD.size + count * _ROW.size or count > MAX_TOOLS or tasks > MAX_TASKS:
        raise Malformed("the bytes are not a profile of this version")
    tools = {name: Habit(*row) for name, *row in rows}
    if any(not max(counters) <= called <= tasks for _, called, *counters, _ in rows):
        raise Malformed("a habit counts more tasks than the profile")
    return Profile(tasks, tuple(recent), tools)
