"""Streams as receivers manage them: OpenID SSF 1.0 sections 7 (metadata) and 8 (management).

    GET    /.well-known/ssf-configuration           POST   /api/v1/ssf/subjects/add, /remove
    POST, GET, PATCH, PUT, DELETE  /api/v1/ssf/streams       POST   /api/v1/ssf/verify
    GET, POST                      /api/v1/ssf/status

A receiver is a client of this server with the scopes `ostiary:ssf.read` and `ostiary:ssf.manage`, which the metadata of
RFC 9728 lists. A stream belongs to the client that created it; its id gives no access. Tokens are bound to a key,
except for clients that an administrator exempts (`ostiary agent allow-bearer --resource ostiary`).
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import msgspec
from msgspec import UNSET, UnsetType

from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, render_admin, reply, status_of
from ostiaryd.ground.http.routes import NOT_FOUND, Either, ErrorBody, Query, Route, RouteProtocol
from ostiaryd.ground.http.well_known import check_suffix, with_suffix
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SSF_MANAGE, SSF_READ
from ostiaryd.signals import store
from ostiaryd.signals.flows import streams
from ostiaryd.signals.model.sets import POLL, PUSH
from ostiaryd.signals.model.streams import (
    MIN_VERIFICATION_S,
    SUPPORTED,
    Delivery,
    Status,
    Stream,
)

_BRIEFLY = [(b"cache-control", b"public, max-age=300")]


def metadata(config: Config) -> dict[str, Any]:
    """Return the transmitter metadata (SSF section 7.1), without members that are false or empty."""
    api = f"{config.api}/ssf"
    return {
        "spec_version": "1_0",
        "issuer": config.issuer,
        "jwks_uri": f"{config.issuer}/jwks",
        "delivery_methods_supported": [PUSH, POLL],
        "configuration_endpoint": f"{api}/streams",
        "status_endpoint": f"{api}/status",
        "add_subject_endpoint": f"{api}/subjects/add",
        "remove_subject_endpoint": f"{api}/subjects/remove",
        "verification_endpoint": f"{api}/verify",
        "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
        "default_subjects": "ALL",
    }


async def configuration(call: Call) -> Reply:
    """Return the metadata of this server as a transmitter of signals (SSF 7.1)."""
    check_suffix(call, call.world.config.issuer, of="transmitter")
    return reply(metadata(call.world.config), headers=_BRIEFLY)


class Configuration(msgspec.Struct, frozen=True):
    """A stream's configuration as the receiver sends it back. Members that the transmitter sets must be unchanged (SSF
    8.1.1.3).
    """

    stream_id: str | UnsetType = UNSET
    events_requested: tuple[str, ...] | UnsetType | None = UNSET
    delivery: Delivery | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    iss: str | UnsetType = UNSET
    aud: str | list[str] | UnsetType = UNSET
    events_supported: list[str] | UnsetType = UNSET
    events_delivered: list[str] | UnsetType = UNSET
    min_verification_interval: int | UnsetType = UNSET

    @property
    def requested_stream(self) -> streams.RequestedStream:
        """Return the members of the body that a receiver supplies."""
        return streams.RequestedStream(self.events_requested, self.delivery, self.description)


class StreamConfiguration(TypedDict):
    """A stream's configuration as the receiver sees it (SSF 8.1.1)."""

    stream_id: str
    iss: str
    aud: str
    delivery: dict[str, str]
    events_supported: list[str]
    events_requested: NotRequired[list[str]]
    events_delivered: list[str]
    min_verification_interval: int
    description: NotRequired[str]


class StreamStatus(TypedDict):
    """The status of a stream (SSF 8.1.2)."""

    stream_id: str
    status: Literal["enabled", "paused", "disabled"]
    reason: NotRequired[str]


async def create_stream(call: Call) -> Reply:
    """Create a stream of signals to the caller (SSF 8.1.1.1)."""
    requested = call.json(Configuration).requested_stream
    config = call.world.config
    made = await registry.act_as(
        call, "stream.create", lambda act: streams.create(act, requested, by=call.caller, config=config)
    )
    return reply(show(made, config), status=201, headers=[NO_STORE])


