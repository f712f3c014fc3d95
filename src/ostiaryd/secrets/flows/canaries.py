"""Canary secrets: secrets that no honest agent reads. The transaction that reads a canary secret quarantines the
agent.
"""

from __future__ import annotations

from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, AgentState, Verb


def quarantine_reader(act: Act) -> None:
    """Quarantine the agent that reads a canary secret, which no honest agent reads, at the end of the transaction; mark
    the ledger entry of the read, so that a detector raises a finding. The read still returns the value.

    An agent with the administrator scope is not quarantined while no person can sign in with a key, because the server
    must keep an administrator.
    """
    assert act.entry.agent is not None  # the caller was authenticated in this act
    registry.fill_entry(act, object=act.entry.object or "", canary=True)
    act.ending = _quarantine


def _quarantine(act: Act) -> None:
    assert act.entry.agent is not None  # the entry of the read names the agent
    agent = registry.find_agent(act.tx, act.entry.agent)
    is_last = ADMIN in agent.scopes and not registry.has_active_person_key(act.tx)
    if agent.state is not AgentState.ACTIVE or is_last:
        return
    more = Act(act.tx, Entry(at=act.now, action="agent.quarantine"))
    registry.set_agent_state(more, agent.agent_id, Verb.QUARANTINE, why="the agent read a canary secret")
    act.further_entries += [more.entry, *more.further_entries]
