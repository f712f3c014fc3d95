"""Limits, one class for each kind, and budgets, which are limits in force."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from ostiary.authorization.bounds.details import ABSENT, argument_at
from ostiary.authorization.classes import check_known
from ostiary.protocol.canonical import MAX_INT
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid

MAX_LIMITS = 8
"""maximum number of limits of one task or one agent"""
MAX_BUDGETS = 32
"""maximum number of budgets in one token: those of its task, of the parent tasks, and of their agents"""
DAY_US = 86_400_000_000

MAX_WHOLE = 16
"""maximum number of digits of an amount before the decimal point"""
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,6})?", re.ASCII)

Units = Annotated[int, Meta(ge=1, le=MAX_INT)]
ToolId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}/[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}\Z")]
"""id of a tool: `bank/pay` is the tool `pay` of the resource `bank`"""
Path = Annotated[str, Meta(pattern=r"^[^.\x00]{1,64}(\.[^.\x00]{1,64}){0,7}\Z")]


class InvalidBudget(Invalid):
    """A budget that is malformed, or larger than a budget above it, such as that of the parent task."""

    code = "invalid_budget"


class BadAmount(Invalid):
    """The cost of a call cannot be determined: the counted argument is missing, or is no valid amount."""

    code = "bad_amount"


class Meter(NamedTuple):
    """The quantity that a limit counts, such as calls of certain tools. Two limits with equal meters count the same."""

    kind: str
    tools: frozenset[str]
    counted: str = ""
    """name of the counted argument, or description of the counted result"""


class Calls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="calls"):
    """A limit on the number of calls of these tools; of all tools if `tools` is empty."""

    limit: Units
    tools: Annotated[tuple[ToolId, ...], Meta(max_length=64)] = ()

    @property
    def meter(self) -> Meter:
        """Return the meter of this limit: the number of calls of its tools."""
        return Meter("calls", frozenset(self.tools))

    @property
    def units(self) -> int:
        """Return the maximum number of units; one unit is one call."""
        return self.limit

    def cost(self, arguments: Mapping[str, object]) -> int:
        """Return the cost of a call: one."""
        return 1

    def counts(self, tool: str, classes: frozenset[str]) -> bool:
        """Return whether the limit counts calls of the tool (`bank/pay`), which handles the data classes `classes`."""
        return not self.tools or tool in self.tools

    def render(self, units: int) -> str:
        """Return a number of units as text."""
        return str(units)

    def within(self, outer: Limit) -> Limit:
        """Return this limit in the units of `outer`, a limit with the same meter, so that their numbers can be
        compared.
        """
        return self


class Amount(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="amount"
):
    """A limit on the sum of one argument over all calls of these tools."""

    limit: str
    tools: Annotated[tuple[ToolId, ...], Meta(min_length=1, max_length=64)]
    argument: Path
    """name or dotted path of the counted argument, as in bounds"""

    def __post_init__(self) -> None:
        """Check the form of the limit and its number of digits. Raises InvalidBudget for another form."""
        if _DECIMAL.fullmatch(self.limit) is None or not 0 < self.units <= MAX_INT:
            raise InvalidBudget(
                "the `limit` of an amount must be a decimal number above zero, as a string",
                hint='such as "250.00": up to six digits after the point, at most 2^53-1 of the smallest unit',
            )

    @property
    def meter(self) -> Meter:
        """Return the meter of this limit: the sum of this argument over calls of these tools."""
        return Meter("amount", frozenset(self.tools), self.argument)

    @property
    def places(self) -> int:
        """Return the number of decimal places of the limit, which defines the unit."""
        return len(self.limit.partition(".")[2])

    @property
    def units(self) -> int:
        """Return the maximum number of units; one unit is the last decimal place of the limit."""
        return int(self.limit.replace(".", ""))

    @property
    def cost(self) -> Callable[[Mapping[str, object]], int]:
        """Return a function that returns the cost of a call in units, from its arguments. The function raises
        BadAmount, which quotes no value.
        """
        path, places = self.argument, self.places
        is_dotted = "." in path

        def cost(arguments: Mapping[str, object]) -> int:
            value = argument_at(arguments, path) if is_dotted else arguments.get(path, ABSENT)
            units = -1
            if type(value) is str:  # the same check as `_DECIMAL`, at a lower cost
                whole, point, fraction = value.partition(".")
                digits = whole + fraction
                is_plain = digits.isascii() and digits.isdigit() and len(whole) <= MAX_WHOLE
                if is_plain and (whole == "0" or whole[:1] > "0") and (fraction or not point):
                    if len(fraction) > places:
                        raise BadAmount(f"`{path}` has more than {places} digits after the point")
                    units = int(digits + "0" * (places - len(fraction)))
            elif type(value) is int:
                units = value * 10**places
            if 0 <= units <= MAX_INT:
                return units
            if units > MAX_INT:
                raise BadAmount(f"`{path}` is too large: over 2^53-1 of the smallest unit")
            problem = "is missing" if value is ABSENT else "is not a plain decimal number"
            raise BadAmount(f"`{path}` {problem}", hint='send an integer, or a string such as "12.50"')

        return cost

    def counts(self, tool: str, classes: frozenset[str]) -> bool:
        """Return whether the limit counts calls of the tool (`bank/pay`)."""
        return tool in self.tools

    def render(self, units: int) -> str:
        """Return a number of units as a decimal number."""
        if not self.places:
            return str(units)
        text = str(units).rjust(self.places + 1, "0")
        return f"{text[: -self.places]}.{text[-self.places :]}"

    def within(self, outer: Limit) -> Limit:
        """Return this limit in the units of `outer`, a limit with the same meter, so that their numbers can be
        compared. Raises InvalidBudget if the limit has more decimal places than `outer`.
        """
        assert isinstance(outer, Amount)
        if self.places > outer.places:
            raise InvalidBudget(
                f"the limit {self.limit} has more decimal places than the limit of the task or agent above it",
                hint=f"use at most {outer.places} decimal places",
            )
        whole, _, fraction = self.limit.partition(".")
        padded = whole if not outer.places else f"{whole}.{fraction.ljust(outer.places, '0')}"
        return msgspec.structs.replace(self, limit=padded)


class Volume(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="volume"
):
    """A limit on the amount of data of one data class that tools return, as the guard reports it."""

    limit: Units
    data_class: Annotated[str, Meta(max_length=63)]
    per_call: Units
    """units that each call reserves, which is also the maximum that one call may return"""
    unit: Literal["records", "bytes"] = "records"
    tools: Annotated[tuple[ToolId, ...], Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        """Check that `per_call` is not more than the limit. Raises InvalidBudget otherwise."""
        if self.per_call > self.limit:
            raise InvalidBudget(
                "`per_call` of a volume is more than its `limit`: no call could pass",
                hint="lower `per_call`, or raise `limit`",
            )

    @property
    def meter(self) -> Meter:
        """Return the meter of this limit: the number of records, or of bytes, of this data class."""
        return Meter("volume", frozenset(self.tools), f"{self.unit} of {self.data_class}")

    @property
    def units(self) -> int:
        """Return the maximum number of units; one unit is one record or one byte."""
        return self.limit

    def cost(self, arguments: Mapping[str, object]) -> int:
        """Return the number of units that a call reserves."""
        return self.per_call

    def counts(self, tool: str, classes: frozenset[str]) -> bool:
        """Return whether the limit counts calls of the tool (`bank/pay`), which handles the data classes `classes`."""
        return self.data_class in classes and (not self.tools or tool in self.tools)

    def returned(self, *, records: int | None, bytes: int | None, data_class: str) -> int | None:
        """Return the reported size of a result in units; None if it was not reported. `data_class`: the class of the
        result; for another class than that of the limit, the size is 0, and an empty text counts as the class of the
        limit.
        """
        if data_class not in ("", self.data_class):
            return 0
        return records if self.unit == "records" else bytes

    def render(self, units: int) -> str:
        """Return a number of units as text."""
        return str(units)

    def within(self, outer: Limit) -> Limit:
        """Return this limit in the units of `outer`, a limit with the same meter, so that their numbers can be
        compared.
        """
        return self


Limit = Calls | Amount | Volume


def account_of(id: str, now: int) -> str:
    """Return the name of the account that counts a daily budget (`id`) on the day (UTC) of `now`, in microseconds."""
    return f"{id}.{now // DAY_US}"


class Budget(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A limit in force for a task or, if `daily`, for an agent on each day (UTC)."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    limit: Limit
    daily: bool = False

    def account(self, now: int) -> str:
        """Return the name of the account to which calls at `now` (microseconds) are charged: for a daily budget, the
        account of that day.
        """
        return account_of(self.id, now) if self.daily else self.id


def parse_limits(value: object, *, classes: Collection[str] | None = None) -> tuple[Limit, ...]:
    """Return the limits in a parsed JSON array. `classes`: all known data classes; None: not checked. Raises
    InvalidBudget for malformed limits, and for two limits that count the same.
    """
    try:
        limits: tuple[Limit, ...] = convert(value, tuple[Limit, ...])
    except msgspec.ValidationError as error:
        raise InvalidBudget(f"`budget`: {str(error)[:200]}") from None
    if len(limits) > MAX_LIMITS:
        raise InvalidBudget(f"`budget` has {len(limits)} limits", hint=f"set at most {MAX_LIMITS} limits")
    if len({limit.meter for limit in limits}) < len(limits):
        raise InvalidBudget(
            "two limits of `budget` count the same (kind, tools, argument or data class)",
            hint="keep only the lower limit",
        )
    if classes is not None:
        named = (limit.data_class for limit in limits if isinstance(limit, Volume))
        check_known(named, classes, kind=InvalidBudget)
    return limits