async def read_streams(call: Call) -> Reply:
    """Show one stream of the caller by `stream_id`, or list all (SSF 8.1.1.2)."""
    id, config, reader = call.query_one("stream_id"), call.world.config, call.world.db.read()
    if id is None:
        return reply(
            [show(one, config) for one in store.streams.streams_of(reader, call.caller.id)], headers=[NO_STORE]
        )
    return reply(show(streams.find(reader, id, by=call.caller), config), headers=[NO_STORE])


async def change_stream(call: Call) -> Reply:
    """Update the members of a stream that the request contains (SSF 8.1.1.3)."""
    return await _change(call, "stream.change", streams.change)


async def replace_stream(call: Call) -> Reply:
    """Replace the configuration of a stream (SSF 8.1.1.4)."""
    return await _change(call, "stream.replace", streams.replace_configuration)


async def _change(call: Call, action: str, flow: Any) -> Reply:
    sent, config = call.json(Configuration), call.world.config
    id = _required(sent.stream_id)
    _check_ours(show(streams.find(call.world.db.read(), id, by=call.caller), config), sent)
    changed: Stream = await registry.act_as(
        call, action, lambda act: flow(act, id, sent.requested_stream, by=call.caller, config=config)
    )
    return reply(show(changed, config), headers=[NO_STORE])


def _check_ours(now: dict[str, Any], sent: Configuration) -> None:
    for name in ("iss", "aud", "events_supported", "events_delivered", "min_verification_interval"):
        value = getattr(sent, name)
        if value is not UNSET and value != now[name] and value != [now[name]]:
            raise Invalid(
                f"`{name}` must be {now[name]}: only the transmitter can change this member",
                hint="leave the member out",
            )


async def delete_stream(call: Call) -> Reply:
    """Delete a stream (SSF 8.1.1.5)."""
    id = _required(call.query_one("stream_id"))
    await registry.act_as(call, "stream.delete", lambda act: streams.delete(act, id, by=call.caller))
    return _empty(204)


async def read_status(call: Call) -> Reply:
    """Return whether a stream is enabled, paused or disabled (SSF 8.1.2.1)."""
    id = _required(call.query_one("stream_id"))
    return _status(streams.find(call.world.db.read(), id, by=call.caller))


class NewStatus(msgspec.Struct):
    stream_id: str
    status: Status
    reason: str = ""


async def set_status(call: Call) -> Reply:
    """Enable, pause or disable a stream (SSF 8.1.2.2)."""
    new = call.json(NewStatus)
    stream = await registry.act_as(
        call,
        "stream.status",
        lambda act: streams.set_status(act, new.stream_id, new.status, reason=new.reason, by=call.caller),
    )
    return _status(stream)


class Subject(msgspec.Struct):
    stream_id: str
    subject: dict[str, Any]
    verified: bool = True


async def add_subject(call: Call) -> Reply:
    """Resume the signals about a subject that the receiver removed from the stream (SSF 8.1.3.2).

    Other subjects need no addition.
    """
    sent = call.json(Subject)
    await registry.act_as(
        call, "stream.add_subject", lambda act: streams.add_subject(act, sent.stream_id, sent.subject, by=call.caller)
    )
    return _empty(200)


async def remove_subject(call: Call) -> Reply:
    """End the signals about a subject in a stream, until the receiver adds the subject (SSF 8.1.3.3)."""
    sent = call.json(Subject)
    await registry.act_as(
        call,
        "stream.remove_subject",
        lambda act: streams.remove_subject(act, sent.stream_id, sent.subject, by=call.caller),
    )
    return _empty(204)


class Verification(msgspec.Struct):
    stream_id: str
    state: str | None = None


async def verify(call: Call) -> Reply:
    """Request a verification event over a stream of the caller (SSF 8.1.4.2)."""
    sent = call.json(Verification)
    if sent.state is not None and len(sent.state) > 1000:
        raise Invalid("`state` has more than 1000 characters")
    await registry.act_as(
        call, "stream.verify", lambda act: streams.send_verification(act, sent.stream_id, sent.state, by=call.caller)
    )
    return _empty(204)


