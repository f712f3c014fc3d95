"""The intent of a person: bounded, free of invisible characters, and within the parent intent."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Forbidden
from ostiary.provenance.intent import (
    MAX_ENDORSED,
    MAX_OWN,
    MAX_VALUE,
    MAX_WORDS,
    Intent,
    InvalidIntent,
    Recorded,
    SaidBy,
    parse_intent,
)

BILL: dict[str, Any] = {"tool": "files/read_file", "value": "bill.txt", "kinds": ["account", "amount"]}
WHOLE = {"words": "Pay 1000 to Ada, see bill.txt", "own": {"mail": "me@example.org"}, "endorsed": [BILL]}


def parse(**more: Any) -> Intent:
    return parse_intent({"words": "Pay the bill"} | more)


def test_an_intent_keeps_its_words_values_and_endorsed_documents() -> None:
    intent = parse_intent(WHOLE)
    assert intent.words == WHOLE["words"]
    assert intent.own == {"mail": "me@example.org"}
    [document] = intent.endorsed
    assert (document.tool, document.value, [*document.kinds]) == ("files/read_file", "bill.txt", ["account", "amount"])


def test_the_words_of_an_intent_are_bounded_in_bytes() -> None:
    assert parse(words="é" * (MAX_WORDS // 2))
    with pytest.raises(InvalidIntent, match=f"{MAX_WORDS + 1} bytes"):
        parse(words="é" * (MAX_WORDS // 2) + "e")


@pytest.mark.parametrize("words", ["", " ", "\n\t", None, 1, "\ud800"])
def test_empty_or_malformed_words_are_refused(words: object) -> None:
    with pytest.raises(InvalidIntent):
        parse(words=words)


@pytest.mark.parametrize(
    "hidden", ["\x00", "\x1b", "\r", "\x7f", "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\ue000", "\U000e0041"]
)
def test_invisible_characters_in_an_intent_are_refused(hidden: str) -> None:
    for more in (
        {"words": f"pay{hidden} the bill"},
        {"own": {"mail": f"me{hidden}@example.org"}},
        {"endorsed": [BILL | {"value": f"bill{hidden}.txt"}]},
    ):
        with pytest.raises(InvalidIntent, match=f"U\\+{ord(hidden):04X}"):
            parse(**more)


@pytest.mark.parametrize(
    "words", ["שלום \u200fעולם", "می\u200cخواهم", "👩\u200d💻 zahlt", "zwei\nZeilen\tund mehr", "支払う"]
)
def test_words_of_an_intent_can_be_in_any_language(words: str) -> None:
    assert parse(words=words).words == words


@pytest.mark.parametrize(
    "more",
    [
        {"own": {"Mail": "x"}},
        {"own": {"mail": ""}},
        {"own": {"mail": "x" * (MAX_VALUE + 1)}},
        {"own": {f"n{number}": "x" for number in range(MAX_OWN + 1)}},
        {"endorsed": [BILL | {"value": f"{number}"} for number in range(MAX_ENDORSED + 1)]},
        {"endorsed": [BILL, BILL | {"kinds": ["time"]}]},
        {"endorsed": [BILL | {"kinds": []}]},
        {"endorsed": [BILL | {"kinds": ["everything"]}]},
        {"endorsed": [BILL | {"value": ""}]},
        {"endorsed": [BILL | {"value": "x" * (MAX_VALUE + 1)}]},
        {"endorsed": [BILL | {"tool": "read_file"}]},
        {"endorsed": [BILL | {"tool": "*"}]},
        {"endorsed": [BILL | {"more": 1}]},
        {"said_by": "person"},
    ],
)
def test_a_malformed_intent_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidIntent):
        parse(**more)


def test_an_intent_at_its_limits_is_accepted() -> None:
    intent = parse(
        own={f"n{number}": "x" * MAX_VALUE for number in range(MAX_OWN)},
        endorsed=[BILL | {"value": f"{number}".zfill(MAX_VALUE)} for number in range(MAX_ENDORSED)],
    )
    assert (len(intent.own), len(intent.endorsed)) == (MAX_OWN, MAX_ENDORSED)


@pytest.mark.parametrize(
    "part",
    [
        WHOLE,
        {"words": "Pay 1000 to Ada,"},
        {"words": "see bill.txt", "endorsed": [BILL | {"kinds": ["amount"]}]},
        {"words": "1000", "own": {"mail": "me@example.org"}},
    ],
)
def test_an_intent_for_a_part_of_the_words_is_within_the_parent_intent(part: dict[str, Any]) -> None:
    less = parse_intent(part)
    less.check_within(parse_intent(WHOLE))
    assert len(less.words) <= len(WHOLE["words"])


@pytest.mark.parametrize(
    "part",
    [
        {"words": "Pay 100"},  # of `Pay 1000`
        {"words": "Pay to Ada,"},
        {"words": "Ada, 1000"},
        {"words": "bill.txt and more"},
        {"words": "Pay 1000 to Ada, see bill.txt Pay"},
        {"words": "Pay", "own": {"mail": "eve@example.org"}},
        {"words": "Pay", "own": {"account": "me@example.org"}},
        {"words": "Pay", "endorsed": [BILL | {"kinds": ["account", "address"]}]},
        {"words": "Pay", "endorsed": [BILL | {"value": "other.txt"}]},
        {"words": "Pay", "endorsed": [BILL | {"tool": "mail/read_file"}]},
    ],
)
def test_an_intent_that_widens_the_parent_intent_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(Forbidden) as refusal:
        parse_intent(part).check_within(parse_intent(WHOLE))
    assert refusal.value.code == "widens"


@pytest.mark.parametrize(
    ("planned", "why"),
    [
        ({"tool": "mail/send"}, "does not have `mail/send`"),
        ({"tool": "bank/pay", "most": "50.01"}, "the maximum of `bank/pay` is higher"),
        ({"tool": "bank/pay"}, "the maximum of `bank/pay` is higher"),
        ({"tool": "bank/pay", "most": "50.00"}, ""),
        ({"tool": "files/read", "most": "1000"}, ""),
    ],
)
def test_a_plan_is_within_the_plan_of_the_parent_intent_or_refused_with_the_reason(
    planned: dict[str, Any], why: str
) -> None:
    outer = parse(plan=[{"tool": "bank/pay", "most": "50"}, {"tool": "files/read"}])
    with pytest.raises(Forbidden, match=why) if why else nullcontext():
        parse(plan=[planned]).check_within(outer)


def test_an_intent_without_a_parent_intent_above_is_refused() -> None:
    with pytest.raises(Forbidden):
        parse().check_within(None)


_words = st.lists(st.sampled_from(["pay", "1000", "100", "ada", "not"]), min_size=1, max_size=6)


@given(_words, _words)
def test_the_words_of_an_intent_must_be_a_run_of_words_of_the_parent_intent(inner: list[str], outer: list[str]) -> None:
    """Against the spelling in which spaces are marks."""
    is_run = f"|{'|'.join(inner)}|" in f"|{'|'.join(outer)}|"
    try:
        parse(words=" ".join(inner)).check_within(parse(words=" ".join(outer)))
    except Forbidden:
        assert not is_run
    else:
        assert is_run


def test_a_recorded_intent_is_restored_and_its_digest_depends_on_the_salt() -> None:
    one = Recorded(intent=parse_intent(WHOLE), said_by=SaidBy.PERSON, stated_by="pe_1", salt="a")
    assert Recorded.decode(one.encode().decode()) == one
    assert one.digest != Recorded(intent=one.intent, said_by=SaidBy.PERSON, stated_by="pe_1", salt="b").digest
    assert one.digest != Recorded(intent=one.intent, said_by=SaidBy.AGENT, stated_by="pe_1", salt="a").digest
