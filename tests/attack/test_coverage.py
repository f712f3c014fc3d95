"""No argument escapes: a foreign value anywhere in the arguments of a call is asked about; each leaf has one rule."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.catalogue import Catalogue, Rule
from ostiary.catalogue_advisor.reading import propose_catalogue
from tests.attack.link_calls import EVIL, IBAN, LINK, LINKS, call, is_asked

SAID: list[Any] = ["report.txt", "bob@good.example", "editor", "Ann Lee", IBAN, 100, True, False, None]
STRING = {"type": "string"}


def catalogue(*tools: dict[str, Any]) -> Catalogue:
    return Catalogue.parse(json.dumps({"resource": "desk", "tools": tools}))


def json_values(leaf: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
    )


NAMES = ["to", "note", "amount", "when", "file", "deep", "owner"]
KINDS = ["principal", "account", "address", "object", "secret", "amount", "time", "text"]
ENCODINGS: list[Callable[[str], str]] = [
    str,
    str.upper,
    quote,
    html.escape,
    lambda text: "".join(f"&#{ord(one)};" for one in text),
    lambda text: "".join(f"%{ord(one):02x}" for one in text),
    lambda text: "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text),
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: text.encode().hex(),
    lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
    lambda text: "".join(f"\\{ord(one):03o}" for one in text),
    lambda text: json.dumps({"a": [text]}),
    lambda text: f"<a href='{text}'>here</a>",
]


@st.composite
def planted(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A tool of an effect whose catalogue states what it states, and a call with one foreign value somewhere in it."""
    effect = draw(st.sampled_from(["write", "send", "destroy", "pay", "share", "change", "administer"]))
    kinds = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(KINDS), max_size=4))
    kinds |= (
        draw(st.sampled_from([{}, {"deep.inner": "address"}, {"owner.mail": "principal"}]))
        if "deep" not in kinds
        else {}
    )
    kinds = {
        path: kind
        for path, kind in kinds.items()
        if path.partition(".")[0] == path or path.partition(".")[0] not in kinds
    }
    schema = draw(
        st.sampled_from(
            [
                {},
                {"type": "object", "properties": {name: {} for name in NAMES}},
                {
                    "type": "object",
                    "properties": {"to": {"type": ["string", "object", "array"]}, "deep": {"type": "object"}},
                },
            ]
        )
    )
    tool = {"name": "act", "effect": effect, "kinds": kinds, "arguments": schema}
    arguments = draw(
        st.dictionaries(
            st.sampled_from(NAMES),
            json_values(st.sampled_from(SAID), st.sampled_from(["a", "inner", "mail"])),
            max_size=3,
        )
    )
    evil: Any = draw(st.sampled_from(ENCODINGS))(draw(st.sampled_from(LINKS)))
    place = draw(st.sampled_from(["value", "name", "number"]))
    if place == "number":
        evil = draw(st.sampled_from([4915112345678, -4915112345678, 4915112345678.0]))
    foreign = {str(evil): draw(st.sampled_from(SAID))} if place == "name" else evil
    for _ in range(draw(st.integers(0, 4))):
        foreign = [foreign] if draw(st.booleans()) else {draw(st.sampled_from(["a", "inner", "mail"])): foreign}
    name = draw(st.sampled_from(NAMES))
    if place == "number" and kinds.get(name) == "text":
        foreign = LINK  # a number in a text is a number
    if kinds.get(name) == "time" and place == "number":
        foreign = LINK  # a number in the place of a time is a time
    return tool, {**arguments, name: foreign}


