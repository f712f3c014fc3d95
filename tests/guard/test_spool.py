"""The spool: what was decided is on disk before the tool runs, and leaves only when the server has it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.clock import SeededRandom
from ostiary import ambient
from ostiary.guard import SpoolFailed
from ostiary.guard import spool as spools
from ostiary.guard.spool import MAX_RECORD_BYTES, RESERVE, Batch, Spool, new_spool, take_over_spools
from ostiary.protocol.errors import Invalid


@contextmanager
def without_descriptors() -> Iterator[None]:
    """This process can open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def spool(tmp_path: Path, dice: SeededRandom) -> Spool:
    return new_spool(tmp_path, random=dice)


def numbers(spool: Spool, *, count: int = 100, size: int = 1 << 20) -> list[int]:
    """The numbers of the next batch."""
    batch = spool.batch(count=count, size=size)
    return [] if batch is None else list(range(batch.first, batch.first + len(batch.records)))


def next_batch(spool: Spool, *, count: int = 100) -> Batch:
    """There must be one."""
    batch = spool.batch(count=count, size=1 << 20)
    assert batch is not None
    return batch


def test_records_are_numbered_and_read_back_in_order(spool: Spool) -> None:
    assert [spool.append({"call": name}) for name in "abc"] == [1, 2, 3]
    batch = next_batch(spool)
    assert batch.first == 1
    assert batch.records == [{"call": "a"}, {"call": "b"}, {"call": "c"}]


def test_a_record_is_in_the_file_when_append_returns(spool: Spool, tmp_path: Path) -> None:
    spool.append({"call": "a"})
    [file] = (tmp_path / spool.id).glob("*.log")
    assert file.read_bytes() == b'{"n":1,"call":"a"}\n'
    assert file.stat().st_mode & 0o777 == 0o600


def test_confirmed_records_are_not_sent_again_and_unconfirmed_records_are(spool: Spool) -> None:
    for name in "abc":
        spool.append({"call": name})
    batch = next_batch(spool, count=2)
    assert numbers(spool, count=2) == [1, 2], "reading alone takes nothing"
    spool.confirm(batch.mark)
    assert numbers(spool) == [3]
    assert not spool.is_empty
    spool.confirm(next_batch(spool, count=2).mark)
    assert numbers(spool) == []
    assert spool.is_empty


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (4, 4), (5, 5), (6, 5)])
def test_a_batch_has_at_most_the_requested_number_of_records(spool: Spool, count: int, expected: int) -> None:
    for _ in range(5):
        spool.append({"call": "a"})
    assert len(numbers(spool, count=count)) == expected


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (37, 1), (38, 2), (39, 2)])
def test_a_batch_has_at_most_the_requested_number_of_bytes_and_at_least_one_record(
    spool: Spool, size: int, expected: int
) -> None:
    for _ in range(3):
        spool.append({"call": "a"})  # 19 bytes a line
    assert len(numbers(spool, size=size)) == expected


def test_spool_files_are_removed_after_the_server_confirms_their_records(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 40)
    for _ in range(10):
        spool.append({"call": "a"})
    files = list((tmp_path / spool.id).glob("*.log"))
    assert len(files) == 4
    assert spool.waiting == 9 * 19 + 20
    taken = 0
    while batch := spool.batch(count=4, size=1 << 20):
        assert batch.first == taken + 1
        taken += len(batch.records)
        spool.confirm(batch.mark)
    assert taken == 10
    assert len(list((tmp_path / spool.id).glob("*.log"))) == 1
    assert spool.waiting == 0


@pytest.mark.parametrize(("room", "fits"), [(18, False), (19, True), (20, True)])
def test_a_spool_refuses_records_beyond_its_limit_except_outcomes(
    tmp_path: Path, dice: SeededRandom, room: int, fits: bool
) -> None:
    spool = new_spool(tmp_path, random=dice, limit=RESERVE + 19 + room)
    spool.append({"call": "a"})
    if fits:
        spool.append({"call": "b"})
    else:
        with pytest.raises(SpoolFailed, match="the spool is full"):
            spool.append({"call": "b"})
        assert spool.append({"call": "b"}, is_outcome=True) == 2, "how a call went that was let through, has its room"


