"""WebSocket frames (RFC 6455 section 5.2). Frames from the program are masked with a key that is in the frame; frames
from a server are not masked.

Control frames may stand between the fragments of a message (section 5.4), so their payloads are read separately.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from ostiary.proxy.egress.masking import MaskedStream, Masks
from ostiary.proxy.entrance import Rejected

_LENGTHS = {126: 2, 127: 8}
"""Number of bytes of an extended length, by the number in the 7-bit length field."""
MAX_WAITING = 64 << 10
"""maximum number of bytes of frames that are held back, because an earlier byte of a message is held back"""


class FrameContent(Enum):
    """The content of a part of a frame: the head of the frame, or the payload of a message or of a control frame."""

    HEAD = auto()
    MESSAGE = auto()
    CONTROL = auto()


class FramePart(NamedTuple):
    """A part of a frame; `data` of a payload is without the frame's mask."""

    content: FrameContent
    data: bytes


class FrameReader:
    """A reader of the frames in a stream. `is_masked`: true for the stream of the program, false for that of a
    server.
    """

    def __init__(self, *, is_masked: bool = True) -> None:
        self._is_masked = is_masked
        self._begun, self._key, self._left, self._content = b"", b"", 0, FrameContent.MESSAGE

    def feed(self, data: bytes) -> Iterator[FramePart]:
        """Yield the parts of frames in the next bytes of the stream. Raises Rejected for a frame that cannot be
        read.
        """
        data, at = self._begun + data, 0
        self._begun = b""
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                yield FramePart(self._content, _unmask(part, self._key) if self._is_masked else part)
                turn = len(part) % 4
                self._key = self._key[turn:] + self._key[:turn]
                self._left -= len(part)
                at += len(part)
                continue
            short = data[at + 1] & 127 if len(data) > at + 1 else 0
            size = _LENGTHS.get(short, 0)
            start = at + 2 + size + 4 * self._is_masked
            if len(data) < start:
                self._begun = data[at:]
                break
            if data[at] & 0x70:
                raise Rejected(400, "malformed", "a frame uses an extension", hint="use WebSocket without extensions")
            if bool(data[at + 1] & 0x80) is not self._is_masked:
                raise Rejected(
                    400,
                    "malformed",
                    f"a frame of the {'client has no' if self._is_masked else 'server has a'} mask",
                    hint="only the client masks frames (RFC 6455 section 5.1)",
                )
            self._left = int.from_bytes(data[at + 2 : at + 2 + size]) if size else short
            self._key = data[start - 4 : start]
            self._content = FrameContent.CONTROL if data[at] & 8 else FrameContent.MESSAGE
            yield FramePart(FrameContent.HEAD, data[at:start])
            at = start


class MaskedFrames:
    """The frames of a server, with asterisks in place of secrets in their payloads. A secret is also found if it is
    divided between frames.

    Bytes of messages are held back as in a MaskedStream; all later frames are then held back too, to keep the order.
    Bytes of a control frame are held back only until the next frame, because messages must not wait for the next
    control frame. If a secret is divided between control frames, its first bytes are therefore sent.
    """

    def __init__(self, masks: Masks, host: str) -> None:
        self._reader = FrameReader(is_masked=False)
        self._streams = {content: MaskedStream(masks, host) for content in FrameContent}
        self._masked = {content: bytearray() for content in FrameContent}
        self._order = deque[tuple[FrameContent, int]]()
        """(content, number of bytes) of each part that is not sent yet, in order"""

    def feed(self, data: bytes) -> bytes:
        """Add the next bytes of the stream. Return the masked bytes that can be sent now. Raises Rejected if too many
        control frames wait for the end of a message.
        """
        for content, part in self._reader.feed(data):
            if content is FrameContent.HEAD:
                self._masked[FrameContent.CONTROL] += self._streams[FrameContent.CONTROL].release()
            self._order.append((content, len(part)))
            self._masked[content] += part if content is FrameContent.HEAD else self._streams[content].feed(part)
        sent = self._take()
        if sum(map(len, self._masked.values())) > MAX_WAITING:
            raise Rejected(502, "too_long", f"over {MAX_WAITING} bytes of control frames wait for a message")
        return sent

    def show(self) -> bytes:
        """Return the masked bytes that were held back and can be sent while the server pauses."""
        for content, stream in self._streams.items():
            self._masked[content] += stream.show()
        return self._take()

    @property
    def is_waiting(self) -> bool:
        """Return whether `show` would return bytes: at least one stream has bytes that are ready to be shown."""
        return any(stream.is_waiting for stream in self._streams.values())

    def end(self) -> bytes:
        """Return the remaining bytes at the end of the stream."""
        for content, stream in self._streams.items():
            self._masked[content] += stream.end()
        return self._take()

    def _take(self) -> bytes:
        """Return the masked bytes in their order, up to the first byte that is still held back."""
        sent = bytearray()
        while self._order:
            content, size = self._order.popleft()
            part = self._masked[content][:size]
            del self._masked[content][:size]
            sent += part
            if len(part) < size:
                self._order.appendleft((content, size - len(part)))
                break
        return bytes(sent)


def _unmask(part: bytes, key: bytes) -> bytes:
    keys = (key * (len(part) // 4 + 1))[: len(part)]
    return (int.from_bytes(part) ^ int.from_bytes(keys)).to_bytes(len(part))
