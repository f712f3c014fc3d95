"""OTLP 1.x over HTTP: exports of spans and log records, in protobuf and in JSON, and the responses.

opentelemetry/proto/collector/{trace,logs}/v1, trace/v1, logs/v1, common/v1; google.rpc.Status

Only the attributes in `WANTED` are read: they name the kind of an act (GenAI and MCP semantic conventions), each by a
short text or a number. Messages, arguments, results and all other content are skipped without parsing, and never
stored. Unknown fields are skipped too, as the specification requires.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed
from ostiary.protocol.protobuf import encode_bytes, encode_number, parse_fields

MAX_RECORDS = 2048
"""Maximum number of records of one export that are accepted. Further records are rejected, and the response states
their number.
"""
MAX_TEXT = 1024
"""Maximum length of an attribute in characters. A longer attribute is ignored."""
MAX_FIELDS = 200_000
"""Maximum number of protobuf fields in one export."""
WANTED = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.tool.name",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "error.type",
        "mcp.method.name",
        "mcp.resource.uri",
        "url.full",
        "server.address",
        "network.peer.address",
    }
)
ERROR_STATUS = 2
ERROR_SEVERITY = 17
Encoding = Literal["protobuf", "json"]
Signal = Literal["traces", "logs"]
Value = str | int


class Record(NamedTuple):
    """A span or a log record of an OTLP export. `at` is its time in microseconds since the epoch; 0 if the record
    states none.
    """

    at: int
    is_error: bool
    attributes: dict[str, Value]


def parse_export(signal: Signal, encoding: Encoding, unverified_body: bytes) -> tuple[list[Record], int]:
    """Return the records of an OTLP export, at most `MAX_RECORDS`, and the number of records beyond that limit. Raises
    Malformed if the body is not an export.
    """
    try:
        records = (
            _from_protobuf(signal, unverified_body) if encoding == "protobuf" else _from_json(signal, unverified_body)
        )
        kept = [record for _, record in zip(range(MAX_RECORDS), records, strict=False)]
        return kept, sum(1 for _ in records)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is not an OTLP export of {signal}: {error}"[:200]) from None


def _record(at: int, is_error: bool, attributes: Iterator[tuple[str, object]]) -> Record:
    attributes_kept = {
        key: value
        for key, value in attributes
        if key in WANTED and (isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_TEXT))
    }
    return Record(at // 1000, is_error, attributes_kept)


# ---------------------------------------------------------------------------------------- JSON


class _Any(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    int_value: int | str | None = None

    @property
    def value(self) -> object:
        """Return the value of an attribute, a text or a number. In the JSON form of protobuf, a 64-bit number may be a
        decimal string. Raises Malformed for a malformed number.
        """
        return self.string_value if self.int_value is None else _int(self.int_value)


class _Pair(msgspec.Struct):
    key: str = ""
    value: _Any | None = None


class _Status(msgspec.Struct):
    code: int = 0


class _Span(msgspec.Struct, rename="camel"):
    end_time_unix_nano: int | str = 0
    attributes: list[_Pair] = []
    status: _Status | None = None


class _Log(msgspec.Struct, rename="camel"):
    time_unix_nano: int | str = 0
    severity_number: int = 0
    attributes: list[_Pair] = []


class _SpansOfScope(msgspec.Struct):
    spans: list[_Span] = []


class _SpansOfResource(msgspec.Struct, rename="camel"):
    scope_spans: list[_SpansOfScope] = []


class _Spans(msgspec.Struct, rename="camel"):
    resource_spans: list[_SpansOfResource] = []


class _LogsOfScope(msgspec.Struct, rename="camel"):
    log_records: list[_Log] = []


class _LogsOfResource(msgspec.Struct, rename="camel"):
    scope_logs: list[_LogsOfScope] = []


class _Logs(msgspec.Struct, rename="camel"):
    resource_logs: list[_LogsOfResource] = []


_spans = json_decoder(_Spans)
_logs = json_decoder(_Logs)


def _from_json(signal: Signal, body: bytes) -> Iterator[Record]:
    return _from_json_spans(body) if signal == "traces" else _from_json_logs(body)


def _from_json_spans(body: bytes) -> Iterator[Record]:
    scopes = (scope for resource in _spans(body).resource_spans for scope in resource.scope_spans)
    for span in chain.from_iterable(scope.spans for scope in scopes):
        is_error = span.status is not None and span.status.code == ERROR_STATUS
        yield _record(_int(span.end_time_unix_nano), is_error, _pairs(span.attributes))


def _from_json_logs(body: bytes) -> Iterator[Record]:
    scopes = (scope for resource in _logs(body).resource_logs for scope in resource.scope_logs)
    for log in chain.from_iterable(scope.log_records for scope in scopes):
        is_error = log.severity_number >= ERROR_SEVERITY
        yield _record(_int(log.time_unix_nano), is_error, _pairs(log.attributes))


def _pairs(pairs: list[_Pair]) -> Iterator[tuple[str, object]]:
    return ((pair.key, pair.value.value) for pair in pairs if pair.value is not None)


def _int(value: int | str) -> int:
    """Return an integer of the JSON form of OTLP, in which it may be a decimal string. Raises Malformed for another
    value.
    """
    text = str(value)
    if len(text) > 20 or not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
        raise Malformed("the export has a malformed number")
    return int(text)


# ---------------------------------------------------------------------------------------- Protobuf


def _from_protobuf(signal: Signal, body: bytes) -> Iterator[Record]:
    """Yield the records of an export in protobuf. Field numbers of the .proto files: resource_spans 1,
    scope_spans 2, spans 2.
    """
    reader = _Reader()
    for of_resource in reader.messages(memoryview(body), 1):
        for of_scope in reader.messages(of_resource, 2):
            for record in reader.messages(of_scope, 2):
                yield reader.span(record) if signal == "traces" else reader.log(record)


class _Reader:
    """A reader of protobuf fields, with a maximum number of fields."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Yield the number and the value of each field in a protobuf message. Raises Malformed for bytes that are not a
        message, and for more than `MAX_FIELDS` fields.
        """
        for field in parse_fields(data):
            self._left -= 1
            if self._left < 0:
                raise Malformed(f"the export has more than {MAX_FIELDS} fields")
            yield field

    def messages(self, data: memoryview, field_number: int) -> Iterator[memoryview]:
        return (
            value for number, value in self.fields(data) if number == field_number and isinstance(value, memoryview)
        )

    def span(self, data: memoryview) -> Record:
        """Return the record of a Span. Field numbers: end_time_unix_nano 8, attributes 9, status 15 (code 3)."""
        at, is_error, pairs = 0, False, []
        for number, value in self.fields(data):
            if number == 8 and isinstance(value, int):
                at = value
            elif number == 9 and isinstance(value, memoryview):
                pairs.append(value)
            elif number == 15 and isinstance(value, memoryview):
                is_error = any(field == (3, ERROR_STATUS) for field in self.fields(value))
        return _record(at, is_error, self.pairs(pairs))

    def log(self, data: memoryview) -> Record:
        """Return the record of a LogRecord. Field numbers: time_unix_nano 1, severity_number 2, attributes 6."""
        at, is_error, pairs = 0, False, []
        for number, value in self.fields(data):
            if number == 1 and isinstance(value, int):
                at = value
            elif number == 2 and isinstance(value, int):
                is_error = value >= ERROR_SEVERITY
            elif number == 6 and isinstance(value, memoryview):
                pairs.append(value)
        return _record(at, is_error, self.pairs(pairs))

    def pairs(self, pairs: list[memoryview]) -> Iterator[tuple[str, object]]:
        """Yield the name and the value of each attribute. Field numbers of KeyValue: key 1, value 2; of AnyValue:
        string_value 1, int_value 3.
        """
        for pair in pairs:
            key, content = "", None
            for number, value in self.fields(pair):
                if number == 1 and isinstance(value, memoryview):
                    key = bytes(value[:MAX_TEXT]).decode()
                elif number == 2 and isinstance(value, memoryview):
                    content = value
            if content is None or key not in WANTED:
                continue
            for number, value in self.fields(content):
                if number == 1 and isinstance(value, memoryview) and len(value) <= 4 * MAX_TEXT:
                    yield key, bytes(value).decode()
                elif number == 3 and isinstance(value, int):
                    yield key, value - (1 << 64) if value >> 63 else value


# ---------------------------------------------------------------------------------------- What is answered


def answer(signal: Signal, encoding: Encoding, *, rejected: int, why: str) -> bytes:
    """Return the encoded response to an export (`Export..ServiceResponse`). If `rejected` is not 0, the response
    contains `partial_success` with that number and the reason `why`.
    """
    if encoding == "json":
        counted = {"rejectedSpans" if signal == "traces" else "rejectedLogRecords": str(rejected), "errorMessage": why}
        return msgspec.json.encode({"partialSuccess": counted} if rejected else {})
    return encode_bytes(1, encode_number(1, rejected) + encode_bytes(2, why.encode())) if rejected else b""


def status(encoding: Encoding, code: int, message: str) -> bytes:
    """Return an encoded google.rpc.Status. Field numbers: code 1, message 2."""
    if encoding == "json":
        return msgspec.json.encode({"code": code, "message": message})
    return encode_number(1, code) + encode_bytes(2, message.encode())
