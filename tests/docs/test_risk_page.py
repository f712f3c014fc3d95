"""The policies of docs/explanation/risk.md load, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from ostiary.decision.access.restrictions import RestrictionKind
from ostiary.guard import sessions
from ostiary.provenance.noticing import HALF_LIFE, MOST
from ostiaryd.feed.flows import profiles
from ostiaryd.policy.model import load

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "risk.md").read_text("utf-8")
ADR = (Path(__file__).parents[2] / "docs" / "adr" / "0026-doubt-at-guards.md").read_text("utf-8")


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_policy_set_on_the_page_loads_with_its_test() -> None:
    loaded = load({"a.cedar": block("cedar"), "a.test.toml": block("toml")})
    assert (loaded.count, loaded.tests) == (4, 1)
    assert loaded.policies.relies_on_risk


def test_the_page_lists_every_part_of_a_risk_score_and_every_kind_of_restriction() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.partition("\n## Findings of a guard\n")[0], re.MULTILINE)
    assert sorted(rows) == sorted(("agent", "task", "chain", "call", "score", *get_args(RestrictionKind)))


def test_the_constants_of_the_risk_score_have_the_documented_values() -> None:
    minute = 60_000_000
    assert (MOST, HALF_LIFE // minute, profiles.TELL_EVERY // minute) == (100, 30, 10)
    assert f"the last {sessions.MAX_SESSIONS} tasks" in ADR
