"""Masking of secrets in everything that the wrapped process receives: each form of a value
(`ostiary.protocol.secret_forms`) is replaced by asterisks of the same length, even if the form is divided between parts
of a stream, or between lines of at least MIN_LINE characters, as base64 is in MIME and PEM.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Iterator

from ostiary.protocol.destination import MAX_SECRET
from ostiary.protocol.secret_forms import forms_of, readings_of, visible_in

MASK = bytes(byte if byte in b"\r\n" else ord("*") for byte in range(256))
"""the byte that is sent in place of each byte of a secret; line ends stay"""
MIN_LINE = 40
"""minimum length of a line after which a form may continue on the next line"""
MAX_SHOWN = 4
"""maximum number of first bytes of a possible secret that are sent unmasked if the stream pauses; all later bytes of
the secret are masked
"""
MAX_HOSTS = 256
"""maximum number of hosts for which the results of `Masks.forms_at` are cached"""
LONGEST_FORM = 6 * MAX_SECRET
"""maximum length of a form in bytes, because the longest escape of a character (`"` in HTML) has six bytes"""
_END_OF_LINE = re.compile(
    rb"(?:\n(?<=L\n)|\r(?<=L\r)(?:\n|\Z)|\\(?<=L\\)(?:n|r\\n|r?\\?\Z))".replace(b"L", rb"[\w+/-]{%d}" % MIN_LINE)
)
"""CR LF or LF, which may be escaped as in JSON, after a line of base64 or hexadecimal digits; also the first bytes of
this at the end of the data
"""
_LONGEST_END = len(r"\r\n")
MAX_ESCAPE = 4
"""maximum ratio between the length of an escaped secret in a stream and the secret's longest form; a secret that is
divided between parts is found up to this ratio
"""


class Masks:
    """The forms (encodings) of all secrets that were put into requests of one run, and the hosts to which each secret
    was sent.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, set[str]] = {}
        self._ends: dict[str, int] = {}
        self._forms: dict[str, frozenset[bytes]] = {}
        self._at_hosts: dict[str, tuple[tuple[bytes, ...], int]] = {}
        self.forms: tuple[bytes, ...] = ()
        self.longest = 0
        """length of the longest form, in bytes"""

    def add(self, value: str, host: str = "", expires_at: int = 0) -> None:
        """Add a secret that is sent to `host`. `expires_at`: time at which the secret expires, in seconds since the
        epoch; 0 if it does not expire.
        """
        hosts = self._hosts.setdefault(value, set())
        if host not in hosts:
            hosts.add(host)
            self._at_hosts.clear()
        self._ends[value] = expires_at
        if value not in self._forms:
            self._set({**self._forms, value: forms_of(value)})

    def forget(self, before: int) -> None:
        """Remove the secrets that expired before the time `before` (seconds), because an expired access token is
        useless.
        """
        expired = {value for value, end in self._ends.items() if 0 < end < before}
        if expired:
            self._set({value: forms for value, forms in self._forms.items() if value not in expired})
        for value in expired:
            del self._ends[value], self._hosts[value]

    def _set(self, forms_of_values: dict[str, frozenset[bytes]]) -> None:
        self._forms = forms_of_values
        forms = {form for own in forms_of_values.values() for form in own}
        self.longest = max(map(len, forms), default=0)
        self._at_hosts.clear()
        self.forms = tuple(sorted(forms))

    def forms_at(self, host: str) -> tuple[tuple[bytes, ...], int]:
        """Return the forms of the secrets that were sent to `host`, and the length in bytes of the longest form of the
        secrets that were not sent to `host`; 0 if every secret was sent to `host`.
        """
        if (forms := self._at_hosts.get(host)) is None:
            if len(self._at_hosts) >= MAX_HOSTS:
                self._at_hosts.clear()
            sent = {value for value in self._forms if host in self._hosts.get(value, ())}
            own = tuple(form for value in sent for form in self._forms[value])
            others = (len(form) for value in self._forms.keys() - sent for form in self._forms[value])
            forms = self._at_hosts[host] = own, max(others, default=0)
        return forms

    def find(self, data: bytes) -> bool:
        """Return whether `data`, or a decoded form of `data`, contains a secret in one of its forms."""
        return bool(self.forms) and any(form in text for text in readings_of(data) for form in self.forms)

    def find_in_host(self, host: str) -> bool:
        """Return whether the labels of the host name contain a secret; upper and lower case are not distinguished."""
        labels = host.replace(".", "").encode()
        return any(form.lower().replace(b".", b"") in labels for form in self.forms)

    def mask(self, data: bytes) -> bytes:
        """Return `data` with asterisks in place of secrets."""
        places = list(_places(self.forms, data))
        if not places:
            return data
        masked = bytearray(data)
        for start, end in places:
            masked[start:end] = masked[start:end].translate(MASK)
        return bytes(masked)


class _JoinedLines:
    """The data of a stream without the line ends after long lines."""

    def __init__(self, data: bytes) -> None:
        self.text, self._cuts, self._removed = data, list[int](), [0]
        for match in _END_OF_LINE.finditer(data):
            self._cuts.append(match.start() - self._removed[-1])
            self._removed.append(self._removed[-1] + len(match[0]))
        if self._cuts:
            self.text = _END_OF_LINE.sub(b"", data)

    def place(self, at: int) -> int:
        """Return the place in the data of the byte at `at` in the text."""
        return at + self._removed[bisect(self._cuts, at)]


