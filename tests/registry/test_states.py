"""The life cycle of an agent, state by state and verb by verb."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.cli.agents import Condition
from ostiary.cli.topics import STOPPING
from ostiary.protocol.errors import Conflict
from ostiaryd.ledger.flows.acts import IN_RECOVERY
from ostiaryd.registry.model import STOP_VERBS, UNDO_VERBS, AgentState, Verb, next_state
from tests.support.sources import ROOT

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
def test_each_verb_leads_to_the_state_in_the_table_or_is_refused(row: list[str]) -> None:
    state = AgentState(row[0])
    for verb, wanted in zip(VERBS, row[1:], strict=True):
        if wanted == "-":
            with pytest.raises(Conflict, match=f"the agent is {state}: `{verb}` is not possible"):
                next_state(state, Verb(verb))
        else:
            assert next_state(state, Verb(verb)) is AgentState(wanted)


def test_the_state_table_has_every_state_and_every_verb() -> None:
    assert {row[0] for row in ROWS} == set(AgentState)
    assert set(VERBS) == set(Verb)


@given(st.lists(st.sampled_from(Verb), max_size=30))
def test_no_verb_leads_out_of_decommissioned_or_back_to_pending(verbs: list[Verb]) -> None:
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


def test_each_stop_of_an_active_agent_except_decommissioning_is_undone_by_one_verb() -> None:
    for state, verb in STOP_VERBS.items():
        assert next_state(AgentState.ACTIVE, verb) is state
        assert state is AgentState.DECOMMISSIONED or next_state(state, UNDO_VERBS[state]) is AgentState.ACTIVE
    assert set(STOP_VERBS) == set(AgentState) - {AgentState.PENDING, AgentState.ACTIVE}
    assert set(UNDO_VERBS) == set(STOP_VERBS) - {AgentState.DECOMMISSIONED}


def test_a_server_in_recovery_can_stop_agents_and_cannot_reactivate_agents() -> None:
    assert {f"agent.{verb}" for verb in (*STOP_VERBS.values(), Verb.REVOKE)} <= IN_RECOVERY
    assert {f"agent.{verb}" for verb in (*UNDO_VERBS.values(), Verb.ACTIVATE)} & IN_RECOVERY == set()


def test_the_commands_and_the_console_have_every_state_and_every_verb_for_persons() -> None:
    assert set(get_args(Condition)) == set(AgentState)
    assert set(STOP_VERBS) <= {row["state"] for row in STOPPING}
    console = ROOT / "console" / "src"
    states = re.search(r"STATES = \[(.*)\]", (console / "queries.ts").read_text("utf-8"))
    assert states is not None
    assert set(re.findall(r"\w+", states[1])) == set(AgentState)
    verbs = (console / "verbs.ts").read_text("utf-8")
    rows = {state: set(re.findall(r"\w+", words)) for state, words in re.findall(r"^  (\w+): \[(.*)\],", verbs, re.M)}
    of_people = {Verb.SUSPEND, Verb.RESUME, Verb.QUARANTINE, Verb.RELEASE, Verb.DECOMMISSION}
    assert of_people == set(Verb) - {Verb.ACTIVATE, Verb.REVOKE}
    leads = {row[0]: {verb for verb, to in zip(VERBS, row[1:], strict=True) if to != "-"} & of_people for row in ROWS}
    assert rows == {state: those for state, those in leads.items() if those}
