"""The spool folder: what else lies there is not the guard's, whoever put it there."""

from __future__ import annotations

import os
from pathlib import Path

from harness.clock import SeededRandom
from ostiary.guard.spool import new_spool, take_over_spools

A_SPOOL = "0123456789abcdef" * 2


def sweep(spool_dir: Path) -> None:
    """Deliver and close the spools that others have left behind, as a guard does."""
    for spool in take_over_spools(spool_dir):
        while (batch := spool.batch(count=10, size=1 << 20)) is not None and batch.records:
            spool.confirm(batch.mark)
        spool.close()


def test_a_folder_that_is_not_a_spool_is_left_unchanged(tmp_path: Path) -> None:
    precious = tmp_path / "project" / "report.txt"
    precious.parent.mkdir()
    precious.write_text("three months of work")
    sweep(tmp_path)
    assert precious.read_text() == "three months of work"
    assert not (tmp_path / "project" / "lock").exists()


def test_a_log_of_another_program_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx" / "access.log").write_text('{"n":1,"kind":"call"}\n')
    assert take_over_spools(tmp_path) == []


def test_an_unreadable_folder_does_not_stop_reporting(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir(mode=0)
    assert take_over_spools(tmp_path) == []


def test_a_symbolic_link_named_like_a_spool_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    spool_dir = tmp_path / "spools"
    spool_dir.mkdir()
    (spool_dir / A_SPOOL).symlink_to(elsewhere)
    sweep(spool_dir)
    assert list(elsewhere.iterdir()) == []


def test_a_foreign_file_in_a_spool_is_not_removed(tmp_path: Path, dice: SeededRandom) -> None:
    spool = new_spool(tmp_path, random=dice)
    (tmp_path / spool.id / "notes.txt").write_text("mine")
    spool.close()
    assert (tmp_path / spool.id / "notes.txt").read_text() == "mine"


def test_an_empty_spool_is_removed(tmp_path: Path, dice: SeededRandom) -> None:
    new_spool(tmp_path, random=dice).close()
    assert os.listdir(tmp_path) == []
