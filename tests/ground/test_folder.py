"""Two servers cannot use the same data folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from harness.server import COMMAND, running
from ostiary.protocol.errors import Conflict, Unavailable
from ostiaryd.ground.database.folder import HOLDER, lock_folder

SINCE = 1_790_000_000_000_000
HOLD = """
import sys, time
from pathlib import Path
from ostiaryd.ground.database.folder import lock_folder
with lock_folder(Path(sys.argv[1]), now=0):
    child = __import__("subprocess").Popen(["sleep", "600"])
    print(child.pid, flush=True)
    time.sleep(600)
"""


def test_a_second_holder_is_refused_with_the_process_that_holds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with lock_folder(folder, now=SINCE):
        with pytest.raises(Conflict) as refused, lock_folder(folder, now=SINCE):
            raise AssertionError("two holders")
        assert refused.value.code == "folder_in_use"
        assert f"process {os.getpid()} on " in refused.value.message
        assert "since 2026-09-21T14:13:20Z" in refused.value.message
    with lock_folder(folder, now=SINCE):
        pass


def test_another_path_to_a_locked_folder_is_locked_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("data", target_is_directory=True)
    with (
        lock_folder(tmp_path / "data", now=SINCE),
        pytest.raises(Conflict),
        lock_folder(tmp_path / "link" / ".." / "data", now=SINCE),
    ):
        raise AssertionError("two holders")


def test_deleting_files_in_the_folder_does_not_release_the_lock(tmp_path: Path) -> None:
    with lock_folder(tmp_path, now=SINCE):
        (tmp_path / HOLDER).unlink()
        with pytest.raises(Conflict, match="just started"), lock_folder(tmp_path, now=SINCE):
            raise AssertionError("two holders")


def test_two_folders_have_two_locks(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a", now=SINCE), lock_folder(tmp_path / "b", now=SINCE):
        assert (tmp_path / "a" / HOLDER).exists()
        assert (tmp_path / "b" / HOLDER).exists()


def test_a_killed_holder_leaves_no_lock_while_its_child_lives(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(Conflict, match=f"process {holder.pid} "), lock_folder(tmp_path, now=SINCE):
            raise AssertionError("two holders")
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it lives
        with lock_folder(tmp_path, now=SINCE):
            pass
    finally:
        os.kill(child, 9)
        holder.stdout.close()


def test_a_folder_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot open the data folder"), lock_folder(tmp_path / "file", now=SINCE):
        raise AssertionError("a file is no folder")


def test_a_second_server_is_refused_before_it_listens_and_the_first_goes_on(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        (tmp_path / "data" / HOLDER).unlink()
        for port in ("0", server.url.rpartition(":")[2]):
            second = subprocess.run(
                [COMMAND, "serve", "--data-dir", server.folder, "--listen", f"127.0.0.1:{port}"],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert second.returncode != 0
            assert "another server uses the data folder" in second.stderr
            assert "ready" not in second.stdout
        assert server.ostiary("agent", "list")
