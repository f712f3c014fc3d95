from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.arguments import MAX_DEPTH, MAX_STEPS, Arguments, BadArguments, Unrepresentable, plain_record
from ostiary.authorization.cedar.extensions import Decimal, Unreadable, Unusable
from ostiary.protocol.errors import Invalid

LONG = 2**63 - 1


def typed(schema: dict[str, Any], value: Any) -> Any:
    """`value` as the one argument `a` of that schema; None when it is absent."""
    return Arguments({"type": "object", "properties": {"a": schema}}).type_({"a": value}).get("a")


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, "x", "x"),
        ({"type": "boolean"}, True, True),
        ({"type": "integer"}, LONG, LONG),
        ({"type": "integer"}, -LONG - 1, -LONG - 1),
        ({"type": "integer"}, 5.0, 5),
        ({"type": "number"}, 5, Decimal(50_000)),
        ({"type": "number"}, 0.1, Decimal(1000)),
        ({"type": "number"}, -12.3456, Decimal(-123_456)),
        ({"type": "number"}, 922337203685477, Decimal(9223372036854770000)),
        ({}, 5, 5),
        ({}, 5.5, Decimal(55_000)),
        ({}, 5.0, Decimal(50_000)),
        ({"minimum": 1}, 5, 5),
        ({"type": "array"}, [1, 1, 2], frozenset({1, 2})),
        ({"type": "array", "items": {"type": "number"}}, [1], frozenset({Decimal(10_000)})),
        ({"type": "array"}, [None, "x"], frozenset({"x"})),
        (
            {"type": "array", "prefixItems": [{"type": "number"}], "items": {"type": "integer"}},
            [1, 2],
            frozenset({Decimal(10_000), 2}),
        ),
        ({"type": "object", "properties": {"b": {"type": "number"}}}, {"b": 1, "c": 1}, {"b": Decimal(10_000), "c": 1}),
        ({"type": ["string", "null"]}, None, None),
        ({"type": "string"}, None, None),
        ({"type": ["integer", "string"]}, "x", "x"),
        ({"type": ["integer", "number"]}, 1, Decimal(10_000)),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, 1, Decimal(10_000)),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, 1, 1),
        ({"allOf": [{"type": "number"}, {"minimum": 1}]}, 1, Decimal(10_000)),
        ({"allOf": [{"minimum": 1}, {"type": "number"}]}, 1, Decimal(10_000)),
        (
            {"allOf": [{"properties": {"b": {"type": "number"}}}, {"required": ["b"]}]},
            {"b": 1, "c": "x"},
            {"b": Decimal(10_000), "c": "x"},
        ),
        (True, "x", "x"),
        ({"enum": ["x", 1, None, {"b": [1]}]}, "x", "x"),
        ({"enum": ["x", 1]}, 1.0, Decimal(10_000)),
        ({"const": {"b": [1]}}, {"b": [1]}, {"b": frozenset({1})}),
        ({"title": "x", "description": "y", "default": 3, "format": "date", "pattern": "^z"}, "x", "x"),
    ],
)
def test_an_argument_is_converted_to_the_cedar_value_of_its_schema(schema: Any, value: Any, expected: Any) -> None:
    made = typed(schema, value)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, 1),
        ({"type": "string"}, True),
        ({"type": "boolean"}, 1),
        ({"type": "integer"}, True),
        ({"type": "integer"}, "1"),
        ({"type": "integer"}, 1.5),
        ({"type": "integer"}, float("inf")),
        ({}, b"bytes"),
        ({"type": "number"}, float("nan")),
        ({"type": "integer"}, float("nan")),
        ({"type": "number"}, True),
        ({"type": "array"}, {}),
        ({"type": "array", "items": {"type": "integer"}}, [1, "x"]),
        ({"type": "array", "maxItems": 1}, [1, 2]),
        ({"type": "array", "minItems": 1}, []),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": False}, ["x", "y"]),
        ({"type": "object"}, []),
        ({"type": "object", "required": ["b"]}, {}),
        ({"type": "object", "additionalProperties": False}, {"b": 1}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"b": 1}),
        ({"type": "object", "maxProperties": 1}, {"b": 1, "c": 1}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 1.5),
        ({"oneOf": [{"type": "integer"}, {"minimum": 0}]}, 1),
        ({"allOf": [{"type": "integer"}, {"minimum": 2}]}, 1),
        (False, "x"),
        ({"enum": ["x", 1]}, "y"),
        ({"enum": [1]}, True),
        ({"enum": [True]}, 1),
        ({"const": {"b": [1]}}, {"b": [2]}),
        ({"enum": ["x", "y"], "const": "y"}, "x"),
        ({"enum": ["x"], "const": "y"}, "y"),
        ({"type": "integer"}, object()),
    ],
)
def test_an_argument_that_does_not_match_its_schema_is_refused(schema: Any, value: Any) -> None:
    with pytest.raises(BadArguments) as caught:
        typed(schema, value)
    assert caught.value.code == "bad_arguments"
    assert caught.value.message.startswith("argument `a")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, LONG + 1),
        ({"type": "integer"}, -LONG - 2),
        ({"type": "integer"}, 1e19),
        ({"type": "number"}, 0.00001),
        ({"type": "number"}, 1.23456),
        ({"type": "number"}, 922337203685478),
        ({"type": "number"}, 1e300),
        ({}, 0.00001),
        ({}, LONG + 1),
        ({}, [1, 1.23456]),
        ({}, [{"b": 1.23456}]),
        ({"type": "array", "items": {"type": "integer"}}, [1, LONG + 1]),
        ({"type": "array", "items": {"properties": {"b": {"type": "number"}}}}, [{"b": 1.23456}]),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, LONG + 1),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, LONG + 1),
        ({"allOf": [{"type": "integer"}, {"type": "number"}]}, LONG),
        ({"allOf": [{"type": "number"}, {"type": "integer"}]}, LONG),
        ({"type": "integer", "multipleOf": 0.5}, 10**400),
    ],
)
def test_reading_a_value_that_cedar_cannot_represent_is_an_error(schema: Any, value: Any) -> None:
    made = typed(schema, value)
    assert type(made) is Unusable
    assert made.raw is value
    for read in (lambda: made == 1, lambda: made == made, lambda: made == "x", lambda: hash(made)):
        with pytest.raises(Unreadable):
            read()


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "maximum": 5}, LONG + 1),
        ({"type": "integer", "multipleOf": 3}, 3 * LONG + 1),
        ({"type": "number", "minimum": 2}, 1.23456),
        ({"allOf": [{"type": "number"}, {"type": "string"}]}, 1.23456),
        ({"oneOf": [{"type": "number"}, {"minimum": 1}]}, 1.23456),
        ({"enum": [1]}, LONG + 1),
    ],
)
def test_the_schema_also_checks_a_value_that_cedar_cannot_represent(schema: Any, value: Any) -> None:
    with pytest.raises(BadArguments) as caught:
        typed(schema, value)
    assert not isinstance(caught.value, Unrepresentable)


