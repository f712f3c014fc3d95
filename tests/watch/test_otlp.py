"""OTLP read as the real library writes it, in protobuf and in JSON, and hostile bytes refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from ostiary.protocol.errors import Malformed
from ostiaryd.watch.model import otlp
from ostiaryd.watch.model.otlp import (
    MAX_RECORDS,
    MAX_TEXT,
    WANTED,
    Encoding,
    Record,
    Signal,
    answer,
    parse_export,
    status,
)
from ostiaryd.watch.model.telemetry import MAX_EVENTS, OWN, Activity, count_activities

AT = 1_700_000_000_000_000
"""microseconds"""


def pair(key: str, value: str | int | bool | float | list[str]) -> KeyValue:
    match value:
        case bool():
            return KeyValue(key=key, value=AnyValue(bool_value=value))
        case int():
            return KeyValue(key=key, value=AnyValue(int_value=value))
        case float():
            return KeyValue(key=key, value=AnyValue(double_value=value))
        case str():
            return KeyValue(key=key, value=AnyValue(string_value=value))
    return KeyValue(key=key, value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=v) for v in value])))


def traces(*spans: Span) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])


def span(*, error: bool = False, **attributes: str | int | bool | float | list[str]) -> Span:
    pairs = [pair(key.replace("__", "."), value) for key, value in attributes.items()]
    code = Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_OK
    return Span(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        name="x",
        start_time_unix_nano=1,
        end_time_unix_nano=AT * 1000,
        attributes=pairs,
        status=Status(code=code, message="m"),
    )


def as_json(message: ExportTraceServiceRequest | ExportLogsServiceRequest) -> bytes:
    """OTLP's JSON: 64-bit numbers as strings, enumerations as numbers."""
    return json.dumps(MessageToDict(message, use_integers_for_enums=True)).encode()


BOTH: list[Encoding] = ["protobuf", "json"]


def read(message: ExportTraceServiceRequest | ExportLogsServiceRequest, encoding: Encoding) -> tuple[list[Record], int]:
    signal: Signal = "traces" if isinstance(message, ExportTraceServiceRequest) else "logs"
    body = message.SerializeToString() if encoding == "protobuf" else as_json(message)
    return parse_export(signal, encoding, body)


# ---------------------------------------------------------------------------------------- Reading


@pytest.mark.parametrize("encoding", BOTH)
def test_spans_are_read_as_the_library_writes_them_without_their_content(encoding: Encoding) -> None:
    sent = traces(
        span(
            gen_ai__operation__name="chat",
            gen_ai__request__model="m-1",
            gen_ai__usage__input_tokens=1 << 40,
            gen_ai__input__messages="hunter2",
            gen_ai__system_instructions="hunter2",
        ),
        span(
            error=True,
            gen_ai__operation__name="execute_tool",
            gen_ai__tool__name="bash",
            error__type="Timeout",
            gen_ai__tool__call__arguments="hunter2",
            other=True,
            more=1.5,
            url__full=["x"],
        ),
    )
    records, more = read(sent, encoding)
    assert records == [
        Record(
            AT,
            False,
            {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.usage.input_tokens": 1 << 40},
        ),
        Record(
            AT, True, {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash", "error.type": "Timeout"}
        ),
    ]
    assert more == 0
    assert "hunter2" not in str(records)


@pytest.mark.parametrize("encoding", BOTH)
def test_log_records_are_read_as_the_library_writes_them(encoding: Encoding) -> None:
    logs = [
        LogRecord(
            time_unix_nano=AT * 1000,
            severity_number=number,
            body=AnyValue(string_value="hunter2"),
            attributes=[pair("mcp.method.name", "tools/call"), pair("gen_ai.tool.name", "bash")],
        )
        for number in (SeverityNumber.SEVERITY_NUMBER_WARN4, SeverityNumber.SEVERITY_NUMBER_ERROR)
    ]
    sent = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=logs)])])
    records, _ = read(sent, encoding)
    assert [(one.at, one.is_error) for one in records] == [(AT, False), (AT, True)]
    assert records[0].attributes == {"mcp.method.name": "tools/call", "gen_ai.tool.name": "bash"}


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(sorted(WANTED)) | st.text(max_size=8),
            st.text(max_size=20)
            | st.integers(-(1 << 63), (1 << 63) - 1)
            | st.booleans()
            | st.lists(st.text(max_size=3)),
            max_size=6,
        ),
        max_size=6,
    )
)
def test_protobuf_and_json_of_the_library_give_the_same_records(spans: list[dict[str, str | int]]) -> None:
    made = [
        Span(end_time_unix_nano=5000, attributes=[pair(*one) for one in attributes.items()]) for attributes in spans
    ]
    by_protobuf, by_json = read(traces(*made), "protobuf"), read(traces(*made), "json")
    assert by_protobuf == by_json
    expected = [
        {key: value for key, value in one.items() if key in WANTED and type(value) in (str, int)} for one in spans
    ]
    assert [one.attributes for one in by_protobuf[0]] == expected


