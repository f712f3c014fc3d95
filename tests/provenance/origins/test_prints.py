"""Fingerprints of content: each shortcut of the reader finds the same phrases as a reader of the whole text."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.catalogue import Effect, Tool
from ostiary.provenance.intent import Intent
from ostiary.provenance.origins import Memory, Origin, observe_output, remember, with_marks
from ostiary.provenance.origins.memory import ALL_KINDS
from ostiary.provenance.origins.prints import SPAN, is_telling, source_prints
from ostiary.provenance.origins.scribe import Scribe
from ostiary.provenance.origins.slots import MAX_SPACES

KEY = bytes(range(32))
RUNS = (
    "Ann",
    "Lee,",
    "Zoë",
    "II",
    "Invoice",
    "12",
    "12.",
    "DE89",
    "3704",
    "0440",
    "(Bob)",
    "Al-Din",
    "X;",
    "4111",
    "K",
)
CONTACTS = Tool(name="contacts", effect=Effect.READ, open_world=False)
ROOM = 1000
LONG_NAME = f"(Seven) {'old ' * MAX_SPACES}houses"


def is_pair(one: str, two: str) -> bool:
    """Return whether two neighbours are two words of one sentence, one of them with a capital letter."""
    words = Scribe(KEY).words(f"{one} {two}")
    return len(words) == 2 and one[-1] not in ".,;:!?" and any(run.lstrip("(")[0].isupper() for run in (one, two))


PAIRS = [(one, two) for one in RUNS for two in RUNS if is_pair(one, two)]


def checksum(scribe: Scribe, text: str) -> int:
    return crc32(scribe.phrase(text))


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_two_adjacent_names_in_a_text_have_a_fingerprint(one: str, two: str) -> None:
    scribe = Scribe(KEY)
    beside = f"so it is said about {one} {two} in all of the other towns"
    assert checksum(scribe, f"{one} {two}") in source_prints(scribe, [beside], room=ROOM)


@given(count=st.integers(2, SPAN - 1), rest=st.sampled_from(["", " -", " , ;", " . . ."]))
def test_a_field_of_two_to_a_few_words_is_a_fact_with_any_punctuation(count: int, rest: str) -> None:
    scribe = Scribe(KEY)
    field = " ".join(["blue", "boat", "with", "sails"][:count]) + rest
    assert checksum(scribe, field) in source_prints(scribe, ["a text"], [field], room=ROOM)


def test_a_field_of_many_words_is_not_a_fact() -> None:
    scribe = Scribe(KEY)
    field = "blue boat with white sails"
    assert checksum(scribe, field) not in source_prints(scribe, ["a text"], [field], room=ROOM)


@pytest.mark.parametrize(
    "word", ["ada@home.example", "https://a.example", "12345", "2291", "k_9fq_51hqtz7n", "ab1cdefg", "1ab2cdef"]
)
def test_a_distinctive_word_has_a_fingerprint_in_any_text(word: str) -> None:
    scribe = Scribe(KEY)
    assert is_telling(word)
    assert checksum(scribe, word) in source_prints(scribe, [f"it is {word} and no other one than this"], room=ROOM)


@pytest.mark.parametrize("word", ["2026", "123", "@ada", "word", "b1cdefg", "abcdefg1", "1abcdefg", "ab1c-defg"])
def test_a_common_word_is_not_distinctive(word: str) -> None:
    assert not is_telling(word)


@pytest.mark.parametrize("has_marks", [True, False])
@pytest.mark.parametrize("name", ["Ann Lee", "ann-lee", "Zoë", "7 Elm Street", "#boats", "(Ann) Lee", LONG_NAME])
def test_a_record_with_a_name_that_the_person_said_counts_as_named(name: str, has_marks: bool) -> None:
    begun = remember(KEY, Intent(words=f"Write to {name} about the boat"))
    memory: Memory = with_marks(begun) if has_marks else begun
    output = [{"name": name, "room": "r-41"}, {"name": "Carl", "room": "r-42"}]
    parts = observe_output(memory, "crm/contacts", CONTACTS, {}, output)
    records = b"".join(part.words for part in parts if part.origin == Origin.RECORD)
    scribe = Scribe(KEY)
    assert scribe.phrase("r-41") in records
    assert scribe.phrase("r-42") not in records


@pytest.mark.parametrize("has_marks", [True, False])
def test_a_memory_finds_the_words_of_a_phrase_with_and_without_marks(has_marks: bool) -> None:
    memory: Memory = remember(KEY, Intent(words="Write to ann about the boat"))
    memory = with_marks(memory) if has_marks else memory
    assert memory.find_words(["about", "the", "boat"], ALL_KINDS) == Origin.PERSON
    assert memory.find_words(["about", "the", "train"], ALL_KINDS) == Origin.NOWHERE
