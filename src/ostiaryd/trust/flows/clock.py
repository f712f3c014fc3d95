"""The clock of the server: corrects server time, records jumps of the wall clock, and accepts an operator's
confirmation of the wall clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, TypedDict

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Reader
from ostiaryd.ground.database.server_time import highest_time, save_course
from ostiaryd.ground.process.clock import FULL, SECOND, SLOWED, STEP, Clock, Course, describe
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import reason
from ostiaryd.registry import flows as registry

_IF_RIGHT = "If the wall clock is right, run `ostiary clock accept`: server time then goes at half of its speed"
SAVE_EVERY = 60 * SECOND
"""Maximum time between two writes of the server time to the disk while the server is idle, in microseconds of boot
time.
"""


class ClockWatch:
    """The state of the clock that was last stored or recorded. It is in memory only."""

    def __init__(self, world: World) -> None:
        self.saved_at = 0
        """Boot time of the last write of the server time to the disk, in microseconds."""
        self.jumped = ""
        """Direction of the recorded jump of the wall clock while it lasts: `forward` or `backward`; empty without a
        jump.
        """


async def watch_clock(world: World) -> None:
    """Correct server time, store it on the disk, and record the begin and the end of each jump of the wall clock. The
    caller repeats this function at intervals.
    """
    clock, watch = world.now, world.get_singleton(ClockWatch)
    highest = await world.db.scan(highest_time)
    before, course = clock.course, clock.next_course(highest=highest)
    if course is not before or clock.boot.now() - watch.saved_at >= SAVE_EVERY:
        await _go_on(world, watch, course)
    ahead, is_confirmed = clock.ahead, clock.is_confirmed
    jumped = "forward" if not is_confirmed else "backward" if clock.lag > STEP else ""
    step = course.time - before.at(course.boot)
    if jumped and jumped != watch.jumped:
        await act(world, "clock.jump", lambda act: _jumped(act, clock, ahead, is_confirmed=is_confirmed))
    elif watch.jumped and not jumped:
        await act(world, "clock.return", lambda act: _note(act, ahead))
    elif step >= STEP:
        await act(world, "clock.step", lambda act: _note(act, step))
    watch.jumped = jumped


async def _go_on(world: World, watch: ClockWatch, course: Course) -> None:
    """Store a course of the clock (the rule by which server time advances) on the disk, and then use it."""
    clock = world.now
    await world.writer.submit(lambda tx: save_course(tx, clock.boot.id, course.rebased(clock.boot.now())))
    clock.adopt(course)
    watch.saved_at = clock.boot.now()


def _note(act: Act, difference: int) -> None:
    act.entry.detail = {"difference_s": difference / SECOND}


def _slowed(clock: Clock) -> str:
    """Return the effects of a wall clock that is behind server time, and their duration."""
    boot, lag = clock.boot.now(), clock.lag
    confirmed = clock.course.until - boot if clock.course.confirmed_lag(boot) else 0
    if lag <= STEP and confirmed:
        speed, lasts = "goes at half of its speed, as an operator has confirmed,", confirmed
    else:
        speed, lasts = "is slower by one per cent", confirmed + lag * FULL // (FULL - SLOWED)
    return (
        f"server time {speed} until both agree, in {describe(lasts)}, and "
        "clients with the time of the wall clock may be refused meanwhile"
    )


def _jumped(act: Act, clock: Clock, ahead: int, *, is_confirmed: bool) -> None:
    _note(act, ahead)
    if is_confirmed:
        text = f"the wall clock went back by {describe(ahead)}; {_slowed(clock)}. {_IF_RIGHT}"
    else:
        text = (
            f"the wall clock jumped forward by {describe(ahead)}; the server grants nothing until an operator "
            "confirms the wall clock or the clock is set back"
        )
    act.entry.reasons = [reason("clock_jump", text)]


async def accept_clock(world: World, *, wall: int, record: Any) -> Course:
    """Set server time by the wall clock, after an operator has confirmed the wall clock, and return the new course of
    the clock. `record` runs a flow as an act with the given action.

    After a jump forward, server time equals the wall clock from now on, and objects expire accordingly. After a jump
    backward, server time goes at half of its speed until the wall clock has reached it. Raises Conflict if both agree
    already, or if `wall` (microseconds), the time that the operator confirmed, is more than a minute away from the wall
    clock.
    """
    clock = world.now

    def accept(act: Act) -> Course:
        ahead = clock.ahead
        registry.fill_entry(act, object="clock", difference_s=ahead / SECOND)
        if abs(ahead) < STEP and clock.is_confirmed:
            raise Conflict("the wall clock agrees with server time; there is nothing to confirm")
        course = clock.confirm(wall=wall)
        save_course(act.tx, clock.boot.id, course)
        return course

    course: Course = await record("clock.accept", accept)
    clock.adopt(course)
    world.get_singleton(ClockWatch).jumped = ""  # record a further jump as a new one
    return course


class ClockBody(TypedDict):
    """State of the clock. `state`: `jumped` after a jump forward of the wall clock that an operator must confirm,
    `behind` if the wall clock is behind server time. `time` (server time) and `wall` (wall clock) are in seconds since
    the epoch. `difference_s`: wall clock minus server time, in seconds. `is_granting`: false in the state `jumped`.
    """

    state: Literal["ok", "behind", "jumped"]
    time: float
    wall: float
    difference_s: float
    is_granting: bool


def show_clock(clock: Clock) -> ClockBody:
    """Return the state of the clock, with server time, wall time and their difference."""
    ahead = clock.ahead
    state: Literal["ok", "behind", "jumped"] = (
        "jumped" if not clock.is_confirmed else "behind" if ahead < -STEP else "ok"
    )
    now = clock()
    return {
        "state": state,
        "time": now / SECOND,
        "wall": (now + ahead) / SECOND,
        "difference_s": ahead / SECOND,
        "is_granting": clock.is_confirmed,
    }


def examine_clock(world: World, reader: Reader) -> str:
    """Return the line about the clock for `ostiary doctor`. Raises ClockJumped after an unconfirmed jump, Conflict if
    the wall clock is behind server time.
    """
    clock = world.now
    clock.check_confirmed()
    if (ahead := clock.ahead) < -STEP:
        raise Conflict(
            f"the wall clock is {describe(ahead)} behind server time: {_slowed(clock)}",
            hint=f"set the clock right. {_IF_RIGHT}" if clock.lag > STEP else "wait until both agree",
        )
    highest = highest_time(reader)
    latest = datetime.fromtimestamp(highest / SECOND, UTC)
    return f"server time and the wall clock agree; new entries are later than {latest:%Y-%m-%d %H:%M:%S}Z"
