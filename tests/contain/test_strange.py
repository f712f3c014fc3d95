"""Unfamiliar worlds: other names in all that a product sees, the same tasks and graders behind them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks.contain import columns
from benchmarks.contain.lexicon import Lexicon
from benchmarks.contain.strange import LEVELS, Strange, Strangeness, differences
from benchmarks.contain.suites import Call, Output, Tool
from tests.contain.toys import GREET, SCHEMA, Told, Toy


class Shop(Toy):
    """The toy with described arguments and structured outputs."""

    tools = (
        Tool("look", "Look at something.", {"type": "object", "properties": {"at": {"type": "string"}}}),
        Tool("send", "Send a text.", SCHEMA | {"required": ["to"]}, {"openWorldHint": True}, {"to": "address"}),
    )


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon()


@pytest.mark.parametrize("level", LEVELS)
def test_a_world_is_sound_and_comes_from_its_seed(level: Strangeness, lexicon: Lexicon) -> None:
    first, again, other = (Strange(Shop(), level, seed, lexicon) for seed in (1, 1, 2))
    assert first.tools == again.tools
    assert [task.purpose for task in first.tasks] == [task.purpose for task in again.tasks]
    assert level == "synonyms" or first.tools != other.tools
    assert differences(Shop(), first, tasks=None, injections=None) == []


@pytest.mark.parametrize("level", ["foreign", "letters"])
def test_a_product_sees_no_name_of_the_suite(level: Strangeness, lexicon: Lexicon) -> None:
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


def test_calls_are_translated_there_and_back(lexicon: Lexicon) -> None:
    strange = Strange(Shop(), "letters", 3, lexicon)
    assert strange.translated(GREET) != GREET
    assert strange.original(strange.translated(GREET)) == GREET
    unknown = Call("nothing", {"to": 1})
    assert strange.original(strange.translated(unknown)) == unknown


def test_fields_have_other_names_and_data_stays(lexicon: Lexicon) -> None:
    data = {"items": [{"to": "bob", "Bob Ray": True, "at": None}]}
    foreign = Strange(Shop(), "foreign", 1, lexicon).output(Output("", data=data))
    [[item]] = foreign.data.values()
    assert list(item.values()) == ["bob", True, None]
    assert "Bob Ray" in item
    assert item.keys().isdisjoint({"to", "at"})
    text = Strange(Shop(), "letters", 1, lexicon).output(Output("", data=data))
    assert text.data is None
    assert re.fullmatch(r"\w+:\n  - \w+: bob\n    Bob Ray: yes\n    \w+: none", text.text), text.text
    failed = Output("", error="items are gone", data=data)
    assert Strange(Shop(), "letters", 1, lexicon).output(failed) == failed


def test_an_unsound_world_is_found(lexicon: Lexicon) -> None:
    class Broken(Strange):
        def original(self, call: Call) -> Call:
            arguments: dict[str, Any] = {**super().original(call).arguments, "to": "nobody"}
            return Call(super().original(call).tool, arguments)

    assert differences(Shop(), Broken(Shop(), "foreign", 1, lexicon), tasks=None, injections=None) != []
