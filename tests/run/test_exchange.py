"""Responses of any server: a withheld result does not reach the client, and each forwarded result was checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ostiary.guard import Withheld
from ostiary.protocol.errors import Refused
from ostiary.run.exchange import Exchange
from ostiary.run.gate import Verdict

CANCEL = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'


@dataclass
class LimitedCall:
    """A call that may return nothing with the word SECRET."""

    enforces: bool
    ahead: Mapping[str, int] = field(default_factory=lambda: {"account": 1})
    watched: object = None
    sizes: list[int] = field(default_factory=list)

    def result(self, *, ok: bool, bytes: int) -> None:
        self.sizes.append(bytes)


@dataclass
class LimitedGate:
    enforces: bool = True
    decided: list[LimitedCall] = field(default_factory=list)
    finished: list[tuple[bool, int | None]] = field(default_factory=list)

    def decide(self, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        self.decided.append(LimitedCall(self.enforces))
        return Verdict(True, None, self.decided[-1])  # type: ignore[arg-type]

    def undecided(self, tool: str, why: Refused) -> Verdict:
        return Verdict(not self.enforces, why, None)

    def finish(self, call: object, *, ok: bool, bytes: int | None = None) -> None:
        self.finished.append((ok, bytes))

    def observe(self, call: LimitedCall, output: object) -> None:
        if call.enforces and "SECRET" in str(output):
            raise Withheld("the call may not return that")

    def is_alive(self) -> bool:
        return True

    def listed(self, tools: object) -> None:
        """Nothing is remembered."""


def call(id: object = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "read"}}).encode()


def answer(id: object = 1, more: bytes = b"") -> bytes:
    text = json.dumps({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "SECRET"}]}})
    return text.encode()[:-1] + more + b"}"


PUBLIC = answer().replace(b"SECRET", b"public")
RESULT = b'{"content": [{"type": "text", "text": "public"}]}'


def deep(text: bytes) -> bytes:
    return b"[" * 3000 + text + b"]" * 3000


def exchange(gate: LimitedGate) -> Exchange:
    return Exchange(gate)  # type: ignore[arg-type]


UNUSUAL = {
    "plain": answer(),
    "id as a string": answer("1"),
    "id as true": answer(True),
    "id as a list": answer([1]),
    "no id": b'{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"SECRET"}]}}',
    "id twice": answer(more=b',"id":2'),
    "a method too": answer(more=b',"method":"x"'),
    "byte order mark": b"\xef\xbb\xbf" + answer(),
    "a batch": b"\r\n [" + answer() + b",3]",
    "NaN": answer(more=b',"x":NaN'),
    "NaN in the result": answer().replace(b'"SECRET"', b'"SECRET","x":NaN'),
    "half a surrogate pair": answer(more=rb',"x":"\ud800"'),
    "half a surrogate pair in the result": answer().replace(b"SECRET", rb"SECRET\ud800"),
    "a number that is no number": answer().replace(b'"SECRET"', b'"SECRET","x":1e999'),
    "bytes that are not UTF-8": answer().replace(b"SECRET", b"SECRET\xff"),
    "deep": answer(more=b',"x":' + deep(b"1")),
    "deep in the result": answer().replace(b'"SECRET"', b'"SECRET","x":' + deep(b"1")),
    "UTF-16": answer().decode().encode("utf-16"),
    "beside structured content": answer().replace(b'"content"', b'"structuredContent":{"result":"ok"},"content"'),
    "an error too": answer(more=b',"error":{"code":1,"message":"SECRET"}').replace(b'"SECRET"}]', b'"ok"}]'),
    "in structured content": answer()
    .replace(b"SECRET", b"ok")
    .replace(b'"content"', b'"structuredContent":["SECRET"],"content"'),
    "the name of a member": answer()
    .replace(b"SECRET", b"1")
    .replace(b'"content"', b'"structuredContent":{"a SECRET":1},"content"'),
    "two values": b'{"jsonrpc":"2.0","method":"notifications/progress"}' + answer(),
}


@pytest.mark.parametrize("line", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_a_result_is_withheld_in_every_form_in_which_a_response_can_be_written(line: bytes) -> None:
    one = exchange(LimitedGate())
    assert one.admit(call(), lambda _: None)
    given = one.receive(line)
    one.record_outcomes(line)
    assert b"SECRET" not in given
    assert "SECRET" not in given.decode("utf-16", "replace")


def test_the_response_to_a_cancelled_call_is_not_forwarded() -> None:
    one = exchange(LimitedGate())
    assert one.admit(call(), lambda _: None)
    assert one.admit(CANCEL, lambda _: None)
    assert one.receive(answer()) == b""


def test_only_the_error_of_an_answered_call_says_that_the_call_has_run() -> None:
    listing = b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}'
    one = exchange(LimitedGate())
    assert all(one.admit(line, lambda _: None) for line in (call(), listing))
    repeated = b"[" + answer() + b"," + answer(2) + b"," + answer(3) + b"]"
    errors = [json.loads(line)["error"]["message"] for line in one.receive(repeated).splitlines()]
    why = "the MCP server sent an answer for which no request is waiting"
    assert errors == [
        f"the call has run, but its result is withheld: {why} (do not repeat a call that changes something)",
        f"denied: {why}",
    ]


def test_the_error_for_an_unreadable_response_says_that_the_call_may_have_run() -> None:
    one = exchange(LimitedGate())
    assert one.admit(call(), lambda _: None)
    [line] = one.receive(b"{").splitlines()
    message = json.loads(line)["error"]["message"]
    assert message.startswith("the call may have run, but its result is withheld: ")
    assert message.endswith("(do not repeat a call that changes something)")


def test_a_withheld_result_is_not_forwarded_in_a_repeated_response() -> None:
    one = exchange(LimitedGate())
    assert one.admit(call(), lambda _: None)
    for _ in range(2):
        assert b"SECRET" not in one.receive(answer())


@pytest.mark.parametrize("is_recorded", [False, True])
@pytest.mark.parametrize("second", [PUBLIC, answer()], ids=["the same", "another"])
def test_a_second_response_to_a_call_is_not_forwarded_after_a_permitted_response(
    second: bytes, is_recorded: bool
) -> None:
    gate = LimitedGate()
    one = exchange(gate)
    assert one.admit(call(), lambda _: None)
    assert one.receive(PUBLIC) == PUBLIC
    if is_recorded:
        one.record_outcomes(PUBLIC)
    assert one.receive(second) == b""
    one.record_outcomes(PUBLIC)
    one.end()
    assert gate.finished == [(True, len(RESULT))]


@pytest.mark.parametrize("first", [call(), b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'])
@pytest.mark.parametrize("second", [call(), b'{"jsonrpc":"2.0","id":1,"method":"ping"}', b"[" + call() + b"]"])
def test_a_request_with_an_id_that_is_in_use_is_refused(first: bytes, second: bytes) -> None:
    one, replies = exchange(LimitedGate()), list[bytes]()
    assert one.admit(first, replies.append)
    assert not one.admit(second, replies.append)
    assert b"another request in flight has this `id`" in replies[0]
    one.receive(answer())
    assert one.admit(second, replies.append)


def test_a_batch_with_a_repeated_id_is_refused() -> None:
    one, replies = exchange(LimitedGate()), list[bytes]()
    assert not one.admit(b"[" + call() + b"," + call() + b"]", replies.append)
    assert len(replies) == 2


def test_a_response_in_watch_mode_passes_byte_for_byte() -> None:
    for line in UNUSUAL.values():
        gate = LimitedGate(enforces=False)
        one = exchange(gate)
        assert one.admit(call(), lambda _: None)
        assert one.receive(line) == line
        one.record_outcomes(line)
        one.end()
        assert len(gate.finished) == 1


def test_a_message_of_a_server_that_is_not_a_response_passes_byte_for_byte() -> None:
    one = exchange(LimitedGate())
    assert one.admit(call(), lambda _: None)
    for line in (
        b"Server started\n",
        b"<html>not found</html>",
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}',
        b'{"detail":"Method Not Allowed"}',
    ):
        assert one.receive(line) == line


def test_the_outcome_and_the_size_of_a_permitted_response_are_recorded_once() -> None:
    gate = LimitedGate()
    one = exchange(gate)
    assert one.admit(call(), lambda _: None)
    assert one.receive(PUBLIC) is PUBLIC
    assert gate.finished == []
    one.record_outcomes(PUBLIC)
    one.record_outcomes(PUBLIC)
    one.end()
    assert gate.finished == [(True, len(RESULT))]
    assert [decided.sizes for decided in gate.decided] == [[len(RESULT)]]
