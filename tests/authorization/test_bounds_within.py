"""Narrowing: `is_within` and `narrow` refuse wider bounds, and accept narrower bounds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ostiary.authorization import bounds
from ostiary.authorization.bounds import Condition, InvalidDetails, ToolDetail
from ostiary.authorization.bounds.glob import glob_pattern, includes, longest, matches, prefix_pattern

URI = "https://files.example/mcp"
MANY = settings(max_examples=600)

# (inner, outer, whether inner lies within outer); where it does not though it would, the comment says so
PAIRS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"eq": "a"}, {"eq": "a"}, True),
    ({"eq": "a"}, {"eq": "b"}, False),
    ({"eq": 1}, {"eq": True}, False),
    ({"eq": 1}, {"eq": "1"}, False),
    ({"eq": "a"}, {"one_of": ["a", "b"]}, True),
    ({"eq": "c"}, {"one_of": ["a", "b"]}, False),
    ({"one_of": ["a", "b"]}, {"one_of": ["b", "c", "a"]}, True),
    ({"one_of": ["a", "d"]}, {"one_of": ["b", "c", "a"]}, False),
    ({"one_of": ["a", "a"]}, {"eq": "a"}, True),
    ({"one_of": ["a", "b"]}, {"eq": "a"}, False),
    ({"one_of": [True]}, {"one_of": [1]}, False),
    ({"eq": "/srv/a"}, {"prefix": "/srv/"}, True),
    ({"eq": "/etc/a"}, {"prefix": "/srv/"}, False),
    ({"eq": "/srv/../a"}, {"prefix": "/srv/"}, False),
    ({"eq": "/srv/a.csv"}, {"glob": "/srv/*.csv"}, True),
    ({"eq": "/srv/*.csv"}, {"glob": "/srv/?.csv"}, True),
    ({"eq": 5}, {"min": 1, "max": 5}, True),
    ({"eq": "5"}, {"min": 1, "max": 5}, True),
    ({"eq": 6}, {"min": 1, "max": 5}, False),
    ({"eq": True}, {"min": 0}, False),
    ({"eq": "abc"}, {"max_length": 3}, True),
    ({"eq": "abcd"}, {"max_length": 3}, False),
    ({"one_of": ["abc", "abcd"], "max_length": 3}, {"max_length": 3}, True),
    ({"one_of": ["abc", "x"], "prefix": "a"}, {"eq": "abc"}, True),
    ({"eq": "b", "prefix": "a"}, {"eq": "c"}, True),  # nothing lies within everything
    ({"prefix": "/srv/a/"}, {"prefix": "/srv/"}, True),
    ({"prefix": "/srv/"}, {"prefix": "/srv/"}, True),
    ({"prefix": "/srv/"}, {"prefix": "/srv/a/"}, False),
    ({"prefix": "/srvx"}, {"prefix": "/srv/"}, False),
    ({"prefix": "/srv/"}, {"eq": "/srv/"}, False),
    ({"prefix": "/srv/"}, {"glob": "/srv/*"}, True),
    ({"prefix": "/srv/"}, {"glob": "*"}, True),
    ({"prefix": "/srv/a"}, {"glob": "/srv/?*"}, True),
    ({"prefix": "/srv/"}, {"glob": "/srv/?*"}, False),
    ({"prefix": "a*b"}, {"glob": "a?b*"}, True),
    ({"prefix": "axb"}, {"prefix": "a*b"}, False),
    ({"glob": "axb*"}, {"prefix": "a*b"}, False),
    ({"glob": "/srv/*.csv"}, {"prefix": "/srv/"}, True),
    ({"glob": "/srv?*"}, {"prefix": "/srv/"}, False),
    ({"glob": "/srv/*.csv"}, {"glob": "/srv/*"}, True),
    ({"glob": "/srv/*"}, {"glob": "/srv/*.csv"}, False),
    ({"glob": "*a*b*"}, {"glob": "*a*"}, True),
    ({"glob": "*a*b*"}, {"glob": "*b*a*"}, False),
    ({"glob": "*?"}, {"glob": "?*"}, True),
    ({"glob": "a*?b"}, {"glob": "a?*b"}, True),
    ({"glob": "a??b"}, {"glob": "a?*b"}, True),
    ({"glob": "a?*b"}, {"glob": "a??b"}, False),
    ({"glob": "abc"}, {"eq": "abc"}, False),  # it would: write it with `eq`
    ({"prefix": "/srv/", "glob": "*.csv"}, {"prefix": "/srv/"}, True),
    ({"prefix": "/srv/", "glob": "*.csv"}, {"glob": "*.csv", "prefix": "/"}, True),
    ({"prefix": "/srv/", "glob": "*.csv"}, {"glob": "/srv/*.csv"}, False),  # it would: only both together prove it
    ({"prefix": "/srv/"}, {"prefix": "/srv/", "glob": "*.csv"}, False),
    ({"glob": "*"}, {"max_length": 5}, False),
    ({"glob": "?????"}, {"max_length": 5}, True),
    ({"glob": "??????"}, {"max_length": 5}, False),
    ({"max_length": 5}, {"glob": "*"}, False),  # a glob also refuses to climb
    ({"max_length": 5}, {"max_length": 5}, True),
    ({"max_length": 6}, {"max_length": 5}, False),
    ({"prefix": "a", "max_length": 5}, {"max_length": 5}, True),
    ({"prefix": "a"}, {"max_length": 5}, False),
    ({"min": 2, "max": 3}, {"min": 1, "max": 4}, True),
    ({"min": 1, "max": 4}, {"min": 1, "max": 4}, True),
    ({"min": "1.00"}, {"min": 1}, True),
    ({"min": "0.99"}, {"min": 1}, False),
    ({"max": 4}, {"min": 1, "max": 4}, False),
    ({"min": 1}, {"max": 4}, False),
    ({"min": 1}, {"max_length": 40}, False),
    ({"max_length": 3}, {"min": 1}, False),
    ({"min": 1, "max": 1}, {"eq": 1}, False),  # "1.0" is between 1 and 1
    ({"max": "9007199254740992.1"}, {"max": "9007199254740992"}, False),
]


@pytest.mark.parametrize(("inner", "outer", "within"), PAIRS)
def test_a_condition_is_within_another_exactly_as_listed_in_the_table(
    inner: dict[str, Any], outer: dict[str, Any], within: bool
) -> None:
    (inner_detail,), (outer_detail,) = (bounds.parse_details([detail(arguments={"x": c})]) for c in (inner, outer))
    assert inner_detail.arguments["x"].is_within(outer_detail.arguments["x"]) is within
    assert bounds.is_within((inner_detail,), (outer_detail,)) is within


# --- globs, exhaustively ---------------------------------------------------------------------------------------------

GLOBS = ["".join(signs) for length in range(5) for signs in itertools.product("ab*?", repeat=length)]
TEXTS = ["".join(letters) for length in range(8) for letters in itertools.product("abz", repeat=length)]


def test_inclusion_of_short_globs_is_exact() -> None:
    """Texts of up to 7 letters from 3 distinguish all globs of up to 4 characters from `a`, `b`, `*` and `?`."""
    distinct = {glob_pattern(glob): glob for glob in GLOBS}  # `*?`, `?*` and `*?*` are one
    language = {
        pattern: sum(1 << number for number, text in enumerate(TEXTS) if matches(glob, text))
        for pattern, glob in distinct.items()
    }
    for outer, inner in itertools.product(distinct, repeat=2):
        assert includes(outer, inner) == (not language[inner] & ~language[outer]), (distinct[inner], distinct[outer])


def test_the_maximum_length_of_a_pattern_is_that_of_its_longest_match() -> None:
    for glob in GLOBS:
        lengths = {len(text) for text in TEXTS if matches(glob, text)}
        assert (longest(glob_pattern(glob)) or 7) == (max(lengths) or 7)
    assert longest(prefix_pattern("ab")) is None
    assert longest(glob_pattern("")) == 0


def test_inclusion_of_globs_with_many_wildcards_returns_true_or_false() -> None:
    hostile = [
        glob_pattern("*a" + "?" * 200),
        glob_pattern("*a" * 100),
        glob_pattern("a?" * 100),
        prefix_pattern("a" * 1000),
    ]
    for outer, inner in itertools.product(hostile, repeat=2):
        assert includes(outer, inner) is (outer == inner)


# --- any conditions --------------------------------------------------------------------------------------------------

words = st.text(alphabet="ab/.", min_size=0, max_size=4)
scalars = words | st.integers(-3, 3) | st.booleans() | st.sampled_from(["1", "2.0", "-1"])
numbers = st.integers(-3, 3) | st.sampled_from(["0.5", "1", "2.00", "-0"])
members: dict[str, st.SearchStrategy[Any]] = {
    "eq": scalars,
    "one_of": st.lists(scalars, min_size=1, max_size=3).map(tuple),
    "prefix": words,
    "glob": st.text(alphabet="ab/.*?", max_size=5),
    "min": numbers,
    "max": numbers,
    "max_length": st.integers(0, 4),
}
values = (
    scalars
    | st.text(alphabet="ab/.%2e\0*?", max_size=6)
    | st.floats(-4, 4).map(lambda number: round(number, 1))
    | st.none()
    | st.lists(words, max_size=2)
)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    names = draw(st.lists(st.sampled_from(sorted(members)), min_size=1, max_size=3, unique=True))
    try:
        return Condition(**{name: draw(members[name]) for name in names})
    except InvalidDetails:
        assume(False)
        raise


def probes(condition: Condition) -> list[object]:
    """Values at the limits of the condition, where a wrong inclusion shows first."""
    limits = [condition.prefix, f"{condition.prefix}a", condition.min, condition.max, condition.glob]
    return [*(condition.choices() or ()), *limits, "a", "", 1]


def permitted(condition: Condition, tried: list[object]) -> list[object]:
    return [value for value in tried if condition.holds(value)]


@st.composite
def narrowed(draw: st.DrawFn, outer: Condition) -> Condition:
    """A condition within `outer`: each of its members as it is or narrower, and perhaps more members."""
    kept = {name: value for name in members if (value := getattr(outer, name)) is not None}
    narrower: dict[str, st.SearchStrategy[Any]] = {
        "one_of": st.lists(st.sampled_from(kept.get("one_of") or (0,)), min_size=1).map(tuple),
        "prefix": words.map(lambda more: f"{kept.get('prefix')}{more}"),
        "max_length": st.integers(0, kept.get("max_length", 0)),
    }
    inner = {name: draw(st.just(value) | narrower.get(name, st.just(value))) for name, value in kept.items()}
    inner = {name: draw(strategy) for name, strategy in members.items() if draw(st.integers(0, 3)) == 0} | inner
    try:
        return Condition(**inner)
    except InvalidDetails:  # contradictory members
        assume(False)
        raise


@settings(max_examples=150)
@given(st.data(), conditions(), st.lists(values, max_size=20))
def test_a_condition_permits_every_value_that_a_narrower_condition_permits(
    data: st.DataObject, outer: Condition, tried: list[object]
) -> None:
    inner = data.draw(narrowed(outer))
    assert inner.is_within(outer)
    tried += probes(inner)
    assert permitted(outer, permitted(inner, tried)) == permitted(inner, tried)


def test_inner_conditions_of_the_table_permit_no_value_that_the_outer_ones_forbid() -> None:
    pairs = [(Condition(**inner), Condition(**outer)) for inner, outer, is_within in PAIRS if is_within]
    assert len(pairs) > 20
    for inner, outer in pairs:
        tried = [*probes(inner), *probes(outer), *map(str, probes(inner))]
        assert permitted(outer, permitted(inner, tried)) == permitted(inner, tried)


@MANY
@given(conditions(), conditions())
def test_a_condition_is_within_itself_and_remains_within_with_more_members(
    condition: Condition, more: Condition
) -> None:
    assert condition.is_within(condition)
    both = {name: getattr(more, name) for name in members if getattr(more, name) is not None}
    both |= {name: getattr(condition, name) for name in members if getattr(condition, name) is not None}
    try:
        joined = Condition(**both)
    except InvalidDetails:  # its `min` is above its `max`
        return
    assert joined.is_within(condition)


@settings(max_examples=100)
@given(st.data(), conditions())
def test_a_condition_narrowed_twice_permits_no_more_than_the_first(data: st.DataObject, outer: Condition) -> None:
    middle = data.draw(narrowed(outer))
    inner = data.draw(narrowed(middle))
    assert inner.is_within(middle)
    assert middle.is_within(outer)
    tried = [*probes(inner), *probes(middle), *probes(outer)]
    assert permitted(outer, permitted(inner, tried)) == permitted(inner, tried)


# --- details ---------------------------------------------------------------------------------------------------------


def detail(**members: Any) -> dict[str, Any]:
    return {"type": "tool", "locations": [URI], **members}


OTHER = "https://mail.example/mcp"
A, B, AB = ({"actions": ["a"]}, {"actions": ["b"]}, {"actions": ["a", "b"]})
ONE, TWO = ({"arguments": {"x": {"eq": 1}}}, {"arguments": {"x": {"eq": 2}}})

DETAILS: list[tuple[list[dict[str, Any]], list[dict[str, Any]], bool]] = [
    ([], [], True),
    ([], [detail()], True),
    ([detail()], [], False),
    ([detail()], [detail()], True),
    ([detail(**A)], [detail()], True),
    ([detail()], [detail(**A)], False),
    ([detail(**A)], [detail(**AB)], True),
    ([detail(**AB)], [detail(**A)], False),
    ([detail(**AB)], [detail(**A), detail(**B)], True),
    ([detail(locations=[URI, OTHER])], [detail()], False),
    ([detail()], [detail(locations=[URI, OTHER])], True),
    ([detail(locations=[URI, OTHER])], [detail(), detail(locations=[OTHER])], True),
    ([detail(locations=[URI, OTHER], **AB)], [detail(**AB), detail(locations=[OTHER], **A)], False),
    ([detail(locations=["https://files.example/mcp/"])], [detail()], False),
    ([detail(**ONE)], [detail()], True),
    ([detail()], [detail(**ONE)], False),
    ([detail(**ONE)], [detail(**TWO)], False),
    ([detail(**ONE)], [detail(**TWO), detail(**ONE)], True),
    ([detail(**ONE), detail(**TWO)], [detail(arguments={"x": {"one_of": [1, 2]}})], True),
    ([detail(arguments={"x": {"one_of": [1, 2]}})], [detail(**ONE), detail(**TWO)], False),  # it would: see is_within
    ([detail(arguments={"x": {"eq": 1}, "y": {"eq": 1}})], [detail(**ONE)], True),
    ([detail(**ONE)], [detail(arguments={"x": {"eq": 1}, "y": {"eq": 1}})], False),
    ([detail(datatypes=["health"])], [detail()], True),
    ([detail()], [detail(datatypes=["health"])], False),
    ([detail(datatypes=["health"])], [detail(datatypes=["public", "health"])], True),
    ([detail(datatypes=["health", "public", "health"])], [detail(datatypes=["public", "health"])], True),
    ([detail(datatypes=["public", "health"])], [detail(datatypes=["health"])], False),
    ([detail(datatypes=["healt"])], [detail(datatypes=["health"])], False),
    ([detail(datatypes=["public", "health"])], [detail(datatypes=["health"]), detail(datatypes=["public"])], False),
    ([detail(datatypes=["health"]), detail(datatypes=["public"])], [detail(datatypes=["public", "health"])], True),
    ([detail(datatypes=["health"], **ONE)], [detail(datatypes=["health"])], True),
    ([detail(arguments={"x.y": {"eq": 1}})], [detail(arguments={"x": {"eq": 1}})], False),
    ([detail(arguments={"x": {"eq": 1}})], [detail(arguments={"x.y": {"eq": 1}})], False),
]


@pytest.mark.parametrize(("inner", "outer", "within"), DETAILS)
def test_details_are_within_others_exactly_as_listed_in_the_table(
    inner: list[dict[str, Any]], outer: list[dict[str, Any]], within: bool
) -> None:
    asked, had = bounds.parse_details(inner), bounds.parse_details(outer)
    assert bounds.is_within(asked, had) is within
    if within:
        assert bounds.narrow(had, asked) == (asked or had)
    else:
        with pytest.raises(InvalidDetails, match="the requested bounds are wider") as refusal:
            bounds.narrow(had, asked)
        assert refusal.value.code == "invalid_authorization_details"


def test_the_error_for_wider_bounds_names_the_resource_and_the_tool() -> None:
    had = bounds.parse_details([detail(**A)])
    with pytest.raises(InvalidDetails, match=f"the tool `b` of {URI}"):
        bounds.narrow(had, bounds.parse_details([detail(**AB)]))
    with pytest.raises(InvalidDetails, match=f"all tools of {URI}"):
        bounds.narrow(had, bounds.parse_details([detail()]))


paths = st.sampled_from(["x", "y", "o.z"])


@st.composite
def details(draw: st.DrawFn) -> ToolDetail:
    return ToolDetail(
        locations=draw(st.sampled_from([(URI,), (OTHER,), (URI, OTHER)])),
        actions=draw(st.sampled_from([None, ("a",), ("a", "b")])),
        datatypes=draw(st.sampled_from([None, ("public",), ("public", "health"), ("health", "secret")])),
        arguments=draw(st.dictionaries(paths, conditions(), max_size=2)),
    )


@st.composite
def bounds_and_narrower(draw: st.DrawFn) -> tuple[list[ToolDetail], list[ToolDetail]]:
    """Bounds, and other bounds that mostly narrow some of their parts."""
    outer = draw(st.lists(details(), min_size=1, max_size=3))
    inner = []
    for part in draw(st.lists(st.sampled_from(outer), max_size=3)):
        more = draw(details())
        arguments = dict(part.arguments)
        for path, condition in more.arguments.items():
            choices = [condition, Condition(eq=draw(scalars))]
            arguments[path] = draw(st.sampled_from([*choices, arguments.get(path, condition)]))
        locations = draw(st.sampled_from([part.locations, part.locations[:1], more.locations]))
        datatypes = draw(st.sampled_from([part.datatypes, part.datatypes and part.datatypes[:1], more.datatypes]))
        inner.append(
            ToolDetail(
                locations=locations,
                actions=draw(st.sampled_from([part.actions, more.actions])),
                datatypes=datatypes,
                arguments=arguments,
            )
        )
    return outer, inner


calls = st.builds(
    lambda uri, tool, x, y, z, classes: {
        "resource_uri": uri,
        "tool": tool,
        "arguments": {"x": x, "y": y, "o": {"z": z}},
        "classes": classes,
    },
    st.sampled_from([URI, OTHER]),
    st.sampled_from("abc"),
    values,
    values,
    values,
    st.frozensets(st.sampled_from(["public", "health", "secret"])),
)


@settings(max_examples=300)
@given(bounds_and_narrower(), st.lists(calls, max_size=10))
def test_narrowed_bounds_never_permit_more_calls(
    pair: tuple[list[ToolDetail], list[ToolDetail]], tried: list[dict[str, Any]]
) -> None:
    outer, asked = pair
    try:
        granted = bounds.narrow(outer, asked)
    except InvalidDetails:
        assert not bounds.is_within(asked, outer)
        return
    assert bounds.is_within(granted, outer)
    for call in tried:
        assert not bounds.permits(granted, **call) or bounds.permits(outer, **call)


@given(st.lists(details(), min_size=1, max_size=3))
def test_details_are_within_themselves_and_the_same_after_rendering_and_parsing(some: list[ToolDetail]) -> None:
    assert bounds.is_within(some, some)
    assert bounds.parse_details(bounds.render_details(some)) == tuple(some)
