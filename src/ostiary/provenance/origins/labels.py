"""Labels of content whose source the person did not name, and the labels that outgoing text carries.

Information-flow control as in FIDES (arXiv 2505.23643), without a planner. Integrity is the origin of a value
(`Origin`). Confidentiality is a label of content: the data classes of the tool that returned the content, and its
source (`outside` if third parties may have written it). Content has a label if the person did not name its source. A
text may therefore repeat content that the person requested, and policies see the labels of all other content. Values
from an endorsed document do not count as naming a source. Policies see these attributes:

    carries      the data classes of labelled content that the text repeats, with `outside` or `record` for its source
    unrequested  true if the task has read something that untrusted content may have requested: any later text may
                 reveal it, in other words
    reveals      kinds of secret or personal identifiers in the text that the person did not state (`identifiers`)

All three apply to text for recipients other than the person. Unlike missing origins, missing labels may allow more, so
a guard that decides on such a text first requests the current memory from the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from ostiary.authorization.catalogue import POINTS, RECIPIENTS, SENDING, Effect, Kind, Tool
from ostiary.authorization.catalogue.coverage import Leaf, Rule
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.origins.identifiers import identifiers
from ostiary.provenance.origins.judging import (
    CallValues,
    Judged,
    judged_leaves,
    leaves,
    of_value,
    reaches_out,
)
from ostiary.provenance.origins.links import Decoded
from ostiary.provenance.origins.memory import (
    LABEL,
    LABEL_ROOM,
    LISTED,
    SENT,
    UNREAD,
    UNREQUESTED,
    Memory,
    Origin,
    Part,
    holds,
)
from ostiary.provenance.origins.moments import is_moment
from ostiary.provenance.origins.prints import (
    SPAN,
    differing,
    fingerprint,
    has_checksum,
    is_telling,
    list_checksums,
    list_phrases,
    source_prints,
)
from ostiary.provenance.origins.scribe import END, MAX_TEXT, WIDTH, Scribe, hashed, hasher, other_spellings, split
from ostiary.provenance.origins.words import words

# By name, because an enumeration finds its members slowly.
_OFFERED, _DECLARED, _HARMLESS, _SWITCH = Rule.OFFERED, Rule.DECLARED, Rule.HARMLESS, Rule.SWITCH
_LISTED, _UNCLAIMED = Rule.LISTED, Rule.UNCLAIMED
_OBJECT, _TIME, _TEXT = Kind.OBJECT, Kind.TIME, Kind.TEXT
CARRIES, UNREQUESTED_READ, REVEALS = "carries", "unrequested", "reveals"
_JUDGED = RECIPIENTS | {Kind.SECRET, Kind.AMOUNT}
"""kinds of declared values whose origins policies judge, so that the values count as no text"""
_JOINED = re.compile(r"[\W_](?<=[^\W_].)(?<!\s)(?:_|[^\w\s])*+[^\W_]")
"""letters or digits with other characters than white space between them"""
_DIGIT = re.compile(r"\d")
_BETWEEN = re.compile(r"<[^<>]*>|[\W_]")
"""markup tags, and characters that are neither letters nor digits"""
_SPACED = {code: " " for code in range(128) if not chr(code).isalnum()}
_TAIL = SPAN - 1
"""number of last words of a sent text that are stored, because a span may continue in the next text"""


def label_output(
    memory: Memory,
    scribe: Scribe,
    tool: Tool,
    arguments: Mapping[str, Any],
    texts: Iterable[str],
    fields: Iterable[str],
    classes: Collection[str],
    *,
    has_only_names: bool,
) -> list[Part]:
    """Return the labels to store after a call, as parts of the memory: fingerprints of the content that the call
    returned, the last words of the texts that the call sent, and a mark if untrusted content may have requested the
    call.

    `texts`: returned content that the person did not name; `fields`: values of a layout in this content;
    `has_only_names`: true if all of the output are names.
    """
    parts: list[Part] = []
    origin = Origin.OUTSIDE if tool.is_outside else Origin.KNOWN
    by = _named_by(memory, tool, arguments)
    if not by or max(by) > Origin.RECORD or Origin.ENDORSED in by:
        sent = [text for _, text in _outgoing(tool.coverage.leaves(arguments), every=True)]
        sent_phrases = memory.fingerprints.union(
            *map(list_checksums, chain.from_iterable(_runs(scribe.word, scribe.decode(text)[0]) for text in sent))
        )
        prints = source_prints(scribe, texts, fields, room=LABEL_ROOM[LABEL] - 1)
        fresh = [fingerprint(one) for one in prints if one not in sent_phrases]
        if fresh:
            parts.append(Part(origin, LABEL, b"".join(fresh), tuple(sorted(classes))))
    if not memory.is_unrequested and not reaches_out(tool, arguments):
        mark = _mark_of(memory, tool, arguments, classes, has_only_names=has_only_names)
        if mark and not (mark is LISTED and memory.has_listed):
            parts.append(Part(Origin.OUTSIDE, UNREQUESTED, mark))
    if memory.labels and goes_out(tool):
        addressed = _addressed(memory, tool, CallValues(tool, arguments))
        ends = [_end(memory, scribe, recipient, text) for recipient, text in addressed]
        if ends:
            parts.append(Part(Origin.KNOWN, SENT, END.join(ends)[: (LABEL_ROOM[SENT] - 1) * WIDTH]))
    return parts


def judge_outgoing(
    memory: Memory,
    tool: Tool,
    arguments: Mapping[str, Any],
    values: CallValues | None = None,
) -> Record:
    """Return the attributes `carries`, `unrequested` and `reveals` of a call's outgoing text for policies, as the
    module describes. Empty if no text goes to anyone but the person. `values`: the values of the call, if other rules
    use them too.
    """
    if not goes_out(tool):
        return {}
    values = CallValues(tool, arguments) if values is None else values
    all_leaves = [leaf for leaf in values.leaves if leaf.kind not in _JUDGED or leaf.rule is not _DECLARED]
    if not all_leaves:
        return {}
    texts = [text for _, text in _outgoing(all_leaves) if text.strip()]
    measures = _measures(all_leaves)
    may_reveal = bool(texts) or _has_unsaid(memory, all_leaves)
    if not (may_reveal or measures) or _is_to_person(memory, values):
        return {}
    carried: Collection[str] = ()
    if memory.labels:
        by = _addressed(memory, tool, values) if memory.has_sent else ((b"", text) for text in texts)
        carried = _carried(memory, chain(by, ((b"", text) for text in measures)), values.decoded)
    revealed = (
        kind for text in texts for kind, value in identifiers(text, values.decoded) if not _is_given(memory, value)
    )
    return {
        CARRIES: frozenset(carried),
        UNREQUESTED_READ: may_reveal and memory.is_unrequested,
        REVEALS: frozenset(revealed),
    }


def goes_out(tool: Tool) -> bool:
    """Return whether a third party may read the arguments of a call of the tool."""
    return tool.open_world or tool.effect in SENDING


def _named_by(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> list[Origin]:
    """Return the origins of the values that select the output of a read; empty for a call with another effect."""
    if tool.effect != Effect.READ:
        return []
    return [of_value(memory, *one) for one in _selecting(memory, tool, arguments)]


def _mark_of(
    memory: Memory, tool: Tool, arguments: Mapping[str, Any], classes: Collection[str], *, has_only_names: bool
) -> bytes:
    """Return the mark for a read, if untrusted content may have requested the read: UNREAD or LISTED. Otherwise empty.

    UNREAD if untrusted content contains a value that selects the read's output, even if the person stated the value
    too; or if no value selects the output. Content can ask for a private record without its name ("the second of the
    list"), so a read from a tool without third parties is UNREAD, too. Two such reads are not: the person, or a record
    that the task points at, states the selecting values; or the output consists of names and has no data class. If the
    memory has lost untrusted content, every selecting value that is not the person's counts as such a value.

    A read without a selecting value that returns only names is LISTED: the agent needs such a list to find a recipient,
    and a text that repeats a name is found. After it, a read of more than names is UNREAD if its selecting value is not
    the person's, because the list may have led to a record that the content requested.
    """
    outside = memory.outside
    if tool.effect != Effect.READ or not outside.parts:
        return b""
    selecting = [*_selecting(memory, tool, arguments)]
    if not selecting:
        return LISTED if has_only_names else UNREAD
    is_led = memory.has_forgotten or (memory.has_listed and not has_only_names)
    is_private = not tool.is_outside and not (has_only_names and not classes)
    most = Origin.ENDORSED if is_led else Origin.RECORD if is_private else Origin.NOWHERE
    is_prompted = any(of_value(outside, *one) is Origin.OUTSIDE or of_value(memory, *one) > most for one in selecting)
    return UNREAD if is_prompted else b""


def _selecting(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[Kind, object]]:
    """Yield the values that select the output of a read, each with its kind. Search words count as objects."""
    for _, kind, value in judged_leaves(memory, tool, arguments):
        if kind in POINTS or kind is Kind.TEXT:
            yield (Kind.OBJECT if kind is Kind.TEXT else kind), value


def _outgoing(all_leaves: Iterable[Leaf], *, every: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the texts of a call, each with the path of its argument: declared texts, harmless values, and
    undeclared values of several words. `every`: yield all strings.
    """
    for leaf in all_leaves:
        rule, kind, value = leaf.rule, leaf.kind, leaf.value
        if not isinstance(value, str) or rule is _OFFERED or rule is _LISTED:
            continue
        is_text = kind is _TEXT or rule is _HARMLESS
        if every or is_text or ((kind is _OBJECT or kind is _TIME) and len(value.split(None, 1)) > 1):
            yield leaf.path, value[:MAX_TEXT]


def _measures(all_leaves: Iterable[Leaf]) -> list[str]:
    """Return the numbers and times of a call that may repeat facts of some content, as texts. Numbers that
    identify something are excluded; so are undeclared words, which usually name an object.
    """
    measures: list[str] = []
    for leaf in all_leaves:
        rule, kind, value = leaf.rule, leaf.kind, leaf.value
        if isinstance(value, str):
            if kind is _TIME or (rule is _UNCLAIMED and is_moment(value)):
                measures.append(value[:MAX_TEXT])
        elif (kind is None or kind is _TEXT) and isinstance(value, int | float) and not isinstance(value, bool):
            measures += leaves(value)
    return measures


def _has_unsaid(memory: Memory, all_leaves: Iterable[Leaf]) -> bool:
    """Return whether a call has a value that may contain content of any kind and is not the person's. Declared
    names and amounts are excluded, because policies judge their origins; so are values that the schema lists.
    """
    for leaf in all_leaves:
        rule, kind, value = leaf.rule, leaf.kind, leaf.value
        if rule is _OFFERED or rule is _LISTED or rule is _SWITCH:
            continue
        may_contain = rule is _UNCLAIMED or kind is None or kind is _TEXT or kind is _TIME
        if may_contain and str(value).strip():
            origin = of_value(memory, _TIME if kind is _TIME else _OBJECT, value)
            if origin > Origin.ENDORSED:
                return True
    return False


def _addressed(memory: Memory, tool: Tool, values: CallValues) -> Iterator[tuple[bytes, str]]:
    """Yield the texts of a call, each with a hash of its tool, its argument and the recipients of the call."""
    to = "\0".join(_recipients(values.judge_leaves(memory))).casefold()
    for path, text in _outgoing(values.leaves):
        if text.strip():
            yield hashed(memory.key, f"\0{tool.name}\0{path}\0{to}"), text


def _recipients(all_judged: Iterable[Judged]) -> Iterator[str]:
    for _, kind, value in all_judged:
        if kind in RECIPIENTS:
            yield from leaves(value)


def _is_to_person(memory: Memory, values: CallValues) -> bool:
    """Return whether each recipient of a call is a complete value of the person's own record. An undeclared
    value that names an object counts as a recipient.
    """
    if not memory.own:
        return False
    all_judged = values.judge_leaves(memory)
    to = list(_recipients(all_judged))
    if not to or not all(_is_own(memory, text) for text in to):
        return False
    unsaid = {leaf.path for leaf in values.leaves if leaf.rule is _UNCLAIMED}
    unsaid -= {path for path, kind, _ in all_judged if kind is _TEXT}
    return all(
        _is_own(memory, text)
        for path, kind, value in all_judged
        if kind is _OBJECT and path in unsaid
        for text in leaves(value)
    )


def _is_own(memory: Memory, text: str) -> bool:
    return memory.hashed(words(text, is_source=False)) in memory.own


def _carried(memory: Memory, texts: Iterable[tuple[bytes, str]], decoded: Decoded) -> set[str]:
    """Return the data classes of the labelled content that texts repeat, and its sources (`outside`, `record`).
    Each text has a hash of its recipients, with which the end of an earlier text is found; an empty hash means
    no earlier text.
    """
    classes: set[str] = set()
    hash_of = hasher(memory.key)
    for recipient, text in texts:
        for run in _runs(hash_of, decoded[text][0], _tail(memory, recipient) if recipient else ()):
            if not has_checksum(run, memory.fingerprints):
                continue
            for checksum, phrase in zip(list_checksums(run), list_phrases(run), strict=True):
                if checksum not in memory.fingerprints:
                    continue
                one = fingerprint(checksum)
                parts = [part for part in memory.labels if holds(part.words, one)]
                if parts and memory.find(phrase, least=Origin.RECORD) is Origin.NOWHERE:
                    for part in parts:
                        classes.update(part.classes, ("outside" if part.origin == Origin.OUTSIDE else "record",))
    return classes


def _runs(
    hash_of: Callable[[str], bytes], readings: Iterable[str], before: Sequence[bytes] = ()
) -> Iterator[Sequence[bytes]]:
    """Yield the runs of words, as hashes, whose phrases a text could be recognised by: each of its readings, and other
    spellings of its words. If punctuation or tags join words, the text is also read without them. `before`: the words
    before the text.
    """
    for reading in readings:
        spoken = words(reading, is_source=True)
        hashes = [*before, *map(hash_of, spoken)]
        yield hashes
        has_digit = _DIGIT.search(reading) is not None
        for word in other_spellings(reading, spoken) if has_digit else ():
            if not word.isalpha() and is_telling(word):
                yield [hash_of(word)]
        has_tags = "<" in reading
        if has_tags or _JOINED.search(reading):
            is_plain = not has_tags and reading.isascii()
            text_apart = reading.translate(_SPACED) if is_plain else _BETWEEN.sub(" ", reading)
            # Without digits, nothing is grouped, so the words are what stands between spaces.
            is_split = is_plain and not has_digit
            apart = text_apart.lower().split() if is_split else words(text_apart, is_source=True)
            yield (
                differing([*before, *map(hash_of, apart)], hashes)
                if before
                else [*map(hash_of, differing(apart, spoken))]
            )


def _tail(memory: Memory, recipient: bytes) -> list[bytes]:
    """Return the last words of the previous text to the same recipients, as hashes."""
    for part in memory.parts:
        if part.kinds == SENT:
            for entry in reversed(split(part.words)):
                if entry.startswith(recipient):
                    return [entry[at : at + WIDTH] for at in range(WIDTH, len(entry), WIDTH)]
    return []


def _end(memory: Memory, scribe: Scribe, recipient: bytes, text: str) -> bytes:
    """Return the stored form of a sent text: the hash of its recipients, then its last words."""
    last_words = [*_tail(memory, recipient), *scribe.hashes(scribe.words(text))]
    return recipient + b"".join(last_words[-_TAIL:])


def _is_given(memory: Memory, value: str) -> bool:
    """Return whether the person stated an identifier; the digits may be grouped in another way."""
    return of_value(memory, Kind.ACCOUNT, value) <= Origin.OWN
