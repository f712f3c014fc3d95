"""Messages about slices of budgets that guards draw. All numbers of units are totals since the start of the spool, so a
repeated request changes nothing.

A guard numbers its requests (`turn`). The server ignores a request with a lower number than an earlier request, so a
delayed request that the guard has given up has no effect.

draw       request: the total that the guard needs for a call with this token; answer: the total that the guard has
give back  request: the part of the total that the guard has spent; the guard returns all other units
settle     request: the spool is closed, and the server has received all records that spent units
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
    """units of each requested account that no guard has drawn yet, by account"""


class GiveBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    spool: SpoolId
    turn: Turn
    keep: Annotated[dict[AccountId, Count], Meta(min_length=1, max_length=1000)]


class GivenBack(msgspec.Struct, frozen=True):
    closed: list[str]
    """accounts that the server has closed, because the guard has no units of them; both sides delete these accounts,
    and count new totals from 0
    """


class Settled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    spool: SpoolId
    last_record: Count = msgspec.field(name="told")
    """number of the last record that spent units, or of a later record; the server has received all records up to this
    number
    """