def test_a_full_spool_accepts_records_again_after_a_confirmation(
    tmp_path: Path, dice: SeededRandom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 1)
    spool = new_spool(tmp_path, random=dice, limit=RESERVE + 40)
    spool.append({"call": "a"})
    spool.append({"call": "b"})
    with pytest.raises(SpoolFailed, match="the spool is full"):
        spool.append({"call": "c"})
    spool.confirm(next_batch(spool).mark)
    assert spool.append({"call": "c"}) == 3
    assert numbers(spool) == [3]


def test_confirmed_records_do_not_count_toward_the_limit_while_their_file_exists(
    tmp_path: Path, dice: SeededRandom
) -> None:
    """Otherwise a small spool would stay full before its first file is complete."""
    spool = new_spool(tmp_path, random=dice, limit=RESERVE + 40)
    for number in range(1, 9):
        assert (spool.waiting, spool.filled) == (0, 0)
        assert spool.append({"call": "a"}) == number
        assert (spool.waiting, spool.filled) == (19, 47)
        spool.confirm(next_batch(spool).mark)


@pytest.mark.parametrize(("limit", "is_enough"), [(RESERVE - 1, False), (RESERVE, False), (RESERVE + 1, True)])
def test_a_limit_must_leave_room_beyond_the_reserve(
    tmp_path: Path, dice: SeededRandom, limit: int, is_enough: bool
) -> None:
    if is_enough:
        new_spool(tmp_path, random=dice, limit=limit)
    else:
        with pytest.raises(Invalid):
            new_spool(tmp_path, random=dice, limit=limit)


