"""The mail addresses that a task has read: whether the address of a call is the only one.

"Invite Ada; her address is on her page": the person named the recipient and the page, and only the page has the
address. A stranger who writes into that page adds an address, so an address that stands alone was not added. In the
memory, the first two different addresses are stored (`MAILS`): with two, no address is the only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ostiary.provenance.origins.links import MAIL, mail
from ostiary.provenance.origins.scribe import Scribe

if TYPE_CHECKING:
    from ostiary.provenance.origins.memory import Memory

MAX_RUN = 1024
"""maximum number of characters without a space that are searched; a longer run with an `@` counts as an address"""
MAX_MAILS = 2


def new_mails(memory: Memory, scribe: Scribe, texts: Iterable[str]) -> bytes:
    """Return the hashes of the addresses in `texts` that the memory has to add: none if it has two."""
    stored = set(memory.mails)
    added: list[bytes] = []
    for one in _mails(scribe, texts):
        if len(stored) >= MAX_MAILS:
            break
        word = scribe.word(one)
        if word not in stored:
            stored.add(word)
            added.append(word)
    return b"".join(added)


def _mails(scribe: Scribe, texts: Iterable[str]) -> Iterator[str]:
    """Yield the mail addresses in texts in their normal form, also those in encoded parts."""
    for reading, _ in scribe.spoken(texts):
        if "@" in reading:
            for run in reading.split():
                if "@" in run:
                    if len(run) > MAX_RUN:
                        yield run
                    else:
                        yield from (mail(match[0]) for match in MAIL.finditer(run))
