"""Telemetry at the server: from the real exporter of OpenTelemetry to entries and findings, and floods refused."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from select import select
from typing import Any

import httpx2
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from harness.clock import Clock
from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from harness.server import COMMAND, Server
from ostiary.agent import Agent
from ostiary.protocol.errors import Forbidden, Malformed, Refused
from ostiary.telemetry import MAX_BODY, relay
from ostiaryd.ground.http import buckets as buckets_of
from ostiaryd.ground.http.buckets import FLOODING, QUIET_S, WINDOW_S, TooMuch
from ostiaryd.ground.http.edge import Call, Reply, TooLarge, UnsupportedMediaType
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as log
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry.model import Caller
from ostiaryd.watch import wire_otlp
from ostiaryd.watch.engines.lists import parse_list
from ostiaryd.watch.flows import threats
from ostiaryd.watch.model import Reading, ToolSeen
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import detectors, zeros
from ostiaryd.watch.model.telemetry import FLOOD
from ostiaryd.watch.store import threats as lists
from ostiaryd.watch.wire_otlp import BURST, LEAST, PER_SECOND

SECOND = 1_000_000
AGENT = "ag_0190a1b2c3d47890a1b2c3d4e5f60718"


def export(*spans: dict[str, Any]) -> bytes:
    """In JSON."""
    made = [
        {"attributes": [{"key": key, "value": {"stringValue": value}} for key, value in one.items()]} for one in spans
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}).encode()


CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}


def call_of(world: World, body: bytes, *, agent: str = AGENT, kind: Any = "agent", **headers: str) -> Call:
    said = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    pairs = [(name.encode(), value.encode()) for name, value in said.items()]
    caller = Caller(kind=kind, id=agent, name="writer", owner="pe_1", scopes=frozenset(), task="tk_1")
    return Call(world, "POST", "/v1/traces", {}, "", pairs, body, "rq_1", caller=caller)


async def send(world: World, body: bytes = b"{}", **more: Any) -> Reply:
    return await wire_otlp.take_traces(call_of(world, body, **more))


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in log.search_entries(world.db.read(), {"action": action}, limit=1000)]


# ---------------------------------------------------------------------------------------- What becomes of it


async def test_telemetry_is_recorded_as_reported_by_the_agent(world: World) -> None:
    tool = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "bash",
        "gen_ai.tool.call.arguments": "hunter2",
    }
    reply = await send(world, export(CHAT, CHAT, tool))
    assert (reply.status, reply.body, reply.media_type) == (200, b"{}", "application/json")
    (said,) = entries(world, "telemetry.tool")
    assert (said.agent, said.reporter, said.owner, said.task, said.tool) == (AGENT, AGENT, "pe_1", "tk_1", "~/bash")
    (model,) = entries(world, "telemetry.model")
    assert model.detail == {"count": 2, "at": model.at, "model": "m"}
    (whole,) = entries(world, "telemetry.take")
    assert (whole.agent, whole.detail) == (AGENT, {"records": 3})
    assert "hunter2" not in str([said, model, whole])


async def test_a_telemetry_entry_becomes_an_event_that_is_not_a_call(world: World) -> None:
    await send(world, export({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash"}))
    reading = Reading(tool_of=lambda uri, tool: ToolSeen(), model_of=lambda agent: "")
    found = log.search_entries(world.db.read(), {"action": "telemetry.tool"}, limit=1)
    event = reading.read(found[0][0], found[0][1])
    assert event is not None
    assert (event.action, event.tool, event.reporter, event.agent) == ("telemetry.tool", "~/bash", AGENT, AGENT)  # type: ignore[union-attr]
    assert not Batch([event], [1], [1]).is_call.any()  # type: ignore[list-item]


async def test_an_agent_that_reports_contact_with_a_listed_host_raises_a_finding(world: World) -> None:
    """A call that bypassed every guard, reported by the agent's own HTTP client."""
    source = await act(world, "threats.add", lambda act: threats.add(act, name="evil", url="", form="plain", points=70))
    listed = parse_list("plain", b"evil.example", now=0, spared=frozenset())
    await act(world, "threats.refresh", lambda act: threats.accept_list(act, source, listed))
    await send(
        world, export({"url.full": "https://a.evil.example/?secret=hunter2"}, {"url.full": "https://b.example/"})
    )
    said = entries(world, "telemetry.http")
    assert [one.detail and one.detail.get("threat") for one in said].count(["evil", 70]) == 1
    assert "evil.example" not in str(said)
    reading = Reading(tool_of=lambda uri, tool: ToolSeen(), model_of=lambda agent: "")
    events = [
        reading.read(n, body) for n, body in log.search_entries(world.db.read(), {"action": "telemetry.http"}, limit=9)
    ]
    detector = detectors()["threat_list"]
    (found,) = detector.notice(Batch(events, [1, 1], [1, 1]), zeros(detector, agents=2, peers=2))  # type: ignore[arg-type]
    assert (found.points, found.says) == (70, "reported in its own telemetry a value on the threat list `evil`")
    await act(world, "threats.remove", lambda act: threats.remove(act, "evil"))
    assert lists.load(world.db.read()) == {}
    await send(world, export({"url.full": "https://evil.example/"}))
    assert [one.detail and one.detail.get("threat") for one in entries(world, "telemetry.http")].count(
        ["evil", 70]
    ) == 1


