"""The memory of a task: hashes of words in order, by origin. Pure, bounded, immutable.

Each word is six bytes of BLAKE2s (RFC 7693) with a key of the task, so that values cannot be guessed without the key. A
phrase matches if its words occur in the same order within one source; only whole words are compared. Each origin has
its own space, so that tool output takes no space from the person's words. If the space is full, the oldest words are
removed, and removed words count as from nowhere.

More entries never make a value less trusted: with an outdated memory, a guard may require needless approvals, and never
allows too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from itertools import chain, islice
from struct import iter_unpack
from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta

from ostiary.authorization.catalogue import Kind
from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.errors import Malformed
from ostiary.provenance.intent import MAX_ENDORSED, MAX_PLANNED, Intent, Planned
from ostiary.provenance.origins.mails import new_mails
from ostiary.provenance.origins.moments import numbers
from ostiary.provenance.origins.scribe import END, WIDTH, Scribe, hashed, split
from ostiary.provenance.origins.words import (
    is_mail,
    list_domains,
    list_stems,
    separate_sentences,
    short_name,
    split_identifier,
    thousands,
    words,
)

MARKS = 1 << 13
KEY_BYTES = 32
MAX_BYTES = 112 << 10
"""maximum size of a memory in bytes, with the documents and the plan"""
MAX_PARTS = 10
"""maximum number of parts that one call of a tool adds: two of fields, four of content, one of each kind of label"""
MAX_FORMS = 128
"""maximum number of stored forms of identifiers in the person's words (`split_identifier`)"""
MAX_VALUE = 64
"""maximum number of words of the value that identifies an endorsed document"""


class Origin(IntEnum):
    """The origin of a value, the most trusted first."""

    PERSON = 0
    """the person's own words"""
    OWN = 1
    """the person's own record"""
    ENDORSED = 2
    """a document that the person named, for the kinds of arguments for which they endorsed it"""
    RECORD = 3
    """a record that belongs to something that the task named"""
    KNOWN = 4
    """another record"""
    OUTSIDE = 5
    """untrusted content: third parties may have written it"""
    NOWHERE = 6
    """no source in this task has the value"""


