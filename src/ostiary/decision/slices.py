"""Slices of budgets that guards draw. Numbers are totals since the spool began, so a repeated request changes nothing.

A guard numbers its requests (`turn`), and the server ignores a request that arrives after a later turn. A request that
was delayed, and given up by its guard, has no effect.

draw       the total that the guard needs for a call under this token; the answer: the total that it has
give back  the part of all drawn units that the guard keeps; it never spends the rest
settle     the spool is closed, and the server has all records that spent units
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.authorization.budget import MAX_BUDGETS
from ostiary.decision.report import Count, Id, SpoolId
from ostiary.protocol.canonical import MAX_INT

AccountId = Annotated[str, Meta(min_length=1, max_length=80)]
Units = Annotated[dict[AccountId, Count], Meta(min_length=1, max_length=MAX_BUDGETS)]
Turn = Annotated[int, Meta(ge=1, le=MAX_INT)]


class Draw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    spool: SpoolId
    turn: Turn
    token: Id
    need: Units


class Drawn(msgspec.Struct, frozen=True):
    total: dict[str, int]
    left: dict[str, int]
    """the remaining units of the whole budget"""


class GiveBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    spool: SpoolId
    turn: Turn
    keep: Annotated[dict[AccountId, Count], Meta(min_length=1, max_length=1000)]


class GivenBack(msgspec.Struct, frozen=True):
    closed: list[str]
    """closed accounts, of which the guard has no units: both sides delete them and start new totals"""


class Settled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    spool: SpoolId
    last_record: Count = msgspec.field(name="told")
    """the number of the last record that spent units, or a later one"""
