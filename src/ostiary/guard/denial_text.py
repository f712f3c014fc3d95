"""The two forms of a denial: the text for a model, and the data for the agent's developer.

Neither form quotes an argument. A command line is meant for an operator. A hint with a command is therefore in the data
(`hint`) and in the record (`ostiary audit show`), but not in the text, because a model could take a command for an
instruction.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ostiary.guard.call import Denied, Withheld
from ostiary.protocol.errors import Refused

_COMMAND = re.compile(r"\bostiary +[a-z]")


def text_for_model(refusal: Refused) -> str:
    """Return the message and the hint of a refusal as text that a model may read. A hint that names a command is
    omitted, because only an operator should run commands.
    """
    hint = "" if _COMMAND.search(refusal.hint) else refusal.hint
    message = refusal.message if isinstance(refusal, Withheld) else f"denied: {refusal.message}"
    return message + (f" ({hint})" if hint else "")


def data_for_developer(refusal: Refused) -> dict[str, Any]:
    """Return the data of a refusal for the agent's developer: the code, the hint, the id of the requested approval,
    and all reasons of the decision.
    """
    described: dict[str, Any] = {"error": refusal.code, "hint": refusal.hint}
    if isinstance(refusal, Denied):
        if refusal.approval:
            described["approval"] = refusal.approval
        described["reasons"] = [msgspec.to_builtins(reason) for reason in refusal.decision.reasons]
    return described
