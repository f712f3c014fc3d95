"""The work of judging a call and of observing an output, as a number of calls of functions."""

from __future__ import annotations

import json
import random

import pytest
from msgspec.structs import replace

from benchmarks.decide import URI, principal
from benchmarks.origins import CATALOGUE, KEY, LETTER, NOW, SAID, WORDS, forms
from harness.call_counts import count_calls
from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.decision.access import DecisionInputs, Facts, Principal, Protected, decide, resolve
from ostiary.provenance.intent import Intent
from ostiary.provenance.origins import (
    ALL_KINDS,
    Memory,
    Origin,
    Part,
    add_parts,
    judge_origins,
    observe_output,
    remember,
    with_marks,
)
from ostiary.provenance.origins.scribe import Scribe
from ostiaryd.policy.model import starter_files

OUTPUTS = forms(random.Random(7), 10_240)
TOOLS = Catalogue.parse(json.dumps(CATALOGUE))
MOST_CALLS = {
    "prose": 17_500,
    "JSON": 32_000,
    "records as lines": 44_000,
    "records as a table": 38_000,
    "letters": 44_000,
}


@pytest.fixture
def labelled() -> Memory:
    begun = remember(KEY, Intent(words=WORDS))
    read = observe_output(begun, "files/record", TOOLS.tools["record"], {"path": "x"}, OUTPUTS["prose"])
    return with_marks(add_parts(begun, read))


def test_the_text_of_a_call_is_decoded_once_for_all_rules(labelled: Memory) -> None:
    facts = Facts(Protected(name="files", uri=URI, segment="default", catalogue=TOOLS), starter_files().policies)
    agent = Principal(replace(principal().claims, memory="tk_1"))
    call = resolve(agent, "pay", SAID | {"note": LETTER}, facts, NOW)
    with count_calls() as calls:
        decide(call, DecisionInputs(labelled))
    assert calls["decode"] == 1


def test_a_short_text_with_labels_is_judged_in_a_bounded_number_of_calls(labelled: Memory) -> None:
    facts = Facts(Protected(name="files", uri=URI, segment="default", catalogue=TOOLS), starter_files().policies)
    agent = Principal(replace(principal().claims, memory="tk_1"))
    for _ in range(2):  # the first call fills caches of the process
        with count_calls() as calls:
            decide(resolve(agent, "pay", SAID, facts, NOW), DecisionInputs(labelled))
    assert calls["Coverage.leaves"] == 1
    assert calls.total() <= 400


def test_the_values_of_a_call_are_judged_once_for_all_rules() -> None:
    facts = Facts(Protected(name="files", uri=URI, segment="default", catalogue=TOOLS), starter_files().policies)
    agent = Principal(replace(principal().claims, memory="tk_1"))
    begun = remember(KEY, Intent(words=WORDS, own={"account": "FR7612345678901"}))
    read = observe_output(begun, "files/record", TOOLS.tools["record"], {"path": "x"}, OUTPUTS["prose"])
    memory = with_marks(add_parts(begun, read))
    calls_of = []
    for _ in range(2):
        with count_calls() as calls:
            decide(resolve(agent, "pay", SAID, facts, NOW), DecisionInputs(memory))
        calls_of.append(calls)
    assert [calls["judged_leaves"] for calls in calls_of] == [len(SAID) + 1] * 2, "one step for each value, and the end"
    assert calls_of[1]["Memory.labels"] == calls_of[1]["Memory.outside"] == 0, "the memory has not changed"


def test_a_text_without_adjacent_digits_is_not_searched_for_numbers(labelled: Memory) -> None:
    facts = Facts(Protected(name="files", uri=URI, segment="default", catalogue=TOOLS), starter_files().policies)
    agent = Principal(replace(principal().claims, memory="tk_1"))
    searches = []
    for note in (LETTER, f"{LETTER} 4929 1234"):
        with count_calls() as calls:
            decide(resolve(agent, "pay", SAID | {"note": note}, facts, NOW), DecisionInputs(labelled))
        searches.append(calls["Pattern.finditer"])
    assert searches[1] - searches[0] >= 9


def test_the_untrusted_part_of_a_memory_is_taken_once_for_all_values_of_a_call(labelled: Memory) -> None:
    things = ["V-551", "V-580", "V-581"]
    known = add_parts(labelled, [Part(Origin.KNOWN, ALL_KINDS, Scribe(KEY).source(things, room=99))])
    tool = Tool(name="move", effect=Effect.CHANGE, kinds=dict.fromkeys(("one", "two", "three"), "object"))
    with count_calls() as calls:
        judged = judge_origins(known, tool, dict(zip(("one", "two", "three"), things, strict=True)))
    assert judged["origin"] == {"one": "known", "two": "known", "three": "known"}
    assert calls["Memory.outside"] == 1


def test_a_memory_lends_its_documents_once_for_all_calls(labelled: Memory) -> None:
    assert labelled.lending(0) is labelled.lending(0) is not labelled.lending(ALL_KINDS)


@pytest.mark.parametrize("form", MOST_CALLS)
def test_an_output_of_ten_kilobytes_is_observed_in_a_bounded_number_of_calls(form: str) -> None:
    begun = with_marks(remember(KEY, Intent(words=WORDS)))
    for tool in ("fetch", "record"):
        for _ in range(2):  # the first call fills caches of the process
            with count_calls() as calls:
                observe_output(begun, f"files/{tool}", TOOLS.tools[tool], {"path": "x"}, OUTPUTS[form])
        assert calls.total() <= MOST_CALLS[form], tool
