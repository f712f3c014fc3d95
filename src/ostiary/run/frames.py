"""JSON-RPC 2.0 over stdio (MCP 2025-11-25 "stdio", 2026-07-28): each line is a message, or a batch of messages.

Messages to the server are parsed strictly, so that the guard and the server read the same values. The parser refuses
any line that is not a JSON-RPC message, and a member that is sent twice. A name that differs from a known name only in
case is refused, because readers in Go treat both as equal. A carriage return within a line is refused, because readers
in Python end the line there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ostiary.guard.mcp import LISTEN, extract_outputs, is_free, map_request
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.errors import Malformed

MAX_LINE_BYTES = 64 << 20
MAX_BATCH = 100
MAX_DEPTH = 2 * canonical.MAX_DEPTH
"""maximum nesting of an answer to `tools/list` that can be parsed"""
MAX_REQUEST_DEPTH = canonical.MAX_ARGUMENTS_DEPTH + 3
"""maximum nesting of a line from the agent: a call in a batch, with arguments of the maximum depth"""
CHUNK_BYTES = 64 << 10
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602

Id = str | int | None
"""`id` of a request; None for a notification"""


class InvalidParams(Malformed):
    """A request whose parameters cannot be decided on. `id` is the id of the request, for the answer."""

    def __init__(self, message: str, *, id: Id) -> None:
        super().__init__(message)
        self.id = id


class Message(msgspec.Struct, frozen=True):
    """A message of the agent. `method` is empty for the agent's answer to a request of the server."""

    id: Id = None
    method: str = ""
    tool: str | None = None
    """the tool to decide on; None for a message that needs no decision"""
    arguments: Mapping[str, Any] = {}
    cancels: Id = None
    """the id of the request that a notification cancels"""


_NOTHING = msgspec.Raw()
_BOM = b"\xef\xbb\xbf"
_BEGINNINGS = (b"{", b"[", b"\xff\xfe", b"\xfe\xff", b"\0")
"""first bytes of a JSON text, in any encoding of Unicode"""


class Answer(msgspec.Struct, frozen=True):
    """The members of a server's message that determine the outcome of a call. `id` can be any JSON value: it is not
    checked.
    """

    id: Any = None
    method: Any = None
    result: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING

    @property
    def is_answer(self) -> bool:
        """Return whether a client may treat the message as an answer: it has a result or an error, or no method."""
        return bool(self.result) or bool(self.error) or self.method is None

    @property
    def is_notification(self) -> bool:
        """Return whether the message is a notification of the server, which gets no answer."""
        return not self.is_answer and self.id is None

    @property
    def is_ok(self) -> bool:
        """Return whether the tool succeeded: the answer is neither a JSON-RPC error, nor a result with `isError`."""
        if self.error or not self.result:
            return False
        try:
            return json_decoder(_Result)(self.result).isError is not True
        except msgspec.DecodeError:
            return False

    @property
    def size(self) -> int:
        """Return the size of the result and the error, in bytes."""
        return len(bytes(self.result)) + len(bytes(self.error))

    @property
    def returned(self) -> list[object]:
        """Return the outputs in the result, and the whole error; [None] for an answer without both. If an answer has
        both, a client may read either. Raises Malformed for an answer that no client can read.
        """
        outputs: list[object] = []
        if self.result:
            result = _parse_loosely(bytes(self.result))
            outputs += extract_outputs(result) if isinstance(result, dict) else [result]
        if self.error or not outputs:
            outputs.append(_parse_loosely(bytes(self.error or b"null")))
        return outputs

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """Return the tools in an answer to `tools/list`; an empty list if the answer is an error, None for a malformed
        answer, which agents could read in different ways.
        """
        if self.error:
            return []
        try:
            result = canonical.parse(bytes(self.result or b"null"), max_bytes=MAX_LINE_BYTES, max_depth=MAX_DEPTH)
            return convert(result, _Listed).tools
        except (Malformed, msgspec.ValidationError):
            return None


class _Result(msgspec.Struct):
    isError: Any = False


class _Listed(msgspec.Struct):
    tools: list[dict[str, Any]]


_MEMBERS = {"jsonrpc", "id", "method", "params", "result", "error"}
_PARAMS = {"name", "arguments", "_meta", "task"}
_answer = json_decoder(Answer)
_answers = json_decoder(list[Answer])


def lines(descriptor: int) -> Iterator[bytes]:
    """Yield the lines of a descriptor, each with its line end; the last line may lack it. Raises Malformed for
    a line over the maximum length.
    """
    buffer = bytearray()
    while chunk := os.read(descriptor, CHUNK_BYTES):
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            yield bytes(buffer) + chunk[start : end + 1]
            buffer.clear()
            start = end + 1
        buffer += chunk[start:]
        if len(buffer) > MAX_LINE_BYTES:
            raise Malformed(f"a line has more than {MAX_LINE_BYTES >> 20} MiB")
    if buffer:
        yield bytes(buffer)


