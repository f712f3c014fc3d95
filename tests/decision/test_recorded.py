"""Recorded arguments of a call: as policies saw them, within limits, and never secret ones."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.catalogue import Effect, Tool
from ostiary.authorization.cedar.extensions import Decimal
from ostiary.authorization.cedar.values import make_set, parse_value
from ostiary.decision.access import arguments_to_record
from ostiary.decision.access.recorded import MAX_NAMES, MAX_TEXT, MAX_TOGETHER, secrets_of

NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    "value", ["text", 7, True, Decimal(-5), make_set(["a"]), {"deep": True, "list": make_set([False, 1])}]
)
def test_a_recorded_argument_is_read_back_unchanged(value: Any) -> None:
    kept = arguments_to_record({"x": value}, NONE)
    assert kept.arguments is not None
    assert parse_value(kept.arguments["x"]) == value
    assert kept.hidden == []


def test_an_argument_that_the_catalogue_marks_as_secret_is_not_recorded() -> None:
    tool = Tool(name="pay", effect=Effect.PAY, kinds={"pin": "secret", "to": "recipient"})
    assert arguments_to_record({"pin": "1234", "to": "bob"}, secrets_of(tool, frozenset())) == ({"to": "bob"}, ["pin"])
    vault = Tool(name="vault", effect=Effect.READ)
    assert arguments_to_record({"to": "bob"}, secrets_of(vault, frozenset({"secret"}))) == (None, [])


@pytest.mark.parametrize(("more", "is_kept"), [(-1, True), (0, True), (1, False)])
def test_a_text_argument_is_recorded_up_to_its_size_limit(more: int, is_kept: bool) -> None:
    assert (arguments_to_record({"x": "t" * (MAX_TEXT + more)}, NONE).hidden == []) is is_kept


@pytest.mark.parametrize(("more", "hidden"), [(-1, []), (0, []), (1, ["y"])])
def test_the_arguments_of_a_call_are_recorded_up_to_their_total_size_limit(more: int, hidden: list[str]) -> None:
    full = {str(number): "t" * (MAX_TEXT - 1) for number in range(MAX_TOGETHER // MAX_TEXT - 1)}
    assert arguments_to_record({**full, "y": "t" * (MAX_TEXT - 1 + more)}, NONE).hidden == hidden


@pytest.mark.parametrize(("count", "is_kept"), [(MAX_NAMES - 1, True), (MAX_NAMES, True), (MAX_NAMES + 1, False)])
def test_the_arguments_of_a_call_are_recorded_up_to_the_maximum_number_of_names(count: int, is_kept: bool) -> None:
    assert (arguments_to_record({f"n{number}": 1 for number in range(count)}, NONE).arguments is not None) is is_kept


@pytest.mark.parametrize("value", ["nul\0", {"in": "nul\0"}, {"__entity": {"type": "A", "id": "b"}}, "\0"])
def test_an_argument_value_that_no_report_can_carry_is_hidden(value: Any) -> None:
    assert arguments_to_record({"x": value}, NONE) == ({}, ["x"])


def test_an_argument_name_that_no_report_can_carry_hides_all_arguments() -> None:
    assert arguments_to_record({"n\0": 1, "x": 1}, NONE) == (None, [])
