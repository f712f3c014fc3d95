"""The review of a catalogue: the questions to its owner, and the tools after the answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.catalogue_advisor.reading import propose_catalogue
from ostiary.catalogue_advisor.review import MAX_QUESTIONS, Flow, ToolUsage, confirm, confirm_all, review
from ostiary.protocol.errors import Invalid
from tests.catalogue_advisor.tool_listing import listed

LISTING: dict[str, Any] = {
    "capabilities": {"resources": {}},
    "tools": [
        listed("xqz", abc="string", defg="string", hij="string", klm="string"),
        listed("get_status", hints={"readOnlyHint": True}),
        listed("send_letter", description="Sends a letter.", to="string", body="string"),
    ],
}


def catalogue() -> Catalogue:
    return propose_catalogue("desk", LISTING).catalogue


def test_each_unconfirmed_tool_is_reviewed_and_tools_in_use_come_first() -> None:
    found = review(catalogue(), usage={"get_status": ToolUsage(calls=3, agents=2)})
    assert [one.tool.name for one in found] == ["get_status", "send_letter", "xqz"], (
        "methods of MCP are not asked about"
    )
    members = {one.tool.name: [question.member for question in one.questions] for one in found}
    assert members == {
        "get_status": ["outside", "effect"],
        "send_letter": ["kinds.body"],
        "xqz": ["effect", "kinds.abc", "kinds.defg"],
    }
    assert all(len(one.questions) <= MAX_QUESTIONS for one in found)
    assert all(question.suggestion in question.choices for one in found for question in one.questions)
    assert all(question.why and line.why for one in found for question in one.questions for line in one.lines)


def test_each_question_is_in_plain_words_and_has_a_reason() -> None:
    asked = {(one.tool.name, question.member): question for one in review(catalogue()) for question in one.questions}
    argument, outside = asked["xqz", "kinds.abc"], asked["get_status", "outside"]
    assert argument.text == "Is `abc` of `xqz` a recipient, an object, an amount, or text?"
    assert argument.suggestion == "unsure"
    assert (outside.suggestion, outside.why) == ("no", "the name of the tool refers to records of its own system")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("list_users", "no"),
        ("get_users_in_channel", "no"),
        ("read_files_of_user", "yes"),
        ("get_channel_messages", "yes"),
    ],
)
def test_words_after_a_preposition_do_not_state_what_a_tool_returns(name: str, suggestion: str) -> None:
    tools = {"tools": [listed(name, hints={"readOnlyHint": True}, channel="string")]}
    questions = review(propose_catalogue("desk", tools).catalogue)[0].questions
    assert [one.suggestion for one in questions if one.member == "outside"] == [suggestion]


def test_values_that_came_from_another_tool_are_the_reason_to_suggest_an_object() -> None:
    flow = Flow("list_rows", "rows.id", 12)
    found = {one.tool.name: one for one in review(catalogue(), flows={"xqz": {"hij": flow}})}
    question = next(one for one in found["xqz"].questions if one.member == "kinds.hij")
    assert (question.suggestion, question.why) == (
        "object",
        "the values of the argument came from `rows.id` of `list_rows` in 12 tasks",
    )


def test_a_number_argument_without_a_known_kind_is_asked_about() -> None:
    [found] = review(
        propose_catalogue("desk", {"tools": [listed("pin_row", description="Pins a row.", at="number")]}).catalogue
    )
    assert [(one.member, one.suggestion) for one in found.questions] == [("kinds.at", "time")]
    [found] = review(
        propose_catalogue("desk", {"tools": [listed("pin_row", description="Pins a row.", xyz="number")]}).catalogue
    )
    assert [(one.member, one.suggestion) for one in found.questions] == [("kinds.xyz", "amount")]
    assert confirm(found.tool, {"kinds.xyz": "none"}).argument_kinds == {}


def test_answers_are_kept_in_the_tool_until_its_definition_changes() -> None:
    before = catalogue()
    made = confirm_all(
        before, {"xqz": {"effect": "read", "outside": "no", "kinds.klm": "account", "kinds.abc": "unsure"}}
    )
    tool = made.tools["xqz"]
    assert (tool.effect, tool.outside, tool.confirmed, tool.kinds) == (Effect.READ, False, True, {"klm": "account"})
    assert made.tools["send_letter"] == before.tools["send_letter"]
    assert [one.tool.name for one in review(made)] == ["send_letter", "get_status"]
    again = propose_catalogue("desk", LISTING).catalogue.after(made)
    assert again.tools["xqz"] == tool
    changed = json.loads(json.dumps(LISTING))
    changed["tools"][0]["description"] = "Deletes all rows."
    [asked] = [
        one for one in review(propose_catalogue("desk", changed).catalogue.after(made)) if one.tool.name == "xqz"
    ]
    [outside] = [question for question in asked.questions if question.member == "outside"]
    assert (outside.suggestion, outside.why) == ("no", "the catalogue says that they cannot"), (
        "what was said of another definition is asked again"
    )


def test_the_kinds_follow_the_effect_that_the_owner_states() -> None:
    """A read of flights to a destination sends nothing there, and an address to which a page is sent is a recipient."""
    listing = {
        "tools": [
            listed("fares", origin="string", destination="string", date="string", link="string"),
            listed("get_page", to="string"),
        ]
    }
    fares, page = propose_catalogue("desk", listing).catalogue.tools.values()
    assert (fares.effect, fares.kinds) == (
        Effect.CHANGE,
        {"destination": "address", "date": "time", "link": "address"},
    )
    assert confirm(fares, {"effect": "change"}).kinds == fares.kinds
    reads = confirm(fares, {"effect": "read"})
    assert reads.kinds == {"destination": "principal", "link": "address"}, "a link is fetched, and so an address"
    said = confirm(fares, {"effect": "read", "kinds.destination": "object", "kinds.date": "time"})
    assert said.kinds == {"destination": "object", "date": "time", "link": "address"}, "an answer counts"
    learned = replace(fares, kinds=fares.kinds | {"origin": "object"})
    assert confirm(learned, {"effect": "read"}).kinds == reads.kinds | {"origin": "object"}, "other tools return it"
    assert (page.effect, page.kinds) == (Effect.READ, {"to": "principal"})
    assert confirm(page, {"effect": "send"}).kinds == {"to": "address"}


def test_a_question_without_an_answer_takes_its_suggestion_and_changes_nothing_else() -> None:
    tool = catalogue().tools["send_letter"]
    assert confirm(tool) == replace(tool, confirmed=True)
    status = catalogue().tools["get_status"]
    assert confirm(status) == replace(status, outside=False, confirmed=True)
    assert confirm(catalogue().tools["xqz"]).kinds == {}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"effect": "explode"}, "is not an answer for `effect`"),
        ({"outside": "maybe"}, "is not an answer for `outside`"),
        ({"kinds.abc": "thing"}, "is not an answer for `kinds.abc`"),
        ({"kinds.zzz": "object"}, "has no member `kinds.zzz`"),
        ({"scope": "read"}, "has no member `scope`"),
    ],
)
def test_an_answer_to_an_unknown_question_or_with_an_unknown_value_is_refused(
    answers: dict[str, str], why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        confirm_all(catalogue(), {"xqz": answers})


def test_answers_about_an_unknown_tool_are_refused() -> None:
    with pytest.raises(Invalid, match="no tool `yyy`"):
        confirm_all(catalogue(), {"yyy": {}})


def test_a_tool_that_the_owner_wrote_by_hand_is_reviewed_as_well() -> None:
    by_hand = Catalogue.of("desk", [Tool(name="pay", effect=Effect.PAY, kinds={"to": "account"})])
    [found] = review(by_hand)
    assert {line.member: line.why for line in found.lines} == {
        "effect": "its name",
        "open_world": "stated by the hints or by the owner",
        "kinds.to": "other tools return such a value, or the owner has stated the kind",
    }
