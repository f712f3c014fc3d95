"""The life cycle of an agent, state by state and verb by verb."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Conflict
from ostiaryd.registry.model import AgentState, Verb, next_state

TABLE = """
                activate  suspend    resume  quarantine   release  revoke          decommission
pending         active    suspended  -       -            -        suspended       decommissioned
active          -         suspended  -       quarantined  -        suspended       decommissioned
suspended       -         -          active  quarantined  -        suspended       decommissioned
quarantined     -         -          -       -            active   quarantined     decommissioned
decommissioned  -         -          -       -            -        decommissioned  -
"""
VERBS, *ROWS = (line.split() for line in TABLE.strip().splitlines())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_verb_leads_where_the_table_says_or_is_refused(row: list[str]) -> None:
    state = AgentState(row[0])
    for verb, wanted in zip(VERBS, row[1:], strict=True):
        if wanted == "-":
            with pytest.raises(Conflict, match=f"the agent is {state}: `{verb}` is not possible"):
                next_state(state, Verb(verb))
        else:
            assert next_state(state, Verb(verb)) is AgentState(wanted)


def test_the_table_is_complete() -> None:
    assert {row[0] for row in ROWS} == set(AgentState)
    assert set(VERBS) == set(Verb)


@given(st.lists(st.sampled_from(Verb), max_size=30))
def test_no_road_leads_back_from_decommissioned_or_to_pending(verbs: list[Verb]) -> None:
    state, seen = AgentState.PENDING, [AgentState.PENDING]
    for verb in verbs:
        try:
            state = next_state(state, verb)
        except Conflict:
            continue
        seen.append(state)
    if AgentState.DECOMMISSIONED in seen:
        assert set(seen[seen.index(AgentState.DECOMMISSIONED) :]) == {AgentState.DECOMMISSIONED}
    assert AgentState.PENDING not in seen[1:]