@given(planted())
def test_a_foreign_value_at_any_place_needs_approval(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    tool, arguments = case
    tools = catalogue(tool)
    assert is_asked(tools, "act", arguments), call(tools, "act", arguments)


@given(planted())
def test_each_leaf_of_the_arguments_has_exactly_one_rule(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    tool, arguments = case
    claimed = [*catalogue(tool).tools["act"].coverage.leaves(arguments)]
    values = [leaf for leaf in claimed if not leaf.is_name]

    def count(value: Any, top: bool = False) -> int:
        if isinstance(value, dict | list) and value:
            return sum(count(one) for one in (value.values() if isinstance(value, dict) else value))
        return 0 if isinstance(value, dict | list) else 1

    empty = sum(leaf.value is not None and not isinstance(leaf.value, str | int | float | bool) for leaf in values)
    assert len(values) - empty == sum(count(one) for one in arguments.values() if one != "")
    assert all(
        (leaf.kind is None) is (leaf.rule in (Rule.SWITCH, Rule.LISTED, Rule.QUANTITY, Rule.HARMLESS))
        for leaf in claimed
    )


MAPS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = [
    (
        {
            "name": "share_file",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "file": STRING,
                    "permissions": {"type": "object", "additionalProperties": {"enum": ["reader", "editor"]}},
                },
            },
        },
        {"file": "report.txt", "permissions": {EVIL: "editor"}},
        {"file": "report.txt", "permissions": {"bob@good.example": "editor"}},
    ),
    (
        {
            "name": "transfer_money",
            "inputSchema": {
                "type": "object",
                "properties": {"payments": {"type": "object", "additionalProperties": {"type": "number"}}},
            },
        },
        {"payments": {"DE00EVIL": 100}},
        None,
    ),
    (
        {
            "name": "send_mail",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "to": STRING,
                    "headers": {"type": "object", "additionalProperties": STRING},
                    "body": STRING,
                },
            },
        },
        {"to": "bob@good.example", "headers": {"Bcc": EVIL}, "body": "x"},
        {"to": "bob@good.example", "body": "x"},
    ),
    (
        {
            "name": "create_user",
            "inputSchema": {
                "type": "object",
                "properties": {"roles": {"type": "object", "additionalProperties": {"type": "array", "items": STRING}}},
            },
        },
        {"roles": {"eve": ["editor"]}},
        None,
    ),
]


@pytest.mark.parametrize(("listed", "foreign", "honest"), MAPS)
def test_a_foreign_member_name_needs_approval(
    listed: dict[str, Any], foreign: dict[str, Any], honest: dict[str, Any] | None
) -> None:
    tools = propose_catalogue("desk", {"tools": [listed]}).catalogue
    assert is_asked(tools, listed["name"], foreign)
    if honest is not None:
        assert not is_asked(tools, listed["name"], honest), "the person named all of it"


@pytest.mark.parametrize("name", ["CC", "Cc", "cc ", "c_c", "ｃｃ", "c\u200bc", "сс", "TO", "tо", "Body"], ids=ascii)
def test_an_argument_name_that_resembles_a_listed_name_is_denied(name: str) -> None:
    schema = {"type": "object", "properties": {"to": STRING, "cc": {"type": "array"}, "body": STRING}}
    tools = propose_catalogue("desk", {"tools": [{"name": "send_mail", "inputSchema": schema}]}).catalogue
    honest = {"to": "bob@good.example", "body": "x"}
    assert not is_asked(tools, "send_mail", honest)
    denied = call(tools, "send_mail", {**honest, name: ["bob@good.example"]})
    assert (denied.allowed, denied.asks, denied.reasons[0].code) == (False, None, "bad_arguments")


@pytest.mark.parametrize(
    ("value", "asks"),
    [
        (100, False),
        ("100", False),
        ("100.00", False),
        (100.0, False),
        ("100.0", False),
        ("1,00", True),
        ("100,00", True),
        ("100.000", True),
        ("100,000", True),
        ("0100", True),
        ("100%", True),
        ("1e2", True),
        ("0x64", True),
        ("100_00", True),
        ("１００", True),
        ("100.", True),
        (True, True),
        ([100], False),
        ({"v": 100}, True),
    ],
)
def test_an_ambiguous_amount_needs_approval(value: Any, asks: bool) -> None:
    tools = catalogue({"name": "pay", "effect": "pay", "kinds": {"to": "account", "amount": "amount"}})
    assert is_asked(tools, "pay", {"to": IBAN, "amount": value}) is asks


