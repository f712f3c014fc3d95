"""What a refusal looks like to who asked: in words, and as data. Neither quotes an argument."""

from __future__ import annotations

from typing import Any

import msgspec

from ostiary.guard.call import Denied
from ostiary.protocol.errors import Refused


def words(refusal: Refused) -> str:
    """The reason, and what would help: a model reads this."""
    return f"denied: {refusal.message}" + (f" ({refusal.hint})" if refusal.hint else "")


def data(refusal: Refused) -> dict[str, Any]:
    """The code, the hint, the approval by which a person is asked, and all reasons of a decision."""
    found: dict[str, Any] = {"error": refusal.code, "hint": refusal.hint}
    if isinstance(refusal, Denied):
        if refusal.approval:
            found["approval"] = refusal.approval
        found["reasons"] = [msgspec.to_builtins(reason) for reason in refusal.decision.reasons]
    return found
