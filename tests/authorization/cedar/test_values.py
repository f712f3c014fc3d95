"""Values and entities from JSON: what each becomes, what is refused, on the limits and beside them."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.cedar.extensions import Datetime, Decimal, Duration, EvaluationError, Ip
from ostiary.authorization.cedar.values import (
    LONG_MAX,
    LONG_MIN,
    MAX_DEPTH,
    Overlay,
    Uid,
    absent,
    close,
    entity,
    is_type_name,
    key,
    make_set,
    parse_entities,
    parse_record,
    parse_uid,
    parse_value,
)
from ostiary.protocol.errors import Invalid, Malformed, Refused

ANN, BOB = Uid("User", "ann"), Uid("User", "bob")


def extension(function: str, *arguments: object) -> dict[str, object]:
    if len(arguments) == 1:
        return {"__extn": {"fn": function, "arg": arguments[0]}}
    return {"__extn": {"fn": function, "args": list(arguments)}}


@pytest.mark.parametrize(
    ("json", "value"),
    [
        (True, True),
        (7, 7),
        ("s", "s"),
        ([1, True, 1, "1"], make_set([True, 1, "1"])),
        ({"a": {"b": []}}, {"a": {"b": frozenset()}}),
        ({"__entity": {"type": "Shop::User", "id": 'q"'}}, Uid("Shop::User", 'q"')),
        (extension("decimal", "-1.5"), Decimal(-15_000)),
        (extension("ip", "10.0.0.0/8"), Ip(32, 10 << 24, 8)),
        (extension("datetime", "1970-01-02"), Datetime(86_400_000)),
        (extension("duration", "1s"), Duration(1000)),
        (extension("offset", extension("datetime", "1970-01-01"), extension("duration", "1ms")), Datetime(1)),
        (LONG_MAX, LONG_MAX),
        (LONG_MIN, LONG_MIN),
    ],
)
def test_each_json_form_is_parsed_to_its_value(json: object, value: object) -> None:
    made = parse_value(json)
    assert (type(made), made) == (type(value), value)


@pytest.mark.parametrize("json", [None, 1.0, float("nan"), {"a": None}, [[2.5]], b"bytes"])
def test_json_without_a_cedar_value_is_malformed(json: object) -> None:
    with pytest.raises(Malformed, match="Cedar has no value for"):
        parse_value(json)


@pytest.mark.parametrize("json", [LONG_MAX + 1, LONG_MIN - 1, [2**64]])
def test_an_integer_beyond_64_bits_is_refused(json: object) -> None:
    with pytest.raises(Invalid, match="64 bits"):
        parse_value(json)


def nested(levels: int, *, leaf: object = 1, record: bool = False) -> object:
    for _ in range(levels):
        leaf = {"a": leaf} if record else [leaf]
    return leaf


@pytest.mark.parametrize("record", [False, True])
def test_nesting_is_allowed_up_to_the_limit_and_not_beyond(record: bool) -> None:
    parse_value(nested(MAX_DEPTH - 1, record=record))
    parse_value(nested(MAX_DEPTH, record=record))
    with pytest.raises(Invalid, match="nested too deeply"):
        parse_value(nested(MAX_DEPTH + 1, record=record))


@pytest.mark.parametrize(
    "json",
    [
        {"__entity": {"type": "User"}},
        {"__entity": {"type": "User", "id": 1}},
        {"__entity": {"type": 1, "id": "x"}},
        {"__entity": {"type": "User", "id": "x", "more": 1}},
        {"__entity": "User"},
        {"__entity": {"type": "User", "id": "x"}, "more": 1},
        {"__expr": "principal"},
        {"a": {"__extn": 1, "b": 2}},
        {"__extn": {"fn": "decimal"}},
        {"__extn": {"fn": 1, "arg": "1.0"}},
        {"__extn": {"fn": "decimal", "arg": "1.0", "args": []}},
        {"__extn": {"fn": "decimal", "args": "1.0"}},
        extension("decimal", "1.0", "2.0"),
        extension("offset", "1.0"),
        extension("isIpv4", extension("ip", "::1")),
        extension("unknown", "x"),
    ],
)
def test_an_escape_that_is_not_well_formed_is_malformed(json: object) -> None:
    with pytest.raises(Malformed):
        parse_value(json)


@pytest.mark.parametrize("json", [extension("decimal", "1"), extension("ip", 4), extension("duration", "1d1d")])
def test_an_extension_value_with_an_invalid_argument_is_refused(json: object) -> None:
    with pytest.raises(Invalid):
        parse_value(json)


@pytest.mark.parametrize("json", [[], None, "a", {"__entity": {"type": "User", "id": "x"}}, {1: 2}])
def test_a_context_that_is_not_a_record_is_refused(json: object) -> None:
    with pytest.raises(Malformed):
        parse_record(json)


@pytest.mark.parametrize("name", ["User", "A::B::C", "_x1", "principal", "when", "Set"])
def test_type_names_that_cedar_accepts_are_accepted(name: str) -> None:
    assert is_type_name(name)


@pytest.mark.parametrize(
    "name", ["", "1a", "a b", "A::", "::A", "A:B", "is", "A::in", "__cedar", "__cedar::x", "é", "A\n", "a-b", "A ::B"]
)
def test_type_names_that_cedar_refuses_are_refused(name: str) -> None:
    assert not is_type_name(name)
    with pytest.raises(Malformed, match="type name"):
        parse_uid({"type": name, "id": "x"})


def test_a_uid_is_parsed_with_or_without_its_escape_and_prints_as_cedar_text() -> None:
    plain = {"type": "User", "id": 'a"b'}
    assert parse_uid(plain) == parse_uid({"__entity": plain}) == Uid("User", 'a"b')
    assert str(parse_uid(plain)) == 'User::"a\\"b"'


def test_integers_and_booleans_are_different_set_elements_at_any_depth() -> None:
    pairs: list[tuple[Any, Any]] = [
        (1, True),
        (0, False),
        ([1], [True]),
        ({"a": 1}, {"a": True}),
        ([{"a": [0]}], [{"a": [False]}]),
    ]
    for left, right in pairs:
        assert key(parse_value(left)) != key(parse_value(right))
        assert parse_value([left, right]) != parse_value([left])
        assert parse_value([left, left]) == parse_value([left])


def test_records_sets_and_entities_of_similar_content_have_different_keys() -> None:
    lookalikes = [{"a": "b"}, [["a", "b"]], Uid("a", "b"), {}, frozenset()]
    keys = {key(value if isinstance(value, (Uid, frozenset)) else parse_value(value)) for value in lookalikes}
    assert len(keys) == len(lookalikes)


# --- entities -------------------------------------------------------------------------------------------------------


def named(name: str, *parents: str, **more: object) -> dict[str, object]:
    return {
        "uid": {"type": "User", "id": name},
        "attrs": {},
        "parents": [{"type": "User", "id": parent} for parent in parents],
        **more,
    }


def test_the_lineage_of_an_entity_contains_all_ancestors_and_the_entity() -> None:
    store = parse_entities([named("a", "b"), named("b", "c", "d"), named("c", "outside")])
    assert store[Uid("User", "a")].lineage == {Uid("User", name) for name in ("a", "b", "c", "d", "outside")}
    assert store[Uid("User", "c")].lineage == {Uid("User", "c"), Uid("User", "outside")}
    assert Uid("User", "d") not in store


def test_entities_keep_their_attributes_and_tags() -> None:
    (one,) = parse_entities([named("a", attrs={"n": 1}, tags={"t": [2]})]).values()
    assert (one.attrs, one.tags) == ({"n": 1}, {"t": frozenset([2])})


def test_a_hierarchy_may_be_deeper_than_the_stack() -> None:
    chain = {Uid("G", str(level)): [Uid("G", str(level + 1))] for level in range(3000)}
    assert len(close(chain)[Uid("G", "0")]) == 3000


def test_a_shared_ancestor_is_not_a_cycle() -> None:
    store = parse_entities([named("a", "b", "c"), named("b", "d"), named("c", "d"), named("d")])
    assert len(store[Uid("User", "a")].lineage) == 4


@pytest.mark.parametrize(
    ("json", "refusal"),
    [
        ([named("a", "a")], "its own ancestor"),
        ([named("a", "b"), named("b", "c"), named("c", "a")], "its own ancestor"),
        ([named("a"), named("a")], "twice"),
        ({}, "JSON list"),
        ([1], "an object with"),
        ([{"attrs": {}}], "an object with"),
        ([named("a", more=1)], "an object with"),
        ([named("a", parents={})], "must be a list"),
        ([named("a", attrs=[])], "JSON object"),
        ([named("a", tags={"t": None})], "no value for null"),
    ],
)
def test_malformed_and_cyclic_entities_are_refused(json: object, refusal: str) -> None:
    with pytest.raises(Refused, match=refusal):
        parse_entities(json)


def test_reading_an_attribute_of_an_absent_entity_is_an_error() -> None:
    ghost = absent(ANN)
    assert ghost.lineage == {ANN}
    assert "n" not in ghost.attrs
    with pytest.raises(EvaluationError, match="does not exist"):
        ghost.attrs["n"]


def test_an_overlay_reads_entities_of_the_request_before_those_of_the_store() -> None:
    base = {ANN: entity(ANN, {"n": 1}), BOB: entity(BOB, {"n": 2})}
    over = Overlay.of(base, entity(ANN, {"n": 3}))
    found = over.get(ANN), over.get(BOB), over.get(Uid("User", "ghost"))
    assert [one and one.attrs["n"] for one in found] == [3, 2, None]
    assert base[ANN].attrs == {"n": 1}