async def test_only_agents_may_send_telemetry(world: World) -> None:
    for kind in ("person", "guard"):
        reply = await send(world, export(CHAT), kind=kind)
        assert reply.status == 403
    assert entries(world, "telemetry.take") == []


# ---------------------------------------------------------------------------------------- Floods


async def test_telemetry_is_limited_to_a_burst_and_then_to_a_rate(world: World, clock: Clock) -> None:
    for _ in range(BURST // LEAST):
        assert (await send(world)).status == 200
    reply = await send(world)
    assert (reply.status, dict(reply.headers)[b"retry-after"]) == (429, b"1")
    assert json.loads(bytes(reply.body))["code"] == 8  # type: ignore[arg-type]
    assert (await send(world, agent=AGENT.replace("7", "8"))).status == 200, "others are not held up"
    clock.advance(us=LEAST * SECOND // PER_SECOND - 1)
    assert (await send(world)).status == 429
    clock.advance(us=1)
    assert (await send(world)).status == 200
    assert (await send(world)).status == 429
    assert len(entries(world, "telemetry.take")) == BURST // LEAST + 2


async def test_an_export_counts_against_the_limit_by_records_and_by_bytes(world: World) -> None:
    await send(world, export(*[{"x": "y"}] * 300))
    bucket = world.get_singleton(wire_otlp.Buckets).of(AGENT)
    assert bucket.left == (BURST - 300) * SECOND
    await send(world, b'{"x":"' + b"y" * 500 * wire_otlp.RECORD_BYTES + b'"}')
    assert bucket.left == (BURST - 800) * SECOND


async def test_a_telemetry_flood_leaves_one_entry_that_raises_a_finding(world: World, clock: Clock) -> None:
    """An agent that floods to hide what else it does, or to fill the ledger."""
    bucket = world.get_singleton(wire_otlp.Buckets).of(AGENT)
    bucket.left = 0
    size = log.get_head(world.db.read())[0].size
    for _ in range(FLOODING - 1):
        assert (await send(world)).status == 429
    assert log.get_head(world.db.read())[0].size == size
    for _ in range(FLOODING):
        await send(world)
    (told,) = entries(world, FLOOD)
    assert (told.agent, told.detail) == (AGENT, {"refused": FLOODING})
    clock.advance(us=QUIET_S * SECOND)
    bucket.left = -BURST * 10 * SECOND
    for _ in range(FLOODING):
        await send(world)
    assert len(entries(world, FLOOD)) == 1, "not again within five minutes"
    clock.advance(us=1)
    await send(world)
    assert len(entries(world, FLOOD)) == 2

    reading = Reading(tool_of=lambda uri, tool: ToolSeen(), model_of=lambda agent: "")
    ((number, body),) = log.search_entries(world.db.read(), {"action": FLOOD}, limit=1)
    event, detector = reading.read(number, body), detectors()["flood"]
    (found,) = detector.notice(Batch([event], [1], [1]), zeros(detector, agents=2, peers=2))  # type: ignore[list-item]
    assert (found.row, found.points) == (0, 30)


async def test_refusals_before_the_window_do_not_count_towards_a_flood(world: World, clock: Clock) -> None:
    bucket = world.get_singleton(wire_otlp.Buckets).of(AGENT)
    for _ in range(2):
        bucket.left = -BURST * 100 * SECOND
        for _ in range(FLOODING - 1):
            await send(world)
        clock.advance(us=WINDOW_S * SECOND + 1)
    assert entries(world, FLOOD) == []


def test_the_number_of_remembered_rate_limits_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets_of, "MAX_KNOWN", 2)
    buckets = wire_otlp.Buckets(world)
    first = buckets.of("ag_1")
    first.left = 1
    buckets.of("ag_2")
    assert buckets.of("ag_1") is first
    buckets.of("ag_3")
    assert buckets.of("ag_1") is first, "the one that sent last stays"
    assert len(buckets._known) == 2


# ---------------------------------------------------------------------------------------- Encodings


async def test_a_gzip_body_is_accepted_up_to_the_maximum_size_of_a_request(world: World) -> None:
    assert (await send(world, gzip.compress(export(CHAT)), content_encoding="gzip")).status == 200
    most = world.config.max_request_bytes
    for size, status in ((most, 200), (most + 1, 413)):
        body = b'{"x":"' + b"y" * (size - 8) + b'"}'
        assert len(body) == size
        assert (await send(world, gzip.compress(body), content_encoding="gzip")).status == status
    for broken in (b"", b"x", gzip.compress(export(CHAT))[:-9]):
        assert (await send(world, broken, content_encoding="gzip")).status == 400
    assert (await send(world, b"{}", content_encoding="br")).status == 415
    assert len(entries(world, "telemetry.take")) == 2


async def test_a_refusal_is_an_otlp_status_in_the_encoding_of_the_request(world: World) -> None:
    reply = await send(world, b"\xff", content_type="application/x-protobuf")
    assert (reply.status, reply.media_type) == (400, "application/x-protobuf")
    assert bytes(reply.body).startswith(b"\x08\x03\x12")  # type: ignore[arg-type]
    reply = await send(world, b"{")
    assert (reply.status, json.loads(bytes(reply.body))["code"]) == (400, 3)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedMediaType):
        await send(world, b"", content_type="text/plain")


