"""WebSocket frames from the program (RFC 6455 section 5.2), whose payloads are masked with a key in each frame.

Control frames may stand between the fragments of a message (section 5.4), so their payloads are read separately.
"""

from __future__ import annotations

from ostiary.proxy.entrance import Rejected

_LENGTHS = {126: 2, 127: 8}
"""Number of bytes of an extended length, by the number in the 7-bit length field."""


class FrameReader:
    """A reader of the payloads in a stream of WebSocket frames."""

    def __init__(self) -> None:
        self._begun, self._key, self._left, self._is_control = b"", b"", 0, False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the unmasked payloads of messages, and those of control frames, in the next bytes of the stream.
        Raises Rejected for a frame that cannot be read.
        """
        data, at, payloads = self._begun + data, 0, (bytearray(), bytearray())
        self._begun = b""
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                payloads[self._is_control].extend(_unmask(part, self._key))
                turn = len(part) % 4
                self._key = self._key[turn:] + self._key[:turn]
                self._left -= len(part)
                at += len(part)
                continue
            short = data[at + 1] & 127 if len(data) > at + 1 else 0
            size = _LENGTHS.get(short, 0)
            start = at + 2 + size + 4
            if len(data) < start:
                self._begun = data[at:]
                break
            if data[at] & 0x70 or not data[at + 1] & 0x80:
                raise Rejected(400, "malformed", "a frame is not masked, or has an extension", hint="RFC 6455")
            self._left = int.from_bytes(data[at + 2 : at + 2 + size]) if size else short
            self._key, at, self._is_control = data[start - 4 : start], start, bool(data[at] & 8)
        return bytes(payloads[0]), bytes(payloads[1])


def _unmask(part: bytes, key: bytes) -> bytes:
    keys = (key * (len(part) // 4 + 1))[: len(part)]
    return (int.from_bytes(part) ^ int.from_bytes(keys)).to_bytes(len(part))
