"""Policy conditions on the risk score."""

from __future__ import annotations

from typing import Any

from tests.support.decision_fixtures import (
    CONTEXT,
)

RISK = ["get", CONTEXT, "risk"]


def over(part: str, limit: int) -> Any:
    return ["binary", "less", ["lit", limit], ["get", RISK, part]]
