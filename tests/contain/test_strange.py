"""Renamed worlds: a product sees other names and formats, and the tasks and graders stay the same."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from benchmarks.contain import columns, layouts, wording
from benchmarks.contain.lexicon import Lexicon
from benchmarks.contain.strange import LEVELS, Strange, differences
from benchmarks.contain.suites import Call, Output, Tool
from tests.support.toys import GREET, SCHEMA, Told, Toy


class Shop(Toy):
    """The toy with described arguments and structured outputs."""

    tools: Any = (
        Tool("look", "Look at something.", {"type": "object", "properties": {"at": {"type": "string"}}}),
        Tool("send", "Send a text.", SCHEMA | {"required": ["to"]}, {"openWorldHint": True}, {"to": "address"}),
    )


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon()


@pytest.mark.parametrize("level", LEVELS)
def test_a_renamed_world_is_sound_and_determined_by_its_seed(level: str, lexicon: Lexicon) -> None:
    first, again, other = (Strange(Shop(), level, seed, lexicon) for seed in (1, 1, 2))
    assert first.tools == again.tools
    assert [task.purpose for task in first.tasks] == [task.purpose for task in again.tasks]
    assert level in ("synonyms", "formats") or first.tools != other.tools
    assert differences(Shop(), first, tasks=None, injections=None) == []


@pytest.mark.parametrize("level", ["foreign", "letters"])
def test_a_product_sees_no_tool_or_argument_name_of_the_suite(level: str, lexicon: Lexicon) -> None:
    strange, told = Strange(Shop(), level, 1, lexicon), Told(lambda call: True)
    rows = list(columns.Plan(strange).attacked(told))
    assert rows
    seen = [each for each in told.told if isinstance(each, Call | list)]
    names = {name for each in seen if isinstance(each, Call) for name in (each.tool, *each.arguments)}
    names |= {name for tool in strange.tools for name in (tool.name, *tool.schema["properties"], *tool.kinds)}
    assert names
    assert names.isdisjoint({"look", "send", "to", "text", "at"})
    assert all(not tool.description for tool in strange.tools)


def test_values_of_the_person_stay_and_other_words_change(lexicon: Lexicon) -> None:
    purposes = {task.purpose for seed in range(8) for task in Strange(Shop(), "synonyms", seed, lexicon).tasks}
    assert len(purposes) > len(Shop.tasks)
    assert all("bob@home.example" in purpose for purpose in purposes)


def test_a_call_translates_to_the_renamed_world_and_back_without_change(lexicon: Lexicon) -> None:
    strange = Strange(Shop(), "letters", 3, lexicon)
    assert strange.translated(GREET) != GREET
    assert strange.original(strange.translated(GREET)) == GREET
    unknown = Call("nothing", {"to": 1})
    assert strange.original(strange.translated(unknown)) == unknown


def test_fields_of_an_output_are_renamed_and_their_values_stay(lexicon: Lexicon) -> None:
    data = {"items": [{"to": "bob", "Bob Ray": True, "at": None}]}
    foreign = Strange(Shop(), "foreign", 1, lexicon).output("look", Output("", data=data))
    [[item]] = foreign.data.values()
    assert list(item.values()) == ["bob", True, None]
    assert "Bob Ray" in item
    assert item.keys().isdisjoint({"to", "at"})
    worlds = [Strange(Shop(), "letters", seed, lexicon) for seed in range(40)]
    texts = {world.output("look", Output("", data=data)).text for world in worlds}
    assert any(re.fullmatch(r"\w+:\n  - \w+: bob\n    Bob Ray: yes\n    \w+: none", text) for text in texts), texts
    assert all("bob" in text and "to" not in re.findall(r"\w+", text) for text in texts)
    failed = Output("", error="items are gone", data=data)
    assert Strange(Shop(), "letters", 1, lexicon).output("look", failed) == failed


def test_a_renamed_world_that_changes_calls_is_reported_as_unsound(lexicon: Lexicon) -> None:
    class Broken(Strange):
        def original(self, call: Call) -> Call:
            arguments: dict[str, Any] = {**super().original(call).arguments, "to": "nobody"}
            return Call(super().original(call).tool, arguments)

    assert differences(Shop(), Broken(Shop(), "foreign", 1, lexicon), tasks=None, injections=None) != []


RECORDS = [{"id": 1, "text": "a | b\nc", "done": True}, {"id": 2, "text": "d", "done": None}]


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (layouts.key_value_lines, "- id: 1\n  text: a | b\nc\n  done: yes\n- id: 2\n  text: d\n  done: none"),
        (layouts.yaml, '- id: 1\n  text: "a | b\\nc"\n  done: true\n- id: 2\n  text: "d"\n  done: null'),
        (
            layouts.table,
            "| id | text | done |\n| --- | --- | --- |\n| 1 | a \\| b<br>c | yes |\n| 2 | d | none |",
        ),
        (layouts.bullets, "- id: 1, text: a | b\nc, done: yes\n- id: 2, text: d, done: none"),
        (layouts.mail_headers, "Id: 1\nDone: yes\n\na | b\nc\n\n---\n\nId: 2\nText: d\nDone: none"),
    ],
)
def test_each_layout_writes_records_in_its_documented_form(layout: layouts.Layout, text: str) -> None:
    assert layout(RECORDS) == text


def test_a_layout_leaves_out_no_value() -> None:
    data = {"items": RECORDS, "more": {"who": "Ann", "tags": ["x", "y"]}, "none": [], "empty": {}}
    for layout in layouts.LAYOUTS:
        text = layout(data).replace("\\|", "|")  # a table escapes the character between its cells
        words = ("a |", "Ann", "x", "y", "d")
        assert [word for word in words if not re.search(rf"\b{re.escape(word)}(?!\w)", text)] == [], text
        assert layout([]) is not None
        assert layout("plain") in ("plain", '"plain"', 'Here is the result:\n\n```json\n"plain"\n```')


VERBS = frozenset({"pay", "send"})


def test_requests_are_reworded_and_the_text_after_a_colon_is_not() -> None:
    texts = {wording.reworded("Please pay the bill. Send this: Pay me.", random.Random(n), VERBS) for n in range(60)}
    assert len(texts) == len(wording.REQUEST)
    assert all(text.endswith(" Send this: Pay me.") and "pay the bill" in text.lower() for text in texts)
    assert wording.reworded("If it rains, pay the bill.", random.Random(1), VERBS) == "Pay the bill if it rains."
    assert wording.reworded("The rent is due.", random.Random(1), VERBS) == "The rent is due."


def test_values_are_reformatted_and_literal_texts_stay() -> None:
    said = "Pay 2200 to DE89370400440532013000 on 2026-03-07 at 14:05, for 1234 Elm Street"
    texts = {wording.reformatted(said, random.Random(n), "1234 Elm Street") for n in range(200)}
    assert all("1234 Elm Street" in text for text in texts)
    assert {amount for text in texts for amount in re.findall(r"Pay (\S+)", text)} == {"2,200", "2200.00", "2,200.00"}
    dates = {found for text in texts for found in re.findall(r"on (.+?) at", text)}
    assert dates == {"7 March 2026", "March 7, 2026", "2026/03/07"}
    assert {found for text in texts for found in re.findall(r" at (.+?), for", text)} == {"2:05 pm", "14h05", "14:05"}
    assert any(text.endswith("\n\n(1) DE89 3704 0044 0532 0130 00") and " to (1) " in text for text in texts)
    assert {"".join(text.split()).count("DE89370400440532013000") for text in texts} == {1}


def test_enumerated_values_and_inner_names_are_translated(lexicon: Lexicon) -> None:
    inner = {"type": "object", "properties": {"size": {"enum": ["small", "large"], "default": "small"}}}
    order = Tool("order", "Order.", {"type": "object", "properties": {"what": inner}}, {}, {"what.size": "none"})

    class Menu(Shop):
        tools: Any = (*Shop.tools, order)

    strange = Strange(Menu(), "letters", 1, lexicon)
    [made] = [tool for tool in strange.tools if tool.name == strange.tool_names["order"]]
    call = Call("order", {"what": {"size": "large"}})
    translated = strange.translated(call)
    assert strange.original(translated) == call
    [[size]] = [list(value.values()) for value in translated.arguments.values()]
    assert size != "large"
    assert size in str(made.schema)
    [kind] = made.kinds
    assert set(kind.split(".")) == {*translated.arguments, *next(iter(translated.arguments.values()))}


def test_hints_of_tools_are_added_kept_or_dropped_by_level(lexicon: Lexicon) -> None:
    hints = {
        level: [dict(tool.hints) for tool in Strange(Shop(), level, 1, lexicon, readers=["look"]).tools]
        for level in LEVELS
    }
    assert hints["hinted"] == [{"readOnlyHint": True}, {"openWorldHint": True, "readOnlyHint": False}]
    assert hints["letters"] == [{}, {}]
    assert hints["foreign"] == [{}, {"openWorldHint": True}]
