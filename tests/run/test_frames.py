"""Lines between an agent and a stdio server: decided messages, and ambiguous lines that are refused."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import Any

import pytest

from ostiary.protocol.errors import Malformed
from ostiary.run import frames
from ostiary.run.frames import Message, error, lines, read, server_messages

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_file", "arguments": {"path": "/a"}}}


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def changed(**members: Any) -> bytes:
    return line({**CALL, **members})


def test_a_tool_call_is_decided_on_its_name_and_its_arguments() -> None:
    assert read(line(CALL)) == [Message(1, "tools/call", "read_file", {"path": "/a"})]
    assert read(changed(params={"name": "now"})) == [Message(1, "tools/call", "now", {})]
    assert read(changed(params={"name": "now", "arguments": None})) == [Message(1, "tools/call", "now", {})]
    assert read(changed(id="one"))[0].id == "one"


@pytest.mark.parametrize("method", ["initialize", "ping", "server/discover", "tools/list", "prompts/list"])
def test_a_handshake_or_listing_request_passes_without_a_decision(method: str) -> None:
    assert read(line({"jsonrpc": "2.0", "id": 1, "method": method})) == [Message(1, method)]


@pytest.mark.parametrize(
    ("method", "params"),
    [("resources/read", {"uri": "file:///a"}), ("prompts/get", {"name": "a"}), ("Tools/Call", {"name": "a"})],
)
def test_every_other_request_is_decided_as_a_tool_with_the_name_of_its_method(
    method: str, params: dict[str, Any]
) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": {"progressToken": 1}}}
    assert read(line(asked)) == [Message(1, method, method, params)]


def test_notifications_and_responses_pass_and_a_call_without_an_id_is_decided() -> None:
    assert read(line({"jsonrpc": "2.0", "method": "notifications/initialized"}))[0].tool is None
    assert read(line({"jsonrpc": "2.0", "id": 7, "result": {}})) == [Message(7)]
    assert read(line({"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "no"}})) == [Message(7)]
    call = {name: value for name, value in CALL.items() if name != "id"}
    assert read(line(call))[0].tool == "read_file"
    assert read(line({"jsonrpc": "2.0", "method": "resources/read"}))[0].tool == "resources/read"
    assert read(line({"jsonrpc": "2.0", "id": 1, "method": "notifications/x"}))[0].tool == "notifications/x"


def test_a_cancellation_states_the_id_of_the_cancelled_request() -> None:
    said = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 4, "reason": "late"}}
    assert read(line(said)) == [Message(None, "notifications/cancelled", cancels=4)]
    assert read(line({**said, "params": {"requestId": [4]}}))[0].cancels is None


def test_a_batch_is_read_as_all_its_messages_up_to_a_limit() -> None:
    batch = [CALL, {"jsonrpc": "2.0", "method": "notifications/initialized"}, {**CALL, "id": 2}]
    assert [(message.id, message.tool) for message in read(line(batch))] == [
        (1, "read_file"),
        (None, None),
        (2, "read_file"),
    ]
    assert len(read(line([CALL] * frames.MAX_BATCH))) == frames.MAX_BATCH
    with pytest.raises(Malformed, match="batch"):
        read(line([CALL] * (frames.MAX_BATCH + 1)))
    with pytest.raises(Malformed, match="batch"):
        read(b"[]\n")


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \t\r\n"])
def test_a_blank_line_has_no_message(blank: bytes) -> None:
    assert read(blank) == []


INNER = json.dumps(CALL)


@pytest.mark.parametrize(
    ("unverified", "why"),
    [
        (b"tools/call\n", "not JSON"),
        (b"\xff\xfe{}\n", "not JSON"),
        (b"\xef\xbb\xbf" + line(CALL), "not JSON"),
        (b'"tools/call"\n', "JSON object"),
        (b"[[]]\n", "JSON object"),
        (b"{}\n", "`method`"),
        (changed(method=None), "`method`"),
        (changed(method=["tools/call"]), "`method`"),
        (changed(method=""), "`method`"),
        (changed(id=None), "`id`"),
        (changed(id=True), "`id`"),
        (changed(id=1.5), "`id`"),
        (changed(id={}), "`id`"),
        (changed(params=[]), "`params`"),
        (changed(params={}), "`name`"),
        (changed(params={"name": 1}), "`name`"),
        (changed(params={"name": "a", "arguments": [1]}), "`arguments`"),
        (changed(params={"name": "a", "arguments": "{}"}), "`arguments`"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"a"}}\n', "twice"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","m\\u0065thod":"tools/call","params":{"name":"a"}}\n', "twice"),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}\n', "twice"),
        (changed(Method="ping"), "differs only in case"),
        (changed(PARAMS={"name": "b"}), "differs only in case"),
        (line({"jsonrpc": "2.0", "id": 1, "result": {}, "METHOD": "tools/call"}), "differs only in case"),
        (changed(params={"name": "a", "Name": "b"}), "differs only in case"),
        (changed(params={"name": "a", "argument\u017f": {"path": "/b"}}), "differs only in case"),
        (changed(params={"name": "a", "arguments": {"path": "/a", "Path": "/b"}}), "'path' and 'Path'.*only in case"),
        (changed(params={"name": "a", "arguments": {"x": [{"key": 1, "\u212aey": 2}]}}), "differ only in case"),
        (f'{{"jsonrpc":"2.0","method":"notifications/x","params":{{"x":\r{INNER}\r}}}}\n'.encode(), "carriage return"),
        (changed(params={"name": "a", "arguments": 0}), "`arguments`"),  # which a server may take for no arguments
        (changed(params={"name": "a", "arguments": False}), "`arguments`"),
        (changed(params={"name": "a", "arguments": []}), "`arguments`"),
        (changed(params={"name": "a", "arguments": ""}), "`arguments`"),
        (b"[" * 140 + b"]" * 140 + b"\n", "nested"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b"[" * 133 + b"]" * 133 + b"}\n", "nested"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_ambiguous_or_malformed_line_is_refused(unverified: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(unverified)


def test_a_line_is_read_equally_with_and_without_a_line_ending() -> None:
    assert read(line(CALL)[:-1] + b"\r\n") == read(line(CALL)) == read(line(CALL)[:-1])


def piped(data: bytes) -> list[bytes]:
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return list(lines(reading))
    finally:
        os.close(reading)
        thread.join()


def test_lines_of_any_length_are_read_byte_for_byte() -> None:
    sent = [b"\n", b"a\r\n", b"x" * 200_000 + b"\n", b"\x00\xff\n", b"the last"]
    assert piped(b"".join(sent)) == sent
    assert piped(b"") == []


@pytest.mark.parametrize(("extra", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_line_above_the_limit_is_refused(extra: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_LINE_BYTES", 300_000)
    data = b"x" * (300_000 + extra)
    if fits:
        assert piped(data) == [data]
        return
    with pytest.raises(Malformed, match="a line has more than"):
        piped(data)


@pytest.mark.parametrize(
    ("said", "ok"),
    [
        ({"id": 1, "result": {"content": []}}, True),
        ({"id": 1, "result": {"isError": False}}, True),
        ({"id": 1, "result": {"isError": True}}, False),
        ({"id": 1, "error": {"code": 1, "message": "no"}}, False),
        ({"id": 1}, False),
    ],
)
def test_a_response_with_an_error_of_the_protocol_or_of_the_tool_is_not_ok(said: dict[str, Any], ok: bool) -> None:
    [answer] = server_messages(line({"jsonrpc": "2.0", **said}))
    assert answer.is_answer
    assert answer.is_ok is ok


def test_only_the_responses_among_the_messages_of_a_server_are_read_as_responses() -> None:
    for said in (b"hello\n", b"\n", b"[1]\n", line({"id": 1, "method": "sampling/createMessage"})):
        assert not any(message.is_answer for message in server_messages(said))
    both = server_messages(line([{"id": 1, "result": {}}, {"id": 2, "error": {}}]))
    assert [message.id for message in both if message.is_answer] == [1, 2]
    for unreadable in (b"{", b"\xef\xbb\xbf{", b'{"id":1}{"id":2}'):
        with pytest.raises(Malformed):
            server_messages(unreadable)


def test_an_error_is_written_as_one_line_in_the_form_of_json_rpc() -> None:
    said = json.loads(error("a", -32001, "denied: no", {"error": "outside_task"}))
    assert said == {
        "jsonrpc": "2.0",
        "id": "a",
        "error": {"code": -32001, "message": "denied: no", "data": {"error": "outside_task"}},
    }
    assert error(None, -32700, "x\ny").count(b"\n") == 1
