"""Admission: under which client a request queues for the writer, and which requests are refused unread.

A request first queues as the client that it names, within the network that it came from. The name is not proved, so it
only divides the share of its network. Once the caller is proved, the request queues as that caller, with its own share.

A request that stops something queues in the lane `STOP`: always if an administrator or a person sends it, and within
the rate of `Stops` for every other caller, so that the lane cannot be used to starve all others.
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
"""Maximum number of characters of a token's payload that are searched for the name of its client."""
MAX_HEADER = 2048
"""Maximum number of characters of the header before the payload."""
STRANGERS = ""
"""The bucket of `Stops` that all unproven callers share."""


class Stops(Buckets):
    """The rate of requests of one caller in the lane `STOP`; requests beyond it queue with all others."""

    burst, per_second = 50, 20


class Essentials(Buckets):
    """Token requests of one network that may use the reserve of a full disk."""

    burst, per_second = 30, 3


class _Claims(msgspec.Struct):
    sub: str = ""
    client_id: str = ""


_decode = json_decoder(_Claims)


def queue_unproven(call: Call, *, wants: Lane) -> None:
    """Queue the writes of this task as those of an unproven caller. `wants` is their lane once the caller is proved."""
    priority.set(Priority(client_of(call), wants=wants, expires=True))


def queue_stop_unproven(call: Call) -> None:
    """Queue a request that stops something and whose caller is proved only in its act, within the rate of `Stops`."""
    queue_unproven(call, wants=Lane.STOP)
    mine = priority.get()
    if _takes_stop(call, mine.client[0]) and _takes_stop(call, STRANGERS):
        mine.lane = Lane.STOP


def queue_proven(call: Call, id: str, *, is_privileged: bool, is_guard: bool) -> None:
    """Queue the further writes of this task as the writes of the proven caller `id`.

    `is_privileged` means an administrator or a person. Their reads, and the feed of a guard, may use the reserve of a
    full disk.
    """
    call.is_privileged = is_privileged
    mine = priority.get()
    if not mine.expires:  # the server's own task
        return
    mine.client, mine.expires = (id, ""), not is_privileged
    mine.is_essential = call.method == "GET" and (is_privileged or is_guard)
    if mine.wants is Lane.STOP and (is_privileged or _takes_stop(call, id)):
        mine.lane, mine.expires = Lane.STOP, False


def admit_to_reserve(call: Call, is_privileged: Callable[[str], bool]) -> None:
    """Let a token request of an administrator, a person or a guard use the reserve of a full disk.

    Without a token they could stop nothing. The name is only claimed, so `Essentials` limits its use by unauthenticated
    callers.
    """
    share, name = priority.get().client
    bucket = call.world.keep(Essentials).of(share)
    if name and bucket.has(1) and is_privileged(name):
        bucket.take(1)
        priority.get().is_essential = True


async def check_admission(call: Call) -> None:
    """Refuse a client that has a job in the line while the line is crowded. Raises Busy."""
    writer = call.world.writer
    if not writer.is_crowded:
        return
    share, name = priority.get().client
    await writer.admit((share, name))
    if name:
        await writer.admit((name, ""))  # the line of that client as a proven caller


def is_refused(call: Call) -> bool:
    """Return whether a request is refused before anything except its client is read.

    True if the client has a job in the queue while the queue is crowded, and a refusal may be answered at once. All
    other requests go through `check_admission`.
    """
    writer = call.world.writer
    share, name = client_of(call)
    return (writer.is_refused((share, name)) or bool(name and writer.is_refused((name, "")))) and writer.take_refusal()


def client_of(call: Call) -> Client:
    """Return the client that a request names; a client whose token was verified before counts as proved."""
    for name, value in call.headers:
        if name == b"authorization":
            token = value.partition(b" ")[2].strip(b" ")
            if (entry := call.world.keys.verified.get(token.decode("latin-1"))) is not None:
                return entry[1].client_id, ""
            return call.network, _name(token)
    return call.network, _name((b"&" + call.body).partition(b"&client_assertion=")[2])


def _name(token: bytes) -> str:
    """Return the client in the payload of a token; empty if the payload cannot be read."""
    _, _, rest = token[: MAX_HEADER + MAX_CLAIMS + 2].partition(b".")
    payload, dot, _ = rest.partition(b".")
    if not dot:
        return ""
    try:
        claims = _decode(unb64u(payload))
    except (Malformed, ValueError, msgspec.DecodeError):
        return ""
    return (claims.client_id or claims.sub)[:256]


def _takes_stop(call: Call, caller: str) -> bool:
    """Take one request of `caller` in the lane `STOP`; return False if none is left."""
    bucket = call.world.keep(Stops).of(caller)
    if has := bucket.has(1):
        bucket.take(1)
    return has