def show(stream: Stream, config: Config) -> dict[str, Any]:
    """Return a stream's configuration (SSF 8.1.1), without the Authorization header of a push endpoint."""
    endpoint = f"{config.api}/ssf/poll/{stream.stream_id}" if stream.method == POLL else stream.endpoint
    return {
        "stream_id": stream.stream_id,
        "iss": config.issuer,
        "aud": stream.receiver,
        "delivery": {"method": stream.method, "endpoint_url": endpoint},
        "events_supported": list(SUPPORTED),
        **({} if stream.requested is None else {"events_requested": list(stream.requested)}),
        "events_delivered": list(stream.delivers),
        "min_verification_interval": MIN_VERIFICATION_S,
        **({"description": stream.description} if stream.description else {}),
    }


def _status(stream: Stream) -> Reply:
    body = {"stream_id": stream.stream_id, "status": stream.status}
    return reply(body | ({"reason": stream.reason} if stream.reason else {}), headers=[NO_STORE])


def _required(id: str | UnsetType | None) -> str:
    if id is None or id is UNSET:
        raise Invalid("`stream_id` is missing")
    return id


def _empty(status: int) -> Reply:
    return Reply(status, headers=[NO_STORE])


def render(refusal: Refused) -> Reply:
    """Return the response to a refusal: the response of the administration API, with the statuses that SSF 8.1
    requires: 400 instead of 422, and 429 for a second verification within a minute.
    """
    answer = render_admin(refusal)
    if isinstance(refusal, streams.TooSoon):
        answer.status = 429
        answer.headers.append((b"retry-after", str(MIN_VERIFICATION_S).encode()))
    elif status_of(refusal) == 422:
        answer.status = 400
    return answer


SSF = RouteProtocol("Shared Signals", render, ErrorBody)

ROUTES = (
    *with_suffix(
        Route("GET", "/.well-known/ssf-configuration", configuration, "", protocol=SSF, answers={200: dict[str, Any]})
    ),
    Route(
        "POST",
        "/api/v1/ssf/streams",
        create_stream,
        SSF_MANAGE,
        body=Configuration,
        protocol=SSF,
        answers={201: StreamConfiguration},
    ),
    Route(
        "GET",
        "/api/v1/ssf/streams",
        read_streams,
        SSF_READ,
        errors=(NOT_FOUND,),
        protocol=SSF,
        answers={200: Either(StreamConfiguration, list[StreamConfiguration])},
        query=(Query("stream_id", "Id of the stream; by default, all streams of the caller."),),
    ),
    Route(
        "PATCH",
        "/api/v1/ssf/streams",
        change_stream,
        SSF_MANAGE,
        protocol=SSF,
        body=Configuration,
        answers={200: StreamConfiguration},
    ),
    Route(
        "PUT",
        "/api/v1/ssf/streams",
        replace_stream,
        SSF_MANAGE,
        protocol=SSF,
        body=Configuration,
        answers={200: StreamConfiguration},
    ),
    Route(
        "DELETE",
        "/api/v1/ssf/streams",
        delete_stream,
        SSF_MANAGE,
        protocol=SSF,
        answers={204: None},
        query=(Query("stream_id", "Id of the stream.", is_required=True),),
    ),
    Route(
        "GET",
        "/api/v1/ssf/status",
        read_status,
        SSF_READ,
        errors=(NOT_FOUND,),
        protocol=SSF,
        answers={200: StreamStatus},
        query=(Query("stream_id", "Id of the stream.", is_required=True),),
    ),
    Route(
        "POST", "/api/v1/ssf/status", set_status, SSF_MANAGE, body=NewStatus, protocol=SSF, answers={200: StreamStatus}
    ),
    Route("POST", "/api/v1/ssf/subjects/add", add_subject, SSF_MANAGE, body=Subject, protocol=SSF, answers={200: None}),
    Route(
        "POST",
        "/api/v1/ssf/subjects/remove",
        remove_subject,
        SSF_MANAGE,
        body=Subject,
        protocol=SSF,
        answers={204: None},
    ),
    Route(
        "POST",
        "/api/v1/ssf/verify",
        verify,
        SSF_MANAGE,
        errors=(streams.TooSoon("a stream can be verified at most once in 60 seconds"),),
        body=Verification,
        protocol=SSF,
        answers={204: None},
    ),
)
