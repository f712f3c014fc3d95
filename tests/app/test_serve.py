"""The server process: background loops, first starts with damaged files, and clients that send too slowly."""

from __future__ import annotations

import ast
import re
import socket
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from harness.server import running
from ostiaryd.app import LOOPS
from tests.support.sources import sources


def test_each_background_loop_has_a_unique_name() -> None:
    names = [loop.__name__ for loop in LOOPS]
    assert len(set(names)) == len(names)


def test_each_cleanup_function_runs_in_a_background_loop() -> None:
    every = {
        f"{source.module.removeprefix('ostiaryd.')}.{one.name}"
        for source in sources("src/ostiaryd")
        for one in source.tree.body
        if isinstance(one, ast.AsyncFunctionDef)
        and re.match(r"(forget|prune|delete|expire)(_|$)", one.name)
        and [ast.unparse(argument) for argument in one.args.args] == ["world: World"]
    }
    assert len(every) > 20
    assert every <= {loop.__name__ for loop in LOOPS}


def test_a_start_succeeds_after_a_first_start_was_killed_while_writing_the_credential(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.partial").write_text('{"crv":"P-')
    with running(tmp_path / "data") as server:
        assert [agent["name"] for agent in server.ostiary("agent", "list")] == ["admin"]
    assert not (tmp_path / "data" / "admin.partial").exists()
    assert (tmp_path / "data" / "admin.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [b"", b"[]"])
def test_a_first_start_with_a_damaged_credential_fails_with_a_remedy(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.json").write_bytes(text)
    with (
        pytest.raises(AssertionError, match=r"(?s)not the credential of an administrator.*delete the file"),
        running(tmp_path / "data"),
    ):
        pass


@pytest.mark.parametrize("name", ["server.json", "first-start.json"])
@pytest.mark.parametrize("text", ["", "[]", '{"url":"x"}', '{"url":"http://127.0.0.1:65536"}', '{"url":null}'])
def test_a_damaged_file_of_an_earlier_start_is_named_with_a_remedy(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(text)
    with (
        pytest.raises(AssertionError, match=rf"(?s){name} is damaged.*delete the file"),
        running(tmp_path / "data"),
    ):
        pass


IMPATIENT = """
import sys
from ostiaryd.ground.http import protocol
protocol.SLOWEST_S = 0.5
from ostiary.cli import main
sys.exit(main())
"""


def test_the_server_closes_the_connection_of_a_client_that_sends_too_slowly(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", command=(sys.executable, "-c", IMPATIENT)) as server,
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=PATIENCE_S) as slow,
    ):
        slow.sendall(b"POST /token HTTP/1.1\r\n")
        assert slow.recv(65536).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert slow.recv(1) == b""
