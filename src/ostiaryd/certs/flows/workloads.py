"""Workloads: register and remove workloads, and find the agents for which a process acts."""

from __future__ import annotations

from ostiary.protocol.errors import Conflict, Forbidden, NotFound
from ostiaryd.certs import store
from ostiaryd.certs.flows.bundles import publish_bundle, wake_workloads
from ostiaryd.certs.model.workload import (
    MAX_MATCHES,
    MAX_OF_AGENT,
    SPECIFIC,
    Selectors,
    Workload,
    WorkloadFacts,
    WorkloadId,
    check_selectors,
    is_ambiguous,
    is_match,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentState

MAX_WITHOUT_USER = 1000
"""Maximum number of workloads without a user, since each process is compared with all of them."""
MAX_OF_USER = 1000
_OPTIONS = ", ".join(f"--{name}" for name in SPECIFIC)


def add_workload(act: Act, agent: str, selectors: Selectors, *, config: Config) -> Workload:
    """Register a workload of an agent, and return it. The first workload publishes the trust bundle.

    If a workload names only a user, every process of that user matches; the user then belongs to one agent only. Raises
    NotFound for an unknown agent, Invalid for malformed or unspecific selectors, Conflict for a decommissioned agent
    (`wrong_state`), a known workload (`workload_exists`), a user of another agent (`user_taken`), or too many workloads
    (`too_many_workloads`).
    """
    holder = registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=holder.agent_id, owner=holder.owner, name=holder.name)
    check_selectors(selectors)
    registry.fill_entry(act, object=holder.agent_id, selectors=render_selectors(selectors))
    if holder.state is AgentState.DECOMMISSIONED:
        raise Conflict("the agent is decommissioned, so it gets no workload", code="wrong_state")
    own = store.workloads.of_agent(act.tx, holder.agent_id)
    if any(one.selectors == selectors for one in own):
        raise Conflict(
            "the agent has this workload already", hint="see `ostiary agent workload list`", code="workload_exists"
        )
    if len(own) >= MAX_OF_AGENT:
        raise Conflict(
            f"the agent has {MAX_OF_AGENT} workloads, which is the limit",
            hint="remove a workload first",
            code="too_many_workloads",
        )
    if selectors.uid is None and store.workloads.count_without_user(act.tx) >= MAX_WITHOUT_USER:
        raise Conflict(
            f"{MAX_WITHOUT_USER} workloads do not name a user, which is the limit",
            hint="name the user with --uid",
            code="too_many_workloads",
        )
    of_user = [] if selectors.uid is None else store.workloads.of_user(act.tx, selectors.uid)
    if len(of_user) >= MAX_OF_USER:
        raise Conflict(
            f"the user has {MAX_OF_USER} workloads, which is the limit",
            hint="remove a workload first",
            code="too_many_workloads",
        )
    others = (one for one in of_user if one.agent != holder.agent_id and is_ambiguous(one.selectors, selectors))
    if (other := next(others, None)) is not None:
        raise Conflict(
            f"a workload of {other.agent} is for the user {selectors.uid} too, and one of the two names only the user",
            hint=f"name more than the user in both: one of {_OPTIONS}",
            code="user_taken",
        )
    workload = Workload(
        workload_id=WorkloadId(act.new_id("wl")), agent=holder.agent_id, selectors=selectors, created_at=act.now
    )
    registry.fill_entry(act, object=holder.agent_id, workload=workload.workload_id)
    store.workloads.insert(act.tx, workload)
    publish_bundle(act, config)
    wake_workloads(act)
    return workload


def remove_workload(act: Act, id: str) -> Workload:
    """Remove a workload, and return it. Its processes lose the identity of the agent. Raises NotFound if there is
    none.
    """
    if (workload := store.workloads.get(act.tx, id)) is None:
        raise NotFound("workload not found", hint="see `ostiary agent workload list`")
    registry.fill_entry(
        act, object=workload.agent, workload=workload.workload_id, selectors=render_selectors(workload.selectors)
    )
    store.workloads.delete(act.tx, workload.workload_id)
    wake_workloads(act)
    return workload


def list_workloads(reader: Reader, page: Page, *, agent: str | None = None) -> list[Workload]:
    """Return a page of all workloads, or of the workloads of an agent. Raises NotFound for an unknown agent."""
    holder = None if agent is None else registry.find_agent(reader, agent)
    return store.workloads.page(reader, page, agent=None if holder is None else holder.agent_id)


def match_process(reader: Reader, facts: WorkloadFacts, *, with_digest: bool) -> list[Workload]:
    """Return the workloads whose selectors a process matches, the oldest first, at most one of each agent.

    Without `with_digest`, the digest of the executable counts as matching. Raises Forbidden if the process matches more
    than `MAX_MATCHES` agents.
    """
    of_agent: dict[str, Workload] = {}
    for workload in store.workloads.candidates(reader, facts.uid):
        if is_match(workload.selectors, facts, with_digest=with_digest):
            of_agent.setdefault(workload.agent, workload)
    if len(of_agent) > MAX_MATCHES:
        raise Forbidden(
            f"the process matches the workloads of more than {MAX_MATCHES} agents",
            hint=f"name more selectors in these workloads: one of {_OPTIONS}",
            code="too_many_matches",
        )
    return list(of_agent.values())


def render_selectors(selectors: Selectors) -> dict[str, int | str]:
    """Return the selectors that are set, as a mapping by name."""
    values = ((name, getattr(selectors, name)) for name in Selectors.__struct_fields__)
    return {name: value for name, value in values if value is not None}
