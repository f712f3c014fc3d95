"""Live entries of the ledger as server-sent events, for the console and for programs."""

from __future__ import annotations

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply
from ostiaryd.ground.http.routes import CONFLICT, Content, Query, Route
from ostiaryd.policy.flows.live import LiveEntries
from ostiaryd.registry.model import READ
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows.sessions import find_session, session_cookie
from ostiaryd.trust.model import AccessRefused

MAX_PLACE = 64


async def stream_events(call: Call) -> Reply:
    """Stream the new entries of the ledger as server-sent events (HTML section 9.2).

    With `Last-Event-ID`, the stream begins after that event. An event `entry` has an entry in the form of `GET
    /api/v1/audit`. A person who may not read the ledger receives `change` instead, which names the family of a changed
    list: a list that the person may read, or approvals and incidents of agents that the person or a team of the person
    owns. These events have no ids, and such a stream begins with `reset`. `reset` means that events may be missing,
    because the id is unknown or more than 10,000 entries old: read the lists again. A stream ends after five minutes,
    when the caller loses the right, or when a caller with fewer streams needs its place.
    """
    place = call.header(b"last-event-id") or call.query_one("place")
    if place is not None and len(place) > MAX_PLACE:
        raise Invalid("`Last-Event-ID` or `place` is not the id of an event", hint="send the id of the last event")
    caller, cookie, now = call.caller, session_cookie(call), call.world.now
    claims = None if caller.token is None else trust.read_claims(call.header(b"authorization"), keys=call.world.keys)

    def is_live(reader: Reader) -> bool:
        if claims is None:
            session = find_session(reader, cookie, now())
            return session is not None and session.person == caller.id
        try:
            trust.live_caller(reader, claims, now=now())
        except AccessRefused:
            return False
        return True

    body = call.world.get_singleton(LiveEntries).follow(caller, place, is_live)
    return Reply(200, body, "text/event-stream", [NO_STORE, (b"x-accel-buffering", b"no")])


ROUTES = (
    Route(
        "GET",
        "/api/v1/events",
        stream_events,
        READ,
        streams=True,
        errors=(CONFLICT,),
        answers={200: Content(media_types=("text/event-stream",))},
        query=(Query("place", "The id of the last event. The header `Last-Event-ID` takes precedence."),),
    ),
)
