from __future__ import annotations

from pathlib import Path

import pytest

from ostiary.audit import paths_of, prove, render_files, verify_folder, write_folder
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.receipt import verify_receipt
from ostiary.protocol.tiles import MAX_ENTRY_BYTES
from tests.audit.export import ORIGIN, make_log

LOG = make_log(700)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700])
def test_the_rendered_files_match_the_files_of_an_export(size: int) -> None:
    entries = LOG.entries[:size]
    assert sorted(path for path, _ in render_files(entries)) == sorted(paths_of(size))


def test_the_rendered_files_of_a_log_with_three_rows_match_the_files_of_an_export() -> None:
    entries = (b"%d" % i for i in range(65_537))
    assert sorted(path for path, _ in render_files(entries)) == sorted(paths_of(65_537))


def test_an_export_that_was_fetched_file_by_file_verifies(tmp_path: Path) -> None:
    here, there = LOG.export(tmp_path / "here"), tmp_path / "there"
    fetched = ((path, (here / path).read_bytes()) for path in paths_of(700))
    write_folder(there, checkpoint=LOG.note(), key=LOG.key.vkey, files=fetched)
    assert verify_folder(there, key=LOG.key.vkey).ok


def test_an_interrupted_export_has_no_checkpoint_and_can_be_repeated(tmp_path: Path) -> None:
    files = list(render_files(LOG.entries))
    with pytest.raises(Malformed):
        write_folder(tmp_path, checkpoint=LOG.note(), key=LOG.key.vkey, files=[*files[:3], ("broken", b"")])
    assert not (tmp_path / "checkpoint").exists()
    LOG.export(tmp_path)
    assert verify_folder(tmp_path, key=LOG.key.vkey).ok


@pytest.mark.parametrize("path", ["../checkpoint", "/etc/passwd", "tile/0/../../../x", "checkpoint", "tile/0/0"])
def test_an_export_refuses_a_path_that_is_not_a_tile_or_a_bundle(path: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        write_folder(tmp_path / "export", checkpoint=b"", key="", files=[(path, b"x")])
    assert list(tmp_path.rglob("*")) == []


def test_an_entry_of_the_maximum_size_is_exported_and_a_larger_one_is_refused() -> None:
    list(render_files([bytes(MAX_ENTRY_BYTES)]))
    with pytest.raises(Invalid):
        list(render_files([bytes(MAX_ENTRY_BYTES + 1)]))


@pytest.mark.parametrize("index", [0, 255, 256, 511, 512, 699])
def test_a_receipt_from_an_export_verifies(index: int, tmp_path: Path) -> None:
    receipt = prove(LOG.export(tmp_path), index).render()
    proved, checkpoint = verify_receipt(receipt, entry=LOG.entries[index], keys=[LOG.key], origin=ORIGIN)
    assert (proved, checkpoint.size) == (index, 700)


@pytest.mark.parametrize("index", [-1, 700])
def test_a_receipt_of_a_missing_entry_is_refused(index: int, tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        prove(LOG.export(tmp_path), index)