def test_each_refusal_has_its_http_status_and_otlp_code() -> None:
    refusals: list[tuple[Refused, int, int]] = [
        (TooMuch("x", after_s=2), 429, 8),
        (Malformed("x"), 400, 3),
        (Forbidden("x"), 403, 7),
        (TooLarge("x"), 413, 8),
        (UnsupportedMediaType("x"), 415, 3),
    ]
    for refusal, status, code in refusals:
        reply = wire_otlp.render(refusal)
        assert (reply.status, json.loads(bytes(reply.body))["code"]) == (status, code)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------- The real exporter


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    folder = tmp_path_factory.mktemp("telemetry")
    with PreparedServer(folder / "server") as server, ServerFixture(server, folder) as made:
        yield made


def spans(exporter: SpanExporter, count: int = 1) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(count):
        with provider.get_tracer("agent").start_as_current_span("execute_tool bash") as span:
            span.set_attribute("gen_ai.operation.name", "execute_tool")
            span.set_attribute("gen_ai.tool.name", "bash")
            span.set_attribute("gen_ai.tool.call.arguments", '{"command": "hunter2"}')
            span.set_status(StatusCode.ERROR)
    provider.shutdown()


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_spans_of_the_real_exporter_reach_the_ledger_through_the_relay(
    live_server: ServerFixture, compression: Compression
) -> None:
    name, credential = live_server.agent()
    id = live_server.api("GET", f"/agents/{name}")["agent_id"]
    with Agent.from_credential(credential, url=live_server.server.url) as agent, relay(agent) as url:
        spans(OTLPSpanExporter(f"{url}/v1/traces", compression=compression), 2)
        found = eventually(lambda: live_server.entries(action="telemetry.tool", agent=id))
        assert len(found) == 2, "one export each"
        entry = found[0]
        assert (entry["tool"], entry["outcome"], entry["reporter"]) == ("~/bash", "error", id)
        assert "hunter2" not in json.dumps(live_server.entries(agent=id))


