"""The words of a refusal: for the model, and those that only the developer and the operator read."""

from __future__ import annotations

import pytest

from ostiary.cli.audit import hints_of
from ostiary.guard import Withheld, data_for_developer, text_for_model
from ostiary.protocol.errors import Forbidden, Unavailable


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("", "denied: no"),
        ("ask ada", "denied: no (ask ada)"),
        ("round to cents", "denied: no (round to cents)"),
        ("ostiary agent allow ag_1 files:read", "denied: no"),
        (
            "it starts again at midnight UTC; to set it: `ostiary agent budget AGENT --limits FILE`",
            "denied: no",
        ),
    ],
)
def test_a_command_for_an_operator_is_not_shown_to_a_model(hint: str, expected: str) -> None:
    refusal = Forbidden("no", hint=hint)
    assert text_for_model(refusal) == expected
    assert data_for_developer(refusal)["hint"] == hint


def test_a_model_reads_that_a_call_with_a_withheld_result_has_run() -> None:
    """A model that takes the text for a denial, and the hint for advice, would pay twice."""
    refusal = Withheld.because_of(Unavailable("no memory", hint="try again", code="memory_unavailable"))
    text = "the call has run, but its result is withheld: no memory (do not repeat a call that changes something)"
    assert text_for_model(refusal) == text
    assert data_for_developer(refusal)["error"] == "memory_unavailable"
    assert Withheld.because_of(refusal) is refusal


@pytest.mark.parametrize(
    ("reason", "hints"),
    [
        (
            {"code": "outside_task", "message": "agent `ag_1` lacks the scope `files:read`, which `read` needs"},
            ["ostiary agent allow ag_1 files:read"],
        ),
        (
            {"code": "outside_task", "message": "the argument `path` must begin with '/srv/'"},
            ["ostiary task start --agent AGENT --purpose WORDS --bounds FILE"],
        ),
        (
            {"code": "outside_task", "message": "the task `tk_1` lacks the scope `files:read`, which `read` needs"},
            ["ostiary task start --agent AGENT --purpose WORDS --scope files:read"],
        ),
        (
            {"code": "tool_changed", "message": "the definition of `read` differs"},
            ["ostiary resource diff files FILE, then ostiary resource accept files FILE"],
        ),
        ({"code": "unknown_tool"}, ["ostiary resource catalogue files FILE"]),
        ({"code": "forbidden", "message": "a policy forbids it"}, []),
    ],
)
def test_audit_show_names_the_command_that_would_allow_a_denied_call(reason: dict[str, str], hints: list[str]) -> None:
    assert hints_of({"tool": "files/read", "reasons": [reason, reason]}) == hints