def read(unverified_line: bytes) -> list[Message]:
    """Return the messages of a line from the agent; none for a blank line. Raises Malformed for a line that is not
    JSON-RPC. Raises InvalidParams for a request with an id and invalid parameters; in a batch, such a request raises
    Malformed.
    """
    text = unverified_line.rstrip(b"\r\n")
    if not text.strip(b" \t"):
        return []
    if b"\r" in text:
        raise Malformed("the line contains a carriage return before its end")
    value = canonical.parse(text, max_bytes=MAX_LINE_BYTES, max_depth=MAX_REQUEST_DEPTH)
    if not isinstance(value, list):
        return [_message(value)]
    if not 0 < len(value) <= MAX_BATCH:
        raise Malformed(f"a batch must have 1 to {MAX_BATCH} messages")
    try:
        return [_message(item) for item in value]
    except InvalidParams as refusal:
        raise Malformed(refusal.message) from None


def server_messages(line: bytes) -> list[Answer]:
    """Return the messages of a line from the server; none for a line that is not JSON.

    Some clients accept invalid JSON, such as `NaN`, half a surrogate pair or a byte order mark, so the line is read as
    such clients read it. Raises Malformed for a line that begins like JSON and that these clients cannot
    read either.
    """
    try:
        return _answers(line) if line.lstrip(b" \t").startswith(b"[") else [_answer(line)]
    except (msgspec.DecodeError, RecursionError):
        return _read_loosely(line)


def _read_loosely(line: bytes) -> list[Answer]:
    """Return the answers in a line that is not strict JSON; none for text that is no JSON. Raises Malformed for text
    that looks like JSON and that no client can read.
    """
    if not line.strip().removeprefix(_BOM).lstrip().startswith(_BEGINNINGS):
        return []  # no JSON, such as a greeting on standard output or an error page
    value = _parse_loosely(line)
    items = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
    return _answers(msgspec.json.encode(items))


def _parse_loosely(text: bytes) -> Any:
    """Return the JSON value as the most lenient clients read it. Raises Malformed for text that no client can read."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = json.loads(text.decode("utf-8", "replace").removeprefix("\ufeff"), parse_constant=lambda _: None)
        whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")  # no half surrogate pairs
        return json.loads(whole)
    except (ValueError, RecursionError):
        raise Malformed("the server's answer is not JSON that a client can read") from None


def error(id: Id | float, code: int, message: str, data: Mapping[str, Any] | None = None) -> bytes:
    """Return a line with a JSON-RPC error."""
    members = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": members}) + b"\n"


def _message(value: object) -> Message:
    if not isinstance(value, dict):
        raise Malformed("a message must be a JSON object")
    _check_names(value, _MEMBERS)
    id, method = value.get("id"), value.get("method")
    if "id" in value and (isinstance(id, bool) or not isinstance(id, (str, int))):
        raise Malformed("an `id` must be a string or an integer")
    if method is None and ("result" in value or "error" in value):
        return Message(id)
    if not isinstance(method, str) or not method:
        raise Malformed("a message must have a `method`, a `result` or an `error`")
    if id is None and method.startswith("notifications/"):
        return Message(id, method, cancels=_cancelled(value) if method == "notifications/cancelled" else None)
    params = value.get("params", {})
    if is_free(method, params):
        if method == LISTEN:
            _check_alike(params)
        return Message(id, method)
    try:
        tool, arguments = _parse_call(method, params)
    except Malformed as refusal:
        if id is None:
            raise
        raise InvalidParams(refusal.message, id=id) from None
    return Message(id, method, tool, arguments)


def _parse_call(method: str, params: object) -> tuple[str, Mapping[str, Any]]:
    """Return the request as a tool and its arguments. Raises Malformed for a request without these members."""
    if not isinstance(params, dict):
        raise Malformed("`params` must be an object")
    if method == "tools/call":
        _check_names(params, _PARAMS)
        if not isinstance(params.get("name"), str) or not isinstance(params.get("arguments"), dict | None):
            raise Malformed("`tools/call` must have a `name` that is a text; `arguments` must be an object or left out")
    tool, arguments = map_request(method, params)
    _check_alike(arguments)
    return tool, arguments


def _cancelled(value: Mapping[str, Any]) -> Id:
    params = value.get("params")
    id = params.get("requestId") if isinstance(params, dict) else None
    return id if isinstance(id, (str, int)) else None


def _check_names(value: Mapping[str, Any], allowed: set[str]) -> None:
    for name in value:
        if name not in allowed and name.casefold() in allowed:
            raise Malformed(f"the member {name[:64]!a} differs only in case from `{name.casefold()}`")


def _check_alike(value: object) -> None:
    """Check that no two names of the same object differ only in case. Raises Malformed otherwise."""
    if isinstance(value, dict):
        folded = dict[str, str]()
        for name in value:
            if (other := folded.setdefault(name.casefold(), name)) != name:
                raise Malformed(f"the members {other[:64]!a} and {name[:64]!a} of an object differ only in case")
        for item in value.values():
            _check_alike(item)
    elif isinstance(value, list):
        for item in value:
            _check_alike(item)