@pytest.mark.parametrize(
    ("value", "asks"),
    [
        ("2026-05-15T10:00:00Z", False),
        ("May 15, 10:00 am", False),
        (LINK, True),
        (f"2026-05-15 {LINK}", True),
        ("next week", False),
    ],
)
def test_a_malformed_time_is_judged_as_text(value: str, asks: bool) -> None:
    kinds = {"who": "address", "start": "time"}
    tools = catalogue({"name": "invite", "effect": "share", "kinds": kinds})
    assert is_asked(tools, "invite", {"who": "bob@good.example", "start": value}) is asks


@pytest.mark.parametrize("name", ["page", "q", "id", "name", "input", "document"])
def test_a_foreign_link_in_an_open_world_read_needs_approval(name: str) -> None:
    schema = {"type": "object", "properties": {name: STRING}}
    listed = {"name": "fetch_page", "inputSchema": schema, "annotations": {"readOnlyHint": True}}
    tools = propose_catalogue("desk", {"tools": [listed]}).catalogue
    assert is_asked(tools, "fetch_page", {name: LINK})
    assert is_asked(tools, "fetch_page", {name: "evil.com"})
    assert not is_asked(tools, "fetch_page", {name: "minutes of May"})


@pytest.mark.parametrize(
    ("query", "asks"),
    [
        ("minutes " * 100, False),
        ("minutes " * 100_000 + LINK, True),
        (["minutes"] * 256, False),
        ([*["minutes"] * 256, LINK], True),
        ({}, False),
        ([], False),
    ],
    ids=["short", "long", "many", "many with a link", "empty object", "empty list"],
)
def test_an_open_world_read_too_large_to_search_needs_approval(query: Any, asks: bool) -> None:
    tools = catalogue({"name": "search", "effect": "read", "open_world": True, "kinds": {"query": "text"}})
    assert is_asked(tools, "search", {"query": query}) is asks


def test_a_nested_kind_that_meets_another_structure_is_judged() -> None:
    tools = catalogue({"name": "invite", "effect": "share", "kinds": {"guests.mail": "address"}})
    assert not is_asked(tools, "invite", {"guests": [{"mail": "bob@good.example"}]})
    for guests in (
        EVIL,
        [EVIL],
        json.dumps([{"mail": EVIL}]),
        {"0": {"mail": EVIL}},
        [{"Mail": EVIL}],
        [[{"mail": EVIL}]],
    ):
        assert is_asked(tools, "invite", {"guests": guests}), guests


def test_a_scalar_in_place_of_an_object_has_the_kind_of_its_member() -> None:
    tools = catalogue({"name": "invite", "effect": "share", "kinds": {"guests.mail": "address"}})
    beside = call(tools, "invite", {"guests": "Bob <bob@good.example>"}).call_context
    assert beside is not None
    assert beside["origin"] == {"guests.mail": "person"}, "as an address, and not as an object"


@pytest.mark.parametrize(("number", "asks"), [(999_999, False), (-999_999, False), (1_000_000, True), (-1e6, True)])
def test_a_long_number_is_judged_as_an_account(number: float, asks: bool) -> None:
    schema = {"type": "object", "properties": {"file": STRING, "pages": {"type": "number"}}}
    tools = catalogue({"name": "act", "effect": "change", "kinds": {"file": "object"}, "arguments": schema})
    assert is_asked(tools, "act", {"file": "report.txt", "pages": number}) is asks


def test_an_argument_with_the_kind_none_is_not_judged() -> None:
    tools = catalogue({"name": "act", "effect": "change", "kinds": {"file": "object", "options": "none"}})
    assert not is_asked(tools, "act", {"file": "report.txt", "options": {"color": ["red", 7]}})
    assert is_asked(tools, "act", {"file": "report.txt", "option": {"color": "red"}})


@pytest.mark.parametrize(("count", "asks"), [(254, False), (255, False), (256, True)])
def test_a_call_with_too_many_leaves_needs_approval(count: int, asks: bool) -> None:
    tools = catalogue({"name": "act", "effect": "change", "kinds": {"file": "object", "who": "address"}})
    assert is_asked(tools, "act", {"file": "report.txt", "who": ["bob@good.example"] * count}) is asks