def _places(forms: Iterable[bytes], data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each occurrence of a form in `data`; occurrences may overlap."""
    yield from _places_in_line(forms, data)
    joined = _JoinedLines(data)
    if joined.text is not data:
        for start, end in _places_in_line(forms, joined.text):
            yield joined.place(start), joined.place(end - 1) + 1


def _places_in_line(forms: Iterable[bytes], text: bytes) -> Iterator[tuple[int, int]]:
    for form in forms:
        start = text.find(form)
        while start >= 0:
            yield start, start + len(form)
            start = text.find(form, start + 1)


def _length_in_lines(size: int) -> int:
    """Return the maximum length in the data of a form of `size` bytes that is divided between lines."""
    return size + _LONGEST_END * (size // MIN_LINE + 1) if size else 0


_LONGEST_PAST = _length_in_lines(LONGEST_FORM) + MIN_LINE


class SearchedStream:
    """A stream from the program in which secrets are found, even if a secret is divided between parts.

    The last bytes of the stream are kept, because the run can begin to use another secret while the stream continues:
    parts that arrived before may contain the beginning of that secret.
    """

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._data, self._visible = bytearray(), bytearray()
        """the last bytes of the stream: as sent, and without the characters that are not visible"""

    def find(self, part: bytes) -> bool:
        """Add `part`, the next part of the stream. Return whether a secret ends in it, or whether the kept bytes
        contain a secret that the run began to use later.
        """
        reach, searched = MAX_ESCAPE * self._masks.longest, set[bytes]()
        for kept, added in ((self._data, part), (self._visible, visible_in(part))):
            kept += added
            searched.add(bytes(kept[max(len(kept) - len(added) - reach, 0) :]))
            if len(kept) > 2 * MAX_ESCAPE * LONGEST_FORM:
                del kept[: -MAX_ESCAPE * LONGEST_FORM]
        return any(map(self._masks.find, searched))


class MaskedStream:
    """A stream from a host, with asterisks in place of secrets.

    Bytes at the end of a part that may be the beginning of a secret are held back until the next part. If the stream
    pauses, the bytes that may begin a secret of this host are still held back. A host must not learn from a delay that
    it has guessed the beginning of a secret of another host. Therefore, if there are secrets that were not sent to this
    host, the last bytes of every part are held back, and are sent when the stream pauses.

    If the run begins to use another secret when the beginning of that secret was already sent to the program, only the
    bytes of that secret that are still held back are masked.
    """

    def __init__(self, masks: Masks, host: str = "") -> None:
        self._masks, self._host = masks, host
        self._raw, self._masked = b"", b""
        """the held bytes: as received, and with asterisks in place of the secrets that are known so far"""
        self._past = bytearray()
        """the last bytes of the stream before the held bytes, as received"""
        self._shown = 0

    def feed(self, part: bytes) -> bytes:
        """Add the next part of the stream. Return the masked bytes that can be sent now."""
        raw = self._raw + part
        masked = bytearray(self._masked + part)
        past = self._last_past()
        for start, end in _places(self._masks.forms, past + raw):
            start, end = max(start - len(past), 0), end - len(past)
            if start < end:
                masked[start:end] = masked[start:end].translate(MASK)
        elsewhere = max(_length_in_lines(self._masks.forms_at(self._host)[1]) - 1, 0)
        keep = min(max(self._begun(past + raw), elsewhere), len(raw))
        ready = bytes(masked[self._shown : len(raw) - keep])
        self._shown = max(self._shown - (len(raw) - keep), 0)
        self._past += raw[: len(raw) - keep][-_LONGEST_PAST:]
        if len(self._past) > 2 * _LONGEST_PAST:
            del self._past[:-_LONGEST_PAST]
        self._raw, self._masked = raw[len(raw) - keep :], bytes(masked[len(raw) - keep :])
        return ready

    def show(self) -> bytes:
        """Return the held bytes that can be sent while the stream pauses, because the program may wait for them."""
        start, self._shown = self._shown, max(self._shown, self._showable)
        return self._masked[start : self._shown]

    def release(self) -> bytes:
        """Return all held bytes, where no byte may be held back. If they begin a secret, only the rest of the secret is
        masked.
        """
        start, self._shown = self._shown, len(self._raw)
        return self._masked[start:]

    @property
    def is_waiting(self) -> bool:
        """Return whether `show` would return bytes of the masked stream."""
        return self._shown < self._showable

    @property
    def _showable(self) -> int:
        begun = self._begun(self._last_past() + self._raw)
        return max(len(self._raw) - (begun if begun > MAX_SHOWN else 0), 0)

    def end(self) -> bytes:
        """Return the remaining bytes at the end of the stream."""
        ready, self._raw, self._masked, self._shown = self._masked[self._shown :], b"", b"", 0
        return ready

    def _last_past(self) -> bytes:
        """Return the end of the stream before the held bytes: as many bytes as the longest form in lines has, and the
        line before it.
        """
        return bytes(self._past[max(len(self._past) - _length_in_lines(self._masks.longest) - MIN_LINE, 0) :])

    def _begun(self, raw: bytes) -> int:
        """Return the length of the longest suffix of `raw` that is a prefix of a form of a secret of this host; the
        suffix may be divided between lines.
        """
        raw = raw[-_length_in_lines(self._masks.longest) - MIN_LINE :]
        joined = _JoinedLines(raw)
        begun = self._begun_in(raw)
        if joined.text is not raw and (in_lines := self._begun_in(joined.text)):
            begun = max(begun, len(raw) - joined.place(len(joined.text) - in_lines))
        return begun

    def _begun_in(self, text: bytes) -> int:
        longest = 0
        for form in self._masks.forms_at(self._host)[0]:
            start = text.find(form[:1], max(len(text) - len(form) + 1, 0))
            while 0 <= start < len(text) - longest:
                if form.startswith(text[start:]):
                    longest = len(text) - start
                    break
                start = text.find(form[:1], start + 1)
        return longest
