"""The end of a server while guards read its feed."""

from __future__ import annotations

from pathlib import Path

from harness.patience import PATIENCE_S
from harness.server import running
from ostiary import Guard


def test_a_server_that_stops_logs_no_error_for_open_feeds(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        key = tmp_path / "files.json"
        server.ostiary("resource", "create", "files", "--uri", "https://files.example", "--generate-key", str(key))
        guard = Guard(key, spool_dir=tmp_path / "spool").start(wait=PATIENCE_S)
        log = server.folder / "server.log"
    guard.close()
    assert log.read_text() == ""