@pytest.mark.parametrize("encoding", BOTH)
def test_records_and_texts_are_read_up_to_their_limits(encoding: Encoding) -> None:
    many = traces(*[Span(end_time_unix_nano=1000)] * (MAX_RECORDS + 3))
    records, more = read(many, encoding)
    assert (len(records), more) == (MAX_RECORDS, 3)
    texts = traces(span(url__full="x" * MAX_TEXT), span(url__full="x" * (MAX_TEXT + 1)), span(url__full="é" * MAX_TEXT))
    assert [len(one.attributes) for one in read(texts, encoding)[0]] == [1, 0, 1]


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x80",
        b"\x80" * 11,
        b"\x0b",
        b"\x0c",
        b"\x09\x00",
        b"\x0d\x00",
        b"\xff" * 20,
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x02\x12\x05",
    ],
)
def test_malformed_protobuf_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_export("traces", "protobuf", body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"resourceSpans":{}}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"endTimeUnixNano":"x"}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"endTimeUnixNano":"' + b"9" * 21 + b'"}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"endTimeUnixNano":"\xc2\xb2"}]}]}]}',
        b'{"x":' * 100_000,
        b"\xff",
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"url.full","value":{"intValue":"--1"}}]}]}]}]}',
    ],
)
def test_malformed_otlp_json_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_export("traces", "json", body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    signals: tuple[Signal, ...] = ("traces", "logs")
    for signal in signals:
        for encoding in BOTH:
            try:
                records, more = parse_export(signal, encoding, body)
            except Malformed:
                continue
            assert len(records) <= MAX_RECORDS
            assert more == 0 or len(records) == MAX_RECORDS


def test_a_body_with_too_many_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "MAX_FIELDS", 100)
    assert parse_export("traces", "protobuf", b"\x10\x00" * 100) == ([], 0)
    with pytest.raises(Malformed, match="more than 100"):
        parse_export("traces", "protobuf", b"\x10\x00" * 101)


def test_unknown_fields_are_ignored_and_invalid_utf8_is_refused() -> None:
    sent = traces(span(gen_ai__operation__name="chat")).SerializeToString() + b"\xfa\x07\x01x\x10\x07"
    assert len(parse_export("traces", "protobuf", sent)[0]) == 1
    broken = traces(span(url__full="abc")).SerializeToString().replace(b"abc", b"\xff\xfe\xfd")
    with pytest.raises(Malformed):
        parse_export("traces", "protobuf", broken)


# ---------------------------------------------------------------------------------------- Answers


def test_responses_have_the_form_that_the_library_reads() -> None:
    assert answer("traces", "protobuf", rejected=0, why="") == b""
    made = ExportTraceServiceResponse.FromString(answer("traces", "protobuf", rejected=300, why="é too many"))
    assert (made.partial_success.rejected_spans, made.partial_success.error_message) == (300, "é too many")
    logs = ExportLogsServiceResponse.FromString(answer("logs", "protobuf", rejected=1, why="x" * 200))
    assert (logs.partial_success.rejected_log_records, logs.partial_success.error_message) == (1, "x" * 200)
    assert json.loads(answer("traces", "json", rejected=0, why="")) == {}
    assert json.loads(answer("logs", "json", rejected=2, why="x")) == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "x"}
    }
    assert json.loads(status("json", 8, "too much")) == {"code": 8, "message": "too much"}
    assert status("protobuf", 8, "too much") == b"\x08\x08\x12\x08too much"


# ---------------------------------------------------------------------------------------- What they mean