@pytest.mark.parametrize(("more", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_record_larger_than_the_maximum_is_refused(spool: Spool, more: int, fits: bool) -> None:
    record: dict[str, object] = {"a": "x" * (MAX_RECORD_BYTES - 8 + more)}
    if fits:
        spool.append(record)
    else:
        with pytest.raises(SpoolFailed):
            spool.append(record)


def test_a_partly_written_record_is_refused_and_leaves_no_trace(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append({"call": "a"})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    with pytest.raises(SpoolFailed, match="part"):
        spool.append({"call": "b"})
    monkeypatch.undo()
    assert spool.append({"call": "c"}) == 2
    assert next_batch(spool).records == [{"call": "a"}, {"call": "c"}]


def test_a_file_in_place_of_the_spool_folder_is_refused(tmp_path: Path, dice: SeededRandom) -> None:
    file = tmp_path / "not a folder"
    file.touch()
    with pytest.raises(SpoolFailed):
        new_spool(file, random=dice)


def replace_by_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/null")


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def extend(file: Path) -> None:
    with file.open("ab") as other:
        other.write(b'{"n":9,"outcome":')


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "renamed": lambda file: file.rename(file.with_name("other")),
    "replaced by a link": replace_by_link,
    "replaced by a folder": replace_by_folder,
    "extended": extend,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_spool_file_changed_by_another_program_loses_no_record(spool: Spool, tmp_path: Path, change: str) -> None:
    for name in "abc":
        spool.append({"call": name})
    spool.confirm(next_batch(spool, count=1).mark)
    CHANGES[change](tmp_path / spool.id / "000000001.log")
    assert numbers(spool) == [2, 3], "before the next record shows the change"
    assert spool.append({"call": "d"}) == 4
    assert (tmp_path / spool.id / "000000004.log").read_bytes() == b'{"n":4,"call":"d"}\n'
    assert numbers(spool) == [2, 3, 4]
    spool.confirm(next_batch(spool).mark)
    assert spool.is_empty
    assert spool.filled == 0
    assert numbers(spool) == []
    spool.append({"call": "e"})
    assert numbers(spool) == [5]
    spool.close()
    assert len(list((tmp_path / spool.id).glob("00000000[45].log"))) == 1, "the record that was not reported stays"


def test_records_after_a_truncation_are_reported_and_leave_a_gap(spool: Spool, tmp_path: Path) -> None:
    for name in "abc":
        spool.append({"call": name})
    spool.confirm(next_batch(spool, count=1).mark)
    os.truncate(tmp_path / spool.id / "000000001.log", 0)
    spool.append({"call": "d"})
    assert numbers(spool) == [4]
    assert spool.filled == 0


@pytest.mark.parametrize("change", ["deleted", "renamed", "replaced by a link", "extended"])
def test_a_changed_spool_file_without_records_is_written_again(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    with pytest.raises(SpoolFailed):
        spool.append({"call": "a"})
    monkeypatch.undo()
    CHANGES[change](tmp_path / spool.id / "000000001.log")
    assert spool.append({"call": "a"}) == 1
    assert numbers(spool) == [1]


def test_a_spool_whose_folder_was_deleted_refuses_calls_and_reports_what_it_has(spool: Spool, tmp_path: Path) -> None:
    spool.append({"call": "a"})
    shutil.rmtree(tmp_path / spool.id)
    for _ in range(2):
        with pytest.raises(SpoolFailed, match="the spool cannot be written: No such file"):
            spool.append({"call": "b"})
    assert numbers(spool) == [1]
    spool.confirm(next_batch(spool).mark)
    spool.close()


def test_unrelated_files_in_the_folder_do_not_prevent_the_takeover_of_a_spool(
    tmp_path: Path, dice: SeededRandom
) -> None:
    spool = new_spool(tmp_path, random=dice)
    spool.append({"call": "a"})
    os.close(spool._lock)  # the guard was killed
    (tmp_path / ("0" * 32)).write_text("no folder")
    (tmp_path / ("1" * 32) / "lock").mkdir(parents=True)
    (tmp_path / ("2" * 32) / "000000001.log").mkdir(parents=True)
    (tmp_path / os.fsdecode(b"\xff" * 32)).mkdir()
    (tmp_path / spool.id / "000000007.log").symlink_to("/etc/passwd")
    found = {one.id: numbers(one) for one in take_over_spools(tmp_path)}
    assert found == {"2" * 32: [], spool.id: [1]}
    assert take_over_spools(tmp_path / "nothing") == []


def test_a_missing_file_of_a_killed_guard_loses_only_its_own_records(tmp_path: Path, dice: SeededRandom) -> None:
    spool = new_spool(tmp_path, random=dice)
    spool.append({"call": "a"})
    extend(tmp_path / spool.id / "000000001.log")
    spool.append({"call": "b"})
    os.close(spool._lock)  # the guard was killed
    boot = "of this machine"
    (tmp_path / spool.id / "lock").write_text(boot)
    [taken] = take_over_spools(tmp_path, boot=boot)
    assert taken.is_whole
    (tmp_path / spool.id / "000000001.log").unlink()
    assert numbers(taken) == [2]
    assert not taken.is_whole, "budgets that it drew count as spent"
    taken.confirm(next_batch(taken).mark)
    taken.close()
    assert not (tmp_path / spool.id).exists()


def test_a_process_without_free_descriptors_loses_no_record(spool: Spool, tmp_path: Path, dice: SeededRandom) -> None:
    spool.append({"call": "a"})
    ended = new_spool(tmp_path, random=dice)
    ended.append({"call": "b"})
    os.close(ended._lock)  # its guard was killed
    [taken] = take_over_spools(tmp_path)
    for one in (spool, taken):
        was_whole = one.is_whole
        with without_descriptors(), pytest.raises(OSError, match="Too many open files"):
            one.batch(count=1, size=1 << 20)
        assert numbers(one) == [1]
        assert one.is_whole is was_whole
    assert spool.append({"call": "c"}) == 2


def test_a_damaged_line_leaves_a_gap_in_the_record_numbers(spool: Spool, tmp_path: Path) -> None:
    for name in "abcd":
        spool.append({"call": name})
    [file] = (tmp_path / spool.id).glob("*.log")
    file.write_bytes(file.read_bytes().replace(b'"call":"b"}', b'"call";"b"}'))
    first = next_batch(spool)
    assert (first.first, first.records) == (1, [{"call": "a"}])
    spool.confirm(first.mark)
    assert numbers(spool) == [3, 4]


def test_a_damaged_last_line_is_skipped(spool: Spool, tmp_path: Path) -> None:
    spool.append({"call": "a"})
    spool.append({"call": "b"})
    [file] = (tmp_path / spool.id).glob("*.log")
    file.write_bytes(file.read_bytes().replace(b'"call":"b"}', b'"call";"b"}'))
    spool.confirm(next_batch(spool).mark)
    rest = next_batch(spool)
    assert rest.records == []
    spool.confirm(rest.mark)
    assert spool.is_empty


def test_a_torn_last_line_is_not_a_record(spool: Spool, tmp_path: Path) -> None:
    spool.append({"call": "a"})
    [file] = (tmp_path / spool.id).glob("*.log")
    with file.open("ab") as torn:
        torn.write(b'{"n":2,"ca')
    assert numbers(spool) == [1]


def test_a_closed_spool_refuses_records(spool: Spool) -> None:
    spool.append({"call": "a"})
    spool.close()
    with pytest.raises(SpoolFailed, match="the guard is closed"):
        spool.append({"call": "b"})


def test_closing_removes_an_empty_spool_and_leaves_records_for_the_next_guard(
    tmp_path: Path, dice: SeededRandom
) -> None:
    empty, full = new_spool(tmp_path, random=dice), new_spool(tmp_path, random=dice)
    full.append({"call": "a"})
    assert take_over_spools(tmp_path) == [], "their guards live"
    empty.close()
    full.close()
    assert [path.name for path in tmp_path.iterdir()] == [full.id]
    [found] = take_over_spools(tmp_path)
    assert found.id == full.id
    assert numbers(found) == [1]
    assert take_over_spools(tmp_path) == [], "one guard finds it, not two"
    found.confirm(next_batch(found).mark)
    found.close()
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, os, signal
from pathlib import Path
from ostiary.guard.spool import new_spool
spool = new_spool(Path(sys.argv[1]), random=os.urandom)
for number in range(1, 1001):
    spool.append({"call": "x" * 100})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_record_survives_the_kill_of_its_guard(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    [spool] = take_over_spools(tmp_path)
    assert numbers(spool, count=2000) == list(range(1, 1001))


@pytest.mark.parametrize(
    ("written", "found", "is_whole"),
    [
        ("boot-1", "boot-1", True),
        ("boot-1", "boot-2", False),
        ("boot-1", "boot-11", False),
        ("boot-11", "boot-1", False),
        ("boot-1", "", False),
        ("", "boot-1", False),
        ("", "", False),
    ],
)
def test_a_spool_is_whole_only_in_the_known_boot_in_which_it_was_written(
    tmp_path: Path, dice: SeededRandom, written: str, found: str, is_whole: bool
) -> None:
    spool = new_spool(tmp_path, random=dice, boot=written)
    spool.append({"call": "a"})
    spool.close()
    [left] = take_over_spools(tmp_path, boot=found)
    assert left.is_whole == is_whole


def test_the_boot_id_is_empty_if_the_machine_has_none(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("boot-1\n")
    assert ambient.boot(tmp_path / "boot_id") == "boot-1"
    assert ambient.boot(tmp_path / "is_not_there") == ""
    assert ambient.boot() == ambient.boot()


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes, as on a disk that is full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_spool_on_a_full_disk_accepts_records_again_after_all_are_confirmed(spool: Spool, tmp_path: Path) -> None:
    """The file that fills the disk is the one that is written: it goes as soon as the server has all of it."""
    with disk_of(10_000):
        kept = 0
        while True:
            try:
                spool.append({"call": "x" * 300})
            except SpoolFailed as refusal:
                assert "free space" in refusal.hint  # noqa: PT017 because the number of records is not known
                break
            kept += 1
        assert 25 < kept < 33
        with pytest.raises(SpoolFailed):
            spool.append({"call": "x" * 300})
        half = next_batch(spool, count=kept // 2)
        spool.confirm(half.mark)
        with pytest.raises(SpoolFailed):
            spool.append({"call": "x" * 300})
        rest = next_batch(spool)
        assert (rest.first, len(rest.records)) == (kept // 2 + 1, kept - kept // 2)
        spool.confirm(rest.mark)
        assert not list((tmp_path / spool.id).glob("*.log")), "nothing of it is left on the disk"
        assert (spool.waiting, spool.is_empty) == (0, True)
        assert spool.append({"call": "after"}) == kept + 1
        assert numbers(spool) == [kept + 1]


def test_the_callback_of_a_write_runs_while_its_file_exists(spool: Spool) -> None:
    seen: list[list[int]] = []
    spool.append({"call": "a"}, then=lambda: seen.append(list(spool._sizes)))
    assert seen == [[1]]
