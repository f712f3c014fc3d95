"""A process that was killed leaves its temporary folder, and a later process deletes the folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostiary.cli.run_folder import run_folder

PREFIX = "ostiary-egress-"
PROGRAM = f"""
from ostiary.cli.run_folder import run_folder
with run_folder({PREFIX!r}) as folder:
    (folder / "events").write_text("x")
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def first_line(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_the_folder_is_private_and_deleted_at_the_end_of_its_context(folder: Path) -> None:
    with run_folder(PREFIX) as own:
        assert (own.parent, own.name.startswith(PREFIX)) == (folder, True)
        assert own.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_the_folder_of_a_killed_process_is_deleted_and_of_a_living_process_stays(
    folder: Path, process: subprocess.Popen[str]
) -> None:
    left = first_line(process)
    with run_folder(PREFIX):
        assert (left / "events").exists(), "its process lives"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (left / "events").exists()
    with run_folder("ostiary-run-"):
        assert left.exists(), "only folders of the same command are deleted"
    with run_folder(PREFIX) as own:
        assert list(folder.iterdir()) == [own]


def test_a_link_and_a_file_with_the_prefix_stay(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("target")
    (target / "kept").touch()
    (folder / f"{PREFIX}link").symlink_to(target)
    (folder / f"{PREFIX}file").touch()
    with run_folder(PREFIX):
        assert (target / "kept").exists()
    assert {path.name for path in folder.iterdir()} == {f"{PREFIX}link", f"{PREFIX}file"}