@pytest.mark.parametrize(
    ("schema", "below", "on"),
    [
        ({"type": "integer", "minimum": 3}, 2, 3),
        ({"type": "integer", "maximum": 3}, 4, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 3, 4),
        ({"type": "integer", "exclusiveMaximum": 3}, 3, 2),
        ({"type": "integer", "multipleOf": 3}, 4, 3),
        ({"type": "number", "minimum": 0.5}, 0.4, 0.5),
        ({"type": "string", "minLength": 2}, "x", "xx"),
        ({"type": "string", "maxLength": 2}, "xxx", "xx"),
        ({"type": "array", "minItems": 2}, [1], [1, 2]),
        ({"type": "array", "maxItems": 2}, [1, 2, 3], [1, 2]),
        ({"type": "object", "minProperties": 1}, {}, {"b": 1}),
        ({"type": "object", "maxProperties": 1}, {"b": 1, "c": 2}, {"b": 1}),
    ],
)
def test_a_value_at_a_limit_of_the_schema_is_accepted_and_beyond_is_refused(schema: Any, below: Any, on: Any) -> None:
    typed(schema, on)
    keyword = next(name for name in schema if name != "type")
    with pytest.raises(BadArguments, match=f"schema's `{keyword}` of "):
        typed(schema, below)


def test_the_message_of_bad_arguments_names_the_path_and_not_the_value() -> None:
    schema = {"properties": {"to": {"properties": {"card": {"type": "integer"}}}}}
    with pytest.raises(BadArguments) as caught:
        Arguments(schema).type_({"to": {"card": "4111-secret"}})
    assert caught.value.message == "argument `to.card` is not an integer"


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(BadArguments, match="argument `path` is missing"):
        Arguments({"required": ["path"]}).type_({})


RECURSIVE = {
    "properties": {"tree": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "properties": {"value": {"type": "number"}, "next": {"$ref": "#/$defs/node"}},
            "additionalProperties": False,
        }
    },
}


