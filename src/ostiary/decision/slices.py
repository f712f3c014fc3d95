"""How guards draw slices of budgets. Numbers are totals since the spool began, so what is sent again changes nothing.

A guard numbers what it asks for (`turn`), and the server hears nothing that comes after a later turn: a request that
was held up on its way, and given up by its guard, has no effect any more.

draw       "to let a call pass under this token I need so much in all"; the answer: so much you have in all
give back  "of all that I ever drew I keep so much", and never spend the rest
settle     "nobody writes in this spool any more, and you have all records that spent anything"
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
    """the rest of the whole budget"""


class GiveBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    spool: SpoolId
    turn: Turn
    keep: Annotated[dict[AccountId, Count], Meta(min_length=1, max_length=1000)]


class GivenBack(msgspec.Struct, frozen=True):
    closed: list[str]
    """accounts from which this guard has nothing any more: both sides forget them, and count anew"""


class Settled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    spool: SpoolId
    told: Count
    """the number of the last record that spent anything, or a later one"""