SETTLED = frozenset(origin.name.lower() for origin in Origin if origin <= Origin.ENDORSED)
"""names of the origins of values that come from the person"""
UNTRUSTED = frozenset(origin.name.lower() for origin in Origin if origin >= Origin.OUTSIDE)
"""names of the origins of values that come neither from the person nor from a record"""
_ORIGINS = tuple(Origin)
_NOWHERE = Origin.NOWHERE
ROOM = {
    Origin.PERSON: 3072,
    Origin.OWN: 256,
    Origin.ENDORSED: 1536,
    Origin.RECORD: 1536,
    Origin.KNOWN: 1024,
    Origin.OUTSIDE: 1024,
}
"""maximum number of words of each origin"""
SLOT_ROOM = {Origin.PERSON: 32, Origin.RECORD: 128, Origin.KNOWN: 512}
"""maximum number of facts of `slots` of each origin"""
FOUND = (Origin.RECORD, Origin.KNOWN, Origin.OUTSIDE)
"""origins of content that tools return and no person has endorsed"""
OBSERVED = (Origin.ENDORSED, *FOUND)
"""origins that a guard may state for the output of a tool"""
LABELLED = (Origin.KNOWN, Origin.OUTSIDE)
"""origins of content that the person did not name"""
BIT: Mapping[Kind, int] = {
    Kind.PRINCIPAL: 1 << 0,
    Kind.ACCOUNT: 1 << 1,
    Kind.ADDRESS: 1 << 2,
    Kind.OBJECT: 1 << 3,
    Kind.SECRET: 1 << 4,
    Kind.AMOUNT: 1 << 5,
    Kind.TIME: 1 << 6,
}
"""The kinds of arguments whose origin matters, each with its bit in `Part.kinds`. Memories are stored, so the bits here
and below never change: a further kind shares the bit of the kind that it refines.
"""
ALL_KINDS = (1 << 7) - 1
_OBJECT, _ADDRESS = BIT[Kind.OBJECT], BIT[Kind.ADDRESS]
LINK = 1 << 7
"""bit for a link that is the only content of a call"""
RETIRED = 1 << 8
"""bit for operands of amounts, used until ADR 60: older guards may still send it; parts with this bit alone are
not stored
"""
NAMED = RETIRED
"""bit that is set beside all kinds for untrusted content that the person named; older guards ignore it"""
DERIVED = _ADDRESS
"""kind of a part with addresses that follow from addresses of the person: domains, and short addresses completed"""
IN_FIELDS = _OBJECT | NAMED
"""kind of a part with identifiers in fields of untrusted records, which the person did not name, and in lines with a
word of the person
"""
SLOT = 1 << 9
"""bit for facts about fields of records (`slots`); older guards store these facts without reading them"""
NUMBER = b"\0\1"
"""prefix of a fact of `slots` about a number in the person's words: four bytes of its hash follow"""
LABEL, SENT, UNREQUESTED, FORGOTTEN = 1 << 10, 1 << 11, 1 << 12, 1 << 13
"""kinds of parts that contain no values (`labels`). LABEL: fingerprints of content. SENT: the last words of sent texts.
UNREQUESTED: the task has read something that untrusted content may have requested. FORGOTTEN: the memory has lost
untrusted content for lack of space.
"""
MAILS = SENT | UNREQUESTED
"""kind of a part with the first two mail addresses that the person's words and all content contain (`mails`); guards of
earlier versions ignore both bits together
"""
UNREAD, LISTED = b"unread", b"listed"
"""words of the kind UNREQUESTED: the task has read more than names, or only names (`labels`)"""
LABEL_ROOM = {LABEL: 384, SENT: 64, UNREQUESTED: 8, FORGOTTEN: 2, MAILS: 64}
"""maximum number of words of each kind of label, for each origin"""
Kinds = Annotated[int, Meta(ge=1, le=FORGOTTEN)]
Classes = Annotated[tuple[Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")], ...], Meta(max_length=32)]
_Name = tuple[int, int, tuple[str, ...]]
"""origin, kinds and classes of a part"""


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Hashed words of one origin, which count for the kinds of arguments in `kinds` (bits, see BIT). `classes`: the
    data classes of the content, if the kind is LABEL.
    """

    origin: Annotated[int, Meta(ge=0, le=int(Origin.OUTSIDE))]
    kinds: Kinds
    words: bytes
    classes: Classes = ()


class Document(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An endorsed document: the output of `tool` (`files/read_file`) for the object that `value` names.
    `value`: hashes of words.
    """

    tool: Annotated[str, Meta(max_length=256)]
    value: Annotated[bytes, Meta(max_length=MAX_VALUE * WIDTH)]
    kinds: Annotated[int, Meta(ge=0, le=ALL_KINDS)]


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    parts: tuple[Part, ...] = ()
    documents: Annotated[tuple[Document, ...], Meta(max_length=MAX_ENDORSED)] = ()
    plan: Annotated[tuple[Planned, ...], Meta(max_length=MAX_PLANNED)] | None = None
    labels: tuple[Part, ...] = ()
    """separate from `parts`, because guards of earlier versions refuse parts of these kinds"""


@dataclass(frozen=True)
class Memory:
    """The memory of a task. `parts`: the most trusted first, one for each combination of origin, kinds and
    classes. `marks`: see `with_marks`. `plan`: the effects that the person's words suggest, by id of the tool;
    None: the task has no plan.

    Values that follow from the parts are computed at first use.
    """

    key: bytes
    parts: tuple[Part, ...] = ()
    documents: tuple[Document, ...] = ()
    marks: bytes = b""
    plan: Mapping[str, Planned] | None = None

    @cached_property
    def labels(self) -> tuple[Part, ...]:
        """Fingerprints of content from sources that the person did not name."""
        return tuple(part for part in self.parts if part.kinds == LABEL)

    @cached_property
    def fingerprints(self) -> frozenset[int]:
        """Checksums of the labelled phrases (`prints`)."""
        pairs = chain.from_iterable(iter_unpack(">IH", part.words) for part in self.labels)
        return frozenset(checksum for checksum, tag in pairs if tag)

    @cached_property
    def is_unrequested(self) -> bool:
        """True if the task has read something that untrusted content may have requested."""
        return any(UNREAD in part.words for part in self.parts if part.kinds == UNREQUESTED)

    @cached_property
    def has_listed(self) -> bool:
        """True if the task has read a list of names that untrusted content may have requested."""
        return any(LISTED in part.words for part in self.parts if part.kinds == UNREQUESTED)

    @cached_property
    def stated_words(self) -> frozenset[bytes]:
        """The hashes of the person's words and of their stems."""
        stated = (part.words for part in self.parts if part.origin == Origin.PERSON and part.kinds == ALL_KINDS)
        return frozenset(word for (word,) in chain.from_iterable(iter_unpack(f"{WIDTH}s", words) for words in stated))

    def has_stem(self, word: str, hash_of: Callable[[str], bytes]) -> bool:
        """Return whether the person wrote a word with the same stem. `hash_of`: the hash of a word, perhaps cached."""
        return any(hash_of(stem) in self.stated_words for stem in list_stems(word))

    @cached_property
    def own(self) -> frozenset[bytes]:
        """The values of the person's own record, each as concatenated hashes."""
        own = chain.from_iterable(split(part.words) for part in self.parts if part.origin == Origin.OWN)
        return frozenset(value for value in own if value)

    @cached_property
    def has_sent(self) -> bool:
        """True if the memory has the last words of sent texts."""
        return any(part.kinds == SENT for part in self.parts)

    @cached_property
    def slots(self) -> tuple[Part, ...]:
        """Facts about fields of records (`slots`)."""
        return tuple(part for part in self.parts if part.kinds == SLOT)

    @cached_property
    def has_read_outside(self) -> bool:
        """True if the task has read untrusted content."""
        return any(part.origin == Origin.OUTSIDE and part.kinds != MAILS for part in self.parts)

    @cached_property
    def has_forgotten(self) -> bool:
        """True if the memory has lost untrusted content for lack of space."""
        return any(part.kinds == FORGOTTEN for part in self.parts)

    @cached_property
    def mails(self) -> frozenset[bytes]:
        """The first two mail addresses of the person's words and of all content, as hashes."""
        mails = chain.from_iterable(iter_unpack(f"{WIDTH}s", part.words) for part in self.parts if part.kinds == MAILS)
        return frozenset(mail for (mail,) in mails if mail != END)

    @cached_property
    def outside(self) -> Memory:
        """A copy of the memory that has only the untrusted content."""
        parts = tuple(part for part in self.parts if part.origin == Origin.OUTSIDE and part.kinds not in LABEL_ROOM)
        return Memory(self.key, parts, (), self.marks)

    @cached_property
    def named(self) -> Memory:
        """A copy of the memory that has only the untrusted content from sources that the person named."""
        return Memory(self.key, tuple(part for part in self.parts if part.kinds == ALL_KINDS | NAMED), (), self.marks)

    @cached_property
    def in_fields(self) -> Memory:
        """A copy of the memory that has only the identifiers in fields of untrusted records."""
        return Memory(self.key, tuple(part for part in self.parts if part.kinds == IN_FIELDS), (), self.marks)

    @cached_property
    def without_derived(self) -> Memory:
        """A copy of the memory without addresses that follow from addresses of the person: their domains, and short
        addresses such as `info@` with the person's domain.
        """
        derived = (Origin.KNOWN, DERIVED)
        return replace(self, parts=tuple(part for part in self.parts if (part.origin, part.kinds) != derived))

    def lending(self, kinds: int) -> Memory:
        """Return a memory without labels, in which endorsed documents count only for the kinds in `kinds` (bits)."""
        if (lending := self._lending.get(kinds)) is None:
            lent = (
                part if part.origin != Origin.ENDORSED else Part(part.origin, part.kinds & kinds, part.words)
                for part in self.parts
                if part.kinds not in LABEL_ROOM or part.kinds == MAILS
            )
            lending = self._lending[kinds] = replace(self, parts=tuple(part for part in lent if part.kinds))
        return lending

    @cached_property
    def _lending(self) -> dict[int, Memory]:
        """The results of `lending`."""
        return {}

    def may_plan(self, id: str) -> bool:
        """Return whether the plan has the tool with the id `id` (`bank/pay`), or the task has no plan."""
        return self.plan is None or id in self.plan

    def hashed(self, phrase: Sequence[str]) -> bytes:
        """Return the hashes of the words of a phrase, concatenated in order."""
        return b"".join([hashed(self.key, word) for word in phrase])

    def is_marked(self, phrase: bytes) -> bool:
        """Return whether the memory may have the first word of a phrase, as its marks show. Always true for a memory
        without marks.
        """
        marks = self.marks
        return not marks or bool(marks[phrase[0] | phrase[1] >> 3 << 8] >> (phrase[1] & 7) & 1)

    def find(self, phrase: bytes, kind: int = ALL_KINDS, *, least: int = Origin.OUTSIDE) -> Origin:
        """Return the most trusted origin of a phrase (concatenated hashes) for the kind of argument `kind` (a
        bit); NOWHERE if the origin is less trusted than `least`.
        """
        # as in `is_marked`, without a call for each lookup
        if not phrase or (self.marks and not self.marks[phrase[0] | phrase[1] >> 3 << 8] >> (phrase[1] & 7) & 1):
            return _NOWHERE
        for part in self.parts:
            if part.origin > least:
                break
            if part.kinds & kind:
                at = part.words.find(phrase)
                # most absent phrases are in no part, not even between two words
                if at >= 0 and (at % WIDTH == 0 or holds(part.words, phrase)):
                    return _ORIGINS[part.origin]
        return _NOWHERE

    def find_words(self, phrase_words: Iterable[str], kind: int) -> Origin:
        """Return the most trusted origin of a phrase, given as words, for the kind of argument `kind` (a bit). The
        search stops at the first word without a mark, with the origin NOWHERE.
        """
        phrase = b""
        for word in phrase_words:
            one = hashed(self.key, word)
            if not self.is_marked(one):
                return _NOWHERE
            phrase += one
        return self.find(phrase, kind)


def remember(key: bytes, intent: Intent) -> Memory:
    """Return the memory of a new task: the person's words, the values of their own record (such as name and mail
    address), the endorsed documents and the plan.
    """
    blank, scribe, stated_text = Memory(key), Scribe(key), separate_sentences(intent.words)
    documents = tuple(
        Document(one.tool, blank.hashed(words(one.value, is_source=False)[:MAX_VALUE]), kinds_of(one.kinds))
        for one in intent.endorsed
    )
    stated = scribe.source([stated_text], room=ROOM[Origin.PERSON])
    room = min(MAX_FORMS, ROOM[Origin.PERSON] - len(stated) // WIDTH - 2)
    own = [word for value in intent.own.values() for word in scribe.words(value)]
    hosts = [mail.partition("@")[2] for mail in own if is_mail(mail)]
    stated_words = scribe.words(stated_text)
    forms = dict.fromkeys(form for word in stated_words for form in split_identifier(word))
    short = [name for word in stated_words if (name := short_name(word))]
    names = END.join(map(scribe.word, islice(short, max(room // 2, 0))))
    room -= (len(names) + len(END)) // WIDTH
    grouped = (f"#{digits}" for word in stated_words if (digits := thousands(word)))
    stems = (first for word in stated_words for first in list_stems(word)[:1])
    others = dict.fromkeys(chain(grouped, stems))
    room_of_others = min(MAX_FORMS, max(ROOM[Origin.PERSON] - len(stated) // WIDTH - 2 * MAX_FORMS, 0) // 2)
    mails = (f"{name}@{host}" for name in short for host in hosts)
    derived = dict.fromkeys(chain(mails, *map(list_domains, (*stated_words, *own))))
    parts = [
        Part(Origin.PERSON, ALL_KINDS, stated),
        Part(Origin.PERSON, ALL_KINDS, names),
        Part(Origin.PERSON, ALL_KINDS, b"".join(map(scribe.word, islice(forms, max(room, 0))))),
        Part(Origin.PERSON, ALL_KINDS, END.join(map(scribe.word, islice(others, room_of_others)))),
        Part(Origin.KNOWN, DERIVED, END.join(map(scribe.word, islice(derived, MAX_FORMS)))),
        Part(Origin.OWN, ALL_KINDS, scribe.source(intent.own.values(), room=ROOM[Origin.OWN])),
        Part(
            Origin.PERSON,
            SLOT,
            b"".join(NUMBER + crc32(scribe.word(one)).to_bytes(4, "big") for one in numbers(stated_words)),
        ),
    ]
    begun = add_parts(Memory(key, documents=documents, plan=_by_tool(intent.plan)), parts)
    return add_parts(begun, [Part(Origin.KNOWN, MAILS, new_mails(begun, scribe, stated_text, is_named=False))])


def _by_tool(plan: Iterable[Planned] | None) -> Mapping[str, Planned] | None:
    return None if plan is None else {planned.tool: planned for planned in plan}


def kinds_of(kinds: Iterable[Kind]) -> int:
    """Return the bits of the kinds; `text` identifies nothing and has no bit."""
    return sum({BIT[kind] for kind in kinds if kind in BIT})


def holds(source: bytes, phrase: bytes) -> bool:
    """Return whether the hashes `source` contain the hashes `phrase`, one word directly after the other."""
    at = source.find(phrase)
    while at >= 0 and at % WIDTH:
        at = source.find(phrase, at + 1)
    return at >= 0


def add_parts(memory: Memory, more: Sequence[Part]) -> Memory:
    """Return the memory extended with parts, in their order. If an origin has no space left, its oldest sources
    are removed.
    """
    parts = {(part.origin, part.kinds, part.classes): part.words for part in memory.parts}
    for part in more:
        if part.words and part.kinds != RETIRED:
            name = part.origin, part.kinds, part.classes
            parts[name] = parts.get(name, b"") + part.words + END
            if part.kinds == MAILS:  # the same address from many guards at once must not displace another one
                parts[name] = _distinct(parts[name]) + END
    room = ROOM[Origin.OUTSIDE] * WIDTH
    if sum(len(words) for name, words in parts.items() if _group(name) == (Origin.OUTSIDE, 0)) >= room:
        parts[Origin.OUTSIDE, FORGOTTEN, ()] = b"forgot" + END
    for group in set(map(_group, parts)):
        _fit(parts, group)
    order = sorted(parts, key=lambda name: (name[1] in LABEL_ROOM, name))
    kept = tuple(Part(name[0], name[1], parts[name], name[2]) for name in order)
    marks = _mark(memory.marks, (part.words for part in more)) if memory.marks else b""
    return Memory(memory.key, kept, memory.documents, marks, memory.plan)


def _distinct(source: bytes) -> bytes:
    """Return the words of a source without separators, each once."""
    words = (source[at : at + WIDTH] for at in range(0, len(source), WIDTH))
    return b"".join(dict.fromkeys(word for word in words if word != END))


def with_marks(memory: Memory) -> Memory:
    """Return the memory with marks, which make many lookups fast: a bit for the first bytes of each word, so
    that most absent values need no search. Bits of removed words stay set.
    """
    return replace(memory, marks=_mark(bytes(MARKS), (part.words for part in memory.parts)))


def _mark(marks: bytes, sources: Iterable[bytes]) -> bytes:
    bits = bytearray(marks)
    for source in sources:
        for first, second in set(zip(source[::WIDTH], source[1::WIDTH], strict=True)):
            bits[first | second >> 3 << 8] |= 1 << (second & 7)
    return bytes(bits)


def _group(name: _Name) -> tuple[int, int]:
    """Return the group of parts that share space: the origin; and for slots and labels, also the kind (otherwise 0)."""
    origin, kinds, _ = name
    return origin, kinds if kinds == SLOT or kinds in LABEL_ROOM else 0


def _room(origin: Origin, kinds: int) -> int:
    """Return the maximum number of words of a group of parts."""
    return SLOT_ROOM[origin] if kinds == SLOT else LABEL_ROOM[kinds] if kinds else ROOM[origin]


def _fit(parts: dict[_Name, bytes], group: tuple[int, int]) -> None:
    """Remove sources of a group until it fits its space: repeatedly the oldest of the largest part."""
    room = _room(Origin(group[0]), group[1]) * WIDTH
    mine = {name: sum(map(len, name[2])) for name in parts if _group(name) == group}
    while (over := sum(len(parts[name]) + more for name, more in mine.items()) - room) > 0:
        largest = max(mine, key=lambda name: len(parts[name]))
        parts[largest] = _after(parts[largest], min(over, len(parts[largest])))
        if not parts[largest]:
            del parts[largest], mine[largest]


def _after(source: bytes, count: int) -> bytes:
    """Return the bytes after the source that contains byte number `count`; if that is the last source, the
    bytes after that word.
    """
    count += -count % WIDTH
    at = source.find(END, count - WIDTH)
    while at % WIDTH:
        at = source.find(END, at + 1)
    return source[at + WIDTH :] or source[count:]


def pack(memory: Memory) -> bytes:
    """Return the memory in the form for storage and transport, without the key."""
    plan = None if memory.plan is None else tuple(memory.plan.values())
    values = tuple(part for part in memory.parts if part.kinds not in LABEL_ROOM)
    labels = tuple(part for part in memory.parts if part.kinds in LABEL_ROOM)
    return msgspec.msgpack.encode(_Kept(values, memory.documents, plan, labels))


def unpack(body: bytes, *, key: bytes) -> Memory:
    """Return the memory that `pack` packed. Raises Malformed for other bytes."""
    try:
        kept = msgpack_decoder(_Kept)(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"the bytes are not the memory of a task: {error}") from None
    values = (part for part in kept.parts if part.kinds != RETIRED)
    return Memory(key, (*values, *kept.labels), kept.documents, plan=_by_tool(kept.plan))


def check_observed(more: Iterable[Part]) -> None:
    """Check that a guard is permitted to state these parts of an output: their origins, kinds and sizes. Raises
    Malformed otherwise.
    """
    for part in more:
        if part.kinds in LABEL_ROOM:
            if part.origin not in LABELLED:
                raise Malformed(f"a label of an output has the origin {part.origin}, which no label has")
            _check_size(part, LABEL_ROOM[part.kinds])
            continue
        if part.origin not in OBSERVED:
            raise Malformed(f"a part of an output has the origin {part.origin}, which no output has")
        _check_size(part, ROOM[Origin(part.origin)])
        is_endorsed = part.origin == Origin.ENDORSED and (part.kinds < LINK or part.kinds == RETIRED)
        is_known = (part.origin == Origin.KNOWN and part.kinds in (_OBJECT, LINK, SLOT)) or (
            part.origin == Origin.RECORD and part.kinds == SLOT
        )
        is_named = part.origin == Origin.OUTSIDE and part.kinds in (ALL_KINDS | NAMED, IN_FIELDS)
        if part.kinds != ALL_KINDS and not is_endorsed and not is_known and not is_named:
            raise Malformed("a part of this origin must count for all kinds of arguments")


def _check_size(part: Part, most: int) -> None:
    """Check that a part consists of whole hashes, and has at most `most` of them. Raises Malformed otherwise."""
    if len(part.words) % WIDTH:
        raise Malformed(
            f"the hashes of a part that a guard reported have {len(part.words)} bytes, not a multiple of {WIDTH}"
        )
    if len(part.words) > most * WIDTH:
        raise Malformed(
            f"a guard reported a part with more than {most} hashed words",
            hint="upgrade the guard, which must cut each part to this size",
        )
