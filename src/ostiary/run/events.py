"""Events from the proxies to `ostiary run`: datagrams on a Unix socket in a temporary folder.

Events are for display only; the ledger is the record. An event is dropped if the buffer of the socket is full, so a
stopped terminal delays no call.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Refused

MAX_TEXT = 300
MAX_BYTES = 4096


class Called(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="called"):
    """The event of one call. `verdict` is the verdict of the rules; `passed` is whether the call was forwarded: in
    mode `watch`, also after `deny` or `undecided`.
    """

    server: str
    tool: str
    verdict: Literal["allow", "deny", "undecided"]
    passed: bool
    owner: str = ""
    task: str = ""
    code: str = ""
    why: str = ""
    hint: str = ""


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="trouble"):
    """The event of a problem of a proxy, or of the end of a problem; `text` is shown to the user of `ostiary run`."""

    server: str
    text: str


Event = Called | Trouble
_decode = json_decoder(Event)


def called(
    server: str,
    tool: str,
    *,
    verdict: Literal["allow", "deny", "undecided"],
    passed: bool,
    owner: str,
    task: str,
    why: Refused | None,
) -> Called:
    """Return the event of a call, with long texts cut to fit a datagram."""
    reason = {} if why is None else {"code": why.code, "why": why.message[:MAX_TEXT], "hint": why.hint[:MAX_TEXT]}
    return Called(server=server, tool=tool[:MAX_TEXT], verdict=verdict, passed=passed, owner=owner, task=task, **reason)


class EventSender:
    """The sender of events in a proxy. Without a socket, events are dropped."""

    def __init__(self, path: str | None) -> None:
        self._socket = None
        if path is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            with suppress(OSError):  # `ostiary run` has ended
                self._socket.connect(path)

    def send(self, event: Event) -> None:
        """Send an event; drop the event if the listener is missing or its buffer is full."""
        if self._socket is not None:
            with suppress(OSError):  # the buffer is full, or the listener has ended
                self._socket.send(msgspec.json.encode(event))

    def close(self) -> None:
        """Close the socket; later events are dropped."""
        if self._socket is not None:
            self._socket.close()


class Listener:
    """The receiver of the events that the proxies of `ostiary run` report."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def next(self) -> Event | None:
        """Return the next event; None if none is waiting. Unknown events are skipped."""
        while True:
            try:
                datagram = self._socket.recv(MAX_BYTES)
            except BlockingIOError:
                return None
            with suppress(msgspec.DecodeError):
                event: Event = _decode(datagram)
                return event

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
