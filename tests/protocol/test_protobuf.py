"""The wire format of Protocol Buffers: each field at its limits, and messages that cannot be read."""

from __future__ import annotations

import pytest

from ostiary.protocol.errors import Malformed
from ostiary.protocol.protobuf import MAX_FIELD, encode_bytes, encode_number, parse_fields


def fields(message: bytes) -> list[tuple[int, int | bytes]]:
    return [(number, value if isinstance(value, int) else bytes(value)) for number, value in parse_fields(message)]


@pytest.mark.parametrize("number", [1, 15, 16, MAX_FIELD])
def test_an_encoded_field_is_parsed_with_its_number(number: int) -> None:
    assert fields(encode_bytes(number, b"a") + encode_number(number, 300)) == [(number, b"a"), (number, 300)]


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (bytes.fromhex("0d01000000"), 1),
        (bytes.fromhex("090100000000000080"), 1 << 63 | 1),
        (bytes.fromhex("08ffffffffffffffffff01"), (1 << 64) - 1),
        (bytes.fromhex("0a00"), b""),
    ],
)
def test_a_value_of_each_type_is_read(message: bytes, value: int | bytes) -> None:
    assert fields(message) == [(1, value)]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (bytes.fromhex("0001"), "number that is not from 1"),
        (encode_bytes(MAX_FIELD + 1, b""), "number that is not from 1"),
        (bytes.fromhex("08"), "ends within a number"),
        (bytes.fromhex("08ff"), "ends within a number"),
        (bytes.fromhex("08ffffffffffffffffffff01"), "more than 10 bytes"),
        (bytes.fromhex("0a02aa"), "ends within a field"),
        (bytes.fromhex("0affffffffffffffffff01"), "ends within a field"),
        (bytes.fromhex("0d010000"), "ends within a field"),
        (bytes.fromhex("0901000000000000"), "ends within a field"),
        (bytes.fromhex("0b"), "unsupported wire type 3"),
        (bytes.fromhex("0f"), "unsupported wire type 7"),
    ],
)
def test_an_unreadable_message_is_malformed(message: bytes, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        fields(message)
