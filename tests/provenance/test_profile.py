"""A profile has a bounded size, learns slowly, and learns only from allowed calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Malformed
from ostiary.provenance.noticing import MAX_PROFILE, NEW, Event, Noticed, Profile, learn, pack, unpack
from ostiary.provenance.noticing.profile import MAX_TASKS, MAX_TOOLS, RECENT, VERSION, Habit, digest


def call(tool: str = "bank/pay", *, task: str = "tk_1", outcome: str = "allow", **more: Any) -> Event:
    return Event(at=1, action=more.pop("action", "tool.call"), outcome=outcome, tool=tool, task=task, **more)


def taught(*events: Event, profile: Profile = NEW) -> Profile:
    for event in events:
        profile = learn(profile, event)
    return profile


def test_an_allowed_call_counts_once_in_each_task() -> None:
    profile = taught(call(), call(worst="outside"), call(worst="outside"), call(worst="nowhere", links="outside"))
    habit = profile.habit("bank/pay")
    assert (profile.tasks, habit.tasks, habit.outside, habit.nowhere, habit.linked) == (1, 1, 1, 1, 1)
    habit = taught(call(task="tk_2", worst="person"), profile=profile).habit("bank/pay")
    assert (habit.tasks, habit.outside, habit.nowhere, habit.linked) == (2, 1, 1, 1)
    assert profile.habit("bank/read").tasks == 0


def seen(*detectors: str) -> tuple[Noticed, ...]:
    return tuple(Noticed(detector=name, points=30, says="it is odd") for name in detectors)


def test_a_finding_counts_once_in_each_task() -> None:
    profile = taught(call(noticed=seen("instructed", "other")), call(noticed=seen("instructed", "flow_drift")))
    habit = taught(call(task="tk_2"), profile=profile).habit("bank/pay")
    assert (habit.tasks, habit.instructed, habit.flowed) == (2, 1, 1)


@pytest.mark.parametrize(
    "event",
    [call(outcome="deny"), call(outcome="refused"), call(outcome="error"), call(""), call(action="token.issue")],
)
def test_a_call_that_is_not_allowed_or_has_no_tool_does_not_change_the_profile(event: Event) -> None:
    assert learn(NEW, event) is NEW


def test_interleaved_tasks_count_once_each() -> None:
    turns = [call(task=f"tk_{number % RECENT}") for number in range(50)]
    assert taught(*turns).habit("bank/pay").tasks <= taught(*turns).tasks == RECENT


def test_full_counters_of_a_profile_are_halved() -> None:
    full = taught(*(call(task=f"tk_{number}", worst="outside") for number in range(MAX_TASKS)))
    assert (full.tasks, full.habit("bank/pay").outside) == (MAX_TASKS, MAX_TASKS)
    more = learn(full, call(task="tk_more"))
    assert (more.tasks, more.habit("bank/pay").tasks) == ((MAX_TASKS + 1) // 2, MAX_TASKS // 2 + 1)


def test_the_oldest_tool_of_a_full_profile_is_removed() -> None:
    full = taught(*(call(f"bank/tool{number}") for number in range(MAX_TOOLS)))
    assert len(full.tools) == MAX_TOOLS
    more = learn(full, call("bank/one-more"))
    assert len(more.tools) == MAX_TOOLS
    assert digest("bank/tool0") not in more.tools
    assert digest("bank/tool1") in more.tools


ORIGINS = st.sampled_from(["", "person", "outside", "nowhere"])
CALLS = st.builds(
    lambda tool, task, outcome, worst, links, noticed: call(
        f"t/{tool}", task=f"k{task}", outcome=outcome, worst=worst, links=links, noticed=noticed
    ),
    st.integers(0, 60),
    st.integers(0, 200),
    st.sampled_from(["allow", "ok", "deny"]),
    ORIGINS,
    ORIGINS,
    st.sampled_from([(), seen("instructed"), seen("instructed", "flow_drift")]),
)


@given(st.lists(CALLS, max_size=300))
def test_a_profile_packs_into_512_bytes_and_unpacks_to_the_same(events: list[Event]) -> None:
    profile = taught(*events)
    packed = pack(profile)
    assert len(packed) <= MAX_PROFILE
    assert unpack(packed) == profile
    assert pack(taught(*events)) == packed, "the same events make the same profile"
    assert profile.tasks <= MAX_TASKS
    for habit in profile.tools.values():
        most = max(habit.outside, habit.nowhere, habit.linked, habit.instructed, habit.flowed)
        assert most <= habit.tasks <= profile.tasks


@pytest.mark.parametrize(
    "habit",
    [
        Habit(1, 2),
        Habit(1, 0, 2),
        Habit(1, 0, 0, 2),
        Habit(1, instructed=2),
        Habit(1, flowed=2),
        Habit(3, 0, 0, 0),
        Habit(2, 2, 2, 3),
    ],
)
def test_a_habit_of_more_tasks_than_the_profile_has_is_refused(habit: Habit) -> None:
    """Otherwise a habit would lower points by more than its tasks justify."""
    assert unpack(pack(Profile(tasks=2, tools={1: Habit(2, 2, 2, 2, 2, 2)}))).tasks == 2
    with pytest.raises(Malformed):
        unpack(pack(Profile(tasks=2, tools={1: habit})))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\0" * 600,
        pack(NEW)[:-1],
        pack(NEW) + b"\0",
        bytes([VERSION - 1]) + pack(NEW)[1:],
        pack(learn(NEW, call()))[:-1],
    ],
)
def test_a_malformed_profile_is_refused(packed: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(packed)
