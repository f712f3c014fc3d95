"""Budgets: the exact cost of a call, and amounts that are refused."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.budget import (
    DAY_US,
    MAX_LIMITS,
    Amount,
    BadAmount,
    Budget,
    Calls,
    InvalidBudget,
    costs,
    exhausted,
    parse_limits,
    prices,
    slice_of,
)
from ostiary.protocol.canonical import MAX_INT

PAY: dict[str, Any] = {"kind": "amount", "limit": "250.00", "tools": ["bank/pay"], "argument": "amount"}


def amount(limit: str = "250.00", argument: str = "amount") -> Amount:
    return Amount(limit=limit, tools=("bank/pay",), argument=argument)


def cost(value: object, limit: str = "250.00") -> int:
    return amount(limit).cost({"amount": value})


@pytest.mark.parametrize(
    ("value", "units"),
    [
        ("12.50", 1250),
        ("12.5", 1250),
        ("12", 1200),
        (12, 1200),
        (0, 0),
        ("0", 0),
        ("0.00", 0),
        ("0.01", 1),
        ("250.00", 25000),
        ("250.01", 25001),
    ],
)
def test_an_amount_is_counted_in_the_smallest_unit_of_its_limit(value: object, units: int) -> None:
    assert cost(value) == units


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "1e2",
        "1E2",
        "1e-2",
        "+1",
        "-1",
        "-0",
        "−1",
        "1.",
        ".5",
        "",
        " 1",
        "1 ",
        "1\n",
        "1_000",
        "1,000",
        "1,5",
        "01",
        "00",
        "0x10",
        "٣",
        "１２",
        "1.٥",
        "1²",
        "½",
        "1.2.3",
        "1\x00",
        "10000000000000000000",
        "1" * 400,
        -1,
        1.5,
        12.0,
        float("nan"),
        float("inf"),
        True,
        False,
        None,
        [],
        {},
        ["1"],
        {"value": "1"},
        b"1",
    ],
)
def test_an_ambiguous_amount_is_refused_without_quoting_the_value(value: object) -> None:
    with pytest.raises(BadAmount) as refused:
        cost(value)
    assert refused.value.code == "bad_amount"
    assert "amount" in refused.value.message
    assert repr(value) not in refused.value.message, "the value is not quoted"


def test_an_amount_with_more_decimal_places_than_its_limit_is_refused() -> None:
    assert cost("1.2") == 120
    assert cost("1.23") == 123
    with pytest.raises(BadAmount, match="more than 2 digits"):
        cost("1.230")
    with pytest.raises(BadAmount, match="more than 0 digits"):
        cost("1.0", limit="250")


def test_an_amount_beyond_the_largest_safe_integer_is_refused() -> None:
    assert cost(MAX_INT, limit="1") == MAX_INT
    assert cost(str(MAX_INT), limit="1") == MAX_INT
    for beyond in (MAX_INT + 1, str(MAX_INT + 1), 10**400):
        with pytest.raises(BadAmount, match="too large"):
            cost(beyond, limit="1")
    with pytest.raises(BadAmount, match="too large"):
        cost(MAX_INT, limit="1.00")


def test_a_missing_or_ambiguous_amount_is_refused() -> None:
    with pytest.raises(BadAmount, match="is missing"):
        amount().cost({})
    nested = amount(argument="payment.amount")
    assert nested.cost({"payment": {"amount": "1.00"}}) == 100
    with pytest.raises(BadAmount, match="is missing"):
        nested.cost({"payment": {"amount": "1.00"}, "payment.amount": "900.00"})


@given(st.integers(0, MAX_INT), st.integers(0, 6))
def test_a_rendered_amount_is_read_back_exactly(units: int, places: int) -> None:
    limit = amount("1" if not places else f"1.{'0' * places}")
    assert limit.cost({"amount": limit.render(units)}) == units


@given(st.text(max_size=12) | st.from_regex(r"[-+]?[0-9]{1,9}([.,][0-9]{0,4})?([eE][0-9])?", fullmatch=True))
def test_any_text_is_counted_exactly_or_refused(text: str) -> None:
    try:
        units = cost(text)
    except BadAmount:
        return
    whole, _, fraction = text.partition(".")
    assert text.isascii()
    assert units == int(whole) * 100 + int((fraction + "00")[:2])


@given(st.text("0123456789. +-_e٣", max_size=20))
def test_a_text_is_an_amount_if_and_only_if_its_form_is_a_plain_decimal(text: str) -> None:
    if re.fullmatch(r"(0|[1-9][0-9]{0,12})(\.[0-9]{1,2})?", text, re.ASCII):
        assert cost(text, limit="1.00") == int(Decimal(text) * 100)
    elif re.fullmatch(r"[1-9][0-9]{13,15}(\.[0-9]{1,2})?", text, re.ASCII) is None:
        with pytest.raises(BadAmount):
            cost(text, limit="1.00")


@pytest.mark.parametrize(
    "limit",
    [
        "0",
        "0.00",
        "-1",
        "1e3",
        "NaN",
        "",
        "01",
        "1.0000000",
        "9007199254740992",
        "90071992547409.93",
        "٣",
        250,
        2.5,
        None,
        True,
    ],
)
def test_a_limit_that_is_not_a_positive_plain_decimal_is_refused(limit: object) -> None:
    with pytest.raises(InvalidBudget):
        parse_limits([{**PAY, "limit": limit}])


def test_the_largest_limit_is_the_largest_safe_integer() -> None:
    assert amount("90071992547409.91").units == MAX_INT
    assert amount("0.000001").units == 1


@pytest.mark.parametrize(
    "limits",
    [
        {},
        "calls",
        [7],
        [{}],
        [{"kind": "calls"}],
        [{"kind": "calls", "limit": 0}],
        [{"kind": "calls", "limit": -1}],
        [{"kind": "calls", "limit": "5"}],
        [{"kind": "calls", "limit": True}],
        [{"kind": "calls", "limit": 1.5}],
        [{"kind": "calls", "limit": MAX_INT + 1}],
        [{"kind": "calls", "limit": 5, "argument": "amount"}],
        [{"kind": "calls", "limit": 5, "tools": ["pay"]}],
        [{"kind": "calls", "limit": 5, "tools": ["bank/"]}],
        [{"kind": "volume", "limit": 5}],
        [{**PAY, "tools": []}],
        [{**PAY, "argument": ""}],
        [{**PAY, "argument": "a..b"}],
        [{k: v for k, v in PAY.items() if k != "argument"}],
        [PAY, {**PAY, "limit": "1"}],
        [{"kind": "calls", "limit": 5}, {"kind": "calls", "limit": 6}],
    ],
)
def test_an_invalid_budget_is_refused(limits: object) -> None:
    with pytest.raises(InvalidBudget) as refused:
        parse_limits(limits)
    assert refused.value.code == "invalid_budget"


def test_a_budget_with_more_than_the_maximum_number_of_limits_is_refused() -> None:
    several = [{"kind": "calls", "limit": 1, "tools": [f"bank/t{n}"]} for n in range(MAX_LIMITS + 1)]
    assert len(parse_limits(several[:MAX_LIMITS])) == MAX_LIMITS
    for listed in (several, tuple(several)):
        with pytest.raises(InvalidBudget, match=f"`budget` has {MAX_LIMITS + 1} limits"):
            parse_limits(listed)


def test_two_limits_with_the_same_tools_in_another_order_are_refused() -> None:
    with pytest.raises(InvalidBudget, match="count the same"):
        parse_limits([{**PAY, "tools": ["bank/pay", "bank/refund"]}, {**PAY, "tools": ["bank/refund", "bank/pay"]}])


def test_a_call_is_charged_to_each_budget_that_covers_its_tool() -> None:
    budgets = [
        Budget("bu_all", Calls(limit=9)),
        Budget("bu_read", Calls(limit=9, tools=("bank/read",))),
        Budget("bu_pay", amount()),
        Budget("bu_day", Calls(limit=9), daily=True),
    ]
    now = 20_000 * DAY_US
    assert costs(prices(budgets, "bank/pay"), {"amount": "1.00"}, now=now) == {
        "bu_all": 1,
        "bu_pay": 100,
        "bu_day.20000": 1,
    }
    assert costs(prices(budgets, "bank/read"), {}, now=now) == {"bu_all": 1, "bu_read": 1, "bu_day.20000": 1}
    assert costs(prices(budgets, "other/pay"), {}, now=now) == {"bu_all": 1, "bu_day.20000": 1}


def test_a_daily_budget_starts_at_midnight_utc() -> None:
    daily = Budget("bu_1", Calls(limit=9), daily=True)
    assert daily.account(20_000 * DAY_US - 1) == "bu_1.19999"
    assert daily.account(20_000 * DAY_US) == "bu_1.20000"
    assert Budget("bu_1", Calls(limit=9)).account(20_000 * DAY_US) == "bu_1"


def test_a_limit_taken_from_another_limit_has_the_units_of_that_limit() -> None:
    assert amount("7").within(amount("250.00")) == amount("7.00")
    assert amount("7.5").within(amount("250.00")) == amount("7.50")
    assert amount("7").within(amount("250")) == amount("7")
    with pytest.raises(InvalidBudget, match="decimal places"):
        amount("7.555").within(amount("250.00"))


@pytest.mark.parametrize(
    ("left", "need", "gets"),
    [(100, 1, 6), (100, 50, 50), (100, 100, 100), (100, 101, 0), (0, 1, 0), (3, 1, 1)],
)
def test_a_guard_draws_the_needed_amount_or_a_share_of_the_remaining_budget(left: int, need: int, gets: int) -> None:
    assert slice_of(left, need) == gets


def test_an_exhausted_budget_states_the_remaining_amount_and_a_hint() -> None:
    said = exhausted(Budget("bu_1", amount()), 1250)
    assert said.code == "budget_exhausted"
    assert "12.50 of 250.00" in said.message
    assert "ostiary task start" in said.hint
    assert "midnight UTC" in exhausted(Budget("bu_1", Calls(limit=1), daily=True), 0).hint
