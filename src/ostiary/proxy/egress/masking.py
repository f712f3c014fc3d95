"""Masking of secrets in everything that the wrapped process receives: each form of a value that a reading of the data
contains (`ostiary.protocol.secret_forms`) is replaced by asterisks of the same length, even if the form is divided
between parts of a stream.

All forms of all secrets are searched in one pass: the data is compared at every fourth place with windows of four
bytes, and a form has a window at each of its first four places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from ostiary.protocol.destination import MAX_SECRET
from ostiary.protocol.secret_forms import begun_escape, forms_of, readings_of, texts_of, visible_in

MASK = bytes(byte if byte in b"\r\n" else ord("*") for byte in range(256))
"""the byte that is sent in place of each byte of a secret; line ends stay"""
MAX_SHOWN = 4
"""maximum number of first characters of a possible secret that are sent unmasked if the stream pauses, or if white
space follows; all later characters of the secret are masked
"""
MAX_HOSTS = 256
"""maximum number of hosts for which the results of `Masks.sent_to` are cached"""
LONGEST_FORM = 4 * MAX_SECRET
"""maximum length of a form in bytes, because the longest form has the decimal number of each byte and commas"""
MAX_ESCAPE = 8
"""maximum ratio between the length of a form in a stream and the length of the longest form: a form with more escapes,
tags and white space is not found if it is divided between parts
"""
HELD_ELSEWHERE = 6
"""number of bytes of a stream that are held back for each character of a secret of another host, because the usual
escapes have at most six bytes
"""
_WINDOW = 4
"""length of a window in bytes, and number of windows of a form; a form has at least 2 * _WINDOW - 1 bytes"""
_Windows = dict[int, tuple[tuple[int, bytes], ...]]
"""The place of a window in a form, and the form, for each form with this window."""


def _windows_in(text: bytes) -> memoryview:
    """Return the numbers of the windows at every fourth place of a text."""
    return memoryview(text)[: len(text) // _WINDOW * _WINDOW].cast("I")


class HostForms:
    """The forms of the secrets that were sent to one host. `held`: number of bytes that are held back of each part from
    the host.
    """

    def __init__(self, own: Iterable[bytes], longest_other: int) -> None:
        """`longest_other`: length of the longest secret that was not sent to the host, in characters; 0 if there is
        none.
        """
        self.forms = frozenset(own)
        self.beginnings = frozenset(form[:size] for form in self.forms for size in range(1, 2 * _WINDOW))
        self.held = HELD_ELSEWHERE * longest_other

    def begun_in(self, text: bytes) -> int:
        """Return the length of the longest of the beginnings at the end of `text`; 0 if there is none."""
        sizes = range(min(2 * _WINDOW - 1, len(text)), 0, -1)
        return next((size for size in sizes if text[-size:] in self.beginnings), 0)


class Masks:
    """The forms (encodings) of all secrets that were put into requests of one run, and the hosts to which each secret
    was sent.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, set[str]] = {}
        self._ends: dict[str, int] = {}
        self._forms: dict[str, frozenset[bytes]] = {}
        self._at_hosts: dict[str, HostForms] = {}
        self._windows: _Windows = {}
        self.forms: frozenset[bytes] = frozenset()
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
            self._forms[value] = forms_of(value)
            self._add_forms(self._forms[value])

    def forget(self, before: int) -> None:
        """Remove the secrets that expired before the time `before` (seconds), because an expired access token is
        useless.
        """
        expired = {value for value, end in self._ends.items() if 0 < end < before}
        for value in expired:
            del self._ends[value], self._hosts[value], self._forms[value]
        if expired:
            self._windows, self.forms, self.longest = {}, frozenset(), 0
            self._add_forms(frozenset(chain.from_iterable(self._forms.values())))

    def _add_forms(self, forms: frozenset[bytes]) -> None:
        for form in forms - self.forms:
            for place in range(_WINDOW):
                [window] = _windows_in(form[place : place + _WINDOW])
                self._windows[window] = (*self._windows.get(window, ()), (place, form))
        self.longest = max(self.longest, *map(len, forms))
        self._at_hosts.clear()
        self.forms |= forms

    def sent_to(self, host: str) -> HostForms:
        """Return the forms of the secrets that were sent to `host`."""
        if (forms := self._at_hosts.get(host)) is None:
            if len(self._at_hosts) >= MAX_HOSTS:
                self._at_hosts.clear()
            values = dict(self._forms)
            sent = {value for value in values if host in self._hosts.get(value, ())}
            own = chain.from_iterable(values[value] for value in sent)
            forms = self._at_hosts[host] = HostForms(own, max(map(len, values.keys() - sent), default=0))
        return forms

    def candidates(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (start, form) of each form of which `text` has one of the first windows. The form may begin before the
        text, may end after the text, and may differ after the window.
        """
        windows, numbers = self._windows, _windows_in(text)
        if windows.keys().isdisjoint(numbers):
            return
        for at in [at for at, number in enumerate(numbers) if number in windows]:
            for place, form in windows[numbers[at]]:
                yield _WINDOW * at - place, form

    def find(self, data: bytes) -> bool:
        """Return whether a reading of `data` contains a secret in one of its forms."""
        return bool(self.forms) and any(
            start >= 0 and text.startswith(form, start)
            for text in texts_of(data)
            for start, form in self.candidates(text)
        )

    def find_in_host(self, host: str) -> bool:
        """Return whether the labels of the host name contain a secret; upper and lower case are not distinguished."""
        labels = host.replace(".", "").lower().encode()
        return any(form.replace(b".", b"") in labels for form in self.forms)

    def mask(self, data: bytes) -> bytes:
        """Return `data` with asterisks in place of secrets."""
        return MaskedStream(self).end(data)


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
        self._raw, self._masked = b"", bytearray()
        """the held bytes: as received, and with asterisks in place of the secrets that are known so far"""
        self._past = bytearray()
        """the last bytes of the stream before the held bytes, as received"""
        self._shown = 0
        self._begun = self._begun_long = 0
        """number of bytes at the end of the stream that may begin a secret of this host, and that may do so and have
        more than MAX_SHOWN characters
        """
        self._known: object = None
        """the forms that were searched in the held bytes"""

    def feed(self, part: bytes) -> bytes:
        """Add the next part of the stream. Return the masked bytes that can be sent now."""
        self._raw += part
        self._masked += part
        self._search()
        keep = min(max(self._begun, self._masks.sent_to(self._host).held), len(self._raw))
        passed = len(self._raw) - keep
        ready = bytes(self._masked[self._shown : passed])
        self._shown = max(self._shown - passed, 0)
        self._past += self._raw[:passed][-MAX_ESCAPE * LONGEST_FORM :]
        if len(self._past) > 2 * MAX_ESCAPE * LONGEST_FORM:
            del self._past[: -MAX_ESCAPE * LONGEST_FORM]
        self._raw = self._raw[passed:]
        del self._masked[:passed]
        return ready

    def show(self) -> bytes:
        """Return the held bytes that can be sent while the stream pauses, because the program may wait for them."""
        if self._known is not self._masks.forms:
            self._search()
        start, self._shown = self._shown, max(self._shown, len(self._raw) - self._begun_long)
        return bytes(self._masked[start : self._shown])

    def release(self) -> bytes:
        """Return all held bytes, where no byte may be held back. If they begin a secret, only the rest of the secret is
        masked.
        """
        start, self._shown = self._shown, len(self._raw)
        return bytes(self._masked[start:])

    @property
    def is_waiting(self) -> bool:
        """Return whether `show` would return bytes of the masked stream."""
        return self._shown < len(self._raw) - self._begun_long

    def end(self, last: bytes = b"") -> bytes:
        """Return the remaining bytes at the end of the stream. `last`: the last part."""
        self._raw += last
        self._masked += last
        self._search(is_whole=True)
        ready, self._raw, self._masked, self._shown = bytes(self._masked[self._shown :]), b"", bytearray(), 0
        self._begun_long = 0
        return ready

    def _search(self, *, is_whole: bool = False) -> None:
        """Mask the secrets in the held bytes, and find the beginnings of secrets of this host at the end."""
        masks, own = self._masks, self._masks.sent_to(self._host)
        self._begun = self._begun_long = 0
        self._known = masks.forms
        if not (masks.forms and self._raw):
            return
        past = bytes(self._past[max(len(self._past) - MAX_ESCAPE * masks.longest, 0) :])
        data = past + self._raw
        for reading in readings_of(data, is_whole=is_whole):
            text = reading.text
            begun = own.begun_in(text)
            for start, form in masks.candidates(text):
                if start < 0:
                    continue
                if start + len(form) > len(text):
                    if form in own.forms and form.startswith(text[start:]):
                        begun = max(begun, len(text) - start)
                elif text.startswith(form, start):
                    first, end = (at - len(past) for at in reading.span(start, start + len(form)))
                    if end > 0:
                        place = slice(max(first, 0), end)
                        self._masked[place] = self._masked[place].translate(MASK)
            if begun > MAX_SHOWN or (begun and not data[-1:].isspace()):
                size = len(data) - reading.span(len(text) - begun, len(text))[0]
                self._begun = max(self._begun, size)
                if begun > MAX_SHOWN:
                    self._begun_long = max(self._begun_long, size)
        if own.forms:
            self._begun = max(self._begun, begun_escape(data))
        most = min(len(self._raw), MAX_ESCAPE * masks.longest)
        self._begun, self._begun_long = min(self._begun, most), min(self._begun_long, most)
