"""Removal of secrets from everything that comes back: each form of a value becomes asterisks of the same length.

A value is recognised as it is, percent-encoded, in base64 and base64url at each of the three alignments, in
hexadecimal, and escaped for JSON or HTML; also where parts of a stream divide it. Not recognised: a value that the
server has changed otherwise (reversed, compressed, encrypted, in other letters), or sends in pieces with something
between.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = b"*"
MAX_SHOWN = 4
"""bytes of the beginning of a possible value that a silent stream shows; the rest of a value is masked all the same"""


def forms_of(value: str) -> frozenset[bytes]:
    """Return the forms in which a value is recognised."""
    raw = value.encode()
    percent = {quote(value, safe=""), quote(value), quote_plus(value), "".join(f"%{byte:02X}" for byte in raw)}
    texts = {value, *percent, *(_lower_escapes(one) for one in percent)}
    texts |= {raw.hex(), raw.hex().upper(), html.escape(value), json.dumps(value)[1:-1].replace("/", "\\/")}
    texts.add(json.dumps(value)[1:-1])
    return frozenset([*(text.encode() for text in texts), *_base64_forms(raw)])


def _lower_escapes(text: str) -> str:
    head, *rest = text.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """Yield the characters that depend on the value alone, for each alignment."""
    for before in range(3):
        whole = bytes(before) + raw
        first, last = -(-before * 8 // 6), len(whole) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(whole)[first:last]


class Masks:
    """The forms of all values that were put into requests of one run."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self.forms: tuple[bytes, ...] = ()
        self.longest = 0
        """bytes of the longest form"""

    def add(self, value: str) -> None:
        """Add a value."""
        if value not in self._values:
            self._values.add(value)
            forms = {*self.forms, *forms_of(value)}
            self.longest = max(map(len, forms))
            self.forms = tuple(sorted(forms))

    def find(self, data: bytes) -> bool:
        """Return whether data has a value in one of its forms."""
        return any(form in data for form in self.forms)

    def mask(self, data: bytes) -> bytes:
        """Return data without values."""
        places = list(_places(self.forms, data))
        if not places:
            return data
        masked = bytearray(data)
        for start, end in places:
            masked[start:end] = MASK * (end - start)
        return bytes(masked)


def _places(forms: Iterable[bytes], data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each form in data, of overlapping ones too."""
    for form in forms:
        start = data.find(form)
        while start >= 0:
            yield start, start + len(form)
            start = data.find(form, start + 1)


class MaskedStream:
    """A stream without values. The end of a part that may be the beginning of a value waits for the next part."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._raw, self._masked = b"", b""
        """the bytes that wait, as they came, and as they are known to leave"""
        self._shown = 0

    def feed(self, part: bytes) -> bytes:
        """Return the bytes that may leave now."""
        raw = self._raw + part
        masked = bytearray(self._masked + part)
        for start, end in _places(self._masks.forms, raw):
            masked[start:end] = MASK * (end - start)
        keep = self._begun(raw)
        ready = bytes(masked[self._shown : len(raw) - keep])
        self._shown = max(self._shown - (len(raw) - keep), 0)
        self._raw, self._masked = raw[len(raw) - keep :], bytes(masked[len(raw) - keep :])
        return ready

    def show(self) -> bytes:
        """Return the bytes that wait, if they are few: a peer may wait for the last bytes of a message."""
        if not self._shown < len(self._raw) <= MAX_SHOWN:
            return b""
        ready = self._masked[self._shown :]
        self._shown = len(self._raw)
        return ready

    @property
    def is_waiting(self) -> bool:
        """Return whether a few bytes wait that `show` would return."""
        return self._shown < len(self._raw) <= MAX_SHOWN

    def end(self) -> bytes:
        """Return the rest at the end of the stream."""
        ready, self._raw, self._masked, self._shown = self._masked[self._shown :], b"", b"", 0
        return ready

    def _begun(self, raw: bytes) -> int:
        """Return the length of the longest end of `raw` with which a form begins."""
        longest = 0
        for form in self._masks.forms:
            start = raw.find(form[:1], max(len(raw) - len(form) + 1, 0))
            while 0 <= start < len(raw) - longest:
                if form.startswith(raw[start:]):
                    longest = len(raw) - start
                    break
                start = raw.find(form[:1], start + 1)
        return longest
