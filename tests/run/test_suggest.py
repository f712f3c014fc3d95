"""Suggestions of the least privilege from recorded calls: each condition holds for all recorded values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.bounds import parse_details, permits, render_details
from ostiary.authorization.bounds.details import MAX_ARGUMENTS, MAX_DETAILS
from ostiary.authorization.catalogue import Catalogue
from ostiary.catalogue_advisor.suggest import RecordedCall, Suggestion, infer, policy_files, recorded_call, suggest
from ostiary.catalogue_advisor.suggest.conditions import MAX_ONE_OF
from ostiary.guard.argument_summary import summarize_arguments
from ostiary.protocol.errors import Invalid

URI = "http://localhost/stdio/bot/files"


def condition(*values: Any) -> dict[str, Any] | None:
    found, why = infer(values)
    assert why
    members = {} if found is None else {name: getattr(found, name) for name in found.__struct_fields__}
    return {name: value for name, value in members.items() if value is not None} or None


HIDDEN = {"type": "string", "length": 300}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a"], {"eq": "a"}),
        (["a", "a"], {"eq": "a"}),
        ([""], {"eq": ""}),
        ([5, 5], {"eq": 5}),
        ([5, 5.0], {"eq": 5}),
        ([True], {"eq": True}),
        ([True, False], None),
        ([1, 20, 3], {"min": 1, "max": 20}),
        ([0.5], {"min": "0.5", "max": "0.5"}),
        ([-1, 1e-7], {"min": -1, "max": "0.0000001"}),
        (["b", "a"], {"one_of": ("a", "b")}),
        ([f"t{n}" for n in range(MAX_ONE_OF)], {"one_of": tuple(f"t{n}" for n in range(MAX_ONE_OF))}),
        ([f"t{n}" for n in range(MAX_ONE_OF + 1)], {"max_length": 2}),
        (["/srv/a.txt", "/srv/b.txt"], {"prefix": "/srv/"}),
        (["/srv/a.txt", "/srv/b.txt", "/srv/c/d.txt"], {"glob": "/srv/*.txt"}),
        (["/srv/a.txt", "/srv/b.md", "/srv/c"], {"prefix": "/srv/"}),
        (["reports/a", "reports/b"], {"prefix": "reports/"}),
        (["/a", "/b"], {"one_of": ("/a", "/b")}),
        (["/srv/a", "/srv/a/b"], {"prefix": "/srv/"}),
        (["/srv/x/../a", "/srv/x/b"], {"one_of": ("/srv/x/../a", "/srv/x/b")}),
        (["/s*/a.txt", "/s*/b.txt", "/s*/c.txt"], {"prefix": "/s*/"}),
        (["https://a.example/x", "https://a.example/y"], {"prefix": "https://a.example/"}),
        (["https://a.example/x", "https://b.example/x"], {"one_of": ("https://a.example/x", "https://b.example/x")}),
        (["https://a.example", "https://a.example.evil"], {"one_of": ("https://a.example", "https://a.example.evil")}),
        (["a", HIDDEN], {"max_length": 300}),
        ([HIDDEN, {"type": "string", "length": 40, "secret": True}], {"max_length": 300}),
        (["a", 1], None),
        ([None], None),
        ([{"type": "array", "length": 2}], None),
        ([{"type": "object", "length": 0}], None),
        ([{"type": "number"}, 1], None),
    ],
    ids=str,
)
def test_a_suggested_condition_is_the_narrowest_that_all_values_fulfil(
    values: list[Any], expected: dict[str, Any] | None
) -> None:
    assert condition(*values) == expected == condition(*reversed(values))


texts = st.lists(st.text(alphabet="ab/.*?:-é \u0000", max_size=12), min_size=1, max_size=12)
numbers = st.lists(st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15), min_size=1, max_size=6)


@given(texts | numbers | st.lists(st.booleans(), min_size=1))
def test_every_recorded_value_fulfils_the_suggested_condition(values: list[Any]) -> None:
    found, _ = infer(values)
    assert found is None or all(found.holds(value) for value in values)


def catalogue(*names: str, resource: str = "bot.files", **effects: str) -> Catalogue:
    tools = [{"name": name, "effect": effects.get(name, "read")} for name in names]
    return Catalogue.parse(str({"resource": resource, "tools": tools}).replace("'", '"'))


KNOWN = {URI: catalogue("read_file", "write_file", "delete_file", write_file="write", delete_file="destroy")}


def called(index: int, tool: str, *codes: str, uri: str = URI, **arguments: Any) -> RecordedCall:
    return RecordedCall(index=index, uri=uri, tool=tool, arguments=summarize_arguments(arguments, {}), codes=codes)


def lines(found: Suggestion, what: str) -> list[tuple[str, str, int, int]]:
    return [(line.subject, line.says, line.calls, line.example) for line in found.lines if line.kind == what]


CALLS = [
    called(7, "read_file", "outside_task", path="/srv/b", lines=3),
    called(3, "read_file", "outside_task", path="/srv/a"),
    called(9, "write_file", path="/srv/a", text="x" * 400),
]


def test_a_suggestion_has_the_scopes_and_the_bounds_of_the_calls_with_examples() -> None:
    found = suggest(CALLS, KNOWN)
    assert found.scopes == ("bot.files:read", "bot.files:write")
    assert render_details(found.bounds) == [
        {"type": "tool", "locations": [URI], "actions": ["read_file"], "arguments": {"path": {"prefix": "/srv/"}}},
        {
            "type": "tool",
            "locations": [URI],
            "actions": ["write_file"],
            "arguments": {"path": {"eq": "/srv/a"}, "text": {"max_length": 400}},
        },
    ]
    assert lines(found, "scope") == [
        ("bot.files:read", "is what these tools need", 2, 3),
        ("bot.files:write", "is what these tools need", 1, 9),
    ]
    assert [subject for subject, *_ in lines(found, "left out")] == ["bot.files/read_file lines"]
    assert suggest(reversed(CALLS), KNOWN) == found
    assert parse_details(render_details(found.bounds)) == found.bounds


ARGUMENTS = st.dictionaries(
    st.sampled_from(["path", "text", "n", "deep"]),
    st.text(max_size=8)
    | st.integers(0, 9)
    | st.booleans()
    | st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 3), max_size=2),
    max_size=3,
)


@given(st.lists(st.tuples(st.sampled_from(["read_file", "write_file"]), ARGUMENTS), min_size=1, max_size=8))
def test_every_recorded_call_is_permitted_by_the_suggested_bounds(calls: list[tuple[str, dict[str, Any]]]) -> None:
    found = suggest([called(n, tool, **arguments) for n, (tool, arguments) in enumerate(calls)], KNOWN)
    for tool, arguments in calls:
        assert permits(found.bounds, resource_uri=URI, tool=tool, arguments=arguments)
    assert not permits(found.bounds, resource_uri=URI, tool="delete_file", arguments={})


def test_calls_that_no_scope_allows_and_unknown_tools_are_left_out_with_the_reason() -> None:
    found = suggest(
        [
            called(1, "read_file", "bad_arguments", path=1),
            called(2, "rm"),
            called(3, "read_file", uri="https://elsewhere.example"),
            called(4, "delete_file", "forbidden_by_policy"),
        ],
        KNOWN,
    )
    assert (found.scopes, found.bounds, found.tools) == ((), (), ())
    assert {subject: says for subject, says, *_ in lines(found, "left out")} == {
        "bot.files/read_file": "would be denied whatever its scopes: bad_arguments",
        "bot.files/rm": "is not in the catalogue of its server",
        "https://elsewhere.example/read_file": "is not in the catalogue of its server",
        "bot.files/delete_file": "would be denied whatever its scopes: forbidden_by_policy",
    }


def test_a_suggestion_marks_a_destructive_tool_for_review() -> None:
    assert lines(suggest([called(1, "delete_file")], KNOWN), "tool")[0][1] == "does: destroy (destructive: review)"


@pytest.mark.parametrize("count", [MAX_DETAILS - 1, MAX_DETAILS, MAX_DETAILS + 1])
def test_tools_beyond_the_maximum_number_of_bounds_are_bounded_by_name(count: int) -> None:
    known = {URI: catalogue(*[f"t{n:02}" for n in range(count)])}
    calls = [called(n, f"t{n:02}", path="a") for n in range(count)] + [called(100, "t00", path="a")]
    found = suggest(calls, known)
    assert len(found.bounds) == min(count, MAX_DETAILS)
    assert sum(not detail.arguments for detail in found.bounds) == (count > MAX_DETAILS)
    assert ("t00",) not in [detail.actions for detail in found.bounds if not detail.arguments], "the one called most"
    assert all(permits(found.bounds, resource_uri=URI, tool=call.tool, arguments={"path": "a"}) for call in calls)
    many = {f"http://localhost/{n}": catalogue("a", resource=f"r{n}") for n in range(MAX_DETAILS + 1)}
    with pytest.raises(Invalid, match="more than 32 resources"):
        suggest([called(n, "a", uri=uri) for n, uri in enumerate(many)], many)


@pytest.mark.parametrize(("count", "left"), [(MAX_ARGUMENTS - 1, 0), (MAX_ARGUMENTS, 0), (MAX_ARGUMENTS + 1, 1)])
def test_a_bound_has_at_most_the_maximum_number_of_conditions(count: int, left: int) -> None:
    found = suggest([called(1, "read_file", **{f"a{n:02}": "x" for n in range(count)})], KNOWN)
    assert len(found.bounds[0].arguments) == count - left
    assert len(lines(found, "left out")) == left


def test_a_call_without_recorded_arguments_leads_to_no_condition() -> None:
    found = suggest([RecordedCall(index=1, uri=URI, tool="read_file", arguments=None)], KNOWN)
    assert [(detail.actions, detail.arguments) for detail in found.bounds] == [(("read_file",), {})]


@pytest.mark.parametrize(
    ("entry", "tool"),
    [
        ({"action": "tool.call", "outcome": "allow"}, "a/b"),
        ({"action": "tool.undecided", "outcome": "allow"}, "a/b"),
        ({"action": "tool.call", "outcome": "deny"}, None),
        ({"action": "token.issue", "outcome": "allow"}, None),
    ],
)
def test_only_allowed_calls_are_used_for_suggestions(entry: dict[str, Any], tool: str | None) -> None:
    found = recorded_call({"index": 1, "resource": URI, "tool": "bot.files/a/b", **entry})
    assert (found and found.tool) == tool


def test_the_suggested_policy_lists_the_recorded_calls_and_its_tests_deny_another_call() -> None:
    found = suggest(CALLS, KNOWN)
    agent = "ag_00000000000000000000000000000001"
    files = policy_files(found, KNOWN, agent_id=agent, name="bot", segments={agent: "back", URI: "front"})
    assert files.keys() == {"suggested-bot.cedar", "suggested-bot.test.toml"}
    policy, cases = files["suggested-bot.cedar"], files["suggested-bot.test.toml"]
    assert 'Tool::"bot.files/read_file",  // 2 calls, for example entry 3' in policy
    assert 'Tool::"bot.files/write_file"  // 1 call, for example entry 9' in policy
    assert "delete_file" not in policy
    assert [line for line in cases.splitlines() if line.startswith("expect")] == [
        'expect = "allow"',
        'expect = "allow"',
        'expect = "deny"',
    ]
    assert 'segment = "back"' in cases
    assert 'segment = "front"' in cases
