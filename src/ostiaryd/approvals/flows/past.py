"""Past approvals: calls of one tool with one counterpart that people approved, and did not deny.

A plan offers them again at the start of a task, and a policy is proposed for calls that are always approved. Neither
extends beyond the tool and the counterpart. A single denial among the considered requests excludes the counterpart, so
that an agent gains nothing by tiring persons.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ostiary.decision.access.facts import ReadyTool
from ostiary.protocol import canonical
from ostiary.protocol.errors import NotFound
from ostiary.provenance.extent import split_arguments
from ostiaryd.approvals import store
from ostiaryd.approvals.model import ApprovalState, Question
from ostiaryd.ground.database import Reader
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks.model import standing_id

DAY = 86_400_000_000
MAX_LOOKED_AT = 500
"""Maximum number of approval requests of an agent that are considered, the newest first."""


@dataclass(slots=True)
class Agreed:
    """Calls of one tool with one counterpart (the same recipients and objects) that people approved. `named`: the
    arguments that identify the counterpart; `amounts`: the largest approved amount of each argument; `policies`: the
    policies that asked for these approvals.
    """

    resource: str
    ready: ReadyTool
    named: dict[str, Any]
    amounts: dict[str, str]
    policies: set[str] = field(default_factory=set)
    approvals: list[str] = field(default_factory=list)
    """Ids of the approvals, the newest first."""
    occasions: set[tuple[str, int]] = field(default_factory=set)
    """The different tasks in which people approved; for the standing task, the different days."""


def list_approved_calls(reader: Reader, agent: AgentId, *, since: int) -> list[Agreed]:
    """Return the groups of similar calls of the agent that people approved at least once since `since` (microseconds)
    and never denied in that time, the most frequently approved first. Only the newest `MAX_LOOKED_AT` approval requests
    are considered.
    """
    agreed_calls, refused = dict[str, Agreed](), set[str]()
    tools = dict[tuple[str, str], ReadyTool | None]()
    for question in store.calls_since(reader, agent, since=since, limit=MAX_LOOKED_AT):
        about = question.about
        place = about.resource, about.tool
        if place not in tools:
            tools[place] = _tool(reader, *place)
        ready = tools[place]
        parts = None if ready is None or about.hidden else split_arguments(ready.tool, about.arguments)
        if ready is None or parts is None:
            continue
        key = canonical.digest([*place, parts.named, sorted(parts.amounts)], floats=True)
        if question.state is ApprovalState.DENIED:
            refused.add(key)
        elif question.state is ApprovalState.APPROVED:
            one = agreed_calls.setdefault(key, Agreed(about.resource, ready, parts.named, dict(parts.amounts)))
            one.amounts = {name: max(one.amounts[name], parts.amounts[name], key=Decimal) for name in one.amounts}
            one.policies.update(about.policies)
            one.approvals.append(question.approval_id)
            one.occasions.add(_occasion(question))
    kept = [one for key, one in agreed_calls.items() if key not in refused]
    return sorted(kept, key=lambda one: (-len(one.approvals), one.resource, one.ready.tool.name, str(one.named)))


def _occasion(question: Question) -> tuple[str, int]:
    return question.task, question.asked_at // DAY if question.task == standing_id(question.agent) else 0


def _tool(reader: Reader, resource: str, tool: str) -> ReadyTool | None:
    try:
        return policy.ready_tool(reader, registry.find_resource(reader, resource), tool)
    except NotFound:  # the resource or the tool was deleted in the meantime
        return None
