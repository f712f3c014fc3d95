"""The pin: the newest whole slot counts, a torn write leaves the older head, and a database behind it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database.pin import NAME, SLOT_BYTES, Head, HistoryLost, Pin, read_pin


def head(size: int, root: bytes = b"r" * 32) -> Head:
    return Head(b"k" * 32, "ab" * 16, size, root)


HISTORY = "ab" * 16


def never(seen: Head) -> bool:
    raise AssertionError("the tree was read")


def test_the_newest_head_of_a_pin_is_read_from_its_file(tmp_path: Path) -> None:
    assert read_pin(tmp_path) is None
    pin = Pin(tmp_path)
    assert pin.head is None
    for size in (1, 2, 3):
        pin.write(head(size))
        assert read_pin(tmp_path) == head(size)  # without close or sync: `kill -9` loses nothing
    pin.close()
    assert Pin(tmp_path).head == head(3)
    assert os.stat(tmp_path / NAME).st_mode & 0o077 == 0


@pytest.mark.parametrize("torn", [0, 7, 8, 16, 100, 104, 127, 135])
def test_a_torn_write_leaves_the_older_head(tmp_path: Path, torn: int) -> None:
    pin = Pin(tmp_path)
    pin.write(head(1))
    pin.write(head(2))
    before = (tmp_path / NAME).read_bytes()
    pin.write(head(3, b"s" * 32))
    after = (tmp_path / NAME).read_bytes()
    pin.close()
    start = 0 if before[:SLOT_BYTES] != after[:SLOT_BYTES] else SLOT_BYTES
    # The first bytes and the last ones of the write arrived, in between something else is on the disk.
    mixed = after[: start + torn] + b"\xff" + after[start + torn + 1 :]
    (tmp_path / NAME).write_bytes(mixed)
    assert read_pin(tmp_path) == head(2)


def test_a_file_without_a_whole_slot_is_refused(tmp_path: Path) -> None:
    pin = Pin(tmp_path)
    pin.write(head(1))
    pin.close()
    (tmp_path / NAME).write_bytes(b"\1" * 2 * SLOT_BYTES)
    with pytest.raises(Conflict, match="damaged"):
        Pin(tmp_path)


@pytest.mark.parametrize(
    ("size", "root", "is_lost"),
    [(5, b"r", False), (5, b"x", True), (4, b"r", True), (0, b"r", True), (6, b"x", False)],
)
def test_a_pin_compares_heads_by_size_and_root(size: int, root: bytes, is_lost: bool) -> None:
    pin = Pin()
    pin.write(head(5))
    pin.is_checked = True
    if is_lost:
        with pytest.raises(HistoryLost):
            pin.check(HISTORY, size, root * 32, never)
    else:
        pin.check(HISTORY, size, root * 32, never)


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("history", [HISTORY, "cd" * 16])
def test_the_first_check_after_a_start_looks_up_the_pinned_head_once(is_there: bool, history: str) -> None:
    pin, asked = Pin(), list[Head]()
    pin.write(head(5))
    pin.require_check()

    def has(seen: Head) -> bool:
        asked.append(seen)
        return is_there

    if not is_there:
        with pytest.raises(HistoryLost):
            pin.check(history, 40, b"y" * 32, has)
        return
    pin.check(history, 40, b"y" * 32, has)
    pin.write(Head(b"k" * 32, history, 41, b"z" * 32))
    pin.check(history, 42, b"z" * 32, has)
    assert asked == [head(5)]


def test_a_lost_head_stays_pinned_in_recovery_until_its_replacement(tmp_path: Path) -> None:
    pin = Pin(tmp_path)
    pin.write(head(5))
    pin.is_lost = True
    pin.write(head(2))
    assert read_pin(tmp_path) == head(5)
    pin.check(HISTORY, 2, b"x" * 32, never)
    pin.replace(head(3))
    assert read_pin(tmp_path) == head(3)
    pin.close()
