"""Admission: as whom a request queues for the writer, and which requests are refused before they are looked at.

A request queues first as the client that it names, within the network that it came from. Nothing of that is proved: the
name only divides the share of its network. Once its caller is proved it queues as that caller, with a share of its own.

A request that stops something queues in the lane `STOP`. Administrators and persons always do; of every other caller,
and of each network of unproven callers, so many a second as `Stops` says, so that the lane cannot be used to starve all
others.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error
from collections.abc import Callable

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database.line import Client, Lane, Priority, priority
from ostiaryd.ground.http.buckets import Buckets
from ostiaryd.ground.http.edge import Call

MAX_CLAIMS = 8192
"""Characters of a token's payload that are looked at for the name of its client."""
MAX_HEADER = 2048
"""Characters of the header before it."""
STRANGERS = ""
"""All unproven callers together, among the buckets of `Stops`."""


class Stops(Buckets):
    """Requests of one caller that overtake: beyond these they queue with all others."""

    burst, per_second = 50, 20


class Essentials(Buckets):
    """Token requests of one network that may use the reserve of a full disk."""

    burst, per_second = 30, 3


class _Claims(msgspec.Struct):
    sub: str = ""
    client_id: str = ""


_decode = json_decoder(_Claims)


def queue_unproven(call: Call, *, wants: Lane) -> None:
    """Queue what this task writes as an unproven caller's; `wants`: the lane for it once its caller is proved."""
    priority.set(Priority(client_of(call), wants=wants, expires=True))


def queue_stop_unproven(call: Call) -> None:
    """Queue a request that stops something, and whose caller only the act itself proves, in the lane `STOP`."""
    queue_unproven(call, wants=Lane.STOP)
    mine = priority.get()
    if _takes_stop(call, mine.client[0]) and _takes_stop(call, STRANGERS):
        mine.lane = Lane.STOP


def queue_proven(call: Call, id: str, *, is_privileged: bool, is_guard: bool) -> None:
    """Queue what this task still writes as that caller's; `is_privileged`: an administrator or a person. Their reading,
    and the feed of a guard, may use the reserve of a full disk.
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
    """Let a token request of an administrator, a person or a guard use the reserve of a full disk: without a token they
    could stop nothing. The name is only claimed, so it is `Essentials` that bound what a stranger can use up.
    """
    share, name = priority.get().client
    bucket = call.world.keep(Essentials).of(share)
    if name and bucket.has(1) and is_privileged(name):
        bucket.take(1)
        priority.get().is_essential = True


async def check_admission(call: Call) -> None:
    """Refuse a client that has something waiting while the line is crowded. Raises Busy."""
    writer = call.world.writer
    if not writer.is_crowded:
        return
    share, name = priority.get().client
    await writer.admit((share, name))
    if name:
        await writer.admit((name, ""))  # the line of that client as a proven caller


def is_refused(call: Call) -> bool:
    """Return whether a request is refused before anything else of it is looked at: its client has something waiting
    while the line is crowded, and refusals may be answered at once. The others meet `check_admission`.
    """
    writer = call.world.writer
    share, name = client_of(call)
    return (writer.is_refused((share, name)) or bool(name and writer.is_refused((name, "")))) and writer.take_refusal()


def client_of(call: Call) -> Client:
    """The client that a request names: with a token that was verified before it counts as proved."""
    for name, value in call.headers:
        if name == b"authorization":
            token = value.partition(b" ")[2].strip(b" ")
            if (known := call.world.keys.verified.get(token.decode("latin-1"))) is not None:
                return known[1].client_id, ""
            return call.network, _name(token)
    return call.network, _name((b"&" + call.body).partition(b"&client_assertion=")[2])


def _name(token: bytes) -> str:
    """The client that the payload of a token names; empty where it cannot be read."""
    _, _, rest = token[: MAX_HEADER + MAX_CLAIMS + 2].partition(b".")
    payload, dot, _ = rest.partition(b".")
    if not dot:
        return ""
    try:
        claims = _decode(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (Error, ValueError, msgspec.DecodeError):
        return ""
    return (claims.client_id or claims.sub)[:256]


def _takes_stop(call: Call, who: str) -> bool:
    """Return whether that caller has an overtaking request left, which it uses up."""
    bucket = call.world.keep(Stops).of(who)
    if has := bucket.has(1):
        bucket.take(1)
    return has
