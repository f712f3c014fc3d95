"""Functions for the HTTP stream of the feed: divide it into lines, end it from another thread, and detect a server in
recovery.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx2

from ostiary.client.refusals import read_object
from ostiary.decision.feed import MAX_LINE_BYTES
from ostiary.protocol.errors import Malformed

log = logging.getLogger("ostiary.guard")
RECOVERY = "recovery"
"""Error code in the answers of a server whose database lost a part of its history."""


def read_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield complete lines. Raises Malformed for a line of more than MAX_LINE_BYTES."""
    buffer = bytearray()
    for chunk in chunks:
        if b"\n" not in chunk:
            buffer += chunk
            if len(buffer) > MAX_LINE_BYTES:
                raise Malformed(f"a line of the feed has more than {MAX_LINE_BYTES} bytes")
            continue
        *whole, rest = (bytes(buffer) + chunk).split(b"\n")
        yield from whole
        buffer = bytearray(rest)


def is_recovering(response: httpx2.Response) -> bool:
    """Return whether the server answers that it is in recovery: its database has lost a part of its history."""
    return response.status_code == 503 and read_object(response.content).get("error") == RECOVERY


def hang_up(response: httpx2.Response) -> None:
    """Close the socket of a stream of the feed, so that the thread that reads the stream gets an error and ends."""
    stream = response.extensions.get("network_stream")
    sock = stream.get_extra_info("socket") if stream is not None else None
    if sock is not None:
        try:
            sock.shutdown(2)
        except OSError as error:  # the stream has already ended
            log.debug("hanging up: %s", error)
