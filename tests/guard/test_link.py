"""The connection of a guard to its server over a real socket: strict reading of the feed, and repeated reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.feeder import RESOURCE_ID, Feeder
from harness.live_server import free_socket
from harness.patience import eventually
from ostiary.decision.feed import KeyFact, TokenFact, render_message
from ostiary.guard import Guard
from ostiary.guard import link as links
from ostiary.guard.feed_stream import read_lines
from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Malformed
from tests.guard.feed_server import Server, authenticate_with, guard, server
from tests.support.guard_fixtures import is_refused

__all__ = ["guard", "server"]


def is_open(guard: Guard) -> bool:
    return not is_refused(guard.feed.current)


def test_a_fact_on_the_stream_is_in_force_and_acknowledged(guard: Guard, server: Server) -> None:
    assert is_open(guard)
    server.say(TokenFact("tok_1", 1 << 52), seq=7)
    eventually(lambda: "tok_1" in guard.feed.current().facts.ended_tokens)
    acknowledged = eventually(lambda: [one for one in server.applied if one["seq"] == 7])
    assert acknowledged[0]["stream"] == server.streams[0]["stream"]
    assert 0 <= acknowledged[0]["ago"] < 2_000_000


WRONG: dict[str, Callable[[Server], bytes]] = {
    "malformed": lambda server: b"garbage\n",
    "a gap": lambda server: render_message(Feeder.feed_key, server.message(prev=9, seq=9)),
    "forged": lambda server: render_message(jose.generate("EdDSA"), server.message()),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_line_closes_the_guard_until_it_has_a_snapshot(guard: Guard, server: Server, what: str) -> None:
    server.write(WRONG[what](server))
    eventually(lambda: not is_open(guard))
    eventually(lambda: len(server.streams) == 2)
    assert "after" not in server.streams[1]
    server.snapshot(2)
    eventually(lambda: is_open(guard))


def test_a_stream_that_ends_is_resumed(guard: Guard, server: Server) -> None:
    server.say(TokenFact("tok_1", 1 << 52), seq=7)
    eventually(lambda: guard.feed.seq == 7)
    server.write(None)
    eventually(lambda: len(server.streams) == 2)
    assert server.streams[1]["after"] == "7"
    assert server.streams[1]["stream"] != server.streams[0]["stream"]
    assert is_open(guard), "knowledge is young still"
    server.say(seq=7)
    assert "tok_1" in guard.feed.current().facts.ended_tokens


def test_a_silent_server_closes_the_guard_until_a_new_stream_begins(guard: Guard, server: Server) -> None:
    eventually(lambda: not is_open(guard))
    eventually(lambda: len(server.streams) == 2)
    server.say()
    assert eventually(lambda: is_open(guard))


def test_an_unexpected_error_does_not_end_the_connection_to_the_server(
    guard: Guard, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(links, "b64u", lambda _: 1 / 0)
    server.write(None)
    eventually(lambda: "ZeroDivisionError" in caplog.text)
    monkeypatch.undo()
    assert eventually(lambda: len(server.streams) == 2)


def test_a_decided_call_is_reported_to_the_server_with_its_outcome(guard: Guard, server: Server) -> None:
    with guard.call(authenticate_with(guard, server), "read_file", {}) as call:
        call.result(bytes=7)
    [report] = eventually(lambda: server.reports)
    assert report["first"] == 1
    assert [record["kind"] for record in report["records"]] == ["call", "result"]
    assert report["records"][1]["bytes"] == 7


def test_a_refused_report_is_sent_again(guard: Guard, server: Server) -> None:
    server.refuse.add("/feed/v1/report")
    guard.decide(authenticate_with(guard, server), "read_file", {})
    server.refuse.clear()
    [report] = eventually(lambda: server.reports)
    assert report["first"] == 1
    guard.decide(authenticate_with(guard, server), "read_file", {})
    assert eventually(lambda: server.reports[1:])[0]["first"] == 2


def test_closing_a_guard_reports_the_remaining_records_and_removes_its_files(
    guard: Guard, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "FAREWELL_S", 30)
    server.delay_s = 0.5
    guard.decide(authenticate_with(guard, server), "read_file", {})
    guard.close()
    assert [record["kind"] for report in server.reports for record in report["records"]] == ["call"]
    assert not list(tmp_path.glob("*/*/*"))
    assert not is_open(guard)


def test_a_failed_acknowledgement_while_the_guard_closes_does_not_prevent_its_last_report(
    guard: Guard, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, the acknowledgement of a closed stream fails."""
    monkeypatch.setattr(links, "FAREWELL_S", 30)
    who = authenticate_with(guard, server)
    eventually(lambda: server.applied)
    server.begun.clear()
    server.delay_s, server.refuse_late = 0.5, {"/feed/v1/applied"}
    server.say(KeyFact("another key", 1 << 52))
    eventually(lambda: "/feed/v1/applied" in server.begun)
    guard.decide(who, "read_file", {})
    guard.close()
    assert [record["kind"] for report in server.reports for record in report["records"]] == ["call"]
    assert not list(tmp_path.glob("*/*/*"))


def test_a_guard_without_a_server_starts_closed(tmp_path: Path) -> None:
    sock, port = free_socket()
    sock.close()
    credential = Credential(jose.generate("ES256"), RESOURCE_ID, f"http://127.0.0.1:{port}")
    guard = Guard(credential, spool_dir=tmp_path).start(wait=0.1)
    assert not is_open(guard)
    guard.close()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b"a\n"], [b"a"]),
        ([b"a", b"b\nc\n", b"d"], [b"ab", b"c"]),
        ([b"\n\n"], [b"", b""]),
    ],
)
def test_lines_are_assembled_from_chunks(chunks: list[bytes], lines: list[bytes]) -> None:
    assert list(read_lines(iter(chunks))) == lines


@pytest.mark.parametrize(("size", "fits"), [(8, True), (9, True), (10, True), (11, False)])
def test_a_line_longer_than_the_maximum_is_refused(monkeypatch: pytest.MonkeyPatch, size: int, fits: bool) -> None:
    monkeypatch.setattr("ostiary.guard.feed_stream.MAX_LINE_BYTES", 10)
    chunks = [b"x"] * size + [b"\n"]
    if fits:
        assert list(read_lines(iter(chunks))) == [b"x" * size]
    else:
        with pytest.raises(Malformed):
            list(read_lines(iter(chunks)))
