"""Budgets of volume: what is counted, what a call takes ahead of it, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.budget import (
    DAY_US,
    Budget,
    InvalidBudget,
    Volume,
    costs,
    exhausted,
    parse_limits,
    prices,
    volumes,
)
from ostiary.authorization.classes import STANDARD
from ostiary.decision.access import Decision
from ostiary.guard.budgets import IDLE_US, BudgetCache
from ostiary.guard.call import Call, Withheld
from ostiary.protocol.canonical import MAX_INT

HEALTH: dict[str, Any] = {"kind": "volume", "limit": 100, "data_class": "health", "per_call": 10}


def volume(**more: Any) -> Volume:
    [limit] = parse_limits([HEALTH | more], classes=STANDARD)
    assert isinstance(limit, Volume)
    return limit


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"unit": "bytes"},
        {"unit": "records"},
        {"per_call": 1},
        {"per_call": 100},
        {"limit": MAX_INT},
        {"tools": ["clinic/read"]},
    ],
)
def test_what_a_volume_may_be(more: dict[str, Any]) -> None:
    assert volume(**more).units == (HEALTH | more)["limit"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"per_call": 101}, "more than its `limit`"),
        ({"per_call": 0}, ">= 1"),
        ({"per_call": None}, "int"),
        ({"per_call": 1.5}, "int"),
        ({"limit": 0}, ">= 1"),
        ({"limit": MAX_INT + 1}, "<="),
        ({"limit": "100"}, "int"),
        ({"unit": "rows"}, "rows"),
        ({"data_class": "helth"}, "'helth' is not a configured data class"),
        ({"data_class": "Health"}, "'Health' is not a configured data class"),
        ({"data_class": "he\u0430lth"}, "is not a configured data class"),
        ({"data_class": "x" * 64}, "length"),
        ({"argument": "x"}, "unknown field"),
    ],
)
def test_what_is_no_volume_says_why(more: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidBudget, match=why) as refusal:
        volume(**more)
    assert refusal.value.code == "invalid_budget"


@pytest.mark.parametrize("missing", ["limit", "data_class", "per_call"])
def test_a_volume_says_all_that_it_must(missing: str) -> None:
    with pytest.raises(InvalidBudget, match=missing):
        parse_limits([{name: value for name, value in HEALTH.items() if name != missing}])


def test_two_volumes_are_the_same_by_class_unit_and_tools() -> None:
    others = [HEALTH | more for more in ({"unit": "bytes"}, {"data_class": "secret"}, {"tools": ["a/b"]})]
    assert len(parse_limits([HEALTH, *others])) == 4
    with pytest.raises(InvalidBudget, match="count the same"):
        parse_limits([HEALTH, HEALTH | {"limit": 50, "per_call": 5}])


@pytest.mark.parametrize(
    ("tool", "classes", "counted"),
    [
        ("clinic/read", {"health"}, True),
        ("clinic/read", {"health", "public"}, True),
        ("clinic/read", {"public"}, False),
        ("clinic/read", set[str](), False),
        ("other/read", {"health"}, False),
    ],
)
def test_a_call_is_counted_by_what_its_tool_handles(tool: str, classes: set[str], counted: bool) -> None:
    limit = volume(tools=["clinic/read"])
    found = prices([Budget("bu", limit), Budget("bu_d", limit, daily=True)], tool, frozenset(classes))
    taken = {"bu": 10, "bu_d.5": 10} if counted else {}
    assert costs(found, {}, now=5 * DAY_US) == taken
    assert volumes(found, now=5 * DAY_US) == dict.fromkeys(taken, limit)


def test_what_is_left_is_said_in_its_unit() -> None:
    said = exhausted(Budget("bu", volume(unit="bytes")), 9)
    assert said.message == ("the budget for bytes of health of all tools has 9 of 100 left, and a call may return 10")


# --- the outcome of a call --------------------------------------------------------------------------------------------


def call(*, enforces: bool = True, **more: Any) -> Call:
    ahead = {"bu": volume(**more)}
    return Call(Decision(True, True, "h"), 1, classes=frozenset(["health", "public"]), ahead=ahead, enforces=enforces)


@pytest.mark.parametrize(
    ("said", "unused"),
    [
        ({}, {}),
        ({"bytes": 5}, {}),
        ({"records": 0}, {"bu": 10}),
        ({"records": 9}, {"bu": 1}),
        ({"records": 10}, {}),
        ({"records": 7, "data_class": "health"}, {"bu": 3}),
        ({"records": 99, "data_class": "public"}, {"bu": 10}),
        ({"data_class": "public"}, {"bu": 10}),
    ],
)
def test_what_a_call_did_not_return_comes_back(said: dict[str, Any], unused: dict[str, int]) -> None:
    made = call()
    made.result(**said)
    assert made.unused(made.ahead) == unused


def test_of_a_call_that_says_nothing_nothing_comes_back() -> None:
    made = call()
    assert made.unused(made.ahead) == {}


def sized(unit: str, count: int) -> dict[str, Any]:
    return {unit: count}


@pytest.mark.parametrize("unit", ["records", "bytes"])
def test_more_than_one_call_may_return_is_withheld(unit: str) -> None:
    made = call(unit=unit)
    made.result(**sized(unit, 10))
    with pytest.raises(Withheld, match=f"more than 10 {unit} of health") as refusal:
        made.result(**sized(unit, 11))
    assert refusal.value.code == "volume_exceeded"
    assert not made.ok
    assert made.unused(made.ahead) == {}
    watched = call(unit=unit, enforces=False)
    watched.result(**sized(unit, 13))
    assert watched.ok
    assert watched.unused(watched.ahead) == {"bu": -3}


@pytest.mark.parametrize("name", ["secret", "Health", "he\u0430lth", "health "])
def test_a_class_that_the_tool_does_not_handle_is_withheld(name: str) -> None:
    made = call()
    with pytest.raises(Withheld, match="states only health public") as refusal:
        made.result(records=1, data_class=name)
    assert refusal.value.code == "undeclared_class"
    free = Call(Decision(True, True, "h"), 1)
    free.result(data_class=name)
    assert free.ok


def test_only_bytes_bound_what_is_handed_out_as_it_comes() -> None:
    assert call().most_bytes is None
    assert call(unit="bytes").most_bytes == 10
    assert call(unit="bytes", enforces=False).most_bytes is None
    assert Call(Decision(True, True, "h"), 1).most_bytes is None


# --- the purse --------------------------------------------------------------------------------------------------------


def purse(total: int = 20) -> tuple[BudgetCache, list[int]]:
    clock = [0]
    made = BudgetCache(tick=lambda: clock[0])
    made.expect(["bu"])
    made.grant({"bu": total})
    return made, clock


def test_what_comes_back_is_there_for_the_next_call() -> None:
    made, _ = purse()
    assert made.pay({"bu": 10}, lambda: 1, ahead=["bu"]) == 1
    assert made.pay({"bu": 10}, lambda: 2, ahead=["bu"]) == 2
    assert made.pay({"bu": 10}, lambda: 3, ahead=["bu"]) is None
    made.take_back(["bu"], {"bu": 9}, lambda: 3)
    assert made.pay({"bu": 10}, lambda: 4, ahead=["bu"]) is None
    made.take_back(["bu"], {"bu": 1}, lambda: 4)
    assert made.pay({"bu": 10}, lambda: 5, ahead=["bu"]) == 5
    assert made.need({"bu": 1}) == {"bu": 21}


def test_nothing_comes_back_of_what_is_not_on_record() -> None:
    made, _ = purse()
    made.pay({"bu": 10}, lambda: 1, ahead=["bu"])
    with pytest.raises(ZeroDivisionError):
        made.take_back(["bu"], {"bu": 9}, lambda: 1 // 0)
    assert made.drawn("bu") == 10


def test_what_was_more_must_be_drawn_before_the_next_call() -> None:
    made, _ = purse(total=10)
    assert made.pay({"bu": 10}, lambda: 1, ahead=["bu"]) == 1
    made.take_back(["bu"], {"bu": -3}, lambda: 2)
    assert made.need({"bu": 10}) == {"bu": 23}
    made.grant({"bu": 22})
    assert made.pay({"bu": 10}, lambda: 3, ahead=["bu"]) is None
    made.grant({"bu": 23})
    assert made.pay({"bu": 10}, lambda: 3, ahead=["bu"]) == 3


def test_an_account_is_not_parted_with_while_something_may_come_back() -> None:
    made, clock = purse()
    made.pay({"bu": 10}, lambda: 1, ahead=["bu"])
    for _ in range(3):
        assert made.part_with(idle=IDLE_US, count=9) == {}
        clock[0] += IDLE_US
    made.take_back(["bu"], {}, lambda: 2)
    assert made.part_with(idle=IDLE_US, count=9) == {}
    clock[0] += IDLE_US
    assert made.part_with(idle=IDLE_US, count=9) == {"bu": 10}