def test_a_schema_may_refer_to_itself() -> None:
    made = Arguments(RECURSIVE).type_({"tree": {"value": 1, "next": {"value": 2}}})
    assert made == {"tree": {"value": Decimal(10_000), "next": {"value": Decimal(20_000)}}}
    with pytest.raises(BadArguments, match=r"tree\.next\.other"):
        Arguments(RECURSIVE).type_({"tree": {"next": {"other": 1}}})


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"anyOf": [{"$ref": "#"}]}])
def test_a_schema_that_only_refers_to_itself_is_refused_when_used(schema: dict[str, Any]) -> None:
    with pytest.raises(BadArguments):
        Arguments(schema).type_({"a": 1})


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


def test_an_untyped_argument_nested_beyond_the_limit_is_unusable() -> None:
    schema = Arguments({"type": "object"})
    assert "Unusable" not in str(spell(schema.type_(nested(MAX_DEPTH))))
    for levels in (MAX_DEPTH + 1, 500):
        assert "is nested too deeply" in str(spell(schema.type_(nested(levels))))


def test_each_reference_in_a_schema_counts_as_a_level_of_nesting() -> None:
    schema = Arguments({"properties": {"a": {"$ref": "#"}}, "additionalProperties": False, "type": "object"})
    value: dict[str, Any] = {}
    for _ in range(MAX_DEPTH // 2 - 1):
        value = {"a": value}
    schema.type_(value)
    with pytest.raises(BadArguments, match="nested too deeply"):
        schema.type_({"a": value})


def test_nested_alternatives_are_refused_within_one_second() -> None:
    branch = {"properties": {"next": {"$ref": "#/$defs/n"}, "end": False}}
    schema = Arguments({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [branch] * 8}}})
    value: Any = {"end": 1}
    for _ in range(8):
        value = {"next": value}
    begun = time.thread_time()
    with pytest.raises(BadArguments):
        schema.type_(value)
    assert time.thread_time() - begun < 1


def test_arguments_with_more_than_the_maximum_number_of_parts_are_refused() -> None:
    schema = Arguments({"properties": {"a": {"type": "array", "items": {"type": "integer"}}}})
    schema.type_({"a": list(range(MAX_STEPS - 1))})
    with pytest.raises(BadArguments, match="too many parts"):
        schema.type_({"a": list(range(MAX_STEPS))})


def test_a_schema_with_too_many_parts_is_refused() -> None:
    Arguments({"anyOf": [{}] * 4000})
    with pytest.raises(Invalid, match="more than 4096 parts"):
        Arguments({"anyOf": [{}] * 5000})


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"properties": []}, "`properties` of a schema must be an object"),
        ({"required": [1]}, "`required` of a schema must be a list of names"),
        ({"type": "string", "maxLength": -1}, "`maxLength` of a schema must be an integer from 0"),
    ],
)
def test_the_refusal_of_a_malformed_schema_names_the_keyword(schema: Any, fault: str) -> None:
    with pytest.raises(Invalid) as refusal:
        Arguments(schema)
    assert refusal.value.message == fault


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def spell(value: Any) -> Any:
    """Replace each Unusable value with a tuple, so that values can be compared."""
    if type(value) is Unusable:
        return ("Unusable", value.problem)
    return {name: spell(item) for name, item in value.items()} if isinstance(value, dict) else value


@given(JSON)
def test_an_empty_schema_converts_any_json_as_without_a_schema(value: Any) -> None:
    assert spell(Arguments({}).type_({"a": value})) == spell(plain_record({"a": value}))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (922337203685477, ""),
        (-922337203685477, ""),
        (922337203685477.5, ""),
        (922337203685478, "is a number beyond the range of Cedar's decimals"),
        (-922337203685478, "is a number beyond the range of Cedar's decimals"),
        (922337203685477.6, "is a number beyond the range of Cedar's decimals"),
        (-922337203685477.5, ""),
        (-922337203685477.6, "is a number beyond the range of Cedar's decimals"),
        (10**400, "is a number beyond the range of Cedar's decimals"),
        (1e300, "is a number beyond the range of Cedar's decimals"),
        (0.00001, "is a number with more than four decimal places"),
        (1.23456, "is a number with more than four decimal places"),
        (1.2345, ""),
    ],
)
def test_a_number_beyond_cedars_decimals_and_a_number_with_too_many_places_have_errors_of_their_own(
    value: float, problem: str
) -> None:
    made = typed({"type": "number"}, value)
    assert (made.problem if type(made) is Unusable else "") == problem


@given(st.integers(-(10**15), 10**15), st.integers(0, 4))
def test_decimals_of_four_places_are_converted_exactly(units: int, places: int) -> None:
    value = units / 10**places
    if abs(units) < 2**53 and abs(value) < 9 * 10**11:
        assert typed({"type": "number"}, value) == Decimal(units * 10 ** (4 - places))
