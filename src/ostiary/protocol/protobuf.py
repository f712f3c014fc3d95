"""The wire format of Protocol Buffers: fields of a message by number (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator

from ostiary.protocol.errors import Malformed

MAX_FIELD = (1 << 29) - 1
Value = int | memoryview
"""A number, or the bytes of a string or message. A floating-point number is the integer with the same bits."""


def parse_fields(message: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field of a message. Raises Malformed for bytes that are not a message."""
    data = memoryview(message)
    at, end = 0, len(data)
    while at < end:
        tag, at = _parse_varint(data, at)
        value: Value
        match tag & 7:
            case 0:
                value, at = _parse_varint(data, at)
            case 1:
                value, at = int.from_bytes(data[at : at + 8], "little"), at + 8
            case 2:
                size, at = _parse_varint(data, at)
                value, at = data[at : at + size], at + size
            case 5:
                value, at = int.from_bytes(data[at : at + 4], "little"), at + 4
            case _:
                raise Malformed(f"the message has a field of the unsupported wire type {tag & 7}")
        if at > end:
            raise Malformed("the message ends within a field")
        if not 0 < tag >> 3 <= MAX_FIELD:
            raise Malformed(f"the message has a field with a number that is not from 1 to {MAX_FIELD}")
        yield tag >> 3, value


def encode_number(number: int, value: int) -> bytes:
    """Return an encoded field with an integer of 0 or more."""
    return _encode_varint(number << 3) + _encode_varint(value)


def encode_double(number: int, bits: bytes) -> bytes:
    """Return an encoded field with a floating-point number. `bits`: the 8 bytes of the number, little-endian."""
    return _encode_varint(number << 3 | 1) + bits


def encode_bytes(number: int, value: bytes) -> bytes:
    """Return a field with bytes, a string in UTF-8, or an encoded message."""
    return _encode_varint(number << 3 | 2) + _encode_varint(len(value)) + value


def _parse_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number and the position after it. Raises Malformed for a number that does not end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Malformed("the message ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise Malformed("a number of the message has more than 10 bytes")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