def record(at: int = AT, *, error: bool = False, **attributes: Any) -> Record:
    return Record(at, error, {key.replace("__", "."): value for key, value in attributes.items()})


def nobody(text: str) -> None:
    return None


@pytest.mark.parametrize(
    ("given", "action", "tool", "model"),
    [
        ({"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "read"}, "telemetry.tool", "~/read", ""),
        ({"mcp__method__name": "tools/call", "gen_ai__tool__name": "x"}, "telemetry.tool", "~/x", ""),
        ({"mcp__method__name": "tools/list", "gen_ai__tool__name": "x"}, "telemetry.mcp", "", ""),
        ({"gen_ai__operation__name": "chat", "gen_ai__request__model": "m"}, "telemetry.model", "", "m"),
        (
            {"gen_ai__operation__name": "embeddings", "gen_ai__request__model": "m", "gen_ai__response__model": "m-2"},
            "telemetry.model",
            "",
            "m-2",
        ),
        ({"gen_ai__operation__name": "invoke_agent"}, "telemetry.agent", "", ""),
        ({"url__full": "https://a.example/"}, "telemetry.http", "", ""),
    ],
)
def test_each_kind_of_record_becomes_its_activity(given: dict[str, Any], action: str, tool: str, model: str) -> None:
    done, rejected = count_activities([record(**given)], nobody)
    assert list(done) == [Activity(action, tool, model, "ok", None)]
    assert rejected == 0


def test_records_without_a_known_operation_are_ignored() -> None:
    assert count_activities(
        [record(), record(gen_ai__tool__name="x"), record(gen_ai__operation__name="think")], nobody
    ) == ({}, 0)


def test_equal_activities_are_counted_with_their_tokens_and_their_latest_time() -> None:
    chat: dict[str, Any] = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "m"}
    done, _ = count_activities(
        [
            record(5, **chat, gen_ai__usage__input_tokens=10, gen_ai__usage__output_tokens=1),
            record(9, **chat, gen_ai__usage__input_tokens=5),
            record(7, **chat, gen_ai__usage__input_tokens=-5, gen_ai__usage__output_tokens="many"),
            record(8, **chat, error=True),
            record(8, **chat, error__type="Timeout"),
        ],
        nobody,
    )
    fine, failed = done.values()
    assert (fine.count, fine.at, fine.tokens) == (3, 9, 16)
    assert (failed.count, [said.outcome for said in done]) == (2, ["ok", "error"])


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "<script>", "drop\ntable", "../é", "\u202e", " x"])
def test_a_malformed_name_of_a_tool_or_model_is_not_kept(name: str) -> None:
    ((said, _),) = count_activities([record(gen_ai__operation__name="execute_tool", gen_ai__tool__name=name)], nobody)[
        0
    ].items()
    assert said.tool == ""
    ((said, _),) = count_activities([record(gen_ai__operation__name="chat", gen_ai__request__model=name)], nobody)[
        0
    ].items()
    assert said.model == ""


def test_a_reported_tool_name_has_a_prefix_that_marks_the_tool_as_own() -> None:
    ((said, _),) = count_activities(
        [record(gen_ai__operation__name="execute_tool", gen_ai__tool__name="x" * 64)], nobody
    )[0].items()
    assert said.tool == OWN + "x" * 64


def test_activities_beyond_the_maximum_number_of_kinds_are_rejected() -> None:
    def tools(count: int) -> list[Record]:
        return [record(gen_ai__operation__name="execute_tool", gen_ai__tool__name=f"t{n}") for n in range(count)]

    assert count_activities(tools(MAX_EVENTS), nobody)[1] == 0
    done, rejected = count_activities([*tools(MAX_EVENTS + 2), *tools(1)], nobody)
    assert (len(done), rejected) == (MAX_EVENTS, 2)


def test_contacted_urls_are_checked_against_threat_lists_and_not_kept() -> None:
    looked: list[str] = []

    def look(text: str) -> tuple[str, int] | None:
        looked.append(text)
        return ("evil", 60) if "evil" in text else None

    done, _ = count_activities(
        [record(url__full="https://evil.example/?k=v", server__address="a"), record(url__full="https://b/")], look
    )
    assert looked == ["https://evil.example/?k=v a", "https://b/"]
    assert [said.threat for said in done] == [("evil", 60), None]
    assert "k=v" not in str(done)
