"""The two forms of a denial: the text for a model, and the data for the agent's developer.

Neither quotes an argument. A command line is for an operator: it is in the data (`hint`) and in the record (`ostiary
audit show`), but never in the text, where a model could take it for an instruction.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ostiary.guard.call import Denied
from ostiary.protocol.errors import Refused

_COMMAND = re.compile(r"\bostiary +[a-z]")


def words(refusal: Refused) -> str:
    """Return the reason and the hint; a hint that names a command is left out."""
    hint = "" if _COMMAND.search(refusal.hint) else refusal.hint
    return f"denied: {refusal.message}" + (f" ({hint})" if hint else "")


def data(refusal: Refused) -> dict[str, Any]:
    """Return the code, the hint, the requested approval, and all reasons of a decision."""
    described: dict[str, Any] = {"error": refusal.code, "hint": refusal.hint}
    if isinstance(refusal, Denied):
        if refusal.approval:
            described["approval"] = refusal.approval
        described["reasons"] = [msgspec.to_builtins(reason) for reason in refusal.decision.reasons]
    return described
