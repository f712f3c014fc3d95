"""Server time never decreases, follows the wall clock within bounds, and survives restarts; on both databases."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import START, MachineClock
from ostiary.protocol.errors import Conflict
from ostiaryd.ground.config import Config
from ostiaryd.ground.database.server_time import highest_time, save_course
from ostiaryd.ground.process.clock import (
    BUDGET,
    DAY,
    LIMIT,
    MARGIN,
    SECOND,
    SLACK,
    Boot,
    Clock,
    ClockJumped,
    Course,
    boot_clock,
    describe,
)
from ostiaryd.ledger.flows import act
from ostiaryd.trust.flows import accept_clock, watch_clock
from tests.support.clock_world import open_at_machine

BEGIN = START + 60 * SECOND
"""A minute after the template of the database was made."""


def clock_of(machine: MachineClock) -> Clock:
    boot = Boot(lambda: machine.uptime, machine.boot_id)
    return Clock(Course(machine.uptime, machine.wall()), wall=machine.wall, boot=boot)


def correct(clock: Clock) -> None:
    clock.adopt(clock.next_course(highest=0))


def settle(clock: Clock, machine: MachineClock, seconds: int) -> None:
    for _ in range(seconds):
        machine.advance(1)
        correct(clock)


def test_a_forward_step_of_five_minutes_is_followed_and_one_microsecond_more_is_a_jump() -> None:
    for over, is_confirmed in ((-1, True), (0, True), (1, False)):
        machine = MachineClock()
        clock = clock_of(machine)
        machine.step(us=LIMIT + over)
        assert clock.is_confirmed is is_confirmed
        correct(clock)
        assert clock() == START + (min(BUDGET, LIMIT + over) if is_confirmed else 0)
        assert clock.is_confirmed is is_confirmed


def test_server_time_ignores_an_unconfirmed_jump_of_the_wall_clock() -> None:
    machine = MachineClock()
    clock = clock_of(machine)
    machine.step(3600)
    settle(clock, machine, 10)
    with pytest.raises(ClockJumped):
        clock.check_confirmed()
    assert clock() == START + 10 * SECOND
    machine.step(-3600)
    clock.check_confirmed()
    settle(clock, machine, 10)
    assert clock() == machine.wall() == START + 20 * SECOND


@pytest.mark.parametrize("size", [299, 100, 20])
def test_small_steps_that_add_up_to_more_than_the_budget_are_a_jump(size: int) -> None:
    """An attacker who controls NTP can move server time by less than ten minutes in a day."""
    machine = MachineClock()
    clock = clock_of(machine)
    for _ in range(29):
        machine.step(size)
        correct(clock)
        machine.advance(60)
    assert not clock.is_confirmed
    assert clock() - START - machine.uptime <= BUDGET + BUDGET * machine.uptime // DAY + SECOND


@given(st.lists(st.tuples(st.integers(-(10**10), 10**10), st.integers(0, 10**9)), max_size=40))
def test_no_clock_makes_server_time_decrease_or_gain_more_than_its_budget(steps: list[tuple[int, int]]) -> None:
    machine = MachineClock()
    clock = clock_of(machine)
    before = clock()
    for step, passed in steps:
        machine.step(us=step)
        correct(clock)
        machine.advance(us=passed)
        correct(clock)
        now = clock()
        assert now >= before
        assert now - before >= passed * 99 // 100 - 1
        before = now
        gained = now - START - machine.uptime
        assert gained <= BUDGET + BUDGET * machine.uptime // DAY


def test_a_wall_clock_that_goes_back_slows_server_time_by_at_most_one_percent() -> None:
    machine = MachineClock()
    clock = clock_of(machine)
    machine.step(-86_400)
    settle(clock, machine, 600)
    assert START + 594 * SECOND <= clock() <= START + 600 * SECOND
    assert clock.is_confirmed


def test_server_time_agrees_with_the_wall_clock_again_after_a_small_step_back() -> None:
    """A leap second: the wall clock repeats a second."""
    machine = MachineClock()
    clock = clock_of(machine)
    machine.step(-1)
    settle(clock, machine, 110)
    assert abs(clock() - machine.wall()) <= 10_000
    assert clock.is_confirmed


def test_slewing_and_sleep_of_the_machine_leave_the_clock_confirmed() -> None:
    machine = MachineClock()
    clock = clock_of(machine)
    machine.advance(30 * 86_400)  # of both clocks alike, asleep or not
    assert clock() == machine.wall()
    assert clock.is_confirmed
    for _ in range(24 * 60):  # NTP steps by 0.2 s each minute for a day: 288 s
        machine.step(0.2)
        machine.advance(60)
        correct(clock)
        assert clock.is_confirmed


def test_an_operator_confirms_only_the_current_wall_time() -> None:
    machine = MachineClock()
    clock = clock_of(machine)
    machine.step(7200)
    seen = machine.wall()
    machine.step(120)
    with pytest.raises(Conflict, match="differs from the confirmed time"):
        clock.confirm(wall=seen)
    clock.adopt(clock.confirm(wall=machine.wall()))
    assert clock() == machine.wall()
    clock.check_confirmed()


def test_server_time_runs_at_half_speed_after_a_confirmed_step_back_until_both_agree() -> None:
    machine = MachineClock()
    clock = clock_of(machine)
    machine.step(-3600)
    clock.adopt(clock.confirm(wall=machine.wall()))
    settle(clock, machine, 7198)
    assert clock() == START + 3599 * SECOND
    settle(clock, machine, 3)
    assert clock() == machine.wall()


def test_a_confirmed_step_back_slows_server_time_for_at_most_twice_its_size() -> None:
    """A clock that goes further back afterwards was not confirmed."""
    machine = MachineClock()
    clock = clock_of(machine)
    machine.step(-600)
    clock.adopt(clock.confirm(wall=machine.wall()))
    machine.step(-36_000)
    settle(clock, machine, 1198)
    assert clock() == START + 599 * SECOND
    machine.advance(102)  # whether or not anybody corrects the course
    assert clock() == START + 700 * SECOND
    settle(clock, machine, 1)
    assert START + 700 * SECOND < clock() <= START + 701 * SECOND


async def test_a_reboot_keeps_the_confirmation_of_a_step_back_and_confirms_no_further_step(config: Config) -> None:
    """An hour back, confirmed; then reboots, with the wall clock right, and with a further step back."""
    machine = MachineClock(BEGIN)
    async with open_at_machine(config, machine) as world:
        machine.step(-3600)
        await accept_clock(world, wall=machine.wall(), record=partial(act, world))
        machine.advance(600)
        await watch_clock(world)
        assert world.now.lag == 0
    for number, (off, further) in enumerate(((60, 0), (60, 0), (60, 900))):
        machine.reboot(off=off, boot=f"boot-{number}")
        machine.step(-further)
        async with open_at_machine(config, machine) as world:
            begun, behind = world.now(), -world.now.ahead // SECOND
            assert max(0, further - off) <= world.now.lag // SECOND <= further, (
                "the time without a server made up for some"
            )
            machine.advance(100)
            await watch_clock(world)
            assert (world.now() - begun) // SECOND in (50, 51), "half of its speed"
            assert -world.now.ahead // SECOND <= behind - 49


async def test_a_restart_does_not_lengthen_the_slow_course_of_server_time(config: Config) -> None:
    machine = MachineClock(BEGIN)
    async with open_at_machine(config, machine) as world:
        machine.step(-600)
        course = world.now.confirm(wall=machine.wall())
        await world.writer.submit(lambda tx: save_course(tx, machine.boot_id, course))
        world.now.adopt(course)
        now = world.now()
    for count in range(1, 4):
        machine.advance(200)
        async with open_at_machine(config, machine) as world:
            assert world.now() == now + count * 100 * SECOND
    machine.advance(800)
    async with open_at_machine(config, machine) as world:
        assert world.now() == now + 800 * SECOND


def test_the_horizon_for_pruning_waits_a_margin_after_a_confirmed_jump() -> None:
    machine = MachineClock()
    clock = clock_of(machine)
    assert clock.horizon == START - MARGIN
    machine.step(7200)
    clock.adopt(clock.confirm(wall=machine.wall()))
    assert clock.horizon == START - MARGIN
    machine.advance(us=MARGIN - 1)
    assert clock.horizon == START - MARGIN
    machine.advance(us=1)
    assert clock.horizon == clock() - MARGIN


def test_server_time_does_not_decrease_when_an_earlier_course_is_adopted() -> None:
    """This holds for any course that is adopted."""
    machine = MachineClock()
    clock = clock_of(machine)
    machine.advance(60)
    told = clock()
    clock.adopt(Course(0, START - DAY))
    assert clock() == told


def test_differences_of_time_are_described_in_hours_minutes_and_seconds() -> None:
    assert [describe(s * SECOND) for s in (0, 5, -65, 3600, 3905)] == [
        "less than 1 s",
        "5 s",
        "1 min 5 s",
        "1 h",
        "1 h 5 min",
    ]


def test_the_boot_clock_of_this_machine_does_not_go_back() -> None:
    first = boot_clock()
    assert first <= boot_clock()


async def test_a_restart_under_a_wrong_wall_clock_does_not_change_server_time(config: Config) -> None:
    machine = MachineClock(BEGIN)
    for hours in (1, -1, 24, -24):
        async with open_at_machine(config, machine) as world:
            before = world.now()
        machine.step(hours * 3600)
        machine.advance(5)
        async with open_at_machine(config, machine) as world:
            assert before + 4 * SECOND <= world.now() <= before + 5 * SECOND
            assert world.now.is_confirmed is (hours < 0)
        machine.step(-hours * 3600)
        async with open_at_machine(config, machine) as world:
            assert world.now.is_confirmed


async def test_server_time_keeps_a_step_after_a_restart_under_the_old_wall_clock(config: Config) -> None:
    """A step is stored before server time follows the step."""
    machine = MachineClock(BEGIN)
    async with open_at_machine(config, machine) as world:
        machine.step(200)
        assert world.now() == BEGIN
        await watch_clock(world)
        assert world.now() == BEGIN + 200 * SECOND
    machine.step(-200)
    async with open_at_machine(config, machine) as world:
        assert world.now() >= BEGIN + 200 * SECOND


async def test_the_wall_clock_counts_after_a_reboot_if_within_the_limit_or_synchronised(
    config: Config,
) -> None:
    machine = MachineClock(BEGIN)
    async with open_at_machine(config, machine) as world:
        now = world.now()
    for boot, (off, is_synchronised, is_confirmed) in enumerate(
        ((200, False, True), (3600, False, False), (3600, True, True), (-7200, False, True))
    ):
        machine.reboot(off=off, boot=f"boot-{boot + 10}")
        machine.is_synchronised = is_synchronised
        async with open_at_machine(config, machine) as world:
            assert world.now.is_confirmed is is_confirmed
            assert world.now() == (max(now, machine.wall()) if is_confirmed else now)
            now = world.now()
        if not is_confirmed:
            machine.step(-off)


async def test_a_restart_does_not_renew_the_budget_of_clock_steps(config: Config) -> None:
    machine = MachineClock(BEGIN)
    for count in range(3):
        async with open_at_machine(config, machine) as world:
            machine.step(250)
            await watch_clock(world)
            assert world.now.is_confirmed is (count == 0)


async def test_a_server_follows_the_largest_time_of_its_database(config: Config) -> None:
    machine = MachineClock(BEGIN)
    async with open_at_machine(config, machine) as world:
        ahead = Course(0, world.now() + 90 * SECOND)
        await world.writer.submit(lambda tx: save_course(tx, "another machine", ahead))
        assert highest_time(world.db.read()) == ahead.time
        await watch_clock(world)
        assert world.now() == ahead.time
        assert abs(world.now.ahead) == 90 * SECOND > SLACK
