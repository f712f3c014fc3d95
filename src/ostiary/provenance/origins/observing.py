"""Observation of tool output for the memory of a task: the words of the output, and their origin.

Untrusted content stays untrusted, whatever the call requested. In such content, third parties write the texts, and the
system that stores them writes the fields around them. If a tool returns data and no text, then a number, a date or
time, or a name of one or two words has the origin `known`. Values that reach or pay a recipient (links, mail addresses,
longer numbers) never have this origin. A field that is an opaque identifier (a UUID, or a short word of letters and
digits) is known as an object only, never as a payee or a recipient.

If a text has a layout, the identifiers in its fields are stored apart (IN_FIELDS), and so are the identifiers in each
short line that has a word of the person. A call whose only values from untrusted content are such identifiers asks a
person where it would be denied, because the person may have described the record.

In all other content, a record counts as named in two cases: the call identified it by values that the task may use for
this, or the record has such a value and no other record has this value. The content of an endorsed document counts for
the kinds of arguments for which the document is endorsed; in a fetched page, only mail addresses count as addresses.

Links in content that the person named may be followed: a request for them reveals nothing new. Links of a fetched page
may not: two steps away, third parties choose the content.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import chain, islice
from typing import Any, cast

import msgspec

from ostiary.authorization.catalogue import POINTS, Kind, Tool
from ostiary.authorization.catalogue.coverage import Leaf, Rule
from ostiary.provenance.origins.judging import (
    declared_values,
    has_substitute,
    is_effect,
    leaves,
    names_content,
    names_source,
    of_value,
)
from ostiary.provenance.origins.labels import label_output
from ostiary.provenance.origins.layouts import Layout, certain, fields, layout_of
from ostiary.provenance.origins.links import MAIL, is_page
from ostiary.provenance.origins.mails import new_mails
from ostiary.provenance.origins.memory import (
    ALL_KINDS,
    BIT,
    IN_FIELDS,
    LABELLED,
    LINK,
    MAILS,
    NAMED,
    ROOM,
    Memory,
    Origin,
    Part,
    holds,
)
from ostiary.provenance.origins.scribe import END, LARGEST, MAX_TEXT, WIDTH, Scribe, split
from ostiary.provenance.origins.slots import MAX_SPACES, amount_parts, rows, slots
from ostiary.provenance.origins.system_fields import (
    MAX_LISTED,
    WRITTEN,
    Found,
    has_only_names,
    list_described,
    list_identifiers,
    of_field,
)
from ostiary.provenance.origins.words import is_particle, words

MAX_DEPTH = 32
MAX_LEAVES = 20_000
MAX_NAME = 256
"""maximum length in characters of a value that identifies a record"""
OVERLAP = 1024
"""number of characters that two pieces of a long argument share, so that no word is cut"""
MAX_ASKED = 1 << 20
"""maximum number of words of a call"""
MAX_PAGES = 64
"""maximum number of links of one output that may be followed"""
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
Stated = Callable[[str], Origin]


def observe_output(
    memory: Memory,
    uid: str,
    tool: Tool,
    arguments: Mapping[str, Any],
    output: object,
    classes: Collection[str] | None = None,
) -> tuple[Part, ...]:
    """Return the parts that the output of a call of the tool `uid` (`files/read_file`) adds to the memory.

    `classes`: the data classes of the tool and its resource; None: only the classes of the tool.
    """
    kinds, scribe = _endorsed(memory, uid, tool, arguments), Scribe(memory.key)
    call_words, layout = _call_words(scribe, tool, arguments), layout_of(output) if isinstance(output, str) else None
    opened = layout.value if layout is not None and layout.is_escaped else output
    stated = cache(partial(_stated, memory, scribe))
    if kinds:
        observed_texts = [(Origin.ENDORSED, kinds, text) for text in _texts(opened)]
    elif tool.is_outside:
        is_frame = layout is not None and not any(map(_names_thing, tool.coverage.leaves(arguments)))
        if is_frame and layout is not None and opened is output and not layout.is_inline:
            observed_texts = list(_framed(layout.value))
        elif layout is not None and opened is output and isinstance(output, str):
            observed_texts = [(Origin.OUTSIDE, ALL_KINDS, _without_echo(tool, arguments, layout, output))]
        else:
            observed_texts = list(
                _fields(opened, is_data=not isinstance(output, str) or (is_frame and opened is not output))
            )
    else:
        is_linked = _points(memory, tool, arguments) <= Origin.RECORD
        observed_texts = _records(opened, stated, is_linked=is_linked)
        if layout is not None and opened is output and not is_linked:
            of_records = _records(layout.value, stated, is_linked=False)
            observed_texts += [one for one in of_records if one[0] is Origin.RECORD]
    groups: dict[tuple[Origin, int], list[str]] = {}
    for origin, bits, text in observed_texts:
        groups.setdefault((origin, bits), []).append(text)
    if (outside := groups.pop((Origin.OUTSIDE, ALL_KINDS), None)) is not None:
        mark = NAMED if names_content(memory, tool, arguments) else 0
        groups[Origin.OUTSIDE, ALL_KINDS | mark] = outside
        if not mark and memory.plan is not None:
            in_fields = () if layout is None else list_identifiers(layout)
            is_text = isinstance(output, str) and (layout is None or not layout.is_escaped)
            in_lines = list_described(memory, scribe, cast(str, output)) if is_text else ()
            groups[Origin.OUTSIDE, IN_FIELDS] = [*islice(dict.fromkeys(chain(in_fields, in_lines)), MAX_LISTED)]
    elif kinds and tool.is_outside:
        # For kinds that it is not endorsed for, the document is untrusted content that the person named.
        groups[Origin.OUTSIDE, ALL_KINDS | NAMED] = groups.get((Origin.ENDORSED, kinds), [])
    if is_effect(tool):
        if kinds & BIT[Kind.ADDRESS] and (texts := groups.pop((Origin.ENDORSED, kinds), [])):
            groups[Origin.ENDORSED, kinds & ~BIT[Kind.ADDRESS]] = texts
            groups[Origin.ENDORSED, BIT[Kind.ADDRESS]] = [*filter(MAIL.fullmatch, _dotted(scribe, texts))]
    elif _points(memory, tool, arguments) <= Origin.ENDORSED:
        pages = filter(is_page, _dotted(scribe, (text for _, _, text in observed_texts)))
        groups[Origin.KNOWN, LINK] = [*islice(dict.fromkeys(pages), MAX_PAGES)]
    whole = output if layout is None else layout.value
    parts = _slots(memory, uid, tool, arguments, whole, kinds, scribe, stated)
    for (origin, bits), texts in sorted(groups.items()):
        if texts and bits:
            fresh = scribe.source(texts, room=ROOM[origin])
            if origin is not Origin.OUTSIDE:
                fresh = _without_echoes(memory, fresh, call_words, origin, bits)
            is_cut = origin is Origin.OUTSIDE and len(fresh) >= (ROOM[origin] - 1) * WIDTH
            # Sent whole if there was not space for all, so that the memory records that something is missing.
            if words_ := fresh if is_cut else _new(memory, origin, bits, fresh):
                parts.append(Part(origin, bits, words_))
    is_source_named = tool.is_outside and names_source(memory, tool, arguments)
    if added := new_mails(memory, scribe, output, is_named=is_source_named):
        parts.append(Part(Origin.OUTSIDE, MAILS, added))
    if classes is None:
        classes = () if tool.data_classes is msgspec.UNSET else tool.data_classes
    unnamed = [text for origin, _, text in observed_texts if origin in LABELLED]
    fields = () if layout is None or opened is not output else _texts(layout.value)
    names = not isinstance(whole, str) and has_only_names(whole)
    labels = label_output(memory, scribe, tool, arguments, unnamed, fields, classes, has_only_names=names)
    return (*parts, *labels)


def _slots(
    memory: Memory,
    uid: str,
    tool: Tool,
    arguments: Mapping[str, Any],
    output: object,
    kinds: int,
    scribe: Scribe,
    stated: Stated,
) -> list[Part]:
    """Return facts about the fields of the values that were read (`slots`). A wrong layout can only cause
    further approval requests.
    """
    if is_effect(tool):
        return []
    if kinds:
        has_amount = kinds & BIT[Kind.AMOUNT] and any(map(_DIGIT.search, _texts(output)))
        return amount_parts(memory) if has_amount else []
    is_named = _points(memory, tool, arguments) <= Origin.RECORD and not has_substitute(memory, tool, arguments)
    is_record = not tool.is_outside
    return slots(memory, uid, output, scribe, stated, is_named=is_named and is_record, is_record=is_record)


def _dotted(scribe: Scribe, texts: Iterable[str]) -> Iterator[str]:
    """Yield the words of all texts that contain a dot. All links and mail addresses are among these words."""
    for text in texts:
        if "." in text:
            yield from scribe.words(text[:MAX_TEXT])


def _endorsed(memory: Memory, uid: str, tool: Tool, arguments: Mapping[str, Any]) -> int:
    """Return the kinds for which the output counts as an endorsed document (bits); 0 if the output is no such document.

    All other values that identify the document (such as the drive of a file) must come from the person too.
    """
    documents = [document for document in memory.documents if document.tool == uid]
    if not documents:
        return 0
    named = [(kind, value) for _, kind, value in declared_values(tool, arguments) if kind in POINTS]
    for place, (_, value) in enumerate(named):
        is_name = isinstance(value, str) or (isinstance(value, int) and abs(value) < LARGEST)
        hashed = _hashed(memory, str(value)) if is_name else b""
        others = named[:place] + named[place + 1 :]
        for document in documents:
            if document.value == hashed and all(of_value(memory, *other) <= Origin.ENDORSED for other in others):
                return document.kinds
    return 0


def _hashed(memory: Memory, value: str) -> bytes:
    return memory.hashed(words(value, is_source=False)) if len(value) <= MAX_TEXT else b""


def _call_words(scribe: Scribe, tool: Tool, arguments: Mapping[str, Any]) -> frozenset[bytes]:
    """Return the hashes of the words in the arguments of a call. If the output repeats such a word, its source
    is the agent.
    """
    texts = [
        *_strings(arguments),
        *(text for _, _, value in declared_values(tool, arguments) for text in leaves(value)),
    ]
    pieces = (text[at : at + MAX_TEXT] for text in texts for at in range(0, len(text), MAX_TEXT - OVERLAP))
    sources = scribe.source(pieces, room=MAX_ASKED)
    return frozenset(sources[at : at + WIDTH] for at in range(0, len(sources), WIDTH)) - {END}


def _strings(value: object, depth: int = MAX_DEPTH) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from leaves(value)
    elif depth and isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item, depth - 1)


def _without_echoes(memory: Memory, fresh: bytes, call_words: frozenset[bytes], origin: Origin, kinds: int) -> bytes:
    """Return the sources in `fresh` without the words of the call, except words that the memory already trusts
    as much.
    """
    echoes = {
        word for word in call_words if holds(fresh, word) and memory.find(word, kinds, least=origin) is Origin.NOWHERE
    }
    if not echoes:
        return fresh
    hashes = (fresh[at : at + WIDTH] for at in range(0, len(fresh), WIDTH))
    kept = b"".join(END if word in echoes else word for word in hashes)
    return END.join(filter(None, split(kept)))


def _points(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> Origin:
    """Return the least trusted origin of the declared values that identify the objects of a call; NOWHERE if
    there are none.
    """
    named = [of_value(memory, kind, value) for _, kind, value in declared_values(tool, arguments) if kind in POINTS]
    return max(named, default=Origin.NOWHERE)


def _names_thing(leaf: Leaf) -> bool:
    """Return whether a leaf of a read may determine which document is read. Booleans, quantities, times, and
    numbers that the schema lists do not.
    """
    is_listed_number = leaf.rule is Rule.LISTED and not isinstance(leaf.value, str)
    return leaf.rule not in (Rule.SWITCH, Rule.QUANTITY) and not is_listed_number and leaf.kind is not Kind.TIME


def _opened(value: object) -> object:
    """Return the parsed content of a text that is JSON; any other value unchanged."""
    layout = layout_of(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else None
    return value if layout is None else layout.value


def _fields(opened: object, *, is_data: bool) -> Iterator[Found]:
    """Yield each text in a value with its origin. If `is_data`, fields that only the system writes are known;
    all other texts are untrusted.
    """
    for name, text in _named(opened):
        yield of_field(name, text) if is_data else (Origin.OUTSIDE, ALL_KINDS, text)


def _framed(value: object) -> Iterator[Found]:
    """Yield each text of a layout that is not escaped, with its origin. Up to the end of the certain part of
    the frame, system fields are known. After it, each text is untrusted, together with the name of its field.
    """
    sure = sum(1 for _ in certain(value, WRITTEN))
    for place, (name, text) in enumerate(islice(fields(value), MAX_LEAVES)):
        if place >= sure:
            yield Origin.OUTSIDE, ALL_KINDS, f"{name}: {text}"
        else:
            yield of_field(name, text)


def _without_echo(tool: Tool, arguments: Mapping[str, Any], layout: Layout, text: str) -> str:
    """Return a text in which one field of every record repeats a value of the call, without this value. The agent named
    the value before it read the content, so the field does not suggest the value. If the value is anywhere else in the
    text too, return the text unchanged.
    """
    records = rows(layout.value)
    if not isinstance(records, list) or not records or not all(isinstance(one, dict) for one in records):
        return text
    for _, kind, value in declared_values(tool, arguments):
        if kind in POINTS and isinstance(value, str) and value and text.count(value) == len(records):
            echoing = [name for name, one in records[0].items() if one == value]
            if any(all(one.get(name) == value for one in records) for name in echoing):
                text = text.replace(value, " ")
    return text


def _named(value: object) -> list[tuple[str, str]]:
    """Return the texts in a value as (name of the field, text), at most MAX_LEAVES."""
    collected: list[tuple[str, str]] = []
    _collect(value, "", MAX_DEPTH, collected)
    return collected[:MAX_LEAVES]


def _collect(value: object, name: str, depth: int, collected: list[tuple[str, str]]) -> None:
    if isinstance(value, str):
        collected.append((name, value))
    elif isinstance(value, dict) and depth:
        for inner, item in value.items():
            if len(collected) >= MAX_LEAVES:
                return
            if isinstance(item, str):  # as above, without a call for each field
                collected.append((str(inner), item))
            else:
                _collect(item, str(inner), depth - 1, collected)
    elif isinstance(value, list | tuple) and depth:
        for item in value:
            if len(collected) >= MAX_LEAVES:
                return
            _collect(item, name, depth - 1, collected)
    else:
        collected += [(name, text) for text in leaves(value, 0)]


def _texts(output: object) -> Iterator[str]:
    for count, text in enumerate(leaves(output, MAX_DEPTH)):
        if count == MAX_LEAVES:
            return
        yield text


def _records(value: object, stated: Stated, *, is_linked: bool) -> list[Found]:
    """Return each text in records with its origin. If a record has a unique value by which the task may name it,
    all of the record counts as named. `stated`: returns the origin of a text that the person stated, owns or endorsed.
    """
    collected: list[Found] = []
    _collect_records(value, stated, is_linked, MAX_DEPTH, collected)
    return collected


def _collect_records(value: object, stated: Stated, is_linked: bool, depth: int, collected: list[Found]) -> None:
    value = rows(value)
    origin = Origin.RECORD if is_linked else Origin.KNOWN
    if isinstance(value, dict):
        for item in value.values() if depth else ():
            if type(item) is str and item[:1] not in ("{", "["):
                collected.append((origin, ALL_KINDS, item))
            elif type(item) is int and -LARGEST < item < LARGEST:
                collected.append((origin, ALL_KINDS, str(item)))
            else:
                _collect_records(_opened(item), stated, is_linked, depth - 1, collected)
    elif isinstance(value, list | tuple):
        if not depth:
            return
        names = [_names(item, stated) if isinstance(item, dict) and not is_linked else [] for item in value]
        among = Counter(chain.from_iterable(names))
        for item, mine in zip(value, names, strict=True):
            is_named = any(among[name] == 1 for name in mine) if mine else False
            _collect_records(_opened(item), stated, is_linked or is_named, depth - 1, collected)
    else:
        collected += [(origin, ALL_KINDS, text) for text in leaves(value)]


def _stated(memory: Memory, scribe: Scribe, text: str) -> Origin:
    """Return the origin of a text that the person stated, owns or endorsed; otherwise NOWHERE. If the first word of
    prose has no mark, the rest is not read. Shorter texts are read in any case, as values of slots.
    """
    if text.count(" ") > MAX_SPACES:
        first = text.partition(" ")[0]
        if first.isalpha() and first.isascii() and not memory.is_marked(scribe.word(first.lower())):
            return Origin.NOWHERE
    elif is_particle(text):
        return Origin.NOWHERE
    return memory.find(scribe.phrase(text), least=Origin.ENDORSED)


def _names(record: Mapping[str, Any], stated: Stated) -> list[str]:
    """Return the values by which the task may name a record among others: texts with a letter, at most MAX_NAME
    characters, that the person stated, owns or endorsed.
    """
    return [
        value
        for value in record.values()
        if isinstance(value, str)
        and len(value) <= MAX_NAME
        and stated(value) is not Origin.NOWHERE
        and _LETTER.search(value)
    ]


def _new(memory: Memory, origin: Origin, kinds: int, fresh: bytes) -> bytes:
    """Return the sources in `fresh` that the memory does not contain yet."""
    old = next((part.words for part in memory.parts if part.origin == origin and part.kinds == kinds), b"")
    if not old:
        return fresh
    sources = split(fresh)
    return END.join(one for one in sources if one and not holds(old, one))
