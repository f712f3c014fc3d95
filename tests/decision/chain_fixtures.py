"""Principals with a delegation chain."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ostiary.authorization.claims import Actor, Link
from ostiary.decision.access import Principal
from tests.support.decision_fixtures import (
    AGENT,
    PARENT,
    principal,
)

FIRST = "ag_" + "3" * 32


def link(agent: str, **more: Any) -> Link:
    facts = {"owner": "pe_1", "segment": "default", "model": "m-1", "risk_tier": "low"}
    return Link(agent, 0, "tk_0", **(facts | more))


def chained(*links: Link, **more: Any) -> Principal:
    return principal(act=Actor(AGENT, Actor(PARENT)), sub=FIRST, chain=list(links), **more)


links = st.lists(
    st.builds(
        Link,
        st.sampled_from([AGENT, PARENT, FIRST, "ag_4"]),
        st.integers(0, 3),
        st.just("tk_1"),
        owner=st.sampled_from(["pe_1", "te_2", ""]),
        segment=st.sampled_from(["a", "b"]),
        model=st.text(max_size=5),
        risk_tier=st.sampled_from(["low", "critical"]),
    ),
    max_size=7,
)
