"""Telemetry of agents: OTLP/HTTP (`/v1/traces`, `/v1/logs`), authenticated as the agent.

An exporter that cannot prove a key sends to `ostiary telemetry`, which proves it. The rate of each agent's telemetry is
limited, by a count in memory. A refusal for this reason (429) is not recorded, so that a flood does not fill the
ledger. If an agent continues to flood the server, the server writes an entry, which the detector `flood` reports.
"""

from __future__ import annotations

import asyncio
import zlib
from functools import partial
from typing import Any, TypedDict

from ostiary.protocol.errors import Forbidden, Malformed, Refused
from ostiary.provenance.noticing.threats import Threats, find_list
from ostiaryd.ground.http import buckets
from ostiaryd.ground.http.buckets import Bucket, TooMuch
from ostiaryd.ground.http.edge import Call, Reply, TooLarge, UnsupportedMediaType, retry_headers, status_of
from ostiaryd.ground.http.routes import Content, Route, RouteProtocol
from ostiaryd.ground.world import World
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import SELF
from ostiaryd.watch import store
from ostiaryd.watch.flows import telemetry
from ostiaryd.watch.model.otlp import MAX_RECORDS, Encoding, Signal, answer, parse_export, status
from ostiaryd.watch.model.telemetry import FLOOD, MAX_EVENTS, Activity, Done, count_activities

BURST = 6000
"""Maximum number of records that an agent may send at once."""
PER_SECOND = 60
_TOO_MUCH = f"the agent sends more telemetry than {PER_SECOND} records a second"
_SAMPLE = "send a sample of the records, in fewer exports"
RECORD_BYTES = 500
"""Number of bytes of an export that count as one record for the rate limit, if the export is large."""
LEAST = 60
"""Minimum number of records that each export counts as."""
TYPES: dict[str, Encoding] = {"application/x-protobuf": "protobuf", "application/json": "json"}
_GRPC = {400: 3, 401: 16, 403: 7, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}
"""Code of google.rpc.Status by HTTP status."""


class RpcStatus(TypedDict):
    """The body of a refusal, in the form `google.rpc.Status`."""

    code: int
    message: str


class Buckets(buckets.Buckets):
    """The rate limits of all agents: how many records each agent may still send."""

    burst, per_second = BURST, PER_SECOND


class Lists:
    """The threat lists, cached in memory. Use it only on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._version = -1
        self._threats: Threats = {}

    async def current(self) -> Threats:
        """Return the threat lists. They are read from the database again if a list has changed."""
        version = store.threats.version(self._world.db.read())
        if version != self._version:
            self._threats = await self._world.db.scan(store.threats.load)
            self._version = version
        return self._threats


async def take_traces(call: Call) -> Reply:
    """Receive spans of an agent (OTLP/HTTP). The spans are recorded as the agent's own report."""
    return await _answered(call, "traces")


async def take_logs(call: Call) -> Reply:
    """Receive log records of an agent (OTLP/HTTP). The records are recorded as the agent's own report."""
    return await _answered(call, "logs")


async def _answered(call: Call, signal: Signal) -> Reply:
    """Return the response to an export, in the encoding of the request. A refusal has the same encoding (OTLP/HTTP)."""
    media_type = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if (encoding := TYPES.get(media_type)) is None:
        raise UnsupportedMediaType(
            f"the content type `{media_type[:100]}` is not supported",
            hint=f"send the content type {' or '.join(TYPES)}",
        )
    try:
        rejected = await _take(call, signal, encoding)
    except Refused as refusal:
        return render(refusal, encoding)
    why = (
        f"the server accepts at most {MAX_RECORDS} records and {MAX_EVENTS} kinds of acts in one export"
        if rejected
        else ""
    )
    return Reply(200, answer(signal, encoding, rejected=rejected, why=why), media_type)


async def _take(call: Call, signal: Signal, encoding: Encoding) -> int:
    """Record the export; return the number of rejected records."""
    world, caller = call.world, call.caller
    if caller.kind != "agent":
        raise Forbidden("only an agent can send telemetry")
    bucket = world.get_singleton(Buckets).of(caller.id)
    if not bucket.has(LEAST):
        await _refuse(call, bucket)
    body = _inflated(call)
    cost = max(LEAST, len(body) // RECORD_BYTES)
    bucket.take(cost)
    threats = await world.get_singleton(Lists).current()
    sent, rejected, done = await asyncio.to_thread(_read, signal, encoding, body, threats)
    bucket.take(max(0, sent - cost))
    await act_as(
        call,
        "telemetry.take",
        partial(telemetry.record_activities, caller=caller, done=done, records=sent, rejected=rejected),
    )
    return rejected


def _read(signal: Signal, encoding: Encoding, body: bytes, threats: Threats) -> tuple[int, int, dict[Activity, Done]]:
    """Return the number of records, the number of rejected records, and the counted acts of an export. Takes up to half
    a second.
    """

    def look(text: str) -> tuple[str, int] | None:
        threat_list = find_list(text, threats)
        return None if threat_list is None else (threat_list.name, threat_list.points)

    records, more = parse_export(signal, encoding, body)
    done, beyond = count_activities(records, look)
    return len(records) + more, more + beyond, done


async def _refuse(call: Call, bucket: Bucket) -> None:
    """Refuse an export above the rate limit: raises TooMuch. If many exports of the agent were refused, first write an
    entry, which the detector `flood` reports.
    """
    if bucket.refuse():
        await act_as(call, FLOOD, partial(telemetry.record_flood, refused=bucket.refused))
    raise TooMuch(_TOO_MUCH, after_s=bucket.after_s(LEAST), hint=_SAMPLE)


def _inflated(call: Call) -> bytes:
    """Return the body of the request, decompressed if the content encoding is gzip. Raises UnsupportedMediaType for
    another encoding, Malformed for data that cannot be decompressed, TooLarge for a body that is too long.
    """
    how, most = (call.header(b"content-encoding") or "identity").strip().lower(), call.world.config.max_request_bytes
    if how == "identity":
        return call.body
    if how != "gzip":
        raise UnsupportedMediaType(
            f"the content encoding `{how[:100]}` is not supported", hint="use the content encoding gzip or none"
        )
    inflating = zlib.decompressobj(wbits=31)
    try:
        body = inflating.decompress(call.body, most + 1)
    except zlib.error:
        raise Malformed("the body is not gzip data") from None
    if len(body) > most:
        raise TooLarge(f"the body is longer than {most} bytes")
    if not inflating.eof:
        raise Malformed("the body is not complete gzip data")
    return body


def render(refusal: Refused, encoding: Encoding = "json") -> Reply:
    """Return the response for a refusal, as google.rpc.Status. A refusal before the body is read has the default
    encoding, JSON.
    """
    code, media_type = status_of(refusal), next(name for name, one in TYPES.items() if one == encoding)
    body = status(encoding, _GRPC.get(code, 2), refusal.message)
    return Reply(code, body, media_type, headers=retry_headers(refusal))


OTLP = RouteProtocol("OpenTelemetry", render, RpcStatus, ("application/x-protobuf",))

OTLP_BODY = Content(dict[str, Any], tuple(TYPES), example={})

ROUTES = tuple(
    Route(
        "POST",
        path,
        take,
        SELF,
        errors=(TooMuch(_TOO_MUCH, hint=_SAMPLE),),
        is_large=True,
        protocol=OTLP,
        body=OTLP_BODY,
        answers={200: OTLP_BODY},
    )
    for path, take in (("/v1/traces", take_traces), ("/v1/logs", take_logs))
)
