"""Masking of secrets in everything that the wrapped process receives: each form of a value that a reading of the data
contains (`ostiary.protocol.secret_forms`) is replaced by asterisks of the same length, even if the form is divided
between parts of a stream.

All forms of all secrets are searched in one pass: the data is compared at every fourth place with windows of four
bytes, and a form has a window at each of its last four places. The last, because secrets of one kind begin alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from sys import byteorder

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
LONGEST_FORM = 5 * MAX_SECRET
"""maximum length of a form in bytes, because the longest form has a hexadecimal number for each byte, and commas"""
MAX_ESCAPE = 8
"""maximum ratio between the length of a form in a stream and the length of the longest form: a form with more escapes,
tags and white space is not found if it is divided between parts
"""
HELD_ELSEWHERE = 6
"""number of bytes of a stream that are held back for each character of a secret of another host, because the usual
escapes have at most six bytes
"""
BEGUN_WORDS, MAX_BEGUN = 9, MAX_SECRET
"""maximum number of words and of bytes of a line that the observed text of the next part begins with: the longest
account number (ISO 13616) has nine groups, and a divided secret is found if the text has all of it
"""
_WINDOW = 4
"""length of a window in bytes, and number of windows of a form; a form has at least 2 * _WINDOW - 1 bytes"""


class _Windows:
    """An index of forms of secrets by their windows, which are pieces of _WINDOW bytes."""

    def __init__(self) -> None:
        self._forms: dict[int, tuple[tuple[int, bytes], ...]] = {}
        """place of a window in a form, and the form, for each form with the window"""

    def add(self, form: bytes, first: int) -> None:
        """Add the windows of a form that begin at `first` and at the following `_WINDOW - 1` bytes."""
        for place in range(first, first + _WINDOW):
            number = int.from_bytes(form[place : place + _WINDOW], byteorder)
            self._forms[number] = (*self._forms.get(number, ()), (place, form))

    def candidates(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (start, form) of each form of which `text` has one of the windows. The rest of the form may differ, and
        the form may begin before the text or end after it.
        """
        forms, numbers = self._forms, memoryview(text)[: len(text) // _WINDOW * _WINDOW].cast("I")
        if forms.keys().isdisjoint(numbers):
            return
        for at in [at for at, number in enumerate(numbers) if number in forms]:
            for place, form in forms[numbers[at]]:
                yield _WINDOW * at - place, form


class HostForms:
    """The forms of the secrets that were sent to one host. `held`: number of bytes that are held back of each part from
    the host.
    """

    def __init__(self, own: Iterable[bytes], longest_other: int) -> None:
        """`longest_other`: length of the longest secret that was not sent to the host, in characters; 0 if there is
        none.
        """
        self.held = HELD_ELSEWHERE * longest_other
        self._longest, self._short, self._windows = 0, set[bytes](), _Windows()
        for form in own:
            self._longest = max(self._longest, len(form))
            self._short |= {form[:size] for size in range(1, 2 * _WINDOW)}
            self._windows.add(form, 0)

    @property
    def has_forms(self) -> bool:
        """Return whether a secret was sent to the host."""
        return self._longest > 0

    def begun_in(self, text: bytes) -> int:
        """Return the length of the longest beginning of a form at the end of `text`; 0 if there is none."""
        end = text[max(len(text) - self._longest, 0) :]
        begun = next((size for size in range(2 * _WINDOW - 1, 0, -1) if end[-size:] in self._short), 0)
        for start, form in self._windows.candidates(end):
            size = len(end) - start
            if start >= 0 and begun < size < len(form) and form.startswith(end[start:]):
                begun = size
        return min(begun, len(end))


class Masks:
    """The forms (encodings) of all secrets that were put into requests of one run, and the hosts to which each secret
    was sent.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, set[str]] = {}
        self._ends: dict[str, int] = {}
        self._forms: dict[str, frozenset[bytes]] = {}
        self._at_hosts: dict[str, HostForms] = {}
        self._windows = _Windows()
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
            self._add_forms(self._forms[value], self._windows, self.forms)

    def forget(self, before: int) -> None:
        """Remove the secrets that expired before the time `before` (seconds), because an expired access token is
        useless.
        """
        expired = {value for value, end in self._ends.items() if 0 < end < before}
        for value in expired:
            del self._ends[value], self._hosts[value], self._forms[value]
        if expired:
            self._add_forms(frozenset(chain.from_iterable(self._forms.values())), _Windows(), frozenset())

    def _add_forms(self, added: frozenset[bytes], windows: _Windows, forms: frozenset[bytes]) -> None:
        """Add forms to present ones. Other threads search with the present windows until all are added."""
        for form in added - forms:
            windows.add(form, len(form) - 2 * _WINDOW + 1)
        self._windows, self.longest = windows, max(map(len, added | forms), default=0)
        self._at_hosts.clear()
        self.forms = added | forms

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

    def places(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Yield start and end of each occurrence of a form in a reading; occurrences may overlap."""
        for start, form in self._windows.candidates(text):
            if start >= 0 and text.startswith(form, start):
                yield start, start + len(form)

    def find(self, data: bytes) -> bool:
        """Return whether a reading of `data` contains a secret in one of its forms."""
        return bool(self.forms) and any(True for text in texts_of(data) for _ in self.places(text))

    def find_in_host(self, host: str) -> bool:
        """Return whether the labels of the host name contain a secret; upper and lower case are not distinguished."""
        labels = host.replace(".", "").lower().encode()
        return any(form.replace(b".", b"") in labels for form in self.forms)

    def mask(self, data: bytes) -> bytes:
        """Return `data` with asterisks in place of secrets."""
        return MaskedStream(self).end(data)


class ObservedStream:
    """An answer as texts for the memory of a task, one for each part. A text begins with the last words of the part
    before it, if their line goes on, so a value that is divided between parts is complete in one of the texts.
    """

    def __init__(self, masks: Masks) -> None:
        self._masks, self._begun = masks, b""

    def feed(self, part: bytes) -> str:
        """Return the text of `part`, the next part of the answer, with asterisks in place of each secret that the text
        has as a whole. If the part ends within a secret, the text shows the beginning of the secret.
        """
        data = self._begun + part
        last = data[data.rfind(b"\n") + 1 :][-MAX_BEGUN:].rsplit(b" ", BEGUN_WORDS)
        self._begun = b" ".join(last[-BEGUN_WORDS:])
        return self._masks.mask(data).decode("utf-8", "replace")


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
        """Return all held bytes, for a caller that may hold back none. If the bytes begin a secret, the caller gets
        this beginning, and only the rest of the secret is masked later.
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
        escape = begun_escape(data)
        for reading in readings_of(data, is_whole=is_whole):
            text = reading.text
            begun = own.begun_in(text)
            for place in _unite(masks.places(text)):
                first, end = (at - len(past) for at in reading.span(*place))
                if end > 0:
                    masked = slice(max(first, 0), end)
                    self._masked[masked] = self._masked[masked].translate(MASK)
            is_long = begun + (escape > 0) > MAX_SHOWN
            if is_long or (begun and not data[-1:].isspace()):
                size = len(data) - reading.span(len(text) - begun, len(text))[0]
                self._begun = max(self._begun, size)
                if is_long:
                    self._begun_long = max(self._begun_long, size)
        if own.has_forms:
            self._begun = max(self._begun, escape)
        most = min(len(self._raw), MAX_ESCAPE * masks.longest)
        if self._begun_long and not self._masked[-self._begun_long :].strip(b"*\r\n"):
            self._begun_long = 0  # all of it is masked already
        self._begun, self._begun_long = min(self._begun, most), min(self._begun_long, most)


def _unite(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part of a text that overlapping places cover, in order. A secret that consists of
    repetitions can have a place at each byte of a text.
    """
    start = end = 0
    for first, last in sorted(places):
        if first >= end:
            if end:
                yield start, end
            start = first
        end = max(end, last)
    if end:
        yield start, end
