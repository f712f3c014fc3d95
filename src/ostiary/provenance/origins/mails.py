"""The mail addresses that a task has read: whether the address of a call is the only one.

"Invite Ada; her address is on her page": the person named the recipient and the page, and only the page has the
address. A stranger who writes into that page adds an address, so an address that stands alone was not added. In the
memory, the first two different addresses are stored (`MAILS`): with two, no address is the only one.

Whatever may be an address counts as one: an `@` in a form that is not recognised, and a text that cannot be searched as
a whole. So does an address in content that the person did not name: it is stored in another form than the address of a
call has, so it never is the only one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from ostiary.provenance.origins.links import MAIL, mail
from ostiary.provenance.origins.scribe import MAX_TEXT, Scribe

if TYPE_CHECKING:
    from ostiary.provenance.origins.memory import Memory

MAX_RUN = 1024
"""maximum number of characters without a space that are searched; a longer run with an `@` counts as an address"""
MAX_TEXTS = 20_000
"""maximum number of texts of one output that are searched; further texts count as an address"""
MAX_MAILS = 2
_UNCLEAR = "\0unclear"
"""stands for a possible address"""
_HANDLE = re.compile(r"(?<!\w)@\w[\w-]*(?!\.?[\w-])")
"""the name of a member, as in `@ada`: no address, because it has neither a local part nor a domain"""
_AT = re.compile(r"@|\w=40(?=[a-z][\w-]*\.\w)|[\[({<]\s*at\s*[\])}>]", re.IGNORECASE)
"""the sign of an address, also in quoted-printable (RFC 2045) or disguised"""
_BREAK = re.compile(r"\\[nrt]")
"""a line break or a tab in JSON"""


def new_mails(memory: Memory, scribe: Scribe, output: object, *, is_named: bool) -> bytes:
    """Return the concatenated hashes of the addresses in `output` that the memory must add. A memory has at most
    MAX_MAILS addresses; further addresses are left out.

    `is_named`: true if the person named the content; otherwise the hashes differ from those of the person's addresses.
    """
    stored = set(memory.mails)
    added: list[bytes] = []
    for one in _mails(scribe, output) if len(stored) < MAX_MAILS else ():
        if scribe.word(one) not in stored:
            word = scribe.word(one if is_named else f"\0elsewhere {one}")
            if word not in stored:
                stored.add(word)
                added.append(word)
                if len(stored) == MAX_MAILS:
                    break
    return b"".join(added)


def _mails(scribe: Scribe, output: object) -> Iterator[str]:
    """Yield the mail addresses in an output in their normal form, also those in encoded parts and in member names."""
    texts = _texts(output)
    for whole in islice(texts, MAX_TEXTS):
        text = whole[:MAX_TEXT]
        if "\\" in text:
            text = _BREAK.sub(" ", text)
        if _AT.search(text):
            yield from _in_reading(text)
        # Decoded only if the text itself has too few addresses.
        forms, is_whole = scribe.decode(text)
        if not is_whole or len(whole) > MAX_TEXT:
            yield _UNCLEAR
        for reading in forms[1:]:
            if _AT.search(reading):
                yield from _in_reading(reading)
    if next(texts, None) is not None:
        yield _UNCLEAR


def _in_reading(reading: str) -> Iterator[str]:
    rest = []
    for run in reading.split():
        if "@" in run:
            if len(run) > MAX_RUN:
                yield _UNCLEAR
                continue
            yield from (mail(match[0]) for match in MAIL.finditer(run))
            run = _HANDLE.sub("", MAIL.sub("", run))
        rest.append(run)
    if _AT.search(" ".join(rest)):
        yield _UNCLEAR


def _texts(output: object) -> Iterator[str]:
    """Yield each text in an output, also the names of members."""
    todo = [output]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            todo += reversed([*one, *one.values()])
        elif isinstance(one, list | tuple):
            todo += reversed(one)