def test_telemetry_without_a_proof_is_refused(live_server: ServerFixture) -> None:
    before = len(live_server.entries(action="telemetry.take"))
    exporter = OTLPSpanExporter(f"{live_server.server.url}/v1/traces", headers={"authorization": "Bearer x"})
    logs = OTLPLogExporter(f"{live_server.server.url}/v1/logs")
    assert exporter.export([]) is SpanExportResult.FAILURE
    assert logs.export([]).name == "FAILURE"
    exporter.shutdown()
    logs.shutdown()
    assert len(live_server.entries(action="telemetry.take")) == before


def test_the_relay_serves_local_exporters_and_refuses_browser_pages(live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    with Agent.from_credential(credential, url=live_server.server.url) as agent, relay(agent) as url:
        kind = {"content-type": "application/json"}
        assert httpx2.post(f"{url}/v1/traces", content=b"{}", headers=kind).status_code == 200
        assert httpx2.post(f"{url}/v1/logs", content=b"{}", headers=kind).status_code == 200
        assert httpx2.post(f"{url}/v1/metrics", content=b"{}", headers=kind).status_code == 404
        assert httpx2.post(f"{url}/api/v1/agents", content=b"{}", headers=kind).status_code == 404
        for name, value in (("origin", "https://evil.example"), ("host", "evil.example"), ("host", "evil.example:80")):
            assert httpx2.post(f"{url}/v1/traces", content=b"{}", headers=kind | {name: value}).status_code == 403
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        connection.putrequest("POST", "/v1/traces")
        connection.putheader("content-length", str(MAX_BODY + 1))
        connection.endheaders()
        with connection.getresponse() as response:
            assert response.status == 413
        connection.close()
        refused = httpx2.post(f"{url}/v1/traces", content=b"{", headers=kind)
        assert (refused.status_code, refused.json()["code"]) == (400, 3)


def test_the_telemetry_command_starts_a_relay_that_accepts_exports(live_server: ServerFixture) -> None:
    name, credential = live_server.agent()
    words = [str(COMMAND), "telemetry", "--as", str(credential), "--port", "0"]
    environment = os.environ | {"OSTIARY_URL": live_server.server.url}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert select([process.stdout], [], [], PATIENCE_S)[0], "it said nothing"
        said = process.stdout.readline().strip()
        url = said.removeprefix("OTEL_EXPORTER_OTLP_ENDPOINT=")
        answer = httpx2.post(f"{url}/v1/traces", content=export(CHAT), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()) == (200, {})
        id = live_server.api("GET", f"/agents/{name}")["agent_id"]
        assert len(live_server.entries(action="telemetry.model", agent=id)) == 1
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(PATIENCE_S)


def test_the_relay_responds_with_503_if_the_server_is_unreachable(
    live_server: ServerFixture, server_gone: Server
) -> None:
    _, credential = live_server.agent()
    with Agent.from_credential(credential, url=server_gone.url) as agent, relay(agent) as url:
        answer = httpx2.post(f"{url}/v1/traces", content=b"{}", headers={"content-type": "application/json"})
        assert answer.status_code == 503


@pytest.fixture
def server_gone(live_server: ServerFixture) -> Server:
    return Server("http://127.0.0.1:1", live_server.folder)
