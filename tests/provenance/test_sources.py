"""Kinds of arguments are learned from data flow, from tasks that read no untrusted content."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.catalogue import Catalogue, Effect, Kind, Tool
from ostiary.provenance.origins import Memory, add_parts, observe_output, remember
from ostiary.provenance.sources import (
    MAX_FIELDS,
    MAX_MEMBERS,
    MAX_SOURCES,
    MAX_VALUE,
    MIN_NUMBER,
    NO_FIELDS,
    Fields,
    Source,
    mark_reported,
    sources_of,
    with_output,
    with_sources,
)
from tests.support.seed import seed

MEMORY = remember(bytes(32), seed("cancel the order of Ann"))
LIST = Tool(name="list", effect=Effect.READ, outside=False)
FETCH = Tool(name="fetch", effect=Effect.READ)
CANCEL = Tool(name="cancel", effect=Effect.CHANGE, arguments={"properties": {"n": {"type": "integer"}}})
ORDERS = [{"id": 4711, "who": "Ann"}, {"id": 4712, "who": "Bob"}]
OF_ID = Source("n", "list", "id")


def after(output: object, memory: Memory = MEMORY, tool: Tool = LIST, fields: Fields = NO_FIELDS) -> Fields:
    return with_output(fields, memory, tool, output)


def found(fields: Fields, memory: Memory = MEMORY, **arguments: Any) -> tuple[Source, ...]:
    return sources_of(fields, memory, CANCEL, arguments)


@pytest.mark.parametrize("output", [ORDERS, {"id": 4711}, "- id: 4711\n  who: Ann\n- id: 4712\n  who: Bob"])
def test_a_value_of_a_record_shows_the_source_of_an_argument(output: object) -> None:
    assert found(after(output), n=4711) == (OF_ID,)
    assert found(after(output), n=4713) == ()
    assert found(NO_FIELDS, n=4711) == ()


def test_nested_fields_and_arguments_have_dotted_paths() -> None:
    fields = after({"orders": [{"key": {"no": "A-17"}}]})
    assert found(fields, what={"which": ["A-17"]}) == (Source("what.which", "list", "orders.key.no"),)


def test_a_task_that_has_read_untrusted_content_shows_no_sources() -> None:
    tainted = add_parts(MEMORY, observe_output(MEMORY, "desk/fetch", FETCH, {}, "anything at all"))
    assert found(after(ORDERS), tainted, n=4711) == ()
    assert after(ORDERS, tainted) is NO_FIELDS
    assert after(ORDERS, tool=FETCH) is NO_FIELDS


def test_a_source_of_an_argument_is_reported_once_per_task() -> None:
    fields = mark_reported(after(ORDERS), CANCEL, [OF_ID])
    assert found(fields, n=4711) == ()
    assert found(after([{"id": 99}], fields=fields), n=99) == (), "neither of another record"
    assert sources_of(fields, MEMORY, LIST, {"n": 4711}) == (OF_ID,), "but of another tool"


def test_a_value_in_two_fields_shows_no_source() -> None:
    assert found(after([{"id": 4711, "count": 4711}]), n=4711) == ()
    assert found(after([{"count": 4711}], fields=after(ORDERS)), n=4711) == ()
    assert found(after([{"id": 4711}], fields=after(ORDERS)), n=4711) == (OF_ID,)


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (MIN_NUMBER, True),
        (MIN_NUMBER - 1, False),
        (-MIN_NUMBER, True),
        (True, False),
        (4711.5, False),
        (None, False),
        ("x", False),
        ("xy", True),
        ("x" * MAX_VALUE, True),
        ("x" * (MAX_VALUE + 1), False),
        (1 << 128, False),
    ],
)
def test_values_that_are_too_short_too_long_or_not_identifiers_show_no_source(value: object, counts: bool) -> None:
    assert bool(found(after({"id": value}), n=value)) is counts


def test_a_member_name_that_is_data_is_not_a_path() -> None:
    assert found(after({"ann@example.org": {"id": 4711}}), n=4711) == ()
    many = {f"k{number}": 100 + number for number in range(MAX_MEMBERS)}
    assert found(after(many), n=100)
    assert found(after(many | {"one": 1}), n=100) == ()


def test_kept_fields_and_reported_sources_are_bounded_and_the_newest_stay() -> None:
    first = after([{"id": number} for number in range(100, 100 + MAX_FIELDS + 10)])
    assert len(first.at) == MAX_FIELDS
    second = after([{"id": 10}], fields=first)
    assert len(second.at) == MAX_FIELDS
    assert found(second, n=10)
    many = {f"a{number}": 100 + number for number in range(MAX_SOURCES + 1)}
    assert len(sources_of(first, MEMORY, CANCEL, many)) == MAX_SOURCES


@pytest.mark.parametrize(
    ("kinds", "confirmed", "is_more"),
    [
        ({}, False, True),
        ({"n": "none"}, False, True),
        ({"n": "text"}, False, True),
        ({"n": "amount"}, False, False),
        ({"n": "account"}, False, False),
        ({}, True, False),
    ],
)
def test_learned_kinds_apply_until_an_owner_has_confirmed_the_tool(
    kinds: dict[str, str], confirmed: bool, is_more: bool
) -> None:
    tool = Tool(name="cancel", effect=Effect.CHANGE, kinds=kinds, arguments=CANCEL.arguments, confirmed=confirmed)
    before = Catalogue.of("desk", [tool])
    learned_ = with_sources(before, [("cancel", "n"), ("gone", "n")]).tools["cancel"]
    assert (learned_ != tool) is is_more
    assert (learned_.argument_kinds.get("n") is Kind.OBJECT) is is_more
