"""Admission of requests: the client and the lane of their jobs in the writer's line. Some requests are refused unread.

Before authentication, a request counts for the client that it names, within the share of the network from which it
came. The name is not verified, so it only divides the share of the network. After authentication, the request counts
for its caller, who has a separate share.

A request that stops something waits in the lane `STOP`. For an administrator or a person this always applies, for every
other caller only within the rate of `Stops`, so that no caller can use the lane to block all others.

Reports of guards describe past calls. They do not expire in the line, within the rate of `Reports`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose import unb64u
from ostiaryd.ground.database.line import Client, Lane, Priority, priority
from ostiaryd.ground.http.buckets import Buckets
from ostiaryd.ground.http.edge import Call

MAX_CLAIMS = 8192
"""Maximum number of characters of a token's payload that are searched for the name of the client."""
MAX_HEADER = 2048
"""Maximum length of the header of such a token, in characters."""
STRANGERS = ""
"""Name of the bucket of `Stops` that all unauthenticated callers share."""


class Stops(Buckets):
    """Rate limit of each caller for requests in the lane `STOP`, whose jobs the database writer runs before all others.
    Further requests wait in the ordinary lane.
    """

    burst, per_second = 50, 20


class Reports(Buckets):
    """Rate limit of each guard for reports that do not expire in the line (the queue before the database writer).
    Further reports expire like other jobs.
    """

    burst, per_second = 100, 50


class Essentials(Buckets):
    """Rate limit of each network for token requests that name an administrator, a person or a guard. Within this rate,
    the requests do not expire in the line (the queue before the database writer) and may use the reserve of a full
    disk. Further requests expire like other jobs.
    """

    burst, per_second = 30, 3


class _Claims(msgspec.Struct):
    sub: str = ""
    client_id: str = ""


_decode = json_decoder(_Claims)


def queue_unproven(call: Call, *, wants: Lane, reports: bool = False) -> None:
    """Let the jobs that the current asyncio task submits to the database writer wait as jobs of an unauthenticated
    caller. `wants` is their lane after authentication. `reports`: the request delivers records of a guard.
    """
    priority.set(Priority(client_of(call), wants=wants, expires=True, reports=reports))


def queue_stop_unproven(call: Call) -> None:
    """Let the jobs of a request that stops something wait in the lane `STOP`, within the rate of `Stops`. The caller is
    authenticated only later, in the act of the request.
    """
    queue_unproven(call, wants=Lane.STOP)
    mine = priority.get()
    if _takes(call, Stops, mine.client[0]) and _takes(call, Stops, STRANGERS):
        mine.lane = Lane.STOP


def queue_proven(call: Call, id: str, *, is_privileged: bool, is_guard: bool) -> None:
    """Let the further jobs that the current asyncio task submits to the database writer wait as jobs of the
    authenticated caller `id`.

    `is_privileged` means an administrator or a person. Their reads, and the feed of a guard, may use the reserve of a
    full disk. Reports of a guard do not expire, within the rate of `Reports`.
    """
    call.is_privileged, call.is_guard = is_privileged, is_guard
    mine = priority.get()
    if not mine.expires:  # the task belongs to the server, not to a request
        return
    mine.client, mine.expires = (id, ""), not is_privileged
    if is_guard and mine.reports and _takes(call, Reports, id):
        mine.expires = False
    mine.is_essential = call.method == "GET" and (is_privileged or is_guard)
    if mine.wants is Lane.STOP and (is_privileged or _takes(call, Stops, id)):
        mine.lane, mine.expires = Lane.STOP, False


def admit_essential(call: Call, is_privileged: Callable[[str], bool]) -> bool:
    """Let a token request wait without expiry and use the reserve of a full disk, if the client that it names is an
    administrator, a person or a guard (`is_privileged`) and the rate permits it. Return whether both conditions hold.

    Such clients need a token to stop something, to report, or to follow the feed. The name in the request is not
    verified, so `Essentials` limits the number of such requests.
    """
    mine = priority.get()
    share, name = mine.client
    is_essential = bool(name) and is_privileged(name) and _takes(call, Essentials, share)
    if is_essential:
        mine.is_essential, mine.expires = True, False
    return is_essential


async def check_admission(call: Call) -> None:
    """Refuse a request while the line (the queue before the database writer) is crowded, if the oldest ordinary job of
    its client in the line can expire. Raises Busy, after a wait: at most `REFUSED_AT_ONCE` refusals are sent in each
    `SWEEP_S`, so that refusals do not delay the writer.
    """
    writer = call.world.writer
    share, name = priority.get().client
    await writer.admit((share, name))
    if name:
        await writer.admit((name, ""))  # the share of the same client as an authenticated caller


def is_refused(call: Call) -> bool:
    """Return whether a request is refused before anything except its client is determined.

    True if `check_admission` would refuse the request, and the refusal can be sent now. All other requests go through
    `check_admission`.
    """
    writer = call.world.writer
    share, name = client_of(call)
    return (writer.is_refused((share, name)) or bool(name and writer.is_refused((name, "")))) and writer.take_refusal()


def client_of(call: Call) -> Client:
    """Return the client under which a request waits in the line. A client whose token was verified earlier counts as
    authenticated.
    """
    if (value := call.by_name.get(b"authorization")) is not None:
        token = value.partition(b" ")[2].strip(b" ")
        if (entry := call.world.keys.verified.get(token.decode("latin-1"))) is not None:
            return entry[1].client_id, ""
        return call.network, _name(token)
    return call.network, _name((b"&" + call.body).partition(b"&client_assertion=")[2])


def _name(token: bytes) -> str:
    """Return the client id in the unverified payload of a token; empty if the payload cannot be read."""
    _, _, rest = token[: MAX_HEADER + MAX_CLAIMS + 2].partition(b".")
    payload, dot, _ = rest.partition(b".")
    if not dot:
        return ""
    try:
        claims = _decode(unb64u(payload))
    except (Malformed, ValueError, msgspec.DecodeError):
        return ""
    return (claims.client_id or claims.sub)[:256]


def _takes(call: Call, rate: type[Buckets], caller: str) -> bool:
    """Count one request of `caller` against a rate. Return false if the rate is exceeded."""
    bucket = call.world.get_singleton(rate).of(caller)
    if has := bucket.has(1):
        bucket.take(1)
    return has
