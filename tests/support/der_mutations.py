"""Mutations of messages in DER (X.690): elements are repeated, removed, replaced, cut and filled; lengths are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import strategies as st

CONSTRUCTED, BIT_STRING, OCTET_STRING = 0x20, 0x03, 0x04
TAGS = st.sampled_from(b"\x01\x02\x03\x04\x05\x06\x0c\x13\x14\x16\x17\x18\x1e\x30\x31\x80\x82\x86\x87\xa0\xa1\xa2\xa3")
CONTENTS = st.binary(max_size=40) | st.sampled_from(
    [
        b"\xff" * 21,
        b"\x80" + bytes(30),
        b"00000101000000Z",
        b"99991231235959Z",
        b"500101000000Z",
        b"*." * 50,
        bytes(2000),
    ]
)


class Element(NamedTuple):
    """An element of a message: its place, the length of its header, and its end."""

    begin: int
    header: int
    end: int
    tag: int


def list_elements(der: bytes, begin: int = 0, end: int | None = None) -> Iterator[Element]:
    """Yield every element of a message, also those within strings, the outer ones first."""
    end = len(der) if end is None else end
    while begin + 2 <= end:
        tag, length, header = der[begin], der[begin + 1], 2
        if length & 0x80:
            header += length & 0x7F
            length = int.from_bytes(der[begin + 2 : begin + header])
        if begin + header + length > end:
            return
        yield Element(begin, header, begin + header + length, tag)
        if tag & CONSTRUCTED or tag in (BIT_STRING, OCTET_STRING):
            inner = begin + header + (tag == BIT_STRING)
            yield from list_elements(der, inner, begin + header + length)
        begin += header + length


def encode(tag: int, content: bytes) -> bytes:
    """Return an element with a length in its shortest form."""
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(size))) + size + content


def replace(der: bytes, old: Element, new: bytes) -> bytes:
    """Return the message with other bytes in place of an element; the lengths around it are mended."""
    around = [one for one in list_elements(der) if one.begin < old.begin and one.end >= old.end]
    begin, end = old.begin, old.end
    for outer in reversed(around):
        new = encode(outer.tag, der[outer.begin + outer.header : begin] + new + der[end : outer.end])
        begin, end = outer.begin, outer.end
    return der[:begin] + new + der[end:]


@st.composite
def mutations(draw: st.DrawFn, *messages: bytes) -> bytes:
    """A message that differs from one of `messages` in one to three places."""
    der = draw(st.sampled_from(messages))
    for _ in range(draw(st.integers(1, 3))):
        elements = list(list_elements(der))
        if not elements:
            break
        place = draw(st.sampled_from(elements))
        whole, content = der[place.begin : place.end], der[place.begin + place.header : place.end]
        other, tag, filled = draw(st.sampled_from(elements)), draw(TAGS), draw(CONTENTS)
        changed = [
            b"",
            whole * 2,
            content,
            encode(0x30, whole),
            encode(place.tag, b""),
            encode(place.tag, content[:-1]),
            encode(place.tag, filled),
            encode(tag, content),
            der[other.begin : other.end],
        ]
        der = replace(der, place, draw(st.sampled_from(changed)))
    return der
