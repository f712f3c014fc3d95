"""The process itself: what it does with connections that hold it up."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from harness.patience import PATIENCE_S
from harness.server import running
from ostiaryd.app import LOOPS


def test_each_background_loop_has_a_name_of_its_own_by_which_doctor_reports_it() -> None:
    names = [loop.__name__ for loop in LOOPS]
    assert len(set(names)) == len(names)


IMPATIENT = """
import sys
from ostiaryd.ground.http import protocol
protocol.SLOWEST_S = 0.5
from ostiary.cli import main
sys.exit(main())
"""


def test_the_server_cuts_off_who_sends_too_slowly(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", command=(sys.executable, "-c", IMPATIENT)) as server,
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=PATIENCE_S) as slow,
    ):
        slow.sendall(b"POST /token HTTP/1.1\r\n")
        assert slow.recv(65536).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert slow.recv(1) == b""
