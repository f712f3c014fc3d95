"""What an agent usually does, in at most 512 bytes: which tools it calls, and from where their arguments come.

It is counted in tasks and not in calls, so that no task makes anything usual, however long it is; and only in what was
allowed. Where the counters are full all of them halve: an agent that changes is learnt anew.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2s

import msgspec

from ostiary.protocol.errors import Malformed
from ostiary.provenance.noticing.event import Event

VERSION = 1
MAX_PROFILE = 512
MAX_TOOLS = 48
MAX_TASKS = 64
"""with more, all counters halve"""
RECENT = 4
_HEAD = struct.Struct(f"<BBB{RECENT}I")
_ROW = struct.Struct("<IBBBBB")
_CALLED, _OUTSIDE, _NOWHERE, _LINKED = 1, 2, 4, 8
"""bits of what was counted in the present task"""
FOREIGN = frozenset({"outside", "nowhere"})


class Habit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """In how many tasks it called a tool; in how many of them with what came from outside, from nowhere, with links of
    strangers. `marks`: what was counted in the present task already.
    """

    tasks: int = 0
    outside: int = 0
    nowhere: int = 0
    linked: int = 0
    marks: int = 0


NEVER = Habit()


class Profile(msgspec.Struct, frozen=True, gc=False):
    tasks: int = 0
    recent: tuple[int, ...] = (0,) * RECENT
    """digests of the tasks it was last learnt from"""
    tools: dict[int, Habit] = {}
    """by digest, the one that was learnt of the longest ago first"""

    def habit(self, tool: str) -> Habit:
        return self.tools.get(digest(tool), NEVER)


NEW = Profile()


@lru_cache(maxsize=4096)
def digest(name: str) -> int:
    return int.from_bytes(blake2s(name.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")


def learn(profile: Profile, event: Event) -> Profile:
    """Return the profile with an allowed call; any other event changes nothing."""
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
    seen = _CALLED | _OUTSIDE * (event.worst == "outside") | _NOWHERE * (event.worst == "nowhere")
    seen |= _LINKED * (event.links in FOREIGN)
    fresh = seen & ~habit.marks
    if not fresh and not is_new:
        return profile
    tools = {name: one for name, one in tools.items() if name != tool}
    tools[tool] = Habit(
        habit.tasks + bool(fresh & _CALLED),
        habit.outside + bool(fresh & _OUTSIDE),
        habit.nowhere + bool(fresh & _NOWHERE),
        habit.linked + bool(fresh & _LINKED),
        habit.marks | seen,
    )
    if len(tools) > MAX_TOOLS:
        del tools[next(iter(tools))]
    return Profile(tasks, recent, tools)


def _halved(habit: Habit) -> Habit:
    return Habit(habit.tasks // 2, habit.outside // 2, habit.nowhere // 2, habit.linked // 2)


def pack(profile: Profile) -> bytes:
    head = _HEAD.pack(VERSION, profile.tasks, len(profile.tools), *profile.recent)
    rows = (
        _ROW.pack(name, one.tasks, one.outside, one.nowhere, one.linked, one.marks)
        for name, one in profile.tools.items()
    )
    return head + b"".join(rows)


def unpack(packed: bytes) -> Profile:
    """Raises Malformed."""
    try:
        version, tasks, count, *recent = _HEAD.unpack_from(packed)
        rows = [_ROW.unpack_from(packed, _HEAD.size + at * _ROW.size) for at in range(count)]
    except struct.error:
        raise Malformed("it is no profile") from None
    if version != VERSION or len(packed) != _HEAD.size + count * _ROW.size or count > MAX_TOOLS or tasks > MAX_TASKS:
        raise Malformed("it is no profile of this version")
    tools = {name: Habit(*row) for name, *row in rows}
    if any(not max(one.outside, one.nowhere, one.linked) <= one.tasks <= tasks for one in tools.values()):
        raise Malformed("a habit of more tasks than there were")
    return Profile(tasks, tuple(recent), tools)
