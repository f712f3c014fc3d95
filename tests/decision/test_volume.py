"""Volume budgets: the counted results, the volume that a call reserves, and the volume that it returns."""

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
def test_a_valid_volume_budget_is_accepted(more: dict[str, Any]) -> None:
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
def test_an_invalid_volume_budget_is_refused_with_the_reason(more: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidBudget, match=why) as refusal:
        volume(**more)
    assert refusal.value.code == "invalid_budget"


@pytest.mark.parametrize("missing", ["limit", "data_class", "per_call"])
def test_a_volume_budget_without_a_required_member_is_refused(missing: str) -> None:
    with pytest.raises(InvalidBudget, match=missing):
        parse_limits([{name: value for name, value in HEALTH.items() if name != missing}])


def test_two_volume_budgets_with_the_same_class_unit_and_tools_are_refused() -> None:
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
def test_a_call_is_charged_to_a_volume_budget_by_the_data_classes_of_its_tool(
    tool: str, classes: set[str], counted: bool
) -> None:
    limit = volume(tools=["clinic/read"])
    found = prices([Budget("bu", limit), Budget("bu_d", limit, daily=True)], tool, frozenset(classes))
    taken = {"bu": 10, "bu_d.5": 10} if counted else {}
    assert costs(found, {}, now=5 * DAY_US) == taken
    assert volumes(found, now=5 * DAY_US) == dict.fromkeys(taken, limit)


def test_the_message_of_an_exhausted_volume_budget_states_the_rest_in_its_unit() -> None:
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
def test_the_unused_volume_of_a_call_is_returned_to_the_budget(said: dict[str, Any], unused: dict[str, int]) -> None:
    made = call()
    made.result(**said)
    assert made.unused(made.ahead) == unused


def test_a_call_without_a_reported_result_returns_no_volume() -> None:
    made = call()
    assert made.unused(made.ahead) == {}


def sized(unit: str, count: int) -> dict[str, Any]:
    return {unit: count}


@pytest.mark.parametrize("unit", ["records", "bytes"])
def test_a_result_above_the_volume_per_call_is_withheld(unit: str) -> None:
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
def test_a_result_of_an_undeclared_data_class_is_withheld(name: str) -> None:
    made = call()
    with pytest.raises(Withheld, match="states only health public") as refusal:
        made.result(records=1, data_class=name)
    assert refusal.value.code == "undeclared_class"
    free = Call(Decision(True, True, "h"), 1)
    free.result(data_class=name)
    assert free.ok


def test_only_an_enforced_volume_budget_in_bytes_limits_a_streamed_result() -> None:
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


def test_returned_volume_is_available_to_the_next_call() -> None:
    made, _ = purse()
    assert made.pay({"bu": 10}, lambda: 1, ahead=["bu"]) == 1
    assert made.pay({"bu": 10}, lambda: 2, ahead=["bu"]) == 2
    assert made.pay({"bu": 10}, lambda: 3, ahead=["bu"]) is None
    made.take_back(["bu"], {"bu": 9}, lambda: 3)
    assert made.pay({"bu": 10}, lambda: 4, ahead=["bu"]) is None
    made.take_back(["bu"], {"bu": 1}, lambda: 4)
    assert made.pay({"bu": 10}, lambda: 5, ahead=["bu"]) == 5
    assert made.need({"bu": 1}) == {"bu": 21}


def test_volume_is_not_returned_if_the_record_fails() -> None:
    made, _ = purse()
    made.pay({"bu": 10}, lambda: 1, ahead=["bu"])
    with pytest.raises(ZeroDivisionError):
        made.take_back(["bu"], {"bu": 9}, lambda: 1 // 0)
    assert made.drawn("bu") == 10


def test_volume_beyond_the_reservation_must_be_drawn_before_the_next_call() -> None:
    made, _ = purse(total=10)
    assert made.pay({"bu": 10}, lambda: 1, ahead=["bu"]) == 1
    made.take_back(["bu"], {"bu": -3}, lambda: 2)
    assert made.need({"bu": 10}) == {"bu": 23}
    made.grant({"bu": 22})
    assert made.pay({"bu": 10}, lambda: 3, ahead=["bu"]) is None
    made.grant({"bu": 23})
    assert made.pay({"bu": 10}, lambda: 3, ahead=["bu"]) == 3


def test_a_budget_account_is_not_given_up_while_a_call_may_return_volume() -> None:
    made, clock = purse()
    made.pay({"bu": 10}, lambda: 1, ahead=["bu"])
    for _ in range(3):
        assert made.part_with(idle=IDLE_US, count=9) == {}
        clock[0] += IDLE_US
    made.take_back(["bu"], {}, lambda: 2)
    assert made.part_with(idle=IDLE_US, count=9) == {}
    clock[0] += IDLE_US
    assert made.part_with(idle=IDLE_US, count=9) == {"bu": 10}
