"""The stored course of the server time, one for each boot of each machine."""

from __future__ import annotations

from collections.abc import Callable

from ostiaryd.ground.database.statement import sql
from ostiaryd.ground.database.transaction import Reader, Tx
from ostiaryd.ground.process.clock import DAY, FULL, HALVED, LIMIT, Boot, Clock, Course

_COURSE = sql("select boot, time, speed, used, until from clock where boot_id = :boot_id")
_LATEST = sql(
    "select boot, time, speed, used, until from clock where boot_id <> :boot_id order by time desc, boot_id limit 1"
)
_SAVE = sql(
    """insert into clock (boot_id, boot, time, speed, used, until)
       values (:boot_id, :boot, :time, :speed, :used, :until)
       on conflict (boot_id) do update set boot = excluded.boot, time = excluded.time, speed = excluded.speed,
       used = excluded.used, until = excluded.until"""
)
_HIGHEST = sql(
    """select max(time) from (select max(time) as time from clock
       union all select max(at) as time from log_head where at > 0) as times"""
)
_ANY = sql("select count(*) from clock")
_DROP_OTHERS = sql("delete from clock where boot_id <> :boot_id and time < :before")


def highest_time(reader: Reader) -> int:
    """Return the latest server time that any server of this database has stored, in microseconds; 0 for
    a new database.
    """
    row = reader.one(_HIGHEST)
    return 0 if row is None or row[0] is None else int(row[0])


def save_course(tx: Tx, boot_id: str, course: Course) -> None:
    """Store the course of server time (the rule by which it advances) for this boot of the machine; courses of other
    machines and boots are deleted a week after their last update.
    """
    tx.send(_SAVE, boot_id=boot_id, **course._asdict())
    tx.send(_DROP_OTHERS, boot_id=boot_id, before=course.time - 7 * DAY)


def open_clock(reader: Reader, *, wall: Callable[[], int], boot: Boot) -> Clock:
    """Return the clock of a starting server. After a restart within the same boot, server time continues the stored
    course. Otherwise it begins at the wall clock, or at the latest stored time if that is later. If the wall clock is
    more than `LIMIT` ahead of the latest stored time and not synchronised, server time begins at the latest stored
    time.

    A step back that an operator confirmed before a reboot stays confirmed, as far as it was not made up for.
    """
    row, highest = reader.one(_COURSE, boot_id=boot.id), highest_time(reader)
    wall_now, boot_now = wall(), boot.now()
    if row is not None and boot.id and row[0] <= boot_now:
        course = Course(*row).rebased(boot_now)
        course = course._replace(time=max(course.time, highest))
    elif wall_now - highest <= LIMIT or reader.one(_ANY) == (0,) or boot.is_synchronised():
        course = Course(boot_now, max(highest, wall_now))
    else:
        course = Course(boot_now, highest)
    if (behind := course.time - wall_now) > 0 and (latest := reader.one(_LATEST, boot_id=boot.id)) is not None:
        confirmed = min(behind, Course(*latest).confirmed_lag(latest[0]))
        if confirmed > 0 and course.speed == FULL:
            course = course._replace(speed=HALVED, until=boot_now + 2 * confirmed)
    return Clock(course.follow(wall=wall_now, boot=boot_now), wall=wall, boot=boot)
