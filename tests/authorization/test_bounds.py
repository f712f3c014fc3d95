"""Bounds: the wire form, the meaning of each condition on both sides of its limit, and calls."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization import bounds
from ostiary.authorization.bounds import Condition, InvalidDetails, ToolDetail
from ostiary.authorization.bounds import details as limits
from ostiary.authorization.bounds.conditions import MAX_CHOICES, MAX_GLOB, MAX_TEXT
from ostiary.protocol import canonical
from ostiaryd.tokens.model.wording import word_details
from tests.support.sources import ROOT

URI = "https://files.example/mcp"
DETAIL: dict[str, Any] = {
    "type": "tool",
    "locations": [URI],
    "actions": ["read_file"],
    "arguments": {"path": {"prefix": "/srv/reports/", "max_length": 40}, "options.depth": {"max": 3}},
}


def with_condition(condition: object) -> list[object]:
    return [{"type": "tool", "locations": [URI], "arguments": {"x": condition}}]


def condition(**members: Any) -> Condition:
    (detail,) = bounds.parse_details(with_condition(members))
    return detail.arguments["x"]


# --- the wire form ---------------------------------------------------------------------------------------------------

GOOD: list[dict[str, Any]] = [
    DETAIL,
    {"type": "tool", "locations": [URI, "urn:mcp:other"]},
    {"type": "tool", "locations": [URI], "actions": ["a", "b"], "arguments": {"a.b.c": {"one_of": ["x", 1, True, -5]}}},
    {"type": "tool", "locations": [URI], "arguments": {"x": {"min": "-0.50", "max": "12345678901234567890.5"}}},
    {"type": "tool", "locations": [URI], "arguments": {"x": {"eq": False}, "y": {"eq": 0}, "z": {"eq": ""}}},
    {"type": "tool", "locations": [URI], "arguments": {"x": {"glob": "*.cs?", "max_length": 0}}},
    {"type": "tool", "locations": [URI], "datatypes": ["public", "p" * 63]},
    {"type": "tool", "locations": [URI], "actions": ["a"], "datatypes": ["public"] * 32},
]


@pytest.mark.parametrize("detail", GOOD)
def test_details_are_the_same_after_rendering_and_parsing(detail: dict[str, Any]) -> None:
    parsed = bounds.parse_details([detail])
    rendered = bounds.render_details(parsed)
    assert rendered == [detail]
    assert bounds.parse_details(canonical.parse(canonical.encode(rendered))) == parsed


def test_a_detail_constructed_in_code_is_rendered_with_its_type() -> None:
    assert bounds.render_details([ToolDetail(locations=(URI,))]) == [{"type": "tool", "locations": [URI]}]
    assert bounds.parse_details([]) == ()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "not a JSON array"),
        ({}, "not a JSON array"),
        (DETAIL, "not a JSON array"),
        ("tool", "not a JSON array"),
        (["tool"], "not of the type"),
        ([{}], "not of the type"),
        ([{"locations": [URI]}], "not of the type"),
        ([{**DETAIL, "type": "payment"}], "not of the type"),
        ([{**DETAIL, "type": ["tool"]}], "not of the type"),
        ([DETAIL, {**DETAIL, "type": "Tool"}], "not of the type"),
        ([{**DETAIL, "datatypes": []}], "`datatypes` must have 1 to 32"),
        ([{**DETAIL, "datatypes": ["public"] * 33}], "`datatypes` must have 1 to 32"),
        ([{**DETAIL, "datatypes": None}], "null"),
        ([{**DETAIL, "datatypes": "public"}], "datatypes"),
        ([{**DETAIL, "datatypes": [1]}], "datatypes"),
        ([{**DETAIL, "datatypes": [""]}], "'' is not spelled like a data class"),
        ([{**DETAIL, "datatypes": ["Public"]}], "'Public' is not spelled"),
        ([{**DETAIL, "datatypes": ["public "]}], "'public ' is not spelled"),
        ([{**DETAIL, "datatypes": ["public\n"]}], "is not spelled"),
        ([{**DETAIL, "datatypes": ["public", "he\u0430lth"]}], r"'he\\u0430lth' is not spelled"),
        ([{**DETAIL, "datatypes": ["p" * 64]}], "is not spelled"),
        ([{**DETAIL, "data_types": ["public"]}], "unknown field"),
        ([{**DETAIL, "action": ["read_file"]}], "unknown field"),
        ([{"type": "tool"}], "locations"),
        ([{**DETAIL, "locations": []}], "locations"),
        ([{**DETAIL, "locations": URI}], "locations"),
        ([{**DETAIL, "locations": [1]}], "locations"),
        ([{**DETAIL, "locations": [""]}], "not a URI"),
        ([{**DETAIL, "locations": ["files.example"]}], "not a URI"),
        ([{**DETAIL, "locations": [URI + " "]}], "not a URI"),
        ([{**DETAIL, "locations": [URI + "\n"]}], "not a URI"),
        ([{**DETAIL, "locations": [URI + "/é"]}], "not a URI"),
        ([{**DETAIL, "actions": []}], "actions"),
        ([{**DETAIL, "actions": None}], "null"),
        ([{**DETAIL, "actions": "read_file"}], "actions"),
        ([{**DETAIL, "actions": [""]}], "actions"),
        ([{**DETAIL, "arguments": []}], "arguments"),
        ([{**DETAIL, "arguments": None}], "null"),
        ([{**DETAIL, "arguments": {"path": None}}], "null"),
        ([{**DETAIL, "arguments": {"path": "/srv/"}}], "arguments"),
        ([{**DETAIL, "arguments": {"": {"eq": 1}}}], "`arguments`: .* is not 1 to"),
        ([{**DETAIL, "arguments": {"a..b": {"eq": 1}}}], "`arguments`: .* is not 1 to"),
        ([{**DETAIL, "arguments": {".a": {"eq": 1}}}], "`arguments`: .* is not 1 to"),
        ([{**DETAIL, "arguments": {"a.": {"eq": 1}}}], "`arguments`: .* is not 1 to"),
    ],
)
def test_invalid_details_are_refused_with_the_problem_in_the_message(value: object, why: str) -> None:
    with pytest.raises(InvalidDetails, match=why) as refusal:
        bounds.parse_details(value)
    assert refusal.value.code == "invalid_authorization_details"


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"action": ["read_file"]}, "the members are type, locations, actions, datatypes, arguments"),
        ({"arguments": {"path": {"equals": 1}}}, "the members are eq, one_of, prefix, glob, min, max, max_length"),
        ({"arguments": {"path": {"max": 1.5}}}, "send a number with a fraction as a string"),
        ({"locations": 1}, ""),
    ],
)
def test_the_hint_names_the_members_that_exist(changed: dict[str, object], hint: str) -> None:
    with pytest.raises(InvalidDetails) as refusal:
        bounds.parse_details([DETAIL | changed])
    assert refusal.value.hint == hint


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "empty"),
        ({"eq": None}, "null"),
        ({"eq": None, "max": 3}, "null"),
        ({"one_of": ["a", None]}, "null"),
        ({"equals": 1}, "unknown field"),
        ({"not": "x"}, "unknown field"),
        ({"eq": 1.5}, "float"),
        ({"eq": ["a"]}, "array"),
        ({"eq": {}}, "object"),
        ({"eq": 2**53}, "2\\^53"),
        ({"eq": "x" * (MAX_TEXT + 1)}, "characters"),
        ({"one_of": []}, "one_of"),
        ({"one_of": "ab"}, "array"),
        ({"one_of": ["x" * (MAX_TEXT + 1)]}, "characters"),
        ({"one_of": [-(2**53)]}, "2\\^53"),
        ({"one_of": list(range(MAX_CHOICES + 1))}, "one_of"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": 5}, "int"),
        ({"prefix": "x" * (MAX_TEXT + 1)}, "prefix"),
        ({"prefix": "/srv/../"}, "segment"),
        ({"prefix": ".."}, "segment"),
        ({"prefix": "/srv/%2E%2e/"}, "segment"),
        ({"prefix": "/srv/\0"}, "NUL"),
        ({"prefix": "/srv/..?x"}, "segment"),
        ({"prefix": "/srv/.\t./"}, "segment"),
        ({"prefix": "https://good.example"}, "host of a URL"),
        ({"prefix": "https://g"}, "host of a URL"),
        ({"prefix": "git+ssh://user@good.example:22"}, "host of a URL"),
        ({"glob": "https://*.good.example/*"}, "host of a URL"),
        ({"glob": "https://good.example*"}, "host of a URL"),
        ({"glob": "https://good.example?"}, "host of a URL"),
        ({"glob": "*://*.good.example/"}, "host of a URL"),
        ({"glob": "https://*/"}, "host of a URL"),
        ({"glob": ""}, "glob"),
        ({"glob": "x" * (MAX_GLOB + 1)}, "glob"),
        ({"glob": "/srv/../*"}, "segment"),
        ({"min": 1.5}, "float"),
        ({"min": True}, "bool"),
        ({"max": False}, "bool"),
        ({"min": 2**53}, "2\\^53"),
        *[
            ({"max": text}, "decimal number")
            for text in (
                "",
                "1e3",
                "+1",
                "01",
                "1.",
                ".5",
                " 1",
                "1 ",
                "NaN",
                "0x1",
                "Infinity",
                "٣",
                "1_0",
                "--1",
                "1,5",
                "-",
                "9" * 65,
            )
        ],
        ({"min": 2, "max": 1}, "more than"),
        ({"min": "1.01", "max": 1}, "more than"),
        ({"max_length": -1}, "max_length"),
        ({"max_length": "5"}, "str"),
        ({"max_length": True}, "bool"),
    ],
)
def test_an_invalid_condition_is_refused(members: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidDetails, match=why):
        bounds.parse_details(with_condition(members))


@pytest.mark.parametrize(
    "members",
    [
        {"eq": 2**53 - 1},
        {"eq": "x" * MAX_TEXT},
        {"one_of": list(range(MAX_CHOICES))},
        {"prefix": "x" * MAX_TEXT},
        {"prefix": "https://good.example/"},
        {"prefix": "https://"},
        {"prefix": "urn:isbn:"},
        {"glob": "https://good.example/*"},
        {"glob": "https://good.example"},
        {"prefix": "..."},
        {"prefix": "/srv/..a"},
        {"glob": "x" * MAX_GLOB},
        {"glob": "https://*"},
        {"min": 1, "max": 1},
        {"min": "9" * 64},
        {"max_length": 0},
    ],
)
def test_a_condition_at_the_limits_is_accepted(members: dict[str, Any]) -> None:
    assert bounds.render_details(bounds.parse_details(with_condition(members))) == with_condition(members)


def sized(**sizes: int) -> list[object]:
    detail: dict[str, object] = {"type": "tool", "locations": [f"{URI}/{n}" for n in range(sizes.get("locations", 1))]}
    detail["actions"] = [f"tool{n}" for n in range(sizes.get("actions", 1))]
    detail["arguments"] = {f"argument{n}": {"eq": n} for n in range(sizes.get("arguments", 1))}
    if "depth" in sizes:
        detail["arguments"] = {".".join("a" * sizes["depth"]): {"eq": 1}}
    if "name" in sizes:
        detail["arguments"] = {"a" * sizes["name"]: {"eq": 1}}
    if "action" in sizes:
        detail["actions"] = ["a" * sizes["action"]]
    if "location" in sizes:
        detail["locations"] = ["urn:" + "a" * (sizes["location"] - 4)]
    return [detail] * sizes.get("details", 1)


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("details", limits.MAX_DETAILS),
        ("locations", limits.MAX_LOCATIONS),
        ("actions", limits.MAX_ACTIONS),
        ("arguments", limits.MAX_ARGUMENTS),
        ("depth", limits.MAX_PATH),
        ("name", limits.MAX_NAME),
        ("action", limits.MAX_NAME),
        ("location", limits.MAX_LOCATION),
    ],
)
def test_details_beyond_each_maximum_size_are_refused(what: str, most: int) -> None:
    for size in (most - 1, most):
        assert bounds.parse_details(sized(**{what: size}))
    with pytest.raises(InvalidDetails) as refusal:
        bounds.parse_details(sized(**{what: most + 1}))
    assert str(most) in refusal.value.message


def test_a_value_nested_100000_levels_deep_is_refused() -> None:
    value: object = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidDetails):
        bounds.parse_details(with_condition({"eq": value}))


def test_a_refusal_does_not_repeat_a_long_text() -> None:
    with pytest.raises(InvalidDetails) as refusal:
        bounds.parse_details([{**DETAIL, "x" * 10_000: 1}])
    assert len(refusal.value.message) < 300


# --- conditions ------------------------------------------------------------------------------------------------------

MEANING: list[tuple[dict[str, Any], list[object], list[object]]] = [
    ({"eq": "a"}, ["a"], ["A", "a ", "", "á", 1, None, True, ["a"], {"a": 1}]),
    ({"eq": "é"}, ["é"], ["e\u0301", "e"]),
    ({"eq": 1}, [1, 1.0], [2, 1.5, True, "1", "1.0", None, [1]]),
    ({"eq": 0}, [0, 0.0, -0.0], [False, "", None, [], {}]),
    ({"eq": True}, [True], [1, 1.0, "true", "True", False]),
    ({"eq": False}, [False], [0, 0.0, "", None]),
    ({"one_of": ["a", 1, True]}, ["a", 1, 1.0, True], ["b", 2, "1", False, None, "true", ["a"]]),
    ({"one_of": [0]}, [0, 0.0], [False, None, "0", ""]),
    (
        {"prefix": "/srv/"},
        ["/srv/", "/srv/a", "/srv/a/b", "/srv//", "/srv/./a", "/srv/a..b", "/srv/...", "/srv/*"],
        ["/srv", "/Srv/a", " /srv/a", "srv/a", "", 5, None, ["/srv/"]],
    ),
    (
        {"prefix": "/srv/"},
        ["/srv/%20", "/srv/%2e", "/srv/%2e%2ea"],
        [
            "/srv/..",
            "/srv/../etc",
            "/srv/a/../../etc",
            "/srv/a/..",
            "/srv/..\\etc",
            "/srv/a\\..\\b",
            "/srv/%2e%2e/etc",
            "/srv/.%2E/etc",
            "/srv/%252e%252e/etc",
            "/srv/%25252e./etc",
            "/srv/..%2fetc",
            "/srv/%2e%2e%5cetc",
            "/srv/\0",
            "/srv/%00",
            "/srv/a%00.csv",
            "/srv/..?q",
            "/srv/..#f",
            "/srv/..;x/etc",
            "/srv/.\t./etc",
            "/srv/\n../etc",
            "/srv/%25%32%65%2e/etc",
            "/srv/%" + "25" * 7 + "41",
        ],
    ),
    (
        {"prefix": "/srv/"},
        ["/srv/100%", "/srv/%zz", "/srv/%2541", "/srv/%" + "25" * 6 + "41", "/srv/a..;b", "/srv/%25" * 99],
        [],
    ),
    (
        {"glob": "/srv/*.csv"},
        ["/srv/.csv", "/srv/a.csv", "/srv/a/b.csv", "/srv/a.csv.csv", "/srv/\n.csv"],
        ["/srv/a.csv2", "a/srv/a.csv", "/srv/a.CSV", "/srv/../a.csv", "/srv/a\0.csv", "/srv/csv", 5, None],
    ),
    ({"glob": "a?c"}, ["abc", "a?c", "a*c", "a\nc", "a\U0001f600c"], ["ac", "abbc", "abcd", "ABC"]),
    ({"glob": "*"}, ["", "x", "a/b"], ["..", "../x", 5, None, True]),
    ({"glob": "a.[b]*"}, ["a.[b]", "a.[b]c"], ["axb", "a.b"]),
    ({"prefix": "/srv/", "glob": "*.csv"}, ["/srv/a.csv"], ["/srv/a.txt", "/etc/a.csv"]),
    (
        {"min": 1},
        [1, 2, 1.0, 1.5, "1", "1.0", "2", 10**30, 1e300, "9" * 64],
        [0, 0.99, "0.99", -1, True, None, "", "a", [2], "9" * 65],
    ),
    ({"max": 3}, [3, 3.0, 2.999, "3", "3.00", -(10**30), "-5"], [4, 3.0000001, "3.01", "3e0", True, False, None]),
    ({"min": "0.1", "max": "0.3"}, [0.1, 0.3, "0.1", "0.30", 0.2], [0.30000000000000004, 0.09999, "0.31", 0, 1]),
    ({"max": "9007199254740993"}, [9007199254740993, "9007199254740993"], [9007199254740994, "9007199254740993.1"]),
    ({"max": 3}, [], [float("nan"), float("inf"), "NaN", "Infinity", "٣", "1_0", " 1", "1\n", "+1", "0x1", "01", ".5"]),
    ({"min": 3}, [], [float("inf"), "Infinity", "inf", "³"]),
    ({"max_length": 3}, ["", "abc", "a\u0301b", "\U0001f600" * 3], ["abcd", 5, None, True, ["a"], {}]),
    ({"max_length": 0}, [""], ["a", 0, None]),
    ({"eq": "abcd", "max_length": 3}, [], ["abcd", "abc"]),
]


@pytest.mark.parametrize(("members", "holds", "fails"), MEANING)
def test_a_condition_accepts_and_refuses_the_values_of_the_table(
    members: dict[str, Any], holds: list[object], fails: list[object]
) -> None:
    tested = condition(**members)
    assert [value for value in holds if not tested.holds(value)] == []
    assert [value for value in fails if tested.holds(value)] == []


@given(st.text(alphabet="ab*?.\n", max_size=6), st.text(alphabet="ab.\n", max_size=8))
def test_a_glob_matches_as_its_definition_requires(glob: str, text: str) -> None:
    def matches(pattern: str, rest: str) -> bool:
        if not pattern:
            return not rest
        if pattern[0] == "*":
            return matches(pattern[1:], rest) or (rest != "" and matches(pattern, rest[1:]))
        return rest != "" and pattern[0] in ("?", rest[0]) and matches(pattern[1:], rest[1:])

    if glob and not bounds.conditions.climbs(glob):
        assert condition(glob=glob).holds(text) == (matches(glob, text) and text != "..")


def test_globs_with_100_wildcards_do_not_match_long_texts_without_the_suffix() -> None:
    assert not condition(glob="a*" * 100 + "b").holds("a" * 100_000)
    assert not condition(glob="*a?" * 80 + "b").holds("a" * 20_000)


# --- calls -----------------------------------------------------------------------------------------------------------


def permitted(arguments: dict[str, object], tool: str = "read_file", uri: str = URI, details: Any = None) -> bool:
    parsed = bounds.parse_details([DETAIL] if details is None else details)
    answer = bounds.permits(parsed, resource_uri=uri, tool=tool, arguments=arguments)
    assert answer == (bounds.explain(parsed, resource_uri=uri, tool=tool, arguments=arguments) == "")
    return answer


FITTING: dict[str, object] = {"path": "/srv/reports/a.csv", "options": {"depth": 3}, "more": None}


def test_a_call_within_all_conditions_is_permitted() -> None:
    assert permitted(FITTING)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ({"uri": URI + "/"}, "does not reach the resource"),
        ({"uri": URI.upper()}, "does not reach the resource"),
        ({"tool": "write_file"}, "does not allow the tool `write_file`"),
        ({"tool": "Read_file"}, "does not allow the tool"),
        ({"tool": ""}, "does not allow the tool"),
        ({"arguments": {}}, "`path` is missing"),
        ({"arguments": {"path": "/srv/reports/a"}}, "`options.depth` is missing"),
        ({"arguments": {**FITTING, "path": "/etc/passwd"}}, "`path` must begin with '/srv/reports/'"),
        ({"arguments": {**FITTING, "path": "/srv/reports/" + "x" * 28}}, "at most 40 characters"),
        ({"arguments": {**FITTING, "options": {"depth": 4}}}, "`options.depth` must be at most 3"),
        ({"arguments": {**FITTING, "options": {"depth": "x"}}}, "must be a decimal number"),
        ({"arguments": {**FITTING, "options": None}}, "`options.depth` is missing"),
        ({"arguments": {**FITTING, "options": [{"depth": 1}]}}, "`options.depth` is missing"),
        ({"arguments": {**FITTING, "options": "depth"}}, "`options.depth` is missing"),
        ({"arguments": {"path": "/srv/reports/a", "options.depth": 1}}, "`options.depth` is missing"),
    ],
)
def test_a_call_outside_the_bounds_is_not_permitted_and_the_reason_is_explained(call: dict[str, Any], why: str) -> None:
    call = {"arguments": FITTING, **call}
    assert not permitted(**call)
    explained = bounds.explain(
        bounds.parse_details([DETAIL]),
        resource_uri=call.get("uri", URI),
        tool=call.get("tool", "read_file"),
        arguments=call["arguments"],
    )
    assert why in explained
    assert "passwd" not in explained


def test_a_detail_without_actions_and_arguments_permits_all_tools_and_arguments() -> None:
    assert permitted({"any": [1]}, tool="anything", details=[{"type": "tool", "locations": [URI]}])
    assert not permitted({}, details=[])


def test_a_call_needs_one_detail_that_permits_it_with_all_its_conditions() -> None:
    details = [
        {"type": "tool", "locations": [URI], "arguments": {"a": {"eq": 1}, "b": {"eq": 1}}},
        {"type": "tool", "locations": [URI], "arguments": {"a": {"eq": 2}, "b": {"eq": 2}}},
    ]
    assert permitted({"a": 1, "b": 1}, details=details)
    assert permitted({"a": 2, "b": 2}, details=details)
    assert not permitted({"a": 1, "b": 2}, details=details)
    explained = bounds.explain(bounds.parse_details(details), resource_uri=URI, tool="t", arguments={"a": 1, "b": 2})
    assert explained == "the argument `b` must be 1; or the argument `a` must be 2"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "locations", "actions", "arguments", "eq", "min", "glob", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_parsing_anything_raises_nothing_but_invalid_details(value: object) -> None:
    for candidate in (
        value,
        [value],
        with_condition(value),
        [{"type": "tool", "locations": [URI], "arguments": value}],
    ):
        try:
            parsed = bounds.parse_details(candidate)
        except InvalidDetails:
            continue
        assert bounds.parse_details(json.loads(json.dumps(bounds.render_details(parsed)))) == parsed


@given(json_values)
def test_a_condition_returns_true_or_false_for_any_value(value: object) -> None:
    for members, _, _ in MEANING:
        assert isinstance(condition(**members).holds(value), bool)


MEMBERS: dict[str, object] = {
    "eq": "a",
    "one_of": ("a", "b"),
    "prefix": "a/",
    "glob": "a*",
    "min": 1,
    "max": 2,
    "max_length": 3,
}


def test_each_member_of_a_condition_is_checked_narrows_and_is_displayed() -> None:
    page = (ROOT / "console/src/pages/tasks.tsx").read_text("utf-8")
    said = page[page.index("function sayCondition") :]
    assert set(MEMBERS) == set(Condition.__struct_fields__)
    for name, value in MEMBERS.items():
        one = condition(**{name: value})
        assert not one.holds(None), name
        assert not condition(max_length=1000).is_within(one), name
        [line] = word_details([ToolDetail(locations=(URI,), arguments={"path": one})])
        assert line.parts != ("path ",), name
        assert re.search(rf"\b{name} (&&|!== undefined &&)", said), name
